//! Records of the offsets topic, in Kafka's formats: keys of versions 1 (an offset) and 2 (a group), values of versions 1, 3 and 4.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use helix_raft::GroupId;

use super::offsets::{CommittedOffset, OffsetKey};
use crate::coordinator::LogRecord;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// With a time at which it expires, as clients before version 5 of OffsetCommit ask for.
const OFFSET_VALUE_EXPIRING: i16 = 1;
const OFFSET_VALUE: i16 = 3;
/// With tagged fields.
const OFFSET_VALUE_TAGGED: i16 = 4;
/// The Raft group of the partition, in 8 bytes. Not a field of Kafka's, which passes over those that it does not know.
const INCARNATION_TAG: u32 = 10_000;
const GROUP_VALUE: i16 = 3;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A committed offset of a group.
    Offset(String, OffsetKey),
    /// A group and its members.
    Group(String),
    /// Something of a later release, which is left alone.
    Unknown,
}

/// A group as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredGroup {
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// When its state last changed.
    pub(super) since_ms: i64,
    pub(super) members: Vec<StoredMember>,
}

/// A member as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredMember {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) subscription: Bytes,
    pub(super) assignment: Bytes,
}

pub(super) fn offset_record(group: &str, key: &OffsetKey, value: Option<&CommittedOffset>) -> LogRecord {
    let mut out = BytesMut::new();
    out.put_i16(OFFSET_KEY);
    put_text(&mut out, group);
    put_text(&mut out, &key.topic);
    out.put_i32(key.partition);
    LogRecord { key: out.freeze(), value: value.map(encode_offset) }
}

pub(super) fn group_record(group: &str, value: Option<&StoredGroup>) -> LogRecord {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_KEY);
    put_text(&mut out, group);
    LogRecord { key: out.freeze(), value: value.map(encode_group) }
}

fn encode_offset(offset: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::new();
    match (offset.expires_ms, offset.incarnation) {
        (Some(expires_ms), _) => {
            out.put_i16(OFFSET_VALUE_EXPIRING);
            out.put_i64(offset.offset);
            put_text(&mut out, &offset.metadata);
            out.put_i64(offset.committed_ms);
            out.put_i64(expires_ms);
        }
        (None, None) => {
            out.put_i16(OFFSET_VALUE);
            out.put_i64(offset.offset);
            out.put_i32(offset.leader_epoch);
            put_text(&mut out, &offset.metadata);
            out.put_i64(offset.committed_ms);
        }
        (None, Some(incarnation)) => {
            out.put_i16(OFFSET_VALUE_TAGGED);
            out.put_i64(offset.offset);
            out.put_i32(offset.leader_epoch);
            put_compact_text(&mut out, &offset.metadata);
            out.put_i64(offset.committed_ms);
            put_varint(&mut out, 1);
            put_varint(&mut out, INCARNATION_TAG);
            put_varint(&mut out, 8);
            out.put_u64(incarnation.0);
        }
    }
    out.freeze()
}

fn encode_group(group: &StoredGroup) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_VALUE);
    put_text(&mut out, &group.protocol_type);
    out.put_i32(group.generation);
    put_optional(&mut out, group.protocol.as_deref());
    put_optional(&mut out, group.leader.as_deref());
    out.put_i64(group.since_ms);
    out.put_i32(i32::try_from(group.members.len()).expect("members fit into memory"));
    for member in &group.members {
        put_text(&mut out, &member.id);
        put_optional(&mut out, member.instance_id.as_deref());
        put_text(&mut out, &member.client_id);
        put_text(&mut out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_blob(&mut out, &member.subscription);
        put_blob(&mut out, &member.assignment);
    }
    out.freeze()
}

/// Whether a text is one that records can hold: their lengths have 16 bits.
pub(super) fn fits(text: &str) -> bool {
    i16::try_from(text.len()).is_ok()
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("texts that are stored were checked with `fits`"));
    out.put_slice(text.as_bytes());
}

fn put_optional(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_i16(-1),
    }
}

/// A text of a flexible version: its length, plus one, is a varint.
fn put_compact_text(out: &mut BytesMut, text: &str) {
    put_varint(out, u32::try_from(text.len() + 1).expect("texts that are stored were checked with `fits`"));
    out.put_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first; all but the last have the highest bit set.
fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_blob(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).expect("a request is smaller"));
    out.put_slice(bytes);
}

/// Reads a key.
///
/// # Errors
/// When it is of a known version, and nothing that could have been written.
pub(super) fn decode_key(mut bytes: &[u8]) -> Result<Key, String> {
    let key = match bytes.try_get_i16().map_err(short)? {
        0 | OFFSET_KEY => {
            let group = text(&mut bytes)?;
            let topic = text(&mut bytes)?;
            let partition = bytes.try_get_i32().map_err(short)?;
            Key::Offset(group, OffsetKey { topic: topic.into(), partition })
        }
        GROUP_KEY => Key::Group(text(&mut bytes)?),
        _ => return Ok(Key::Unknown),
    };
    ended(bytes)?;
    Ok(key)
}

/// Reads a committed offset.
///
/// # Errors
/// When it is nothing that could have been written.
pub(super) fn decode_offset(mut bytes: &[u8]) -> Result<CommittedOffset, String> {
    let version = bytes.try_get_i16().map_err(short)?;
    let offset = bytes.try_get_i64().map_err(short)?;
    let leader_epoch = match version {
        OFFSET_VALUE | OFFSET_VALUE_TAGGED => bytes.try_get_i32().map_err(short)?,
        OFFSET_VALUE_EXPIRING => -1,
        other => return Err(format!("a committed offset of version {other}")),
    };
    let metadata = match version {
        OFFSET_VALUE_TAGGED => compact_text(&mut bytes)?,
        _ => text(&mut bytes)?,
    };
    let committed_ms = bytes.try_get_i64().map_err(short)?;
    let expires_ms = match version {
        OFFSET_VALUE_EXPIRING => Some(bytes.try_get_i64().map_err(short)?),
        _ => None,
    };
    let incarnation = match version {
        OFFSET_VALUE_TAGGED => incarnation(&mut bytes)?,
        _ => None,
    };
    ended(bytes)?;
    Ok(CommittedOffset { offset, leader_epoch, metadata, committed_ms, expires_ms, incarnation })
}

/// Reads a group.
///
/// # Errors
/// When it is nothing that could have been written.
pub(super) fn decode_group(mut bytes: &[u8]) -> Result<StoredGroup, String> {
    let version = bytes.try_get_i16().map_err(short)?;
    if version != GROUP_VALUE {
        return Err(format!("a group of version {version}"));
    }
    let mut group = StoredGroup {
        protocol_type: text(&mut bytes)?,
        generation: bytes.try_get_i32().map_err(short)?,
        protocol: optional(&mut bytes)?,
        leader: optional(&mut bytes)?,
        since_ms: bytes.try_get_i64().map_err(short)?,
        members: Vec::new(),
    };
    for _ in 0..bytes.try_get_i32().map_err(short)? {
        group.members.push(StoredMember {
            id: text(&mut bytes)?,
            instance_id: optional(&mut bytes)?,
            client_id: text(&mut bytes)?,
            client_host: text(&mut bytes)?,
            rebalance_timeout_ms: bytes.try_get_i32().map_err(short)?,
            session_timeout_ms: bytes.try_get_i32().map_err(short)?,
            subscription: blob(&mut bytes)?,
            assignment: blob(&mut bytes)?,
        });
    }
    ended(bytes)?;
    Ok(group)
}

fn short(_: bytes::TryGetError) -> String {
    "it ends too early".to_owned()
}

fn ended(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", bytes.len())) }
}

fn optional(bytes: &mut &[u8]) -> Result<Option<String>, String> {
    let len = bytes.try_get_i16().map_err(short)?;
    if len == -1 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|error| error.to_string())?;
    let taken = take(bytes, len)?;
    String::from_utf8(taken.to_vec()).map(Some).map_err(|error| error.to_string())
}

fn text(bytes: &mut &[u8]) -> Result<String, String> {
    optional(bytes)?.ok_or_else(|| "a text is missing".to_owned())
}

fn compact_text(bytes: &mut &[u8]) -> Result<String, String> {
    let len = varint(bytes)?.checked_sub(1).ok_or_else(|| "a text is missing".to_owned())?;
    let taken = take(bytes, len as usize)?;
    String::from_utf8(taken.to_vec()).map_err(|error| error.to_string())
}

/// The incarnation among tagged fields; others are passed over.
fn incarnation(bytes: &mut &[u8]) -> Result<Option<GroupId>, String> {
    let mut found = None;
    for _ in 0..varint(bytes)? {
        let tag = varint(bytes)?;
        let len = varint(bytes)?;
        let mut value = take(bytes, len as usize)?;
        if tag == INCARNATION_TAG {
            found = Some(GroupId(value.try_get_u64().map_err(short)?));
            ended(value)?;
        }
    }
    Ok(found)
}

fn varint(bytes: &mut &[u8]) -> Result<u32, String> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let byte = bytes.try_get_u8().map_err(short)?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

fn blob(bytes: &mut &[u8]) -> Result<Bytes, String> {
    let len = usize::try_from(bytes.try_get_i32().map_err(short)?).map_err(|error| error.to_string())?;
    Ok(Bytes::copy_from_slice(take(bytes, len)?))
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or_else(|| "it ends too early".to_owned())?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offsets() -> impl Strategy<Value = CommittedOffset> {
        (any::<i64>(), any::<i32>(), ".{0,20}", any::<i64>(), any::<Option<i64>>(), any::<Option<u64>>())
            .prop_map(|(offset, epoch, metadata, committed_ms, expires_ms, incarnation)| CommittedOffset {
                offset,
                leader_epoch: if expires_ms.is_some() { -1 } else { epoch },
                metadata,
                committed_ms,
                expires_ms,
                incarnation: incarnation.filter(|_| expires_ms.is_none()).map(GroupId),
            })
    }

    fn members() -> impl Strategy<Value = StoredMember> {
        (".{0,9}", any::<Option<String>>(), any::<i32>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(
            |(id, instance_id, timeout_ms, bytes)| StoredMember {
                client_id: format!("client of {id}"),
                client_host: "/127.0.0.1".to_owned(),
                id,
                instance_id,
                rebalance_timeout_ms: timeout_ms,
                session_timeout_ms: timeout_ms.wrapping_add(1),
                subscription: bytes.clone().into(),
                assignment: bytes.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn offsets_come_back(group in ".{0,9}", topic in ".{0,9}", partition in any::<i32>(), offset in offsets()) {
            let key = OffsetKey { topic: topic.into(), partition };
            let record = offset_record(&group, &key, Some(&offset));
            prop_assert_eq!(decode_key(&record.key), Ok(Key::Offset(group, key)));
            prop_assert_eq!(decode_offset(&record.value.unwrap()), Ok(offset));
        }

        #[test]
        fn groups_come_back(
            name in ".{0,9}",
            protocol in any::<Option<String>>(),
            generation in any::<i32>(),
            members in prop::collection::vec(members(), 0..4),
        ) {
            let leader = members.first().map(|member| member.id.clone());
            let protocol_type = "consumer".to_owned();
            let group = StoredGroup { protocol_type, generation, protocol, leader, since_ms: 5, members };
            let record = group_record(&name, Some(&group));
            prop_assert_eq!(decode_key(&record.key), Ok(Key::Group(name)));
            prop_assert_eq!(decode_group(&record.value.unwrap()), Ok(group));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let (key, offset, group) = (decode_key(&bytes), decode_offset(&bytes), decode_group(&bytes));
            // They are all of the length of what they say.
            if let Ok(Key::Group(name)) = key {
                prop_assert_eq!(group_record(&name, None).key, &bytes[..]);
            }
            if let Ok(offset) = offset {
                // But for tagged fields that are not known.
                prop_assert_eq!(decode_offset(&encode_offset(&offset)), Ok(offset));
            }
            if let Ok(group) = group {
                prop_assert_eq!(encode_group(&group), &bytes[..]);
            }
        }
    }

    #[test]
    fn formats_are_those_of_kafka() {
        let key = OffsetKey { topic: "t".into(), partition: 2 };
        let offset = CommittedOffset {
            offset: 5,
            leader_epoch: 1,
            metadata: "m".to_owned(),
            committed_ms: 7,
            expires_ms: None,
            incarnation: None,
        };
        let record = offset_record("g", &key, Some(&offset));
        assert_eq!(record.key, &b"\0\x01\0\x01g\0\x01t\0\0\0\x02"[..]);
        let value = b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x01\0\x01m\0\0\0\0\0\0\0\x07";
        assert_eq!(record.value.unwrap(), &value[..]);
        assert_eq!(decode_key(b"\0\x09whatever"), Ok(Key::Unknown));
        let tagged = CommittedOffset { incarnation: Some(GroupId(6)), ..offset };
        let value =
            b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x01\x02m\0\0\0\0\0\0\0\x07\x01\x90\x4e\x08\0\0\0\0\0\0\0\x06";
        assert_eq!(encode_offset(&tagged), &value[..]);
        // As Kafka writes it, with the id of the topic.
        let mut kafka = b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x01\x02m\0\0\0\0\0\0\0\x07\x01\0\x10".to_vec();
        kafka.extend([7; 16]);
        assert_eq!(decode_offset(&kafka), Ok(CommittedOffset { incarnation: None, ..tagged }));
    }
}
