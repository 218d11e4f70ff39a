//! Reads a produce request without its records: which partitions it names, so that each can be refused.
//!
//! Used when the broker has no memory for the request itself. Names and numbers are kept, records are read and forgotten.

use std::io;

use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use tokio::io::AsyncRead;
use uuid::Uuid;

use super::reader::FrameReader;

/// First version of Produce with compact lengths.
const FLEXIBLE_VERSION: i16 = 9;
/// First version of Produce that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// More partitions than this in a request that is to be refused close the connection: the list itself takes memory.
const MAX_PARTITIONS: usize = 10_000;

/// The topics and partitions of a request.
pub type Skeleton = Vec<(TopicName, Uuid, Vec<i32>)>;

/// What is left of a frame, read field by field.
struct Fields<'a, R> {
    reader: &'a mut FrameReader<R>,
    left: usize,
    flexible: bool,
}

/// Reads the `body_bytes` of a produce request of the given version.
///
/// # Errors
/// When the socket fails or the bytes are no produce request.
pub async fn read<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    body_bytes: usize,
    version: i16,
) -> io::Result<Skeleton> {
    let mut fields = Fields { reader, left: body_bytes, flexible: version >= FLEXIBLE_VERSION };
    let transactional_id = fields.short_length().await?;
    fields.skip(transactional_id).await?;
    fields.skip(2 + 4).await?; // acks, timeout_ms
    let topic_count = fields.array_length().await?;
    let mut topics = Vec::new();
    let mut partition_count = 0;
    for _ in 0..topic_count {
        let (name, topic_id) = if version >= TOPIC_ID_VERSION {
            (TopicName::default(), Uuid::from_bytes(fields.fixed().await?))
        } else {
            let length = fields.short_length().await?;
            (TopicName(fields.text(length).await?), Uuid::nil())
        };
        let mut partitions = Vec::new();
        for _ in 0..fields.array_length().await? {
            partition_count += 1;
            if partition_count > MAX_PARTITIONS {
                return Err(malformed());
            }
            partitions.push(i32::from_be_bytes(fields.fixed().await?));
            let records = fields.long_length().await?;
            fields.skip(records).await?;
            fields.tags().await?;
        }
        fields.tags().await?;
        topics.push((name, topic_id, partitions));
    }
    fields.tags().await?;
    if fields.left == 0 { Ok(topics) } else { Err(malformed()) }
}

impl<R: AsyncRead + Unpin> Fields<'_, R> {
    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(malformed)?;
        Ok(())
    }

    async fn fixed<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.spend(N)?;
        self.reader.fill_frame(N).await?;
        let mut out = [0; N];
        out.copy_from_slice(&self.reader.buffered()[..N]);
        self.reader.consume(N);
        Ok(out)
    }

    async fn skip(&mut self, bytes: usize) -> io::Result<()> {
        self.spend(bytes)?;
        self.reader.discard(bytes).await
    }

    async fn text(&mut self, bytes: usize) -> io::Result<StrBytes> {
        // A topic name; anything longer than a header may be is none.
        if bytes > i16::MAX as usize {
            return Err(malformed());
        }
        self.spend(bytes)?;
        self.reader.fill_frame(bytes).await?;
        let text = Bytes::copy_from_slice(&self.reader.buffered()[..bytes]);
        self.reader.consume(bytes);
        StrBytes::from_utf8(text).map_err(|_| malformed())
    }

    /// Length of a string, null counting as empty.
    async fn short_length(&mut self) -> io::Result<usize> {
        if self.flexible {
            return self.compact_length().await;
        }
        Ok(usize::try_from(i16::from_be_bytes(self.fixed().await?)).unwrap_or(0))
    }

    /// Length of records, null counting as empty.
    async fn long_length(&mut self) -> io::Result<usize> {
        if self.flexible {
            return self.compact_length().await;
        }
        Ok(usize::try_from(i32::from_be_bytes(self.fixed().await?)).unwrap_or(0))
    }

    async fn array_length(&mut self) -> io::Result<usize> {
        // Every element takes at least one byte, so the count is bounded by what is left of the frame.
        let count = self.long_length().await?;
        if count <= self.left { Ok(count) } else { Err(malformed()) }
    }

    async fn compact_length(&mut self) -> io::Result<usize> {
        Ok((self.varint().await? as usize).saturating_sub(1))
    }

    async fn varint(&mut self) -> io::Result<u32> {
        let mut value: u64 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>().await?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| malformed());
            }
        }
        Err(malformed())
    }

    async fn tags(&mut self) -> io::Result<()> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint().await? {
            self.varint().await?;
            let size = self.varint().await? as usize;
            self.skip(size).await?;
        }
        Ok(())
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a produce request is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::messages::ProduceRequest;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::protocol::Encodable;
    use std::time::Duration;

    fn request(version: i16) -> ProduceRequest {
        let partition = |index: i32, bytes: usize| {
            PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from(vec![7; bytes])))
        };
        let topic = |name: &'static str, id: u128| {
            let topic =
                TopicProduceData::default().with_partition_data(vec![partition(0, 3), partition(5, 200_000)]);
            if version >= TOPIC_ID_VERSION {
                topic.with_topic_id(Uuid::from_u128(id))
            } else {
                topic.with_name(TopicName(StrBytes::from_static_str(name)))
            }
        };
        ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(9)
            .with_topic_data(vec![topic("a", 1), topic("b", 2)])
    }

    #[tokio::test]
    async fn every_version_gives_its_partitions_and_leaves_the_next_request_alone() {
        for version in 3..=13 {
            let mut bytes = BytesMut::new();
            request(version).encode(&mut bytes, version).unwrap();
            let length = bytes.len();
            bytes.extend_from_slice(b"next");
            let mut reader = FrameReader::new(&bytes[..], Duration::from_secs(60));
            let skeleton = read(&mut reader, length, version).await.unwrap();
            let partitions: Vec<_> = skeleton.iter().map(|(_, _, p)| p.clone()).collect();
            assert_eq!(partitions, vec![vec![0, 5], vec![0, 5]]);
            assert_eq!(skeleton[1].1, if version >= 13 { Uuid::from_u128(2) } else { Uuid::nil() });
            assert_eq!(&*skeleton[0].0.0, if version >= 13 { "" } else { "a" });
            reader.fill(4).await.unwrap();
            assert_eq!(reader.buffered(), b"next");
        }
    }

    #[tokio::test]
    async fn a_crafted_count_is_an_error() {
        let mut bytes = vec![0xff, 0xff, 0, 1, 0, 0, 0, 9];
        bytes.extend_from_slice(&i32::MAX.to_be_bytes());
        let mut reader = FrameReader::new(&bytes[..], Duration::from_secs(60));
        let error = read(&mut reader, bytes.len(), 3).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
