//! What nodes tell each other besides Raft messages of groups. Pure.

use bytes::Bytes;
use helix_raft::{Heartbeat, HeartbeatAnswer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frame::{self, FrameError, FrameKind};
use crate::founding::FoundingStatus;
use crate::ids::{GroupId, ReplicaId, Term};

/// A message on the control lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// How far the sender has come in founding a cluster. The only message between nodes that do not belong to the
    /// same cluster yet.
    Founding(FoundingStatus),
    /// I am here, and this is what I lead.
    Heartbeat(Heartbeat),
    /// I have heard your heartbeat.
    HeartbeatAnswer(HeartbeatAnswer),
    /// Who leads these groups now; of two statements about a group the higher term holds.
    Leaders(Vec<LeaderDelta>),
    /// A command that the receiver is to carry out for the sender.
    Request {
        /// Names the request in the reply; chosen by the sender.
        id: u64,
        /// The command, as the controller encodes it.
        command: Vec<u8>,
    },
    /// The outcome of a request.
    Reply {
        /// Of the request.
        id: u64,
        /// The outcome, as the controller encodes it.
        outcome: Vec<u8>,
    },
    /// A question to the leader of a group.
    Ask {
        /// Names the question in the answer; chosen by the sender.
        id: u64,
        /// The question, as the broker encodes it.
        question: Vec<u8>,
    },
    /// The answer to a question.
    Told {
        /// Of the question.
        id: u64,
        /// The answer, as the broker encodes it.
        answer: Vec<u8>,
    },
}

/// A statement about the leadership of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderDelta {
    /// The group.
    pub group: GroupId,
    /// In which term.
    pub term: Term,
    /// Who leads; `None` when it has just given up.
    pub leader: Option<ReplicaId>,
    /// The replicas that hold everything within `replica.lag.time.max.ms`.
    pub in_sync: Vec<ReplicaId>,
}

impl ControlMessage {
    /// Whether it may be exchanged with a node that does not belong to the same cluster.
    #[must_use]
    pub const fn is_founding(&self) -> bool {
        matches!(self, Self::Founding(_))
    }
}

/// A control message that can't be read. The connection is closed.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed control message: run the same version of Helix on every node")]
pub struct MalformedControl;

/// The frame of a message.
///
/// # Errors
/// When it is longer than 4 GiB.
pub fn encode(message: &ControlMessage) -> Result<Bytes, FrameError> {
    let meta = postcard::to_stdvec(message).expect("messages of numbers, lists and enums always encode");
    frame::encode(FrameKind::Control, &meta)
}

/// Reads the meta of a control frame.
///
/// # Errors
/// When it is no message of this version.
pub fn decode(meta: &[u8]) -> Result<ControlMessage, MalformedControl> {
    match postcard::take_from_bytes(meta) {
        Ok((message, [])) => Ok(message),
        _ => Err(MalformedControl),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let delta = LeaderDelta {
            group: GroupId(5),
            term: Term(8),
            leader: Some(ReplicaId(u64::MAX)),
            in_sync: vec![ReplicaId(1), ReplicaId(2)],
        };
        for message in [
            ControlMessage::Leaders(vec![delta]),
            ControlMessage::Request { id: 7, command: vec![1, 2, 3] },
            ControlMessage::Reply { id: 7, outcome: vec![] },
            ControlMessage::Ask { id: 8, question: vec![4] },
            ControlMessage::Told { id: 8, answer: vec![] },
        ] {
            let frame = encode(&message).unwrap();
            assert_eq!(decode(&frame[frame::FRAME_HEADER_BYTES..]), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_break_nothing(bytes in collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
