//! What a run of the load knows about its messages: how many it sent, what the cluster acknowledged, and what it showed to
//! consumers meanwhile.
//!
//! Acknowledgements and reads are kept as runs (the next sequence number at the next offset of the same partition extends
//! the run), so that memory and file size follow the number of batches and not the number of messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::message::{Identity, RunId};

/// Acknowledged messages that follow each other both in what the producer sent and in the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRun {
    /// The first message's sequence number.
    pub first_seq: u64,
    /// The first message's offset; `None` when the acknowledgement did not say (the answer to a duplicate).
    pub first_offset: Option<u64>,
    /// Messages in this run.
    pub count: u64,
}

/// The acknowledgements of one producer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckLog {
    /// By partition, in the order in which they came.
    pub partitions: BTreeMap<i32, Vec<AckRun>>,
}

impl AckLog {
    /// Notes that `seq` was acknowledged at `offset` of `partition`.
    pub fn acknowledge(&mut self, partition: i32, seq: u64, offset: Option<u64>) {
        let runs = self.partitions.entry(partition).or_default();
        if let Some(last) = runs.last_mut()
            && last.first_seq + last.count == seq
            && last.first_offset.map(|first| first + last.count) == offset
        {
            last.count += 1;
            return;
        }
        runs.push(AckRun { first_seq: seq, first_offset: offset, count: 1 });
    }

    /// Messages acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.partitions.values().flatten().map(|run| run.count).sum()
    }
}

/// Messages of one producer that a consumer was shown one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRun {
    /// Who sent them.
    pub producer: u32,
    /// The first message's sequence number.
    pub first_seq: u64,
    /// The first message's offset.
    pub first_offset: u64,
    /// Messages in this run.
    pub count: u64,
}

/// What consumers were shown while the load ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLog {
    /// By partition, in the order in which it was read.
    pub partitions: BTreeMap<i32, Vec<ReadRun>>,
}

impl ReadLog {
    /// Notes that a consumer was shown a message at `offset` of `partition`.
    pub fn read(&mut self, partition: i32, offset: u64, id: Identity) {
        let runs = self.partitions.entry(partition).or_default();
        if let Some(last) = runs.last_mut()
            && last.producer == id.producer
            && last.first_seq + last.count == id.seq
            && last.first_offset + last.count == offset
        {
            last.count += 1;
            return;
        }
        runs.push(ReadRun { producer: id.producer, first_seq: id.seq, first_offset: offset, count: 1 });
    }

    /// Messages read.
    pub fn count(&self) -> u64 {
        self.partitions.values().flatten().map(|run| run.count).sum()
    }
}

/// Everything that is known about what one producer did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerHistory {
    /// Sequence numbers below this one were handed to the client; none above.
    pub sent: u64,
    /// Messages of which the client said that they failed.
    pub failed: u64,
    /// What was acknowledged, and where.
    pub acks: AckLog,
}

/// Everything that is known about one run of the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Which run.
    pub run: u64,
    /// Where it went.
    pub topic: String,
    /// Bytes of each message.
    pub message_size: usize,
    /// Whether the producers were idempotent.
    pub idempotent: bool,
    /// By producer number.
    pub producers: Vec<ProducerHistory>,
    /// What consumers were shown, if there were any.
    #[serde(default)]
    pub reads: ReadLog,
}

/// Why a history can't be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file can't be read or written.
    #[error("the history {path:?} can't be read or written: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a history.
    #[error("{path:?} is not a history that `helix-workload produce --history` wrote: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
}

impl History {
    /// Which run wrote the messages.
    pub fn run_id(&self) -> RunId {
        RunId(self.run)
    }

    /// Messages handed to the client.
    pub fn sent(&self) -> u64 {
        self.producers.iter().map(|producer| producer.sent).sum()
    }

    /// Messages acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.producers.iter().map(|producer| producer.acks.acknowledged()).sum()
    }

    /// Messages that failed.
    pub fn failed(&self) -> u64 {
        self.producers.iter().map(|producer| producer.failed).sum()
    }

    /// Writes the history as JSON.
    pub fn save(&self, path: &Path) -> Result<(), HistoryError> {
        let file = |source| HistoryError::File { path: path.to_owned(), source };
        let text = serde_json::to_vec(self)
            .map_err(|source| HistoryError::Malformed { path: path.to_owned(), source })?;
        std::fs::write(path, text).map_err(file)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path) -> Result<Self, HistoryError> {
        let text =
            std::fs::read(path).map_err(|source| HistoryError::File { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| HistoryError::Malformed { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_extend_a_run_and_gaps_start_another() {
        let mut acks = AckLog::default();
        acks.acknowledge(0, 10, Some(100));
        acks.acknowledge(0, 11, Some(101));
        acks.acknowledge(1, 12, Some(5));
        acks.acknowledge(0, 13, Some(102));
        acks.acknowledge(0, 14, Some(104));
        acks.acknowledge(0, 15, None);
        acks.acknowledge(0, 16, None);
        let run = |first_seq, first_offset, count| AckRun { first_seq, first_offset, count };
        assert_eq!(
            acks.partitions[&0],
            [run(10, Some(100), 2), run(13, Some(102), 1), run(14, Some(104), 1), run(15, None, 2)]
        );
        assert_eq!(acks.partitions[&1], [run(12, Some(5), 1)]);
        assert_eq!(acks.acknowledged(), 7);
    }

    #[test]
    fn reads_are_kept_as_runs_of_one_producer() {
        let mut reads = ReadLog::default();
        for (offset, producer, seq) in
            [(5, 0, 10), (6, 0, 11), (7, 1, 12), (8, 1, 13), (10, 1, 14), (11, 1, 16)]
        {
            reads.read(2, offset, Identity { producer, seq });
        }
        let run =
            |producer, first_seq, first_offset, count| ReadRun { producer, first_seq, first_offset, count };
        assert_eq!(
            reads.partitions[&2],
            [run(0, 10, 5, 2), run(1, 12, 7, 2), run(1, 14, 10, 1), run(1, 16, 11, 1)]
        );
        assert_eq!(reads.count(), 6);
    }

    #[test]
    fn a_history_survives_its_file() {
        let mut acks = AckLog::default();
        acks.acknowledge(3, 0, Some(9));
        let mut reads = ReadLog::default();
        reads.read(3, 9, Identity { producer: 0, seq: 0 });
        let history = History {
            run: u64::MAX,
            topic: "t".into(),
            message_size: 100,
            idempotent: true,
            producers: vec![ProducerHistory { sent: 2, failed: 1, acks }],
            reads,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        history.save(file.path()).unwrap();
        assert_eq!(History::load(file.path()).unwrap(), history);
    }
}
