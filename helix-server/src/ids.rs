//! The names of nodes and clusters, and the identifiers of the layers below, in one place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

pub use helix_raft::{GroupId, Incarnation, Index, ReplicaId, Term};
pub use helix_wal::Offset;

/// The metadata group's own id.
pub const METADATA_GROUP: GroupId = GroupId(0);

/// The number of a node: what `--node-id` says and what Kafka clients see as the broker id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub i32);

impl NodeId {
    /// The plain number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a cluster, chosen at random when it is founded.
///
/// Written as Kafka writes it: the 16 bytes of a UUID in unpadded URL-safe base64, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// A new identity out of random UUIDs. It never starts with `-`, so that it can be passed to command-line tools.
    #[must_use]
    pub fn random(mut draw: impl FnMut() -> Uuid) -> Self {
        loop {
            let id = Self(*draw().as_bytes());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// The identity made of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes of the identity.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Number of base64 characters of a cluster id: 128 bits, 6 at a time.
const CLUSTER_ID_CHARS: usize = 22;

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 22 characters hold 132 bits: the last character has four zero bits at its end.
        let bits = u128::from_be_bytes(self.0);
        let mut text = String::with_capacity(CLUSTER_ID_CHARS);
        for position in 0..CLUSTER_ID_CHARS {
            let shift = 128 - 6 * (position as i32 + 1);
            let six = if shift >= 0 { bits >> shift } else { bits << -shift } & 0x3f;
            text.push(char::from(BASE64_URL[six as usize]));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// A text that is no cluster id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a cluster id: expected 22 characters of URL-safe base64 (a UUID as Kafka writes it)"
)]
pub struct ParseClusterIdError {
    text: String,
}

impl FromStr for ClusterId {
    type Err = ParseClusterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseClusterIdError { text: text.to_owned() };
        if text.len() != CLUSTER_ID_CHARS {
            return Err(error());
        }
        let mut bits = 0_u128;
        for (position, character) in text.bytes().enumerate() {
            let six = BASE64_URL.iter().position(|&known| known == character).ok_or_else(error)? as u128;
            if position + 1 < CLUSTER_ID_CHARS {
                bits = (bits << 6) | six;
            } else if six & 0xf == 0 {
                bits = (bits << 2) | (six >> 4);
            } else {
                return Err(error());
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_id_is_written_as_kafka_writes_it() {
        let bytes = *Uuid::parse_str("6d6b3a5e-3f0c-4b61-9f0a-1c2d3e4f5061").unwrap().as_bytes();
        assert_eq!(ClusterId::from_bytes(bytes).to_string(), "bWs6Xj8MS2GfChwtPk9QYQ");
        assert_eq!(ClusterId::from_bytes([0xff; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn cluster_id_survives_being_written_and_read() {
        for _ in 0..200 {
            let id = ClusterId::random(Uuid::new_v4);
            let text = id.to_string();
            assert_eq!(text.len(), 22);
            assert!(!text.starts_with('-'));
            assert_eq!(text.parse::<ClusterId>(), Ok(id));
        }
    }

    #[test]
    fn other_texts_are_no_cluster_ids() {
        for text in
            ["", "short", "bWs6Xj8MS2GfChwtPk9QY+", "bWs6Xj8MS2GfChwtPk9QYR", "bWs6Xj8MS2GfChwtPk9QYQQ"]
        {
            let error = text.parse::<ClusterId>().unwrap_err();
            assert!(error.to_string().contains("22 characters"), "{error}");
        }
    }
}
