//! Replicas that begin anew: the others have lost, in an unclean recovery, what is committed here, so this log leads nowhere; or it is
//! damaged beyond use.
//!
//! The log is given up in an order that survives a crash at any point. It is durable that the log is suspect before any of it
//! goes, so an empty log is never taken for one that has acknowledged nothing; and term and vote stay. In between nothing of the
//! group is served here, and it answers nobody.

use std::sync::Arc;

use helix_raft::{GroupId, GroupOptions, HardState, Index, Membership, Position, ReplicaId, Term};
use helix_wal::Offset;
use tracing::{error, warn};

use super::ShardMessage;
use super::checkpoint::GroupCheckpoint;
use super::drive::start_record;
use super::owner::Owner;
use super::recover::{Suspected, hard_state};
use super::replica::{Machine, Replica};
use crate::durable::recovering::Finding;
use crate::entry::OffsetTrack;
use crate::env::Event;
use crate::partition::checkpoint::PartitionCheckpoint;

/// What stays of a replica that begins anew.
pub(super) struct Anew {
    /// The state before anything has happened.
    pub(super) machine: Machine,
    hard_state: HardState,
    /// Who is to hold replicas of the group, as the metadata says.
    pub(super) desired: Vec<ReplicaId>,
}

impl Owner {
    /// What is committed here at `position` is not in the leader's log.
    pub(super) fn begin_anew(&mut self, group: GroupId, position: Position) {
        error!(
            %group, %position,
            "the leader's log lacks what is committed here: an unclean recovery has lost it; this replica begins anew"
        );
        let Some(replica) = self.take_out(group) else { return };
        let Replica { machine, hard_state, desired, .. } = replica;
        let machine = self.emptied(group, &machine);
        self.give_up_log(group, Anew { machine, hard_state, desired });
    }

    /// What the disk holds of a group is damaged so that nothing can be made of it: its leader gives this replica everything anew.
    ///
    /// # Errors
    /// When there is no other replica, or this one's vote is lost too.
    pub(super) fn give_up_at_start(
        &mut self,
        group: GroupId,
        desired: Vec<ReplicaId>,
        machine: Machine,
    ) -> Result<(), String> {
        if desired.iter().all(|replica| *replica == self.context.me) {
            return Err(
                "its log is damaged so that nothing can be made of it, and there is no other replica"
                    .to_owned(),
            );
        }
        warn!(%group, "the log of this replica is damaged so that nothing can be made of it: it begins anew");
        let hard_state = hard_state(&self.context, group)?;
        self.give_up_log(group, Anew { machine, hard_state, desired });
        Ok(())
    }

    fn give_up_log(&mut self, group: GroupId, anew: Anew) {
        self.context.metrics.replica_begun_anew();
        self.anew.insert(group, anew);
        self.suspect(group);
    }

    /// Has it recorded that the log of a group is suspect, and goes on once that is durable.
    pub(super) fn suspect(&self, group: GroupId) {
        let shards = self.context.shards.clone();
        let recorded = Box::new(move || shards.send(group, ShardMessage::MarkedRecovering { group }));
        if self.context.findings.send(Finding::Suspect { group, recorded }).is_err() {
            warn!(%group, "the node stops; the replica is opened at its next start");
        }
    }

    /// The same machine before anything has happened.
    pub(super) fn emptied(&self, group: GroupId, machine: &Machine) -> Machine {
        match machine {
            Machine::Metadata(_) => Machine::metadata(self.empty_metadata(), Index::ZERO),
            Machine::Partition(partition) => {
                let config = partition.view().config();
                let partition = self.partition_from(group, config, PartitionCheckpoint::default());
                Machine::Partition(Box::new(partition))
            }
        }
    }

    /// Whatever happens now, the replica is known to be recovering: its log can end early, or go.
    pub(super) fn on_marked_recovering(&mut self, group: GroupId) {
        if let Some(Suspected { options, track, machine, desired }) = self.suspected.remove(&group) {
            if let Err(reason) = self.add(group, options, track, machine, desired) {
                self.fail_group(group, &reason);
            }
            return;
        }
        // It may have been deleted meanwhile.
        let Some(anew) = self.anew.get(&group) else { return };
        // It waits for a leader that tells who belongs to the group, after a restart too.
        let checkpoint = GroupCheckpoint { membership: Membership::default(), state: anew.machine.state() };
        let start = checkpoint.into_start(Index::ZERO, Term::ZERO, Offset(0));
        let (votes, hard_state) = (Arc::clone(&self.context.votes), anew.hard_state);
        let (shards, fatal) = (self.context.shards.clone(), self.context.fatal.clone());
        let record = start_record(group, &start);
        self.context.wal.append(vec![record], helix_wal::Durability::Synced, move |written| {
            if let Err(error) = written {
                return fatal.report(format!("a group's log could not be given up: {error}"));
            }
            // The last term and vote may be on their way still; the group must not go on before they are there.
            votes.persist(group, hard_state, move |stored| match stored {
                Ok(()) => shards.send(group, ShardMessage::LogGivenUp { group }),
                Err(error) => fatal.report(format!("a vote could not be stored: {error}")),
            });
        });
    }

    /// The log is gone: the replica is added again, empty and recovering.
    pub(super) fn on_log_given_up(&mut self, group: GroupId) {
        let Some(Anew { machine, hard_state, desired }) = self.anew.remove(&group) else { return };
        self.context.env.show(group, &Event::GivenUp);
        let mut options = GroupOptions::new(Membership::default(), self.required_of(group));
        options.hard_state = hard_state;
        options.recovering = true;
        let track = OffsetTrack::new(Index::ZERO, Offset(0));
        if let Err(reason) = self.add(group, options, track, machine, desired) {
            self.fail_group(group, &reason);
        }
    }
}
