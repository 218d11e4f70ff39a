//! What nodes say to each other about damaged entries, as bytes: who has these, and here they are. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use helix_raft::{Entry, GroupId, Index};
use helix_wal::Offset;

use super::{DecodeError, MIN_ENTRY_BYTES, Reader, put_entry};
use crate::entry::Command;
use crate::peers::frame::{self, FRAME_HEADER_BYTES, FrameError, FrameKind};

/// A question or an answer about entries that are damaged on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairMessage {
    /// Send me these entries, if you have them: as many as you like, from the first on.
    Ask {
        /// Which question this is, to whoever asks.
        id: u64,
        /// The group.
        group: GroupId,
        /// The first entry.
        first: Index,
        /// The last one.
        last: Index,
    },
    /// They are in here, or the first of them, or none.
    Answer {
        /// Which question it answers.
        id: u64,
        /// Consecutive entries, each with the offset at which it begins: not every entry says that itself.
        entries: Vec<(Offset, Entry<Command>)>,
    },
}

const ASK: u8 = 1;
const ANSWER: u8 = 2;

/// The frame of a message.
///
/// # Errors
/// When it would not fit into 4 GiB.
pub fn encode(message: &RepairMessage) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::new();
    frame.put_bytes(0, FRAME_HEADER_BYTES);
    let mut payloads = Vec::new();
    match message {
        RepairMessage::Ask { id, group, first, last } => {
            frame.put_u8(ASK);
            for number in [*id, group.get(), first.get(), last.get()] {
                frame.put_u64_le(number);
            }
        }
        RepairMessage::Answer { id, entries } => {
            frame.put_u8(ANSWER);
            frame.put_u64_le(*id);
            frame.put_u32_le(u32::try_from(entries.len()).expect("an answer has fewer than 2^32 entries"));
            for (base_offset, entry) in entries {
                frame.put_u64_le(base_offset.get());
                put_entry(&mut frame, entry, &mut payloads);
            }
        }
    }
    frame::finish(&mut frame, 0, FrameKind::Repair, payloads.iter().map(Bytes::len).sum())?;
    payloads.iter().for_each(|payload| frame.extend_from_slice(payload));
    Ok(frame.freeze())
}

/// Reads the meta and the payloads of such a frame.
///
/// # Errors
/// When it is nothing that [`encode`] could have written.
pub fn decode(meta: &[u8], payloads: Bytes) -> Result<RepairMessage, DecodeError> {
    let mut reader = Reader { meta, payloads };
    let message = match reader.u8()? {
        ASK => RepairMessage::Ask {
            id: reader.u64()?,
            group: GroupId(reader.u64()?),
            first: reader.index()?,
            last: reader.index()?,
        },
        ANSWER => {
            let (id, count) = (reader.u64()?, reader.u32()? as usize);
            if count > reader.meta.len() / (8 + MIN_ENTRY_BYTES) {
                return Err(DecodeError::Short);
            }
            let mut entry = || Ok((Offset(reader.u64()?), reader.entry()?));
            RepairMessage::Answer { id, entries: (0..count).map(|_| entry()).collect::<Result<_, _>>()? }
        }
        number => return Err(DecodeError::Unknown { what: "kind of repair message", number }),
    };
    if reader.meta.is_empty() && reader.payloads.is_empty() { Ok(message) } else { Err(DecodeError::Long) }
}
