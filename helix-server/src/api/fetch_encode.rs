//! Encodes a fetch response around its records: the records themselves are never copied, they go to the socket as the
//! slices that they are.
//!
//! Layout: `FetchResponse.json` of Apache Kafka, versions 4 to 17. A test decodes it with the `kafka-protocol` crate.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::TopicName;
use uuid::Uuid;

use super::LeaderEndpoint;
use crate::broker::budget::Permit;
use crate::broker::fetch_sessions::Answered;
use crate::broker::leaders::CurrentLeader;
use crate::ids::NodeId;
use crate::partition::slices::Slice;

/// First version with compact lengths and tagged fields.
const FLEXIBLE_VERSION: i16 = 12;

/// A fetch response before encoding.
pub(super) struct FetchReply {
    pub(super) error_code: i16,
    /// 0 if the client has no session.
    pub(super) session_id: i32,
    pub(super) topics: Vec<FetchedTopic>,
    pub(super) endpoints: Vec<LeaderEndpoint>,
    /// Held until the response has left.
    pub(super) permit: Option<Permit>,
}

/// The partitions of one topic.
pub(super) struct FetchedTopic {
    pub(super) name: TopicName,
    pub(super) topic_id: Uuid,
    pub(super) partitions: Vec<FetchedPartition>,
}

/// What one partition answers.
pub(super) struct FetchedPartition {
    partition: i32,
    pub(super) error_code: i16,
    pub(super) high_watermark: i64,
    pub(super) log_start_offset: i64,
    pub(super) current_leader: Option<CurrentLeader>,
    read_committed: bool,
    /// The follower that the client should ask instead.
    pub(super) preferred_replica: Option<NodeId>,
    pub(super) records: Slice,
}

impl FetchReply {
    pub(super) fn failed(error_code: i16, session_id: i32) -> Self {
        Self { error_code, session_id, topics: Vec::new(), endpoints: Vec::new(), permit: None }
    }

    /// The encoded body, as chunks that follow each other.
    pub(super) fn encode(self, version: i16) -> (Vec<Bytes>, Option<Permit>) {
        let mut out =
            Writer { flexible: version >= FLEXIBLE_VERSION, buffer: BytesMut::new(), chunks: Vec::new() };
        out.buffer.put_i32(0); // throttle_time_ms
        if version >= 7 {
            out.buffer.put_i16(self.error_code);
            out.buffer.put_i32(self.session_id);
        }
        out.array_len(self.topics.len());
        for topic in self.topics {
            if version >= 13 {
                out.buffer.put_slice(topic.topic_id.as_bytes());
            } else {
                out.string(&topic.name);
            }
            out.array_len(topic.partitions.len());
            for partition in topic.partitions {
                out.partition(partition, version);
            }
            out.no_tags();
        }
        out.endpoints(&self.endpoints, version);
        (out.finish(), self.permit)
    }
}

impl FetchedPartition {
    pub(super) fn new(partition: i32, read_committed: bool) -> Self {
        Self {
            partition,
            error_code: 0,
            high_watermark: -1,
            log_start_offset: -1,
            current_leader: None,
            read_committed,
            preferred_replica: None,
            records: Slice::default(),
        }
    }

    /// What the client's session has to know of it.
    pub(super) fn answered(&self) -> Answered {
        Answered {
            high_watermark: self.high_watermark,
            log_start: self.log_start_offset,
            has_records: self.records.bytes > 0,
            failed: self.error_code != 0,
            redirected: self.preferred_replica.is_some(),
        }
    }
}

struct Writer {
    flexible: bool,
    buffer: BytesMut,
    chunks: Vec<Bytes>,
}

impl Writer {
    fn partition(&mut self, partition: FetchedPartition, version: i16) {
        self.buffer.put_i32(partition.partition);
        self.buffer.put_i16(partition.error_code);
        self.buffer.put_i64(partition.high_watermark);
        self.buffer.put_i64(partition.high_watermark); // last_stable_offset: there are no transactions
        if version >= 5 {
            self.buffer.put_i64(partition.log_start_offset);
        }
        // aborted_transactions: null unless asked for, else none
        match (partition.read_committed, self.flexible) {
            (true, _) => self.array_len(0),
            (false, true) => self.varint(0),
            (false, false) => self.buffer.put_i32(-1),
        }
        if version >= 11 {
            self.buffer.put_i32(partition.preferred_replica.map_or(-1, |node| node.0)); // preferred_read_replica
        }
        self.records(partition.records);
        if !self.flexible {
            return;
        }
        match partition.current_leader {
            None => self.varint(0),
            Some(leader) => {
                self.varint(1); // one tagged field
                self.varint(1); // current_leader
                self.varint(9); // its size: two numbers and no tags
                self.buffer.put_i32(leader.node.0);
                self.buffer.put_i32(leader.epoch);
                self.varint(0);
            }
        }
    }

    fn records(&mut self, records: Slice) {
        if self.flexible {
            self.varint(records.bytes as u32 + 1);
        } else {
            self.buffer.put_i32(records.bytes as i32);
        }
        if records.bytes > 0 {
            self.chunks.push(self.buffer.split().freeze());
            self.chunks.extend(records.chunks);
        }
    }

    fn endpoints(&mut self, endpoints: &[LeaderEndpoint], version: i16) {
        if version < 16 || endpoints.is_empty() {
            self.no_tags();
            return;
        }
        let mut field = Writer { flexible: true, buffer: BytesMut::new(), chunks: Vec::new() };
        field.array_len(endpoints.len());
        for endpoint in endpoints {
            field.buffer.put_i32(endpoint.node.0);
            field.string(&endpoint.host);
            field.buffer.put_i32(i32::from(endpoint.port));
            match &endpoint.rack {
                Some(rack) => field.string(rack),
                None => field.varint(0),
            }
            field.no_tags();
        }
        self.varint(1); // one tagged field
        self.varint(0); // node_endpoints
        self.varint(field.buffer.len() as u32);
        self.buffer.extend_from_slice(&field.buffer);
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            self.varint(text.len() as u32 + 1);
        } else {
            self.buffer.put_i16(text.len() as i16);
        }
        self.buffer.put_slice(text.as_bytes());
    }

    fn array_len(&mut self, len: usize) {
        if self.flexible {
            self.varint(len as u32 + 1);
        } else {
            self.buffer.put_i32(len as i32);
        }
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.varint(0);
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.freeze());
        }
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::FetchResponse;
    use kafka_protocol::protocol::{Decodable, StrBytes};

    #[test]
    fn every_version_is_what_the_protocol_crate_reads() {
        for version in 4..=17 {
            let mut full = FetchedPartition::new(3, true);
            full.high_watermark = 42;
            full.log_start_offset = 7;
            full.records = Slice {
                chunks: vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")],
                bytes: 5,
                cut: false,
            };
            let mut moved = FetchedPartition::new(4, false);
            moved.error_code = 6;
            moved.preferred_replica = Some(NodeId(5));
            moved.current_leader = Some(CurrentLeader { node: NodeId(2), epoch: 9 });
            let endpoint =
                LeaderEndpoint { node: NodeId(2), host: "h".into(), port: 9092, rack: Some("r".into()) };
            let topic_id = Uuid::from_u128(5);
            let reply = FetchReply {
                error_code: 0,
                session_id: 77,
                topics: vec![FetchedTopic {
                    name: TopicName(StrBytes::from_static_str("t")),
                    topic_id,
                    partitions: vec![full, moved],
                }],
                endpoints: vec![endpoint],
                permit: None,
            };
            let (chunks, _) = reply.encode(version);
            let mut bytes = Bytes::from(chunks.concat());
            let read = FetchResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "version {version}");
            assert_eq!(read.session_id, if version >= 7 { 77 } else { 0 });
            let topic = &read.responses[0];
            assert_eq!(topic.topic_id == topic_id, version >= 13);
            let (full, moved) = (&topic.partitions[0], &topic.partitions[1]);
            assert_eq!((full.partition_index, full.high_watermark, full.last_stable_offset), (3, 42, 42));
            assert_eq!(full.records.as_deref(), Some(&b"abcde"[..]));
            assert_eq!(full.aborted_transactions, Some(vec![]));
            assert_eq!(moved.error_code, 6);
            assert_eq!(full.preferred_read_replica.0, -1);
            assert_eq!(moved.preferred_read_replica.0, if version >= 11 { 5 } else { -1 });
            assert_eq!(moved.aborted_transactions, None);
            assert_eq!(moved.records.as_deref(), Some(&b""[..]));
            if version >= 12 {
                assert_eq!((moved.current_leader.leader_id.0, moved.current_leader.leader_epoch), (2, 9));
            }
            assert_eq!(read.node_endpoints.len(), usize::from(version >= 16));
        }
    }
}
