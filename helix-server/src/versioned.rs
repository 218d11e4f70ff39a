//! Values on disk and between nodes: a version byte, then postcard. For what is small and changes over releases; the hot path
//! has encodings of its own.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of whatever has never changed.
const FORMAT_VERSION: u8 = 1;

/// A value that cannot be decoded.
#[derive(Debug, Error)]
pub enum VersionedError {
    /// Written by a newer version of Helix.
    #[error("format version {found} is newer than this release understands ({newest}): upgrade this node")]
    Version {
        /// Version byte found.
        found: u8,
        /// Newest version that can be read.
        newest: u8,
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

/// Encodes a value of the first version.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(FORMAT_VERSION, value)
}

/// Encodes a value with its version byte.
pub fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let out = vec![version];
    postcard::to_extend(value, out).expect("plain owned data always serialises into a growing buffer")
}

/// Decodes a value written by [`encode`].
///
/// # Errors
/// When the version is newer than known or the bytes are damaged.
pub fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, VersionedError> {
    match split(bytes)? {
        (FORMAT_VERSION, rest) => decode_rest(rest),
        (found, _) => Err(VersionedError::Version { found, newest: FORMAT_VERSION }),
    }
}

/// The version of an encoded value, and what [`decode_rest`] takes.
///
/// # Errors
/// When there are no bytes.
pub fn split(bytes: &[u8]) -> Result<(u8, &[u8]), VersionedError> {
    bytes.split_first().map(|(version, rest)| (*version, rest)).ok_or(VersionedError::Empty)
}

/// Decodes what follows the version byte.
///
/// # Errors
/// When the bytes are damaged.
pub fn decode_rest<T: for<'a> Deserialize<'a>>(rest: &[u8]) -> Result<T, VersionedError> {
    Ok(postcard::from_bytes(rest)?)
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
        assert!(matches!(
            decode::<(u32, String)>(&bytes),
            Err(VersionedError::Version { found: 2, newest: 1 })
        ));
        assert!(matches!(decode::<u32>(&[]), Err(VersionedError::Empty)));
    }
}
