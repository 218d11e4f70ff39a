//! What the server puts into the Raft log, and how an entry is written to and read from the WAL.
//!
//! Only [`Body::Data`] entries take Kafka offsets. A no-op or a membership entry takes an index and no offset, yet
//! its WAL record names the offset that follows it, because the WAL finds records by offset. An [`OffsetTrack`] per
//! group knows that offset: leader and follower run the same one over the entries that they append, so the offset
//! of such an entry never has to be transmitted.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use helix_raft::{Body, Entry, GroupId, Index, Membership, ReplicaId, Term};
use helix_wal::{Offset, Payload, Record, RecordKind};
use thiserror::Error;

/// What an entry is: one byte on disk and on the wire. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryTag {
    /// The first entry of a term; carries nothing.
    NoOp = 0,
    /// One or more Kafka record batches.
    Data = 1,
    /// A command of the cluster's metadata (group 0).
    Metadata = 2,
    /// A change of a group's replicas.
    Membership = 3,
    /// The log of the group now starts at a later offset.
    LogStart = 4,
    /// Producer ids whose state is to be forgotten.
    ProducerExpiry = 5,
}

impl EntryTag {
    /// The tag with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::NoOp,
            1 => Self::Data,
            2 => Self::Metadata,
            3 => Self::Membership,
            4 => Self::LogStart,
            5 => Self::ProducerExpiry,
            _ => return None,
        })
    }

    /// The number of this tag.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether an entry of this tag is a [`Command`]; no-ops and membership entries are Raft's own.
    #[must_use]
    pub const fn is_command(self) -> bool {
        !matches!(self, Self::NoOp | Self::Membership)
    }
}

/// The payload of a Raft entry: something that the server wants replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What it is; never [`EntryTag::NoOp`] or [`EntryTag::Membership`].
    pub tag: EntryTag,
    /// The offset of its first record, or the next offset of the group when it has none.
    pub base_offset: Offset,
    /// How many offsets it takes.
    pub offset_count: u32,
    /// The newest timestamp of its records; of records without, what [`helix_wal::without_timestamps`] makes of the time of their append;
    /// -1 when it has none.
    pub max_timestamp_ms: i64,
    /// Its bytes.
    pub payload: Payload,
}

impl Command {
    /// A command that takes no offsets, placed in front of `next_offset`.
    #[must_use]
    pub fn without_offsets(tag: EntryTag, next_offset: Offset, payload: Payload) -> Self {
        debug_assert!(tag.is_command(), "{tag:?} entries are made by the Raft core alone");
        Self { tag, base_offset: next_offset, offset_count: 0, max_timestamp_ms: NO_TIMESTAMP, payload }
    }

    /// As it is when it is appended at that time: retention goes by it where no record has a timestamp.
    #[must_use]
    pub fn appended_at(self, now_ms: i64) -> Self {
        if self.offset_count == 0 || self.max_timestamp_ms >= 0 {
            return self;
        }
        Self { max_timestamp_ms: helix_wal::without_timestamps(now_ms), ..self }
    }

    /// The offset after its last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.get().saturating_add(u64::from(self.offset_count)))
    }
}

impl helix_raft::Payload for Command {
    fn len_bytes(&self) -> usize {
        self.payload.len()
    }
}

/// The timestamp of what has no records, as in Kafka.
pub const NO_TIMESTAMP: i64 = -1;

/// A WAL record that is no Raft entry of this server, or one that a newer version wrote.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FromRecordError {
    /// Start, checkpoint and delete records are no entries.
    #[error("a {kind:?} record is no Raft entry")]
    NotAnEntry {
        /// What it is.
        kind: RecordKind,
    },
    /// The tag is not known.
    #[error(
        "entry tag {tag} is unknown: a newer version of Helix wrote this data directory; start that version"
    )]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
    /// The payload of a membership entry can't be read.
    #[error("the membership entry at index {index} can't be read: {source}")]
    Membership {
        /// Where it is.
        index: Index,
        /// What is wrong with it.
        source: MembershipError,
    },
}

/// The WAL record of an entry. `base_offset` comes from [`OffsetTrack::append`].
#[must_use]
pub fn to_record(group: GroupId, entry: &Entry<Command>, base_offset: Offset) -> Record {
    let (tag, offset_count, max_timestamp_ms, payload) = match &entry.body {
        Body::NoOp => (EntryTag::NoOp, 0, NO_TIMESTAMP, Payload::empty()),
        Body::Membership(membership) => {
            (EntryTag::Membership, 0, NO_TIMESTAMP, Payload::from_chunks(vec![encode_membership(membership)]))
        }
        Body::Data(command) => {
            (command.tag, command.offset_count, command.max_timestamp_ms, command.payload.clone())
        }
    };
    Record {
        group: helix_wal::GroupId(group.get()),
        kind: RecordKind::Entry { tag: tag.as_u8() },
        index: helix_wal::Index(entry.index.get()),
        term: helix_wal::Term(entry.term.get()),
        prev_term: helix_wal::Term(entry.prev_term.get()),
        base_offset,
        offset_count,
        max_timestamp_ms,
        payload,
    }
}

/// The entry that a WAL record holds.
///
/// # Errors
/// When the record is no entry, or one that this version does not know.
pub fn from_record(record: &Record) -> Result<Entry<Command>, FromRecordError> {
    let RecordKind::Entry { tag: number } = record.kind else {
        return Err(FromRecordError::NotAnEntry { kind: record.kind });
    };
    let index = Index(record.index.get());
    let body = match EntryTag::from_u8(number) {
        None => return Err(FromRecordError::UnknownTag { tag: number }),
        Some(EntryTag::NoOp) => Body::NoOp,
        Some(EntryTag::Membership) => Body::Membership(
            decode_membership(&record.payload.to_bytes())
                .map_err(|source| FromRecordError::Membership { index, source })?,
        ),
        Some(tag) => Body::Data(Command {
            tag,
            base_offset: record.base_offset,
            offset_count: record.offset_count,
            max_timestamp_ms: record.max_timestamp_ms,
            payload: record.payload.clone(),
        }),
    };
    Ok(Entry { index, term: Term(record.term.get()), prev_term: Term(record.prev_term.get()), body })
}

/// An entry that does not fit behind the log that the track has seen.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OffsetTrackError {
    /// The entry would leave a gap, or replace what is committed.
    #[error("entry {index} does not follow a log that is committed through {committed} and ends at {last}")]
    Index {
        /// Of the entry.
        index: Index,
        /// Of the track.
        committed: Index,
        /// Of the track.
        last: Index,
    },
    /// The entry names another offset than the one that follows.
    #[error("entry {index} has base offset {found}, but the next offset there is {expected}")]
    Offset {
        /// Of the entry.
        index: Index,
        /// What it says.
        found: Offset,
        /// What follows from the entries before it.
        expected: Offset,
    },
}

/// The next offset of a group's log at its end and at every uncommitted entry, so that an entry that replaces a
/// suffix gets the right offset without reading the WAL. Costs memory for uncommitted entries only.
#[derive(Clone, Debug)]
pub struct OffsetTrack {
    /// The last entry that can't be replaced any more, and the next offset after it.
    committed: (Index, Offset),
    /// Next offset after each later entry, in order of index, without gaps.
    uncommitted: VecDeque<Offset>,
}

impl OffsetTrack {
    /// A log that is committed through `index`, after which `next_offset` follows.
    #[must_use]
    pub const fn new(index: Index, next_offset: Offset) -> Self {
        Self { committed: (index, next_offset), uncommitted: VecDeque::new() }
    }

    /// The offset after the last entry.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.uncommitted.back().copied().unwrap_or(self.committed.1)
    }

    /// The offset after the last committed entry.
    #[must_use]
    pub const fn committed_offset(&self) -> Offset {
        self.committed.1
    }

    /// The index of the last entry.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.committed.0.get() + self.uncommitted.len() as u64)
    }

    /// Takes an entry that goes behind the log, or replaces a suffix of it, and returns its base offset.
    ///
    /// # Errors
    /// When the entry does not fit. The track is unchanged then.
    pub fn append(&mut self, entry: &Entry<Command>) -> Result<Offset, OffsetTrackError> {
        let (committed, _) = self.committed;
        let last = self.last_index();
        if entry.index <= committed || entry.index.get() > last.get() + 1 {
            return Err(OffsetTrackError::Index { index: entry.index, committed, last });
        }
        // Fits into memory: it is at most the number of uncommitted entries.
        let kept = (entry.index.get() - committed.get() - 1) as usize;
        let base = kept.checked_sub(1).map_or(self.committed.1, |position| self.uncommitted[position]);
        let next = match &entry.body {
            Body::Data(command) if command.base_offset != base => {
                let (index, found, expected) = (entry.index, command.base_offset, base);
                return Err(OffsetTrackError::Offset { index, found, expected });
            }
            Body::Data(command) => command.next_offset(),
            Body::NoOp | Body::Membership(_) => base,
        };
        self.uncommitted.truncate(kept);
        self.uncommitted.push_back(next);
        Ok(base)
    }

    /// Everything through `index` is committed: it will not be replaced.
    pub fn commit(&mut self, index: Index) {
        while self.committed.0 < index {
            let Some(next) = self.uncommitted.pop_front() else { return };
            self.committed = (Index(self.committed.0.get() + 1), next);
        }
    }
}

/// Bytes that are no membership.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MembershipError {
    /// Written by a newer version.
    #[error("format version {0} is unknown")]
    Version(u8),
    /// Too short, too long, or lengths that do not add up.
    #[error("the length does not match the number of replicas")]
    Length,
}

const MEMBERSHIP_VERSION: u8 = 1;

/// Encodes a membership: version, then three lists (voters, outgoing, learners), each a count of two bytes and as
/// many replica ids of eight bytes, big endian.
#[must_use]
pub fn encode_membership(membership: &Membership) -> Bytes {
    let lists = [&membership.voters, &membership.outgoing, &membership.learners];
    let replicas: usize = lists.iter().map(|list| list.len()).sum();
    let mut bytes = BytesMut::with_capacity(1 + 3 * 2 + replicas * 8);
    bytes.put_u8(MEMBERSHIP_VERSION);
    for list in lists {
        let count = u16::try_from(list.len()).expect("a group has fewer than 65536 replicas");
        bytes.put_u16(count);
        for replica in list {
            bytes.put_u64(replica.get());
        }
    }
    bytes.freeze()
}

/// Decodes what [`encode_membership`] wrote.
///
/// # Errors
/// When the bytes are nothing that it could have written.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, MembershipError> {
    let (&version, mut rest) = bytes.split_first().ok_or(MembershipError::Length)?;
    if version != MEMBERSHIP_VERSION {
        return Err(MembershipError::Version(version));
    }
    let mut list = || -> Result<Vec<ReplicaId>, MembershipError> {
        let (count, after) = rest.split_first_chunk::<2>().ok_or(MembershipError::Length)?;
        let bytes = usize::from(u16::from_be_bytes(*count)) * 8;
        let (replicas, after) = after.split_at_checked(bytes).ok_or(MembershipError::Length)?;
        rest = after;
        let (replicas, _) = replicas.as_chunks::<8>();
        Ok(replicas.iter().map(|replica| ReplicaId(u64::from_be_bytes(*replica))).collect())
    };
    let membership = Membership { voters: list()?, outgoing: list()?, learners: list()? };
    if rest.is_empty() { Ok(membership) } else { Err(MembershipError::Length) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use proptest::{collection, prop_oneof, strategy::Just, strategy::Strategy};

    use super::*;

    fn membership() -> impl Strategy<Value = Membership> {
        let list = || collection::vec(any::<u64>().prop_map(ReplicaId), 0..5);
        (list(), list(), list()).prop_map(|(voters, outgoing, learners)| Membership {
            voters,
            outgoing,
            learners,
        })
    }

    fn body() -> impl Strategy<Value = Body<Command>> {
        let tag = prop_oneof![
            Just(EntryTag::Data),
            Just(EntryTag::Metadata),
            Just(EntryTag::LogStart),
            Just(EntryTag::ProducerExpiry),
        ];
        let command = (tag, any::<u32>(), any::<i64>(), collection::vec(any::<u8>(), 0..100)).prop_map(
            |(tag, offset_count, max_timestamp_ms, bytes)| {
                let payload = Payload::from_chunks(vec![Bytes::from(bytes)]);
                Command { tag, base_offset: Offset(77), offset_count, max_timestamp_ms, payload }
            },
        );
        prop_oneof![Just(Body::NoOp), membership().prop_map(Body::Membership), command.prop_map(Body::Data)]
    }

    proptest! {
        #[test]
        fn an_entry_survives_the_wal(body in body(), index in any::<u64>(), term in any::<u64>()) {
            let entry = Entry { index: Index(index), term: Term(term), prev_term: Term(term / 2), body };
            let record = to_record(GroupId(9), &entry, Offset(77));
            prop_assert_eq!(record.base_offset, Offset(77));
            prop_assert_eq!(from_record(&record).unwrap(), entry);
        }

        #[test]
        fn random_bytes_never_break_the_membership_decoder(bytes in collection::vec(any::<u8>(), 0..80)) {
            if let Ok(membership) = decode_membership(&bytes) {
                prop_assert_eq!(encode_membership(&membership), bytes);
            }
        }
    }

    #[test]
    fn every_tag_has_its_number() {
        for number in 0..=u8::MAX {
            assert!(EntryTag::from_u8(number).is_none_or(|tag| tag.as_u8() == number));
        }
        assert!(EntryTag::from_u8(5).is_some() && EntryTag::from_u8(6).is_none());
    }

    #[test]
    fn foreign_records_are_told_apart() {
        let entry = Entry { index: Index(1), term: Term(1), prev_term: Term(0), body: Body::NoOp };
        let mut record = to_record(GroupId(1), &entry, Offset(0));
        record.kind = RecordKind::Entry { tag: 200 };
        assert_eq!(from_record(&record), Err(FromRecordError::UnknownTag { tag: 200 }));
        record.kind = RecordKind::Start;
        assert_eq!(from_record(&record), Err(FromRecordError::NotAnEntry { kind: RecordKind::Start }));
        record.kind = RecordKind::Entry { tag: EntryTag::Membership.as_u8() };
        assert!(matches!(from_record(&record), Err(FromRecordError::Membership { .. })));
    }

    fn data(index: u64, base_offset: u64, offset_count: u32) -> Entry<Command> {
        let command = Command {
            tag: EntryTag::Data,
            base_offset: Offset(base_offset),
            offset_count,
            max_timestamp_ms: 5,
            payload: Payload::empty(),
        };
        Entry { index: Index(index), term: Term(1), prev_term: Term(1), body: Body::Data(command) }
    }

    fn no_op(index: u64) -> Entry<Command> {
        Entry { index: Index(index), term: Term(2), prev_term: Term(1), body: Body::NoOp }
    }

    #[test]
    fn offsets_follow_from_the_entries_before() {
        let mut track = OffsetTrack::new(Index(10), Offset(100));
        assert_eq!(track.append(&no_op(11)), Ok(Offset(100)));
        assert_eq!(track.append(&data(12, 100, 5)), Ok(Offset(100)));
        assert_eq!(track.append(&data(13, 105, 1)), Ok(Offset(105)));
        assert_eq!((track.last_index(), track.next_offset()), (Index(13), Offset(106)));

        // A new leader replaces the suffix: its no-op goes where the replaced records were.
        assert_eq!(track.append(&no_op(12)), Ok(Offset(100)));
        assert_eq!((track.last_index(), track.next_offset()), (Index(12), Offset(100)));

        track.commit(Index(12));
        assert_eq!(track.append(&data(13, 100, 2)), Ok(Offset(100)));
        track.commit(Index(50));
        assert_eq!((track.last_index(), track.next_offset()), (Index(13), Offset(102)));
    }

    #[test]
    fn entries_that_do_not_fit_change_nothing() {
        let mut track = OffsetTrack::new(Index(10), Offset(100));
        assert_eq!(track.append(&data(11, 100, 5)), Ok(Offset(100)));
        assert!(matches!(track.append(&no_op(13)), Err(OffsetTrackError::Index { .. })));
        assert!(matches!(track.append(&no_op(10)), Err(OffsetTrackError::Index { .. })));
        assert!(matches!(track.append(&data(11, 99, 1)), Err(OffsetTrackError::Offset { .. })));
        assert_eq!((track.last_index(), track.next_offset()), (Index(11), Offset(105)));
    }
}
