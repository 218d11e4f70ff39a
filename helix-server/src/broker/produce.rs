//! The write path between a connection and the shards: one produce request becomes one append per partition, and
//! one answer when the last of them is decided.

use std::sync::Arc;

use helix_raft::GroupId;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::oneshot;

use super::batch::{BatchError, ValidBatch};
use super::budget::Permit;
use crate::partition::producers::SequenceError;
use crate::partition::view::PendingBytes;

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: the client does not want to know.
    None,
    /// `acks=1`: this replica's own WAL write is done.
    Leader,
    /// `acks=all`: committed.
    All,
}

/// One record batch on its way to the owner of its partition.
#[derive(Debug)]
pub struct AppendRequest {
    /// The partition's group.
    pub group: GroupId,
    /// The validated batch.
    pub batch: ValidBatch,
    /// When to answer.
    pub acks: Acks,
    /// The leadership that it was made for; in another it is refused.
    pub leader_epoch: Option<i32>,
    /// The broker refused an earlier request of this connection, so a sequence gap may be its own doing.
    pub after_rejection: bool,
    /// Where the answer goes.
    pub reply: AppendReply,
    /// Counts the batch against its partition until it is answered.
    pub pending: PendingBytes,
}

/// What became of an append.
pub type AppendResult = Result<Appended, AppendError>;

/// A successful append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Broker time stamped on the records, or -1 if they keep the producer's.
    pub log_append_time_ms: i64,
    /// First offset that the partition keeps.
    pub log_start_offset: i64,
}

/// Why an append was refused, or what is unknown about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// Another replica leads; nothing is known to be appended.
    #[error("this broker does not lead the partition: refresh the metadata")]
    NotLeader,
    /// The partition is not known here.
    #[error("this server does not host this topic-partition")]
    UnknownPartition,
    /// The topic id is not known here.
    #[error("this server does not host this topic id")]
    UnknownTopicId,
    /// The topic is one that coordinators keep.
    #[error("clients must not write to internal topics")]
    InternalTopic,
    /// The batch itself is bad.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The batch does not continue what its producer sent before.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The broker is full; nothing was appended.
    #[error("broker overloaded, retry")]
    Overloaded,
    /// Fewer replicas in sync than the topic requires; nothing was appended.
    #[error("{in_sync} replica(s) in sync, but min.insync.replicas is {required}")]
    NotEnoughReplicas {
        /// Replicas in sync.
        in_sync: u32,
        /// Replicas required.
        required: u32,
    },
    /// No space; nothing was appended.
    #[error("no disk space left on the leader: free some or lower retention; writing resumes by itself")]
    DiskFull,
    /// Not committed in time; it may still be.
    #[error("not committed within the request's timeout; it may still be")]
    Timeout,
    /// `acks` was none of -1, 0, 1.
    #[error("acks must be -1, 0 or 1")]
    InvalidRequiredAcks,
    /// Transactions are not served.
    #[error("transactional batches are not supported by this version")]
    TransactionsUnsupported,
}

/// Gathers the answers of one request.
#[derive(Debug)]
struct Collector {
    state: Mutex<Collected>,
}

#[derive(Debug)]
struct Collected {
    results: Vec<Option<AppendResult>>,
    missing: usize,
    done: Option<oneshot::Sender<Vec<AppendResult>>>,
    /// Held until every partition has answered: what is appended and not yet decided still occupies memory.
    _permits: Vec<Permit>,
}

/// The place for one partition's answer. Dropping it unanswered says that the partition's owner is gone.
#[derive(Debug)]
pub struct AppendReply {
    collector: Arc<Collector>,
    slot: usize,
    answered: bool,
}

/// Waits for all answers of a request.
#[derive(Debug)]
pub struct AppendOutcome {
    collector: Arc<Collector>,
    done: oneshot::Receiver<Vec<AppendResult>>,
}

/// Places for `count` answers, and the one who waits for them. `permits` are held until the last is decided.
pub fn expect_answers(count: usize, permits: Vec<Permit>) -> (Vec<AppendReply>, AppendOutcome) {
    let (sender, done) = oneshot::channel();
    let state = Collected {
        results: (0..count).map(|_| None).collect(),
        missing: count,
        done: Some(sender),
        _permits: permits,
    };
    let collector = Arc::new(Collector { state: Mutex::new(state) });
    if count == 0 {
        collector.state.lock().finish();
    }
    let replies = (0..count)
        .map(|slot| AppendReply { collector: Arc::clone(&collector), slot, answered: false })
        .collect();
    (replies, AppendOutcome { collector, done })
}

impl Collected {
    fn finish(&mut self) {
        if let Some(done) = self.done.take() {
            let results =
                self.results.iter_mut().map(|r| r.take().unwrap_or(Err(AppendError::Timeout))).collect();
            // Whoever waited may have gone with its connection; the records are appended all the same.
            drop(done.send(results));
        }
    }
}

impl AppendReply {
    /// Gives the answer.
    pub fn send(mut self, result: AppendResult) {
        self.answer(result);
    }

    fn answer(&mut self, result: AppendResult) {
        self.answered = true;
        let mut state = self.collector.state.lock();
        if state.done.is_none() {
            return;
        }
        state.results[self.slot] = Some(result);
        state.missing -= 1;
        if state.missing == 0 {
            state.finish();
        }
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Err(AppendError::NotLeader));
        }
    }
}

impl AppendOutcome {
    /// The answers in the order of the places. What is undecided when `timeout` has passed is answered
    /// [`AppendError::Timeout`].
    pub async fn wait(mut self, timeout: std::time::Duration) -> Vec<AppendResult> {
        if let Ok(answers) = tokio::time::timeout(timeout, &mut self.done).await {
            return answers.unwrap_or_default();
        }
        self.collector.state.lock().finish();
        self.done.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const OK: Appended = Appended { base_offset: 5, log_append_time_ms: -1, log_start_offset: 0 };

    #[tokio::test]
    async fn answers_keep_their_places_and_a_dropped_one_is_not_a_success() {
        let (mut replies, outcome) = expect_answers(3, vec![]);
        replies.pop().unwrap().send(Ok(OK));
        drop(replies.pop());
        replies.pop().unwrap().send(Err(AppendError::DiskFull));
        let answers = outcome.wait(Duration::from_secs(60)).await;
        assert_eq!(answers, vec![Err(AppendError::DiskFull), Err(AppendError::NotLeader), Ok(OK)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_undecided_in_time_is_answered_as_unknown() {
        let (mut replies, outcome) = expect_answers(2, vec![]);
        replies.remove(0).send(Ok(OK));
        let answers = outcome.wait(Duration::from_secs(1)).await;
        assert_eq!(answers, vec![Ok(OK), Err(AppendError::Timeout)]);
        replies.remove(0).send(Ok(OK));
    }
}
