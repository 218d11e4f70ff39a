//! Records of the offsets topic, in Kafka's formats: keys of versions 1 (an offset) and 2 (a group), values of versions 1 and 3.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::offsets::{CommittedOffset, OffsetKey};
use crate::coordinator::LogRecord;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// With a time at which it expires, as clients before version 5 of OffsetCommit ask for.
const OFFSET_VALUE_EXPIRING: i16 = 1;
const OFFSET_VALUE: i16 = 3;
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
    match offset.expires_ms {
        Some(expires_ms) => {
            out.put_i16(OFFSET_VALUE_EXPIRING);
            out.put_i64(offset.offset);
            put_text(&mut out, &offset.metadata);
            out.put_i64(offset.committed_ms);
            out.put_i64(expires_ms);
        }
        None => {
            out.put_i16(OFFSET_VALUE);
            out.put_i64(offset.offset);
            out.put_i32(offset.leader_epoch);
            put_text(&mut out, &offset.metadata);
            out.put_i64(offset.committed_ms);
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
            Key::Offset(group, OffsetKey { topic, partition })
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
        OFFSET_VALUE => bytes.try_get_i32().map_err(short)?,
        OFFSET_VALUE_EXPIRING => -1,
        other => return Err(format!("a committed offset of version {other}")),
    };
    let metadata = text(&mut bytes)?;
    let committed_ms = bytes.try_get_i64().map_err(short)?;
    let expires_ms = match version {
        OFFSET_VALUE_EXPIRING => Some(bytes.try_get_i64().map_err(short)?),
        _ => None,
    };
    ended(bytes)?;
    Ok(CommittedOffset { offset, leader_epoch, metadata, committed_ms, expires_ms })
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
        (any::<i64>(), any::<i32>(), ".{0,20}", any::<i64>(), any::<Option<i64>>()).prop_map(
            |(offset, epoch, metadata, committed_ms, expires_ms)| CommittedOffset {
                offset,
                leader_epoch: if expires_ms.is_some() { -1 } else { epoch },
                metadata,
                committed_ms,
                expires_ms,
            },
        )
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
            let key = OffsetKey { topic, partition };
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
                prop_assert_eq!(encode_offset(&offset), &bytes[..]);
            }
            if let Ok(group) = group {
                prop_assert_eq!(encode_group(&group), &bytes[..]);
            }
        }
    }

    #[test]
    fn formats_are_those_of_kafka() {
        let key = OffsetKey { topic: "t".to_owned(), partition: 2 };
        let offset = CommittedOffset {
            offset: 5,
            leader_epoch: 1,
            metadata: "m".to_owned(),
            committed_ms: 7,
            expires_ms: None,
        };
        let record = offset_record("g", &key, Some(&offset));
        assert_eq!(record.key, &b"\0\x01\0\x01g\0\x01t\0\0\0\x02"[..]);
        let value = b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x01\0\x01m\0\0\0\0\0\0\0\x07";
        assert_eq!(record.value.unwrap(), &value[..]);
        assert_eq!(decode_key(b"\0\x09whatever"), Ok(Key::Unknown));
    }
}
