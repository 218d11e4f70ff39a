//! The bytes of the term and vote file. Pure.
//!
//! ```text
//! page 0          header: magic, version, CRC32
//! page 1 + 2b     first slots  of the pairs 8b .. 8b+7, one sector of 512 bytes each
//! page 2 + 2b     second slots of the same pairs
//! ```
//!
//! The two slots of a pair never share a page. A write goes to the slot that does not hold the newest value, so a
//! torn write leaves that value readable. Assumed of the disk: writing a sector does not damage another one.

use thiserror::Error;

use crate::ids::{GroupId, ReplicaId, Term};
use helix_raft::HardState;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a slot: a sector of its own.
pub const SLOT_BYTES: usize = 512;
/// Pairs of slots whose halves share two pages.
pub const PAIRS_PER_BLOCK: u32 = (PAGE_BYTES / SLOT_BYTES as u64) as u32;
/// Bytes of the file that hold [`PAIRS_PER_BLOCK`] pairs.
pub const BLOCK_BYTES: u64 = 2 * PAGE_BYTES;

const HEADER_MAGIC: [u8; 8] = *b"HELIXVT\0";
const HEADER_VERSION: u32 = 1;
const SLOT_MAGIC: [u8; 4] = *b"vote";
/// Magic, sequence, group, kind, whether there is a vote, two bytes of nothing, term, vote, CRC32.
const SLOT_USED_BYTES: usize = 4 + 8 + 8 + 4 + 8 + 8 + 4;

/// No pair is ever written as often, so a higher sequence number is damage, whatever the checksum says.
const SEQUENCE_END: u64 = 1 << 62;

/// One of the two slots of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Holds the odd sequence numbers.
    First,
    /// Holds the even sequence numbers.
    Second,
}

impl Half {
    /// The half that a value with this sequence number goes to.
    #[must_use]
    pub const fn of(sequence: u64) -> Self {
        if sequence % 2 == 1 { Self::First } else { Self::Second }
    }
}

/// Where a slot lies in the file.
#[must_use]
pub fn slot_position(pair: u32, half: Half) -> u64 {
    let block = u64::from(pair / PAIRS_PER_BLOCK);
    let within = u64::from(pair % PAIRS_PER_BLOCK) * SLOT_BYTES as u64;
    let page = match half {
        Half::First => 0,
        Half::Second => PAGE_BYTES,
    };
    PAGE_BYTES + block * BLOCK_BYTES + page + within
}

/// The value of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotValue {
    /// Counts the writes to the pair; the highest one is the value.
    pub sequence: u64,
    /// Whose pair it is.
    pub group: GroupId,
    /// What was persisted; `None` after the group was removed.
    pub state: Option<HardState>,
}

/// What the bytes of a slot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotContent {
    /// Never written.
    Empty,
    /// A value.
    Value(SlotValue),
    /// Neither: a torn write or a failed medium.
    Unreadable,
}

/// The first page of the file.
#[must_use]
pub fn encode_header() -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES as usize];
    page[..8].copy_from_slice(&HEADER_MAGIC);
    page[8..12].copy_from_slice(&HEADER_VERSION.to_le_bytes());
    let crc = crc32fast::hash(&page[..12]);
    page[12..16].copy_from_slice(&crc.to_le_bytes());
    page
}

/// A header that can't be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Damaged, or no such file.
    #[error("its header is damaged")]
    Damaged,
    /// A newer version wrote it.
    #[error(
        "it has format version {0}, and this version of Helix knows {HEADER_VERSION}: start the version that wrote it"
    )]
    Version(u32),
}

/// Checks the first page.
///
/// # Errors
/// When it is not a header that this version knows.
pub fn check_header(page: &[u8]) -> Result<(), HeaderError> {
    let header = page.first_chunk::<16>().ok_or(HeaderError::Damaged)?;
    let (words, _) = header[8..].as_chunks::<4>();
    let [version, crc] = [u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1])];
    if header[..8] != HEADER_MAGIC || crc32fast::hash(&header[..12]) != crc {
        return Err(HeaderError::Damaged);
    }
    if version == HEADER_VERSION { Ok(()) } else { Err(HeaderError::Version(version)) }
}

/// The bytes of a value. The checksum covers its place, so a misdirected write is noticed.
#[must_use]
pub fn encode_slot(value: &SlotValue, pair: u32) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let state = value.state.unwrap_or_default();
    slot[..4].copy_from_slice(&SLOT_MAGIC);
    slot[4..12].copy_from_slice(&value.sequence.to_le_bytes());
    slot[12..20].copy_from_slice(&value.group.get().to_le_bytes());
    slot[20] = u8::from(value.state.is_some());
    slot[21] = u8::from(state.vote.is_some());
    slot[24..32].copy_from_slice(&state.term.get().to_le_bytes());
    slot[32..40].copy_from_slice(&state.vote.map_or(0, ReplicaId::get).to_le_bytes());
    let crc = checksum(&slot[..SLOT_USED_BYTES - 4], pair, Half::of(value.sequence));
    slot[SLOT_USED_BYTES - 4..SLOT_USED_BYTES].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// Reads a slot.
#[must_use]
pub fn decode_slot(slot: &[u8; SLOT_BYTES], pair: u32, half: Half) -> SlotContent {
    if *slot == [0; SLOT_BYTES] {
        return SlotContent::Empty;
    }
    let (words, _) = slot[SLOT_USED_BYTES - 4..].as_chunks::<4>();
    let crc = u32::from_le_bytes(words[0]);
    let long = |at: usize| slot[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let sequence = long(4);
    if slot[..4] != SLOT_MAGIC
        || checksum(&slot[..SLOT_USED_BYTES - 4], pair, half) != crc
        || Half::of(sequence) != half
        || sequence >= SEQUENCE_END
    {
        return SlotContent::Unreadable;
    }
    let vote = (slot[21] == 1).then(|| ReplicaId(long(32)));
    let state = (slot[20] == 1).then(|| HardState { term: Term(long(24)), vote });
    SlotContent::Value(SlotValue { sequence, group: GroupId(long(12)), state })
}

fn checksum(bytes: &[u8], pair: u32, half: Half) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot_position(pair, half).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// What the two slots of a pair say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairContent {
    /// Never written, or its first write was torn.
    Empty,
    /// The newest readable value, and whether the other slot is unreadable.
    Value(SlotValue, Torn),
    /// Nothing can be read: what was persisted there is lost.
    Lost,
}

/// Whether one slot of a pair is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Both are fine.
    No,
    /// One is not: the last write was torn by a crash.
    Yes,
}

/// Joins the two slots.
#[must_use]
pub fn join(first: SlotContent, second: SlotContent) -> PairContent {
    use SlotContent::{Empty, Unreadable, Value};
    match (first, second) {
        (Value(first), Value(second)) => {
            PairContent::Value(if first.sequence > second.sequence { first } else { second }, Torn::No)
        }
        (Value(value), Empty) | (Empty, Value(value)) => PairContent::Value(value, Torn::No),
        (Value(value), Unreadable) | (Unreadable, Value(value)) => PairContent::Value(value, Torn::Yes),
        // The second slot is written after the first one is durable: this one never was.
        (Empty | Unreadable, Empty) => PairContent::Empty,
        (Empty | Unreadable, Unreadable) => PairContent::Lost,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn value(sequence: u64) -> SlotValue {
        let state = HardState { term: Term(7), vote: Some(ReplicaId(3)) };
        SlotValue { sequence, group: GroupId(12), state: Some(state) }
    }

    proptest! {
        #[test]
        fn a_value_survives_its_slot(
            sequence in 0..SEQUENCE_END, group in any::<u64>(), term in any::<u64>(),
            vote in any::<Option<u64>>(), removed in any::<bool>(), pair in 0_u32..100_000,
        ) {
            let state = HardState { term: Term(term), vote: vote.map(ReplicaId) };
            let value = SlotValue { sequence, group: GroupId(group), state: (!removed).then_some(state) };
            let half = Half::of(sequence);
            let slot = encode_slot(&value, pair);
            prop_assert_eq!(decode_slot(&slot, pair, half), SlotContent::Value(value));
            prop_assert_eq!(decode_slot(&slot, pair + 1, half), SlotContent::Unreadable);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_noticed() {
        let slot = encode_slot(&value(5), 3);
        for bit in 0..SLOT_USED_BYTES * 8 {
            let mut damaged = slot;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_slot(&damaged, 3, Half::First), SlotContent::Unreadable, "bit {bit}");
        }
    }

    #[test]
    fn slots_do_not_overlap_and_halves_never_share_a_page() {
        let mut positions: Vec<u64> = (0..100)
            .flat_map(|pair| {
                let halves = [slot_position(pair, Half::First), slot_position(pair, Half::Second)];
                assert_ne!(halves[0] / PAGE_BYTES, halves[1] / PAGE_BYTES);
                halves
            })
            .collect();
        positions.sort_unstable();
        assert!(positions.windows(2).all(|two| two[1] - two[0] >= SLOT_BYTES as u64));
        assert!(positions[0] >= PAGE_BYTES);
    }

    #[test]
    fn the_newest_readable_value_wins() {
        use SlotContent::{Empty, Unreadable, Value};
        let (old, new) = (value(4), value(5));
        assert_eq!(join(Value(new), Value(old)), PairContent::Value(new, Torn::No));
        assert_eq!(join(Unreadable, Value(old)), PairContent::Value(old, Torn::Yes));
        assert_eq!(join(Value(new), Empty), PairContent::Value(new, Torn::No));
        assert_eq!(join(Unreadable, Empty), PairContent::Empty);
        assert_eq!(join(Empty, Empty), PairContent::Empty);
        assert_eq!(join(Unreadable, Unreadable), PairContent::Lost);
        assert_eq!(join(Empty, Unreadable), PairContent::Lost);
    }

    #[test]
    fn headers_are_checked() {
        let header = encode_header();
        assert_eq!(check_header(&header), Ok(()));
        assert_eq!(check_header(&header[..10]), Err(HeaderError::Damaged));
        let mut newer = header;
        newer[8] = 2;
        let crc = crc32fast::hash(&newer[..12]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check_header(&newer), Err(HeaderError::Version(2)));
    }
}
