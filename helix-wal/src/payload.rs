//! Immutable bytes on their way through the log, never copied.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// An immutable chain of byte slices, cheap to clone.
///
/// The CRC-32 (IEEE) of the concatenation is computed once, when the payload is made, and carried along: the log
/// stores it as it is, and a peer that checked it on arrival need not compute it again.
#[derive(Clone)]
pub struct Payload {
    chunks: Arc<[Bytes]>,
    len: usize,
    crc32: u32,
}

impl Payload {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { chunks: Arc::from([]), len: 0, crc32: 0 }
    }

    /// Takes the chunks as they are and computes their checksum.
    #[must_use]
    pub fn from_chunks(chunks: Vec<Bytes>) -> Self {
        let crc32 = crc_of(&chunks);
        Self::from_parts_verified(chunks, crc32)
    }

    /// Takes chunks whose checksum the caller has computed or checked already.
    #[must_use]
    pub fn from_parts_verified(mut chunks: Vec<Bytes>, crc32: u32) -> Self {
        chunks.retain(|chunk| !chunk.is_empty());
        let len = chunks.iter().map(Bytes::len).sum();
        Self { chunks: chunks.into(), len, crc32 }
    }

    /// The slices, in order; none is empty.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// How many bytes there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The checksum carried along.
    #[must_use]
    pub fn crc32(&self) -> u32 {
        self.crc32
    }

    /// Computes the checksum again and compares.
    #[must_use]
    pub fn verify(&self) -> bool {
        crc_of(&self.chunks) == self.crc32
    }

    /// The bytes in one piece; copies only when there is more than one chunk.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &*self.chunks {
            [] => Bytes::new(),
            [only] => only.clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len);
                many.iter().for_each(|chunk| whole.extend_from_slice(chunk));
                whole.freeze()
            }
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Payload {
    /// Equal bytes, however they are cut into chunks.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self.crc32 == other.crc32
            && self.chunks.iter().flatten().eq(other.chunks.iter().flatten())
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Payload({} bytes, crc32 {:08x})", self.len, self.crc32)
    }
}

fn crc_of(chunks: &[Bytes]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    chunks.iter().for_each(|chunk| hasher.update(chunk));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunking_changes_neither_checksum_nor_equality() {
        let whole = Payload::from_chunks(vec![Bytes::from_static(b"abcdef")]);
        let cut = Payload::from_chunks(vec!["ab".into(), "".into(), "cdef".into()]);
        assert_eq!(whole, cut);
        assert_eq!(cut.chunks().len(), 2);
        assert_eq!(cut.to_bytes(), "abcdef");
        assert!(cut.verify());
    }

    #[test]
    fn empty_has_the_checksum_of_nothing() {
        assert_eq!(Payload::empty(), Payload::from_chunks(Vec::new()));
        assert!(Payload::empty().verify());
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        assert!(!Payload::from_parts_verified(vec!["abc".into()], 1).verify());
    }

    #[test]
    fn payloads_are_equal_if_length_checksum_and_bytes_are() {
        let payload = |text: &'static str, crc32| Payload::from_parts_verified(vec![text.into()], crc32);
        assert_eq!(payload("abc", 1), payload("abc", 1));
        for other in [payload("abc", 2), payload("abd", 1), payload("abcd", 1)] {
            assert_ne!(payload("abc", 1), other);
        }
        assert!(Payload::empty().is_empty() && !payload("abc", 1).is_empty());
        assert_eq!(format!("{:?}", payload("abc", 0xAB)), "Payload(3 bytes, crc32 000000ab)");
    }
}
