//! Which leader epoch wrote which offsets: what consumers and `OffsetForLeaderEpoch` ask to notice truncation.

use bytes::{Buf, BufMut};
use thiserror::Error;

/// A leader epoch and the offset of the first record it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The leader epoch, which is the Raft term.
    pub epoch: i32,
    /// First offset of that epoch.
    pub start_offset: i64,
}

/// The epochs of one log, oldest first. Both epochs and start offsets strictly increase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochStart>,
}

/// A checkpoint that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EpochCodecError {
    /// Another version wrote it.
    #[error("leader epochs are stored in version {0}, which this release does not know; use a newer one")]
    Version(u8),
    /// The bytes end too early or too late.
    #[error("stored leader epochs have the wrong length")]
    Length,
    /// Epochs or offsets do not increase.
    #[error("stored leader epochs are not in order")]
    Order,
}

const CODEC_VERSION: u8 = 1;
const ENTRY_BYTES: usize = 12;

impl EpochCache {
    /// A log that nobody has written to.
    pub fn new() -> Self {
        Self::default()
    }

    /// The epochs, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that wrote the record at `offset`; `None` in front of the first epoch known.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let behind = self.entries.partition_point(|entry| entry.start_offset <= offset);
        behind.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// Notes that `epoch` writes from `start_offset` on; returns whether that was news.
    ///
    /// What contradicts it (the same or a later epoch, or a start at or behind the offset) belonged to a suffix that
    /// was never committed, and is dropped.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if let Some(last) = self.entries.last()
            && last.epoch == epoch
            && last.start_offset <= start_offset
        {
            return false;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// Answers `OffsetForLeaderEpoch`: the largest epoch not above `epoch` that wrote something, and the offset behind
    /// its last record, where `log_end` is the end of what the asker may see. `None` if nothing is known of such epochs.
    ///
    /// An epoch in front of the first one known is answered with itself and the start of the first: its records are
    /// gone, and the log begins there.
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        let behind = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let floor = behind.checked_sub(1).map(|at| self.entries[at].epoch);
        match (floor, self.entries.get(behind)) {
            (Some(floor), None) => (floor == epoch).then_some((epoch, log_end)),
            (floor, Some(higher)) => Some((floor.unwrap_or(epoch), higher.start_offset)),
            (None, None) => None,
        }
    }

    /// The epochs as of an earlier entry of this epoch, behind which `next_offset` follows. Applying what is behind it leads back.
    #[must_use]
    pub fn as_of(mut self, epoch: i32, next_offset: i64) -> Self {
        self.entries.retain(|entry| entry.epoch <= epoch);
        // Where the log's start has moved past that entry since, the first epoch is known from there on only.
        if let Some(last) = self.entries.last_mut() {
            last.start_offset = last.start_offset.min(next_offset);
        }
        self
    }

    /// The log now starts at `start_offset`: earlier epochs are forgotten, and the one that wrote the first record
    /// that is left starts there.
    pub fn truncate_from_start(&mut self, start_offset: i64) {
        let behind = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if let Some(at) = behind.checked_sub(1) {
            self.entries[at].start_offset = start_offset;
            self.entries.drain(..at);
        }
    }

    /// Appends the checkpoint to `out`: a version byte, the number of epochs (u32), then epoch (i32) and start offset
    /// (i64) of each, big endian.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(CODEC_VERSION);
        out.put_u32(
            u32::try_from(self.entries.len()).expect("epochs are i32 and increase, so fewer than 2^32"),
        );
        for entry in &self.entries {
            out.put_i32(entry.epoch);
            out.put_i64(entry.start_offset);
        }
    }

    /// Reads what [`EpochCache::encode`] wrote, all of `bytes`.
    ///
    /// # Errors
    /// When the bytes are nothing that it could have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, EpochCodecError> {
        let mut rest = bytes;
        let version = rest.try_get_u8().map_err(|_| EpochCodecError::Length)?;
        if version != CODEC_VERSION {
            return Err(EpochCodecError::Version(version));
        }
        let count = rest.try_get_u32().map_err(|_| EpochCodecError::Length)?;
        if rest.len() as u64 != u64::from(count) * ENTRY_BYTES as u64 {
            return Err(EpochCodecError::Length);
        }
        let entries: Vec<EpochStart> = rest
            .chunks_exact(ENTRY_BYTES)
            .map(|mut entry| EpochStart { epoch: entry.get_i32(), start_offset: entry.get_i64() })
            .collect();
        let in_order = entries
            .windows(2)
            .all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start_offset < pair[1].start_offset);
        let positive = entries.first().is_none_or(|first| first.epoch >= 0 && first.start_offset >= 0);
        if in_order && positive { Ok(Self { entries }) } else { Err(EpochCodecError::Order) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::new();
        for &(epoch, start_offset) in entries {
            cache.assign(epoch, start_offset);
        }
        cache
    }

    fn pairs(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn epochs_are_answered_as_kafka_does() {
        let log = cache(&[(2, 10), (4, 20), (7, 35)]);
        assert_eq!(log.end_offset_for(7, 50), Some((7, 50)), "the newest epoch ends where the log does");
        assert_eq!(log.end_offset_for(4, 50), Some((4, 35)));
        assert_eq!(
            log.end_offset_for(5, 50),
            Some((4, 35)),
            "an epoch that wrote nothing: the one before it"
        );
        assert_eq!(log.end_offset_for(1, 50), Some((1, 10)), "in front of everything: where the log begins");
        assert_eq!(log.end_offset_for(8, 50), None, "an epoch of the future");
        assert_eq!(log.end_offset_for(-1, 50), None, "no epoch");
        assert_eq!(EpochCache::new().end_offset_for(3, 50), None);
    }

    #[test]
    fn an_epoch_is_noted_once() {
        let mut log = cache(&[(2, 10)]);
        assert!(!log.assign(2, 15));
        assert!(log.assign(3, 15));
        assert_eq!(pairs(&log), [(2, 10), (3, 15)]);
    }

    #[test]
    fn what_contradicts_a_new_epoch_is_dropped() {
        let mut log = cache(&[(2, 10), (3, 15), (4, 20)]);
        assert!(log.assign(5, 15));
        assert_eq!(pairs(&log), [(2, 10), (5, 15)]);
        assert!(log.assign(5, 12));
        assert_eq!(pairs(&log), [(2, 10), (5, 12)]);
    }

    #[test]
    fn the_start_can_be_cut() {
        let whole = cache(&[(2, 10), (4, 20), (7, 35)]);
        let cut = |offset| {
            let mut log = whole.clone();
            log.truncate_from_start(offset);
            pairs(&log)
        };
        assert_eq!(cut(5), pairs(&whole));
        assert_eq!(cut(20), [(4, 20), (7, 35)]);
        assert_eq!(cut(25), [(4, 25), (7, 35)]);
        assert_eq!(cut(99), [(7, 99)]);
    }

    #[test]
    fn epochs_as_of_an_earlier_entry_know_nothing_of_later_ones() {
        let whole = cache(&[(2, 10), (4, 20), (7, 35)]);
        let as_of = |epoch, next_offset| pairs(&whole.clone().as_of(epoch, next_offset));
        assert_eq!(as_of(7, 40), pairs(&whole));
        assert_eq!(as_of(7, 35), pairs(&whole), "an epoch begins before its first record");
        assert_eq!(as_of(4, 35), [(2, 10), (4, 20)]);
        assert_eq!(as_of(1, 10), []);
        assert_eq!(as_of(2, 7), [(2, 7)], "the log's start has moved past that entry since");
    }

    #[test]
    fn the_epoch_of_an_offset_is_known() {
        let log = cache(&[(2, 10), (4, 20)]);
        assert_eq!(
            [9, 10, 19, 20, 99].map(|offset| log.epoch_at(offset)),
            [None, Some(2), Some(2), Some(4), Some(4)]
        );
    }

    proptest! {
        #[test]
        fn checkpoints_round_trip_and_order_is_kept(
            assignments in prop::collection::vec((0..20_i32, 0..100_i64), 0..20),
        ) {
            let log = cache(&assignments);
            let mut bytes = Vec::new();
            log.encode(&mut bytes);
            prop_assert_eq!(EpochCache::decode(&bytes), Ok(log));
        }

        #[test]
        fn random_bytes_never_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = CODEC_VERSION;
            }
            if let Ok(log) = EpochCache::decode(&bytes) {
                let mut again = Vec::new();
                log.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
