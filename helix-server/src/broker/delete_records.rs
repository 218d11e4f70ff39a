//! The way of a DeleteRecords request to the owner of its partition, and back.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Broker;
use crate::partition::view::PartitionView;

/// The offset that stands for the high watermark.
pub const HIGH_WATERMARK: i64 = -1;

/// Why the start of a log was not moved, or what is unknown about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DeleteRecordsError {
    /// The partition is not known here.
    #[error("this server does not host this topic-partition")]
    UnknownPartition,
    /// The topic is one that coordinators keep.
    #[error("records of internal topics cannot be deleted")]
    InternalTopic,
    /// The topic is compacted alone: what it holds is the newest record of each key, however old.
    #[error("the topic's cleanup.policy has no delete: add that first")]
    Compacted,
    /// Another replica leads, or leads now: the move may yet come into force.
    #[error("this broker does not lead the partition: refresh the metadata")]
    NotLeader,
    /// The offset is negative, or above the high watermark.
    #[error("the offset lies outside of the log: choose one up to the high watermark, or -1 for that")]
    OutOfRange,
    /// Not committed in time; it may still be.
    #[error("not committed within the request's timeout; it may still be")]
    Timeout {
        /// Where the log starts meanwhile.
        log_start: i64,
    },
}

impl DeleteRecordsError {
    /// Where the log starts, as far as that is worth telling.
    pub fn log_start(self) -> Option<i64> {
        match self {
            Self::Timeout { log_start } => Some(log_start),
            Self::UnknownPartition
            | Self::InternalTopic
            | Self::Compacted
            | Self::NotLeader
            | Self::OutOfRange => None,
        }
    }
}

/// What the owner of a partition is to do, and whom it tells where the log starts then. Dropping it unanswered says that the
/// replica does not lead.
#[derive(Debug)]
pub struct LogStartRequest {
    /// The first offset that is kept, or [`HIGH_WATERMARK`].
    pub offset: i64,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<i64, DeleteRecordsError>>,
}

impl LogStartRequest {
    /// Gives the answer. Whoever waited may have given up.
    pub fn answer(self, result: Result<i64, DeleteRecordsError>) {
        let _told = self.reply.send(result);
    }
}

/// A move that is on its way.
#[derive(Debug)]
pub struct LogStartMove {
    view: Arc<PartitionView>,
    answer: oneshot::Receiver<Result<i64, DeleteRecordsError>>,
}

impl LogStartMove {
    /// Where the log starts once the move is committed and applied.
    ///
    /// # Errors
    /// When it was refused, is not through at the deadline, or leadership was lost.
    pub async fn wait(self, deadline: Instant) -> Result<i64, DeleteRecordsError> {
        match tokio::time::timeout_at(deadline, self.answer).await {
            Ok(answer) => answer.unwrap_or(Err(DeleteRecordsError::NotLeader)),
            Err(_) => Err(DeleteRecordsError::Timeout { log_start: self.view.log_start() }),
        }
    }
}

impl Broker {
    /// Lets the log of a partition start at `offset`.
    pub(crate) fn delete_records(&self, view: &Arc<PartitionView>, offset: i64) -> LogStartMove {
        let (reply, answer) = oneshot::channel();
        self.parts.shards.move_log_start(view.group, LogStartRequest { offset, reply });
        LogStartMove { view: Arc::clone(view), answer }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use helix_raft::GroupId;

    use super::*;
    use crate::config::BrokerConfig;
    use crate::config::topic::TopicConfig;

    fn on_its_way() -> (oneshot::Sender<Result<i64, DeleteRecordsError>>, LogStartMove) {
        let config = Arc::new(TopicConfig::resolve(&Default::default(), &BrokerConfig::default()));
        let view = Arc::new(PartitionView::new(GroupId(1), config, 3, 9, Default::default()));
        let (reply, answer) = oneshot::channel();
        (reply, LogStartMove { view, answer })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_undecided_in_time_says_where_the_log_starts() {
        let (_reply, on_its_way) = on_its_way();
        let outcome = on_its_way.wait(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(outcome, Err(DeleteRecordsError::Timeout { log_start: 3 }));
    }

    #[tokio::test]
    async fn a_dropped_request_is_no_success() {
        let (reply, on_its_way) = on_its_way();
        drop(reply);
        let outcome = on_its_way.wait(Instant::now() + Duration::from_secs(60)).await;
        assert_eq!(outcome, Err(DeleteRecordsError::NotLeader));
    }
}
