//! The small state of a node: who it is, how it last stopped, and what of its data is suspect. Pure; the file is
//! [`super::state_file`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::founded::Founding;
use super::recovering::Recovering;
use crate::ids::{Incarnation, NodeId, ReplicaId};

/// When a write counts: `--write-durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteMode {
    /// Once it is in the page cache of a majority.
    ReplicationOnly,
    /// Once a majority has synced it.
    Fsync,
}

/// The identity of a boot of the machine: as long as it stays the same, no page cache was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

/// What the state file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// The node that this disk belongs to.
    pub node: NodeId,
    /// The identity of this disk, drawn at random when the data directory was blank.
    pub replica: ReplicaId,
    /// How often the node has started on this disk.
    pub incarnation: Incarnation,
    /// The boot of the machine in which the node last started; `None` if it couldn't be told.
    pub boot: Option<BootId>,
    /// Whether everything in the WAL was synced when the node stopped. Never set while it runs.
    pub clean: bool,
    /// The mode in which the data was written since.
    pub written_in: WriteMode,
    /// The groups whose log is suspect.
    pub recovering: Recovering,
    /// The cluster.
    pub founding: Founding,
}

const MAGIC: [u8; 8] = *b"HELIXND\0";
const VERSION: u32 = 1;
/// Magic, version, length of the body, CRC32 of version, length and body.
const HEADER_BYTES: usize = 8 + 4 + 4 + 4;

/// A state file that can't be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeStateError {
    /// Damaged or something else altogether.
    #[error("its contents are damaged ({0})")]
    Damaged(&'static str),
    /// A newer version wrote it.
    #[error(
        "it has format version {0}, and this version of Helix knows {VERSION}: start the version that wrote it"
    )]
    Version(u32),
}

impl NodeState {
    /// The bytes of the state file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("a state without maps or foreign types always encodes");
        let length = u32::try_from(body.len()).expect("a list of groups fits into 4 GiB");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(VERSION, length, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what [`NodeState::encode`] wrote.
    ///
    /// # Errors
    /// When a single bit differs, or when a newer version wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeStateError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(DecodeStateError::Damaged("too short"))?;
        if *magic != MAGIC {
            return Err(DecodeStateError::Damaged("not a Helix state file"));
        }
        let (words, body) = rest.split_first_chunk::<12>().ok_or(DecodeStateError::Damaged("too short"))?;
        let (words, _) = words.as_chunks::<4>();
        let [version, length, crc] = [0, 1, 2].map(|word| u32::from_le_bytes(words[word]));
        if body.len() != length as usize {
            return Err(DecodeStateError::Damaged("wrong length"));
        }
        if checksum(version, length, body) != crc {
            return Err(DecodeStateError::Damaged("wrong checksum"));
        }
        // Checked last: only an intact header can tell that a newer version wrote it.
        if version != VERSION {
            return Err(DecodeStateError::Version(version));
        }
        postcard::from_bytes(body).map_err(|_| DecodeStateError::Damaged("malformed body"))
    }
}

fn checksum(version: u32, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::durable::founded::{FoundedCluster, FoundingMember};
    use crate::ids::{ClusterId, GroupId};

    pub(in crate::durable) fn example() -> NodeState {
        let members = [1, 2, 3].map(|node| FoundingMember {
            node: NodeId(node),
            replica: ReplicaId(1000 + u64::from(node.unsigned_abs())),
        });
        let founded = FoundedCluster { cluster: ClusterId::from_bytes([7; 16]), members: members.to_vec() };
        NodeState {
            node: NodeId(2),
            replica: ReplicaId(1002),
            incarnation: Incarnation(41),
            boot: Some(BootId([3; 16])),
            clean: false,
            written_in: WriteMode::ReplicationOnly,
            recovering: Recovering::Groups([GroupId(5), GroupId(9)].into()),
            founding: Founding::Founded(founded),
        }
    }

    #[test]
    fn a_state_survives_the_file() {
        let state = example();
        assert_eq!(NodeState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = example().encode();
        for length in 0..bytes.len() {
            assert!(matches!(NodeState::decode(&bytes[..length]), Err(DecodeStateError::Damaged(_))));
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(NodeState::decode(&damaged), Err(DecodeStateError::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = example().encode();
        bytes[8] = 9;
        let crc = checksum(9, (bytes.len() - HEADER_BYTES) as u32, &bytes[HEADER_BYTES..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(NodeState::decode(&bytes), Err(DecodeStateError::Version(9)));
    }
}
