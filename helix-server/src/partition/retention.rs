//! What the leader of a partition decides for all replicas over time: where the log starts, which producers are forgotten.
//!
//! Both are entries like any other, so that every replica comes to the same state; nobody acts by its own clock.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use helix_raft::{Index, Term};
use helix_wal::{Offset, Payload};

use super::Partition;
use crate::broker::delete_records::{DeleteRecordsError, HIGH_WATERMARK, LogStartRequest};
use crate::entry::{Command, EntryTag};

/// A move of the log start that was proposed for a client.
#[derive(Debug)]
pub(super) struct PendingStart {
    index: Index,
    term: Term,
    request: LogStartRequest,
}

impl Partition {
    /// Where the log should start for a client that asks for this offset; `None` if nothing before it is there any more.
    ///
    /// # Errors
    /// When the offset does not lie between 0 and the high watermark.
    pub fn wanted_start(&self, asked: i64) -> Result<Option<i64>, DeleteRecordsError> {
        let high_watermark = self.view.high_watermark();
        let wanted = if asked == HIGH_WATERMARK { high_watermark } else { asked };
        if !(0..=high_watermark).contains(&wanted) {
            return Err(DeleteRecordsError::OutOfRange);
        }
        Ok((wanted > self.view.log_start()).then_some(wanted))
    }

    /// The entry that moves the log start for this client was proposed.
    pub fn start_proposed(&mut self, index: Index, term: Term, request: LogStartRequest) {
        self.starts.push_back(PendingStart { index, term, request });
    }

    /// Everything through `index`, of `term`, is applied: who waits for it is told where the log starts.
    pub(super) fn answer_starts(&mut self, index: Index, term: Term) {
        let log_start = self.view.log_start();
        while let Some(first) = self.starts.front()
            && first.index <= index
        {
            let Some(first) = self.starts.pop_front() else { return };
            // An entry of another term took the place: dropping the request says that another replica leads.
            if first.index == index && first.term == term {
                first.request.answer(Ok(log_start));
            }
        }
    }

    /// The entry that moves the log start to `offset`.
    pub fn log_start_command(offset: i64, next_offset: Offset) -> Command {
        let payload = Payload::from_chunks(vec![Bytes::copy_from_slice(&offset.to_be_bytes())]);
        Command::without_offsets(EntryTag::LogStart, next_offset, payload)
    }

    /// The entry that forgets producers which were idle for too long, if there are any.
    pub fn expiry_command(&self, now_ms: i64, limit_ms: i64, next_offset: Offset) -> Option<Command> {
        let expired = self.producers.expired(now_ms, limit_ms);
        if expired.is_empty() {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(expired.len() * 8);
        for id in expired {
            bytes.put_i64(id);
        }
        let payload = Payload::from_chunks(vec![bytes.freeze()]);
        Some(Command::without_offsets(EntryTag::ProducerExpiry, next_offset, payload))
    }

    /// How old and how large this partition's log may grow; -1 is no limit.
    pub fn retention_limits(&self) -> (i64, i64) {
        let config = self.view.config();
        (config.retention_ms, config.retention_bytes)
    }
}

/// Reads the offset out of a log-start entry.
pub(super) fn decode_log_start(mut bytes: &[u8]) -> Option<i64> {
    bytes.try_get_i64().ok()
}

/// Reads the producer ids out of an expiry entry.
pub(super) fn decode_expiry(mut bytes: &[u8]) -> Vec<i64> {
    let mut ids = Vec::with_capacity(bytes.len() / 8);
    while let Ok(id) = bytes.try_get_i64() {
        ids.push(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use helix_raft::GroupId;
    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::*;
    use crate::broker::batcher::BatcherLimits;
    use crate::config::BrokerConfig;
    use crate::config::topic::TopicConfig;
    use crate::partition::checkpoint::PartitionCheckpoint;

    const TERM: Term = Term(3);

    /// A leader whose log holds offsets 10 to 19.
    fn leader() -> Partition {
        let limits = BatcherLimits { linger: Duration::ZERO, max_bytes: 1 << 20, max_requests: 100 };
        let config = Arc::new(TopicConfig::resolve(&BTreeMap::new(), &BrokerConfig::default()));
        let checkpoint =
            PartitionCheckpoint { log_start: 10, next_offset: 20, applied: Index(5), ..Default::default() };
        let mut partition = Partition::new(GroupId(7), config, limits, checkpoint);
        partition.start_serving(TERM);
        partition
    }

    type Answer = oneshot::Receiver<Result<i64, DeleteRecordsError>>;

    fn propose(partition: &mut Partition, index: u64) -> Answer {
        let (reply, answer) = oneshot::channel();
        partition.start_proposed(Index(index), TERM, LogStartRequest { offset: 15, reply });
        answer
    }

    #[test]
    fn only_offsets_of_the_log_are_taken() {
        let partition = leader();
        assert_eq!(partition.wanted_start(15), Ok(Some(15)));
        assert_eq!(partition.wanted_start(20), Ok(Some(20)), "everything goes");
        assert_eq!(partition.wanted_start(HIGH_WATERMARK), Ok(Some(20)));
        assert_eq!(partition.wanted_start(10), Ok(None));
        assert_eq!(partition.wanted_start(0), Ok(None), "gone already");
        assert_eq!(partition.wanted_start(21), Err(DeleteRecordsError::OutOfRange));
        assert_eq!(partition.wanted_start(-2), Err(DeleteRecordsError::OutOfRange));
    }

    #[test]
    fn whoever_waits_is_answered_when_the_move_is_applied() {
        let mut partition = leader();
        let (mut first, mut second) = (propose(&mut partition, 6), propose(&mut partition, 7));
        partition.apply(Index(6), TERM, &Partition::log_start_command(15, Offset(20)), 0);
        assert_eq!(first.try_recv(), Ok(Ok(15)));
        assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
        // A smaller offset moves nothing, and is answered with what is in force.
        partition.apply(Index(7), TERM, &Partition::log_start_command(12, Offset(20)), 0);
        assert_eq!(second.try_recv(), Ok(Ok(15)));
    }

    #[test]
    fn a_move_whose_place_another_entry_took_is_no_success() {
        let mut partition = leader();
        let mut answer = propose(&mut partition, 6);
        partition.apply(Index(6), Term(4), &Partition::log_start_command(15, Offset(20)), 0);
        assert_eq!(answer.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn nobody_waits_for_a_leader_that_is_none() {
        let mut partition = leader();
        let mut answer = propose(&mut partition, 6);
        partition.stop_serving(Term(4));
        assert_eq!(answer.try_recv(), Err(TryRecvError::Closed));
    }
}
