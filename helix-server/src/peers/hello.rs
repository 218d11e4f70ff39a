//! Who a connection is from, what it is for, and whether it may come in. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frame::{self, FrameError, FrameKind};
use crate::ids::{ClusterId, Incarnation, NodeId, ReplicaId};

const MAGIC: [u8; 4] = *b"HLXP";
/// Raised whenever nodes of two versions would misunderstand each other.
const PROTOCOL_VERSION: u16 = 3;

/// The longest hello, and the longest answer to one.
pub const MAX_HELLO_BYTES: usize = 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Heartbeats, votes and everything else that must never wait for data.
    Control,
    /// Entries and the answers to them.
    Data,
    /// Large payloads, whose messages go over the data lane.
    Bulk,
}

/// A running node, as it presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub node: NodeId,
    /// Its disk.
    pub replica: ReplicaId,
    /// How often it has started on that disk.
    pub incarnation: Incarnation,
    /// The cluster that it belongs to; `None` while it belongs to none.
    pub cluster: Option<ClusterId>,
}

impl Identity {
    /// Whether both belong to the same cluster; only then anything but founding is talked about.
    #[must_use]
    pub fn shares_cluster_with(&self, other: &Self) -> bool {
        self.cluster.is_some() && self.cluster == other.cluster
    }
}

/// The first frame of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the connection is for.
    pub lane: Lane,
    /// Who dials.
    pub from: Identity,
    /// Whom it wants to reach.
    pub to: NodeId,
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloAnswer {
    /// Come in; this is who I am.
    Welcome(Identity),
    /// The connection is closed.
    Refused(Refusal),
}

/// Why a connection is not accepted. Both sides log it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The address leads elsewhere.
    #[error("node {asked} was expected there, but node {there} answers: check the addresses in --peers")]
    WrongNode {
        /// Who was asked for.
        asked: NodeId,
        /// Who is there.
        there: NodeId,
    },
    /// The dialling node is not in the list.
    #[error("node {node} is not in the --peers of node {there}: the list must be the same on every node")]
    UnknownNode {
        /// Who dials.
        node: NodeId,
        /// Who was asked.
        there: NodeId,
    },
    /// Two clusters.
    #[error(
        "node {there} belongs to cluster {theirs}, not to {asked}: check the addresses in --peers and --data-dir"
    )]
    WrongCluster {
        /// Who was asked.
        there: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// The cluster of the dialling node.
        asked: ClusterId,
    },
    /// Two nodes run on copies of one disk.
    #[error("both nodes run on copies of the same data directory: give one of them a blank --data-dir")]
    SameDisk,
    /// A connection of a process that has been replaced, or a disk that was set back to an earlier state.
    #[error(
        "start number {asked} of this data directory is older than number {known}, which has been here already: \
         if it was restored from a copy, start with a blank --data-dir instead"
    )]
    OldIncarnation {
        /// Of the dialling node.
        asked: u64,
        /// The newest one that was seen.
        known: u64,
    },
    /// The hello was of another version; whoever reads the answer sees that it is, too.
    #[error(
        "the nodes speak different versions of the protocol between nodes: run the same version on every node"
    )]
    OtherVersion,
    /// Entries are exchanged within a cluster only.
    #[error("not both nodes belong to a cluster yet")]
    NoCluster,
}

/// Decides about a hello. `listed` says whether the dialling node is in `--peers`, `known` is the newest
/// incarnation of its disk that was seen.
///
/// # Errors
/// With the reason, when the connection may not come in.
pub fn admit(me: &Identity, hello: &Hello, listed: bool, known: Option<Incarnation>) -> Result<(), Refusal> {
    let (from, there) = (&hello.from, me.node);
    if hello.to != me.node {
        return Err(Refusal::WrongNode { asked: hello.to, there });
    }
    if from.replica == me.replica {
        return Err(Refusal::SameDisk);
    }
    if !listed {
        return Err(Refusal::UnknownNode { node: from.node, there });
    }
    if let (Some(theirs), Some(asked)) = (me.cluster, from.cluster)
        && theirs != asked
    {
        return Err(Refusal::WrongCluster { there, theirs, asked });
    }
    if let Some(known) = known.filter(|known| *known > from.incarnation) {
        return Err(Refusal::OldIncarnation { asked: from.incarnation.get(), known: known.get() });
    }
    match hello.lane {
        Lane::Control => Ok(()),
        Lane::Data | Lane::Bulk if from.shares_cluster_with(me) => Ok(()),
        Lane::Data | Lane::Bulk => Err(Refusal::NoCluster),
    }
}

/// A hello, or an answer to one, that can't be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HelloError {
    /// Something else listens or dials there.
    #[error("the other side is no Helix node")]
    Foreign,
    /// It speaks another version.
    #[error(
        "the other side speaks version {0} of the protocol between nodes, this one {PROTOCOL_VERSION}: run the same version on every node"
    )]
    Version(u16),
}

/// The frame of a hello.
///
/// # Errors
/// Never in practice: a hello is short.
pub fn encode_hello(hello: &Hello) -> Result<Bytes, FrameError> {
    frame::encode(FrameKind::Hello, &encode(hello))
}

/// The frame of an answer.
///
/// # Errors
/// Never in practice: an answer is short.
pub fn encode_answer(answer: &HelloAnswer) -> Result<Bytes, FrameError> {
    frame::encode(FrameKind::HelloAnswer, &encode(answer))
}

/// Reads the meta of a hello frame.
///
/// # Errors
/// When it is none of this version.
pub fn decode_hello(meta: &[u8]) -> Result<Hello, HelloError> {
    decode(meta)
}

/// Reads the meta of an answer frame.
///
/// # Errors
/// When it is none of this version.
pub fn decode_answer(meta: &[u8]) -> Result<HelloAnswer, HelloError> {
    decode(meta)
}

fn encode<T: Serialize>(value: &T) -> BytesMut {
    let body = postcard::to_stdvec(value).expect("plain numbers and enums always encode");
    let mut meta = BytesMut::with_capacity(6 + body.len());
    meta.put_slice(&MAGIC);
    meta.put_u16_le(PROTOCOL_VERSION);
    meta.put_slice(&body);
    meta
}

fn decode<'a, T: Deserialize<'a>>(meta: &'a [u8]) -> Result<T, HelloError> {
    let (magic, rest) = meta.split_first_chunk().ok_or(HelloError::Foreign)?;
    let (version, body) = rest.split_first_chunk().ok_or(HelloError::Foreign)?;
    let version = u16::from_le_bytes(*version);
    if *magic != MAGIC {
        return Err(HelloError::Foreign);
    }
    if version != PROTOCOL_VERSION {
        return Err(HelloError::Version(version));
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(HelloError::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::{any, proptest};

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const OTHER: ClusterId = ClusterId::from_bytes([2; 16]);

    fn identity(node: i32, cluster: Option<ClusterId>) -> Identity {
        let replica = ReplicaId(u64::from(node.unsigned_abs()) * 100);
        Identity { node: NodeId(node), replica, incarnation: Incarnation(4), cluster }
    }

    fn hello(lane: Lane, cluster: Option<ClusterId>) -> Hello {
        Hello { lane, from: identity(2, cluster), to: NodeId(1) }
    }

    fn meta(frame: &[u8]) -> &[u8] {
        &frame[frame::FRAME_HEADER_BYTES..]
    }

    #[test]
    fn hellos_and_answers_are_read_as_they_were_written() {
        let hello = hello(Lane::Data, Some(CLUSTER));
        assert_eq!(decode_hello(meta(&encode_hello(&hello).unwrap())), Ok(hello));
        for answer in [HelloAnswer::Welcome(identity(1, None)), HelloAnswer::Refused(Refusal::SameDisk)] {
            let frame = encode_answer(&answer).unwrap();
            assert!(frame.len() < MAX_HELLO_BYTES);
            assert_eq!(decode_answer(meta(&frame)), Ok(answer));
        }
    }

    #[test]
    fn other_versions_and_other_programs_are_told_apart() {
        let mut bytes = meta(&encode_hello(&hello(Lane::Data, None)).unwrap()).to_vec();
        bytes[4] = 9;
        assert_eq!(decode_hello(&bytes), Err(HelloError::Version(9)));
        bytes[0] = b'G';
        assert_eq!(decode_hello(&bytes), Err(HelloError::Foreign));
    }

    #[test]
    fn nodes_of_one_cluster_come_in() {
        let me = identity(1, Some(CLUSTER));
        for lane in [Lane::Control, Lane::Data] {
            assert_eq!(admit(&me, &hello(lane, Some(CLUSTER)), true, Some(Incarnation(4))), Ok(()));
        }
    }

    #[test]
    fn a_blank_node_may_only_talk_about_founding() {
        for (mine, yours) in [(None, None), (Some(CLUSTER), None), (None, Some(CLUSTER))] {
            let me = identity(1, mine);
            assert_eq!(admit(&me, &hello(Lane::Control, yours), true, None), Ok(()));
            assert_eq!(admit(&me, &hello(Lane::Data, yours), true, None), Err(Refusal::NoCluster));
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let me = identity(1, Some(CLUSTER));
        let hello = hello(Lane::Control, Some(CLUSTER));
        let refusal =
            |hello: &Hello, listed, known| admit(&me, hello, listed, known).unwrap_err().to_string();

        let wrong_node = Hello { to: NodeId(3), ..hello };
        assert!(refusal(&wrong_node, true, None).contains("node 3 was expected there, but node 1 answers"));
        assert!(refusal(&hello, false, None).contains("not in the --peers of node 1"));
        let stranger = Hello { from: identity(2, Some(OTHER)), ..hello };
        assert!(refusal(&stranger, true, None).contains("belongs to cluster"));
        let copy = Hello { from: Identity { replica: me.replica, ..hello.from }, ..hello };
        assert!(refusal(&copy, true, None).contains("copies of the same data directory"));
        assert!(refusal(&hello, true, Some(Incarnation(5))).contains("start number 4"));
        let stranger = Identity { cluster: None, ..hello.from };
        for lane in [Lane::Data, Lane::Bulk] {
            let stranger = Hello { lane, from: stranger, ..hello };
            assert!(refusal(&stranger, true, None).contains("not both nodes belong to a cluster"));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_break_nothing(bytes in collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_hello(&bytes);
            let framed = [&MAGIC[..], &PROTOCOL_VERSION.to_le_bytes(), &bytes].concat();
            let _ = decode_hello(&framed);
            let _ = decode_answer(&framed);
        }
    }
}
