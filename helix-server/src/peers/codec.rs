//! Messages of the Raft core as bytes. Pure.
//!
//! A message becomes the meta of one frame; the payloads of its entries follow as they are. Reading trusts no length:
//! nothing is allocated for more than what is there.

use bytes::{BufMut, Bytes, BytesMut};
use helix_raft::{
    Append, AppendAnswer, AppendResult, Body, Durability, Entry, GroupId, Incarnation, Index, Membership,
    Message, MessageBody, ReplicaId, Start, Term,
};
use helix_wal::{Offset, Payload};
use thiserror::Error;

use crate::entry::{Command, EntryTag, decode_membership, encode_membership};

/// Bytes that are no message. The connection is closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends too early.
    #[error("a message is shorter than its contents")]
    Short,
    /// Something follows it.
    #[error("a message is longer than its contents")]
    Long,
    /// A number that stands for nothing.
    #[error("a message has an unknown {what} ({number})")]
    Unknown {
        /// What the number should be.
        what: &'static str,
        /// The number.
        number: u8,
    },
    /// A membership that can't be read.
    #[error("a message has a malformed membership")]
    Membership,
    /// A payload was changed on the way.
    #[error("the checksum of a payload is wrong: the network or the memory of a machine corrupts data")]
    Payload,
}

const PRE_VOTE: u8 = 1;
const PRE_VOTE_ANSWER: u8 = 2;
const VOTE: u8 = 3;
const VOTE_ANSWER: u8 = 4;
const APPEND: u8 = 5;
const APPEND_ANSWER: u8 = 6;
const HEARTBEAT: u8 = 7;
const TIMEOUT_NOW: u8 = 8;
const INSTALL_START: u8 = 9;
const INSTALL_START_ANSWER: u8 = 10;

const MATCHED: u8 = 1;
const MISMATCH: u8 = 2;
const OLD_TERM: u8 = 3;

/// The least that an entry takes in the meta: index, term, previous term, tag.
const MIN_ENTRY_BYTES: usize = 3 * 8 + 1;

/// Appends the meta of a message to `meta` and its payloads to `payloads`.
pub fn encode(message: &Message<Command>, meta: &mut BytesMut, payloads: &mut Vec<Bytes>) {
    meta.put_u64_le(message.group.get());
    meta.put_u64_le(message.from.get());
    meta.put_u64_le(message.to.get());
    meta.put_u64_le(message.from_incarnation.get());
    meta.put_u64_le(message.to_incarnation.get());
    meta.put_u64_le(message.term.get());
    match &message.body {
        MessageBody::PreVote { last_index, last_term, unclean } => {
            put_position(meta, PRE_VOTE, *last_index, *last_term);
            meta.put_u8(u8::from(*unclean));
        }
        MessageBody::Vote { last_index, last_term, unclean } => {
            put_position(meta, VOTE, *last_index, *last_term);
            meta.put_u8(u8::from(*unclean));
        }
        MessageBody::PreVoteAnswer { granted, recovering } => {
            meta.put_slice(&[PRE_VOTE_ANSWER, u8::from(*granted), u8::from(*recovering)]);
        }
        MessageBody::VoteAnswer { granted, recovering } => {
            meta.put_slice(&[VOTE_ANSWER, u8::from(*granted), u8::from(*recovering)]);
        }
        MessageBody::Append(append) => put_append(meta, append, payloads),
        MessageBody::AppendAnswer(answer) => put_append_answer(meta, answer),
        MessageBody::Heartbeat { commit, seq } => {
            put_index(meta, HEARTBEAT, *commit);
            meta.put_u64_le(*seq);
        }
        MessageBody::TimeoutNow => meta.put_u8(TIMEOUT_NOW),
        MessageBody::InstallStart { start } => {
            put_position(meta, INSTALL_START, start.index, start.term);
            put_membership(meta, &start.membership);
            put_command(meta, &start.payload, payloads);
        }
        MessageBody::InstallStartAnswer { index } => put_index(meta, INSTALL_START_ANSWER, *index),
    }
}

/// The payloads of an append, in the order in which they follow its meta.
pub fn payloads(message: &Message<Command>) -> impl Iterator<Item = &Bytes> {
    let entries = match &message.body {
        MessageBody::Append(append) => &append.entries[..],
        _ => &[],
    };
    let commands = entries.iter().filter_map(|entry| match &entry.body {
        Body::Data(command) => Some(command),
        Body::NoOp | Body::Membership(_) => None,
    });
    commands.flat_map(chunks)
}

fn chunks(command: &Command) -> impl Iterator<Item = &Bytes> {
    command.payload.chunks().iter().filter(|chunk| !chunk.is_empty())
}

/// The group that a message is about, read from its meta.
///
/// # Errors
/// When it is too short.
pub fn group_of(meta: &[u8]) -> Result<GroupId, DecodeError> {
    let bytes = meta.first_chunk().ok_or(DecodeError::Short)?;
    Ok(GroupId(u64::from_le_bytes(*bytes)))
}

fn put_index(meta: &mut BytesMut, kind: u8, index: Index) {
    meta.put_u8(kind);
    meta.put_u64_le(index.get());
}

fn put_position(meta: &mut BytesMut, kind: u8, index: Index, term: Term) {
    put_index(meta, kind, index);
    meta.put_u64_le(term.get());
}

fn put_append(meta: &mut BytesMut, append: &Append<Command>, payloads: &mut Vec<Bytes>) {
    put_position(meta, APPEND, append.prev_index, append.prev_term);
    meta.put_u64_le(append.commit.get());
    meta.put_u8(match append.required {
        Durability::PageCache => 0,
        Durability::Synced => 1,
    });
    meta.put_u8(u8::from(append.sound_through.is_some()));
    meta.put_u64_le(append.sound_through.map_or(0, Index::get));
    meta.put_u64_le(append.seq);
    let count = u32::try_from(append.entries.len()).expect("an append carries fewer than 2^32 entries");
    meta.put_u32_le(count);
    for entry in &append.entries {
        put_entry(meta, entry, payloads);
    }
}

fn put_entry(meta: &mut BytesMut, entry: &Entry<Command>, payloads: &mut Vec<Bytes>) {
    meta.put_u64_le(entry.index.get());
    meta.put_u64_le(entry.term.get());
    meta.put_u64_le(entry.prev_term.get());
    match &entry.body {
        Body::NoOp => meta.put_u8(EntryTag::NoOp.as_u8()),
        Body::Membership(membership) => {
            meta.put_u8(EntryTag::Membership.as_u8());
            put_membership(meta, membership);
        }
        Body::Data(command) => put_command(meta, command, payloads),
    }
}

fn put_command(meta: &mut BytesMut, command: &Command, payloads: &mut Vec<Bytes>) {
    debug_assert!(command.tag.is_command());
    meta.put_u8(command.tag.as_u8());
    meta.put_u64_le(command.base_offset.get());
    meta.put_u32_le(command.offset_count);
    meta.put_i64_le(command.max_timestamp_ms);
    let length = u32::try_from(command.payload.len()).expect("the batcher makes no entries of 4 GiB");
    meta.put_u32_le(length);
    meta.put_u32_le(command.payload.crc32());
    payloads.extend(chunks(command).cloned());
}

fn put_membership(meta: &mut BytesMut, membership: &Membership) {
    let bytes = encode_membership(membership);
    meta.put_u32_le(bytes.len() as u32);
    meta.put_slice(&bytes);
}

fn put_append_answer(meta: &mut BytesMut, answer: &AppendAnswer) {
    meta.put_slice(&[APPEND_ANSWER, u8::from(answer.recovering)]);
    meta.put_u64_le(answer.seq);
    match answer.result {
        AppendResult::Matched { stored, synced, received, commit } => {
            put_index(meta, MATCHED, stored);
            meta.put_u64_le(synced.get());
            meta.put_u64_le(received.get());
            meta.put_u64_le(commit.get());
        }
        AppendResult::Mismatch { prev_index, hint_index, hint_term } => {
            put_index(meta, MISMATCH, prev_index);
            meta.put_u64_le(hint_index.get());
            meta.put_u64_le(hint_term.get());
        }
        AppendResult::OldTerm => meta.put_u8(OLD_TERM),
    }
}

/// Reads what [`encode`] wrote. The payloads of the message are slices of `payloads`, and their checksums are right.
///
/// # Errors
/// When it is nothing that [`encode`] could have written.
pub fn decode(meta: &[u8], payloads: Bytes) -> Result<Message<Command>, DecodeError> {
    let mut reader = Reader { meta, payloads };
    let message = Message {
        group: GroupId(reader.u64()?),
        from: ReplicaId(reader.u64()?),
        to: ReplicaId(reader.u64()?),
        from_incarnation: Incarnation(reader.u64()?),
        to_incarnation: Incarnation(reader.u64()?),
        term: Term(reader.u64()?),
        body: reader.body()?,
    };
    if reader.meta.is_empty() && reader.payloads.is_empty() { Ok(message) } else { Err(DecodeError::Long) }
}

struct Reader<'a> {
    meta: &'a [u8],
    payloads: Bytes,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.meta.split_first_chunk().ok_or(DecodeError::Short)?;
        self.meta = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn index(&mut self) -> Result<Index, DecodeError> {
        self.u64().map(Index)
    }

    fn term(&mut self) -> Result<Term, DecodeError> {
        self.u64().map(Term)
    }

    fn boolean(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            number => Err(DecodeError::Unknown { what, number }),
        }
    }

    fn body(&mut self) -> Result<MessageBody<Command>, DecodeError> {
        Ok(match self.u8()? {
            PRE_VOTE => MessageBody::PreVote {
                last_index: self.index()?,
                last_term: self.term()?,
                unclean: self.boolean("flag")?,
            },
            PRE_VOTE_ANSWER => MessageBody::PreVoteAnswer {
                granted: self.boolean("answer")?,
                recovering: self.boolean("flag")?,
            },
            VOTE => MessageBody::Vote {
                last_index: self.index()?,
                last_term: self.term()?,
                unclean: self.boolean("flag")?,
            },
            VOTE_ANSWER => MessageBody::VoteAnswer {
                granted: self.boolean("answer")?,
                recovering: self.boolean("flag")?,
            },
            APPEND => MessageBody::Append(self.append()?),
            APPEND_ANSWER => MessageBody::AppendAnswer(self.append_answer()?),
            HEARTBEAT => MessageBody::Heartbeat { commit: self.index()?, seq: self.u64()? },
            TIMEOUT_NOW => MessageBody::TimeoutNow,
            INSTALL_START => {
                let (index, term) = (self.index()?, self.term()?);
                let membership = self.membership()?;
                let tag = self.u8()?;
                let payload = self.command(tag)?;
                MessageBody::InstallStart { start: Start { index, term, membership, payload } }
            }
            INSTALL_START_ANSWER => MessageBody::InstallStartAnswer { index: self.index()? },
            number => return Err(DecodeError::Unknown { what: "kind of message", number }),
        })
    }

    fn append(&mut self) -> Result<Append<Command>, DecodeError> {
        let (prev_index, prev_term, commit) = (self.index()?, self.term()?, self.index()?);
        let required = if self.boolean("durability")? { Durability::Synced } else { Durability::PageCache };
        let limited = self.boolean("flag")?;
        let sound_through = match (limited, self.index()?) {
            (true, index) => Some(index),
            (false, Index(0)) => None,
            (false, _) => return Err(DecodeError::Long),
        };
        let seq = self.u64()?;
        let count = self.u32()? as usize;
        if count > self.meta.len() / MIN_ENTRY_BYTES {
            return Err(DecodeError::Short);
        }
        let entries = (0..count).map(|_| self.entry()).collect::<Result<_, _>>()?;
        Ok(Append { prev_index, prev_term, entries, commit, required, sound_through, seq })
    }

    fn entry(&mut self) -> Result<Entry<Command>, DecodeError> {
        let (index, term, prev_term) = (self.index()?, self.term()?, self.term()?);
        let tag = self.u8()?;
        let body = if tag == EntryTag::NoOp.as_u8() {
            Body::NoOp
        } else if tag == EntryTag::Membership.as_u8() {
            Body::Membership(self.membership()?)
        } else {
            Body::Data(self.command(tag)?)
        };
        Ok(Entry { index, term, prev_term, body })
    }

    fn command(&mut self, number: u8) -> Result<Command, DecodeError> {
        let tag = EntryTag::from_u8(number).filter(|tag| tag.is_command());
        let tag = tag.ok_or(DecodeError::Unknown { what: "entry tag", number })?;
        let (base_offset, offset_count) = (Offset(self.u64()?), self.u32()?);
        let max_timestamp_ms = self.array().map(i64::from_le_bytes)?;
        let (length, crc32) = (self.u32()? as usize, self.u32()?);
        if length > self.payloads.len() {
            return Err(DecodeError::Short);
        }
        let bytes = self.payloads.split_to(length);
        if crc32fast::hash(&bytes) != crc32 {
            return Err(DecodeError::Payload);
        }
        let chunks = if bytes.is_empty() { vec![] } else { vec![bytes] };
        let payload = Payload::from_parts_verified(chunks, crc32);
        Ok(Command { tag, base_offset, offset_count, max_timestamp_ms, payload })
    }

    fn membership(&mut self) -> Result<Membership, DecodeError> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.meta.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.meta = rest;
        decode_membership(bytes).map_err(|_| DecodeError::Membership)
    }

    fn append_answer(&mut self) -> Result<AppendAnswer, DecodeError> {
        let recovering = self.boolean("flag")?;
        let seq = self.u64()?;
        let result = match self.u8()? {
            MATCHED => AppendResult::Matched {
                stored: self.index()?,
                synced: self.index()?,
                received: self.index()?,
                commit: self.index()?,
            },
            MISMATCH => AppendResult::Mismatch {
                prev_index: self.index()?,
                hint_index: self.index()?,
                hint_term: self.term()?,
            },
            OLD_TERM => AppendResult::OldTerm,
            number => return Err(DecodeError::Unknown { what: "append result", number }),
        };
        Ok(AppendAnswer { result, recovering, seq })
    }
}

pub mod repair;
#[cfg(test)]
mod tests;
