//! Shared, segmented, group-committed write-ahead log.
//!
//! One [`Wal`] per data directory holds the records of many groups. It knows nothing of Raft or Kafka: a record is a
//! position in its group's log (index, term, offsets) and opaque bytes. Appenders hand over buffers and get a
//! completion; one writer owns the active segment and turns everything that queued up meanwhile into one vectored
//! write; one syncer runs `fdatasync` beside it. The byte layout and the crash argument of every operation are in
//! `docs/wal-format.md`.
//!
//! A map for readers: `frame`, `segment` and `footer` are the bytes; `writer`, `syncer` and `housekeeper` are the three
//! activities that change files, `shared` is what they hand to each other; `index` (with `contents`, per segment) knows where
//! everything is and `reader` answers questions; `recovery` (which asks `scan`, `classify` and `resolve`) and `retention` are
//! start and space, `repair` puts back what was damaged; [`disk`] is the only way to the file system.
//!
//! ```
//! use helix_wal::disk::RealDisk;
//! use helix_wal::{Durability, GroupId, Index, Offset, Payload, ReadLimit, Record, RecordKind, Term, Wal, WalOptions};
//! use std::sync::Arc;
//!
//! let directory = tempfile::tempdir()?;
//! let disk = Arc::new(RealDisk::new(directory.path())?);
//! let (wal, recovered) = Wal::open(disk, WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() })?;
//! assert!(recovered.groups.is_empty());
//!
//! let record = Record {
//!     group: GroupId(7),
//!     kind: RecordKind::Entry { tag: 0 },
//!     index: Index(1),
//!     term: Term(1),
//!     prev_term: Term(0),
//!     base_offset: Offset(0),
//!     offset_count: 1,
//!     max_timestamp_ms: 0,
//!     payload: Payload::from_chunks(vec!["hello".into()]),
//! };
//! let (done, written) = std::sync::mpsc::channel();
//! wal.append(vec![record], Durability::Synced, move |result| {
//!     done.send(result).expect("the receiver outlives the append");
//! });
//! written.recv()??;
//!
//! let read = wal.read(GroupId(7), Index(1), ReadLimit { max_bytes: 1024, max_records: 10 })?;
//! assert_eq!(read[0].record.payload.to_bytes(), "hello");
//! wal.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod classify;
mod contents;
pub mod disk;
mod error;
mod footer;
mod frame;
mod housekeeper;
mod index;
pub mod inspect;
mod options;
mod payload;
mod planted;
mod reader;
mod record;
mod recovered;
mod recovery;
mod repair;
mod residency;
mod resolve;
mod retention;
mod scan;
mod segment;
mod shared;
mod space;
mod stats;
mod syncer;
mod tail;
mod types;
mod wal;
mod writer;

pub use error::{
    AppendError, CloseError, FatalError, OpenError, OutOfSpace, ReadError, ReclaimError, RepairError,
};
pub use options::{OnFatal, OnSeal, OnWork, SealedSegment, SpaceClass, WalOptions};
pub use payload::Payload;
pub use reader::ReadLimit;
pub use record::{Bounds, Durability, Record, RecordKind, StoredRecord, without_timestamps};
pub use recovered::{Damage, DamageScope, DamagedRange, Recovered, RecoveredGroup};
pub use retention::ReclaimReport;
pub use stats::{LatencyHistogram, WalStats};
pub use types::{GroupId, Index, Lsn, Offset, SegmentId, Term};
pub use wal::{DiskSpace, Part, Wal};
