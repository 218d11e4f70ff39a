//! Multi-Raft consensus core: many groups, no IO, no clock, no threads, no async.
//!
//! The owner of a [`MultiRaft`] feeds it messages, ticks, proposals and reports of what has been stored, and after each
//! batch of those does what [`MultiRaft::take_ready`] says. The core never waits: whatever depends on something
//! being stored is held back inside until that is reported.
//!
//! ```
//! use helix_raft::{
//!     Durability, GroupId, GroupOptions, Incarnation, Membership, MultiRaft, MultiRaftConfig, ReplicaId,
//! };
//!
//! let (group, me) = (GroupId(7), ReplicaId(1));
//! let mut raft: MultiRaft<Vec<u8>> = MultiRaft::new(MultiRaftConfig::new(me, Incarnation(1), 42));
//! raft.add_group(group, GroupOptions::new(Membership::of_voters(vec![me]), Durability::PageCache))?;
//! let mut proposed = None;
//! let mut applied = Vec::new();
//! while raft.has_ready() {
//!     for (id, ready) in raft.take_ready() {
//!         if let Some(state) = ready.hard_state {
//!             raft.hard_state_persisted(id, state); // after it was synced
//!         }
//!         if let Some(last) = ready.append.last() {
//!             raft.appended(id, last.index, last.term, ready.append_required); // after it was written
//!         }
//!         applied.extend(ready.committed);
//!         if ready.leader_ready {
//!             proposed = Some(raft.propose(id, b"hello".to_vec())?);
//!         }
//!     }
//! }
//! let last = applied.last().expect("a sole voter commits what it stores");
//! assert_eq!(Some((last.index, last.term)), proposed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/raft.md` describes the contract with the driver in full.

mod config;
mod differences;
mod digest;
mod group;
mod heartbeat;
mod inflights;
mod log;
mod membership;
mod memberships;
mod message;
mod multi;
mod peers;
mod planted;
mod progress;
pub mod quorum;
mod ready;
mod recovering;
mod rng;
mod terms;
mod types;

pub use config::{
    AddGroupError, ConfirmError, GroupOptions, MAX_INFLIGHT_APPEND_ENTRIES, MultiRaftConfig, ProposeError,
    TransferError,
};
pub use digest::group_digest;
pub use heartbeat::{
    DigestSource, Heartbeat, HeartbeatAnswer, HeartbeatEvent, HeartbeatOptions, Heartbeats, Wake,
};
pub use membership::ChangeError;
pub use message::{Append, AppendAnswer, AppendResult, Message, MessageBody, Start};
pub use multi::{MultiRaft, StepOutcome};
pub use peers::Liveness;
pub use ready::{
    BallotCount, CommittedMembership, CommittedRange, ReadRequest, Ready, ReplicaProgress, RoleChange, Status,
};
pub use recovering::ForceRecoverError;
pub use terms::term_runs;
pub use types::{
    BUCKETS, Body, Bucket, Durability, ENTRY_OVERHEAD_BYTES, Entry, GroupId, HardState, Incarnation, Index,
    Membership, Payload, Position, ReplicaId, Role, Term,
};

#[doc(hidden)]
pub use planted::planted;
