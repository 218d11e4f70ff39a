//! Values on disk and between nodes: a version byte, then postcard. For what is small and changes over releases; the hot path
//! has encodings of its own.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version that this release writes, and the newest that it reads.
const FORMAT_VERSION: u8 = 1;

/// A value that cannot be decoded.
#[derive(Debug, Error)]
pub enum VersionedError {
    /// Written by a newer version of Helix.
    #[error(
        "format version {found} is newer than this release understands ({FORMAT_VERSION}): upgrade this node"
    )]
    Version {
        /// Version byte found.
        found: u8,
    },
    /// The bytes do not form a value.
    #[error("the value is damaged: {0}")]
    Damaged(#[from] postcard::Error),
    /// The bytes form a value that nobody has ever encoded.
    #[error("the value contradicts itself, so it is damaged although it can be decoded")]
    Contradiction,
    /// No bytes at all.
    #[error("the value is empty")]
    Empty,
}

/// Encodes a value with its version byte.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let out = vec![FORMAT_VERSION];
    postcard::to_extend(value, out).expect("plain owned data always serialises into a growing buffer")
}

/// Decodes a value written by [`encode`].
///
/// # Errors
/// When the version is newer than known or the bytes are damaged.
pub fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, VersionedError> {
    match bytes.split_first() {
        None => Err(VersionedError::Empty),
        Some((&FORMAT_VERSION, rest)) => Ok(postcard::from_bytes(rest)?),
        Some((&found, _)) => Err(VersionedError::Version { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_round_trip_and_newer_versions_are_refused() {
        let value = (7u32, "orders".to_owned());
        let mut bytes = encode(&value);
        assert_eq!(decode::<(u32, String)>(&bytes).unwrap(), value);
        bytes[0] = FORMAT_VERSION + 1;
        assert!(matches!(decode::<(u32, String)>(&bytes), Err(VersionedError::Version { found: 2 })));
        assert!(matches!(decode::<u32>(&[]), Err(VersionedError::Empty)));
    }
}
