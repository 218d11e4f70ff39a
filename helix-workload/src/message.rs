//! What is in a message: who sent it as which of its messages, and a body that can be recomputed.
//!
//! ```text
//!  0      4           12         16          24         28        32
//!  | magic | run (u64) | producer | seq (u64) | size     | crc32   | body ...
//! ```
//!
//! All numbers are big-endian. The CRC covers everything else. The body is a slice of a pattern that the run id alone
//! determines, taken at a place that producer and sequence number determine: a reader that knows the run recomputes
//! it, so one message that carries the bytes of another is noticed even when its checksum is right.

/// Bytes before the body; also the smallest message.
pub const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"HLXW";
const CRC_AT: usize = 28;
const PATTERN_BYTES: usize = 64 * 1024;

/// Which run of the load wrote a message; a topic can hold messages of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId(pub u64);

/// Which message: the producer's number within its run and the position in what that producer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The producer's number within the run, from 0.
    pub producer: u32,
    /// Position in what the producer sent, from 0.
    pub seq: u64,
}

/// What a reader found in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// A message of this run, whole and unchanged.
    Whole(Identity),
    /// Not a message of this run.
    Foreign,
    /// Claims to be of this run, but differs from what was sent.
    Damaged(String),
}

/// Writes and checks the messages of one run.
#[derive(Debug, Clone)]
pub struct Messages {
    run: RunId,
    size: usize,
    pattern: Vec<u8>,
}

impl Messages {
    /// The messages of `run`, each `size` bytes; at least [`HEADER_BYTES`].
    pub fn new(run: RunId, size: usize) -> Self {
        let size = size.max(HEADER_BYTES);
        let mut state = run.0 ^ 0x9E37_79B9_7F4A_7C15;
        let mut pattern = Vec::with_capacity(PATTERN_BYTES + size + 8);
        while pattern.len() < PATTERN_BYTES + size {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            pattern.extend_from_slice(&mix(state).to_be_bytes());
        }
        Self { run, size, pattern }
    }

    /// Bytes of every message.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Which run these messages are of.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Replaces what is in `buffer` by the message `identity`.
    pub fn write(&self, identity: Identity, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&self.run.0.to_be_bytes());
        buffer.extend_from_slice(&identity.producer.to_be_bytes());
        buffer.extend_from_slice(&identity.seq.to_be_bytes());
        buffer.extend_from_slice(&(self.size as u32).to_be_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(self.body(identity));
        let crc = checksum(buffer);
        buffer[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
    }

    /// What `record` holds.
    pub fn check(&self, record: &[u8]) -> Contents {
        if record.len() < HEADER_BYTES || record[..4] != MAGIC || be_u64(record, 4) != self.run.0 {
            return Contents::Foreign;
        }
        let identity = Identity { producer: be_u32(record, 12), seq: be_u64(record, 16) };
        if record.len() != self.size || be_u32(record, 24) as usize != self.size {
            return Contents::Damaged(format!(
                "{identity:?} has {} bytes, {} were sent",
                record.len(),
                self.size
            ));
        }
        if be_u32(record, CRC_AT) != checksum(record) {
            return Contents::Damaged(format!("the checksum of {identity:?} is wrong"));
        }
        if record[HEADER_BYTES..] != *self.body(identity) {
            return Contents::Damaged(format!("{identity:?} carries a body that it was not sent with"));
        }
        Contents::Whole(identity)
    }

    fn body(&self, identity: Identity) -> &[u8] {
        let at = (mix(u64::from(identity.producer) << 40 ^ identity.seq) as usize) % PATTERN_BYTES;
        &self.pattern[at..at + self.size - HEADER_BYTES]
    }
}

fn checksum(message: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&message[..CRC_AT]);
    crc.update(&message[HEADER_BYTES..]);
    crc.finalize()
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Identity = Identity { producer: 3, seq: 77 };

    fn written(messages: &Messages, identity: Identity) -> Vec<u8> {
        let mut buffer = Vec::new();
        messages.write(identity, &mut buffer);
        buffer
    }

    #[test]
    fn what_was_written_is_recognised() {
        for size in [HEADER_BYTES, 33, 1024, 900_000] {
            let messages = Messages::new(RunId(5), size);
            let record = written(&messages, ID);
            assert_eq!(record.len(), size);
            assert_eq!(messages.check(&record), Contents::Whole(ID));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let messages = Messages::new(RunId(5), 64);
        let record = written(&messages, ID);
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(messages.check(&damaged), Contents::Whole(ID), "bit {bit}");
        }
    }

    #[test]
    fn a_truncated_message_is_damaged() {
        let messages = Messages::new(RunId(5), 64);
        let record = written(&messages, ID);
        assert!(matches!(messages.check(&record[..63]), Contents::Damaged(_)));
    }

    #[test]
    fn another_body_is_noticed_although_its_checksum_is_right() {
        let messages = Messages::new(RunId(5), 64);
        let mut record = written(&messages, ID);
        let other = written(&messages, Identity { producer: 3, seq: 78 });
        record[HEADER_BYTES..].copy_from_slice(&other[HEADER_BYTES..]);
        let crc = checksum(&record);
        record[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(messages.check(&record), Contents::Damaged(_)));
    }

    #[test]
    fn records_of_other_runs_and_programs_are_foreign() {
        let messages = Messages::new(RunId(5), 64);
        let other_run = written(&Messages::new(RunId(6), 64), ID);
        assert_eq!(messages.check(&other_run), Contents::Foreign);
        assert_eq!(messages.check(b"hello"), Contents::Foreign);
        assert_eq!(messages.check(b""), Contents::Foreign);
    }
}
