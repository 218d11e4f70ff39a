//! The bytes of requests and answers. A produce request is made once; each time it is sent only its number is another.
//! Those of consumer groups are in [`groups`](crate::groups).

use std::collections::BTreeMap;
use std::error::Error;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, MetadataResponse, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, encode_request_header_into_buffer};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// The last version of Produce that names topics: brokers old and new serve it.
const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 9;
/// Names topics too, and needs no session.
const FETCH_VERSION: i16 = 11;
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
const CLIENT_ID: &str = "helix-workload";
/// Where the number of a request stands: behind length, API and version.
pub(crate) const CORRELATION_ID_AT: usize = 8;
/// Longer answers are none to our requests.
const LARGEST_ANSWER_BYTES: usize = 16 << 20;

/// Where a partition is led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Led {
    /// The partition.
    pub(crate) partition: i32,
    /// `HOST:PORT` of the leader, if there is one.
    pub(crate) leader: Option<String>,
}

pub(crate) fn broken(reason: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(crate) fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A request with its length in front.
fn framed(api: ApiKey, version: i16, body: &impl Encodable) -> io::Result<BytesMut> {
    framed_as(CLIENT_ID, api, version, |buffer| body.encode(buffer, version).map_err(broken))
}

/// A request with its length in front, in the name of `client`; its number is 0.
pub(crate) fn framed_as(
    client: &'static str,
    api: ApiKey,
    version: i16,
    body: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) -> io::Result<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str(client)));
    let mut buffer = BytesMut::new();
    buffer.put_u32(0);
    encode_request_header_into_buffer(&mut buffer, &header).map_err(broken)?;
    body(&mut buffer)?;
    let length = u32::try_from(buffer.len() - 4).map_err(broken)?;
    buffer[..4].copy_from_slice(&length.to_be_bytes());
    Ok(buffer)
}

/// A request with its length in front, which its answer names by this number.
pub(crate) fn numbered_request(
    api: ApiKey,
    version: i16,
    body: &impl Encodable,
    correlation_id: i32,
) -> io::Result<Bytes> {
    let mut framed = framed(api, version, body)?;
    framed[CORRELATION_ID_AT..CORRELATION_ID_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
    Ok(framed.freeze())
}

/// Checks that the answer is the one to that request, and reads it.
pub(crate) fn answer_to<T: Decodable>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    mut answer: Bytes,
) -> io::Result<T> {
    let header = ResponseHeader::decode(&mut answer, api.response_header_version(version)).map_err(broken)?;
    if header.correlation_id != correlation_id {
        return Err(broken(format!("answer {} came instead of {correlation_id}", header.correlation_id)));
    }
    T::decode(&mut answer, version).map_err(broken)
}

/// Asks where `topic` is led.
pub(crate) fn metadata_request(topic: &str) -> io::Result<Bytes> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request =
        MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
    framed(ApiKey::Metadata, METADATA_VERSION, &request).map(BytesMut::freeze)
}

/// Reads the answer to [`metadata_request`]: every partition of the topic.
pub(crate) fn leaders(answer: Bytes) -> io::Result<Vec<Led>> {
    let response: MetadataResponse = answer_to(ApiKey::Metadata, METADATA_VERSION, 0, answer)?;
    let addresses: BTreeMap<i32, String> = response
        .brokers
        .iter()
        .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host.as_str(), broker.port)))
        .collect();
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let leaders: Vec<Led> = partitions
        .map(|one| Led { partition: one.partition_index, leader: addresses.get(&one.leader_id.0).cloned() })
        .collect();
    if leaders.is_empty() {
        Err(broken("this broker does not know the topic yet; try again"))
    } else {
        Ok(leaders)
    }
}

/// Asks for `records` to be stored by all, in each of the partitions.
pub(crate) fn produce_request(topic: &str, partitions: &[i32], records: &Bytes) -> io::Result<Bytes> {
    framed_produce(topic, partitions, records).map(BytesMut::freeze)
}

fn framed_produce(topic: &str, partitions: &[i32], records: &Bytes) -> io::Result<BytesMut> {
    let data = partitions.iter().map(|partition| {
        PartitionProduceData::default().with_index(*partition).with_records(Some(records.clone()))
    });
    let data = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(data.collect());
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(PRODUCE_TIMEOUT_MS)
        .with_topic_data(vec![data]);
    framed(ApiKey::Produce, PRODUCE_VERSION, &request)
}

/// Asks for all that these partitions hold from their first offset on.
pub(crate) fn fetch_request(topic: &str, partitions: &[i32], correlation_id: i32) -> io::Result<Bytes> {
    let partitions = partitions.iter().map(|partition| {
        FetchPartition::default().with_partition(*partition).with_partition_max_bytes(i32::MAX)
    });
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions.collect());
    let request =
        FetchRequest::default().with_session_epoch(-1).with_max_bytes(i32::MAX).with_topics(vec![topic]);
    numbered_request(ApiKey::Fetch, FETCH_VERSION, &request, correlation_id)
}

/// A produce request that can be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    head: Vec<u8>,
    tail: Bytes,
}

/// From here on a request is not copied when it is sent.
const HEAD_BYTES: usize = 128;

impl Template {
    /// Asks for `records` to be stored by all.
    pub(crate) fn new(topic: &str, partition: i32, records: &Bytes) -> io::Result<Self> {
        let mut whole = framed_produce(topic, &[partition], records)?;
        let tail = whole.split_off(HEAD_BYTES.min(whole.len())).freeze();
        Ok(Self { head: whole.to_vec(), tail })
    }

    /// The request with that number: a short part of its own, and what all share.
    pub(crate) fn numbered(&mut self, correlation_id: i32) -> (&[u8], Bytes) {
        self.head[CORRELATION_ID_AT..CORRELATION_ID_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
        (&self.head, self.tail.clone())
    }
}

/// A record batch of `messages` values of `bytes` bytes, which do not compress.
pub(crate) fn records(messages: u32, bytes: u32, seed: u64) -> io::Result<Bytes> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
    let records: Vec<Record> = (0..i64::from(messages))
        .map(|offset| {
            let mut value = vec![0; bytes as usize];
            rng.fill(&mut value[..]);
            record(offset, value.into())
        })
        .collect();
    let mut buffer = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut buffer, &records, &options).map_err(broken)?;
    Ok(buffer.freeze())
}

fn record(offset: i64, value: Bytes) -> Record {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        // None; the encoder takes records whose numbers do not go up together for several batches.
        sequence: offset as i32 - 1,
        timestamp: now.as_millis() as i64,
        key: None,
        value: Some(value),
        headers: kafka_protocol::indexmap::IndexMap::new(),
    }
}

/// Length of the answer that begins with these four bytes.
pub(crate) fn answer_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > LARGEST_ANSWER_BYTES {
        Err(broken(format!("an answer of {length} bytes")))
    } else {
        Ok(length)
    }
}

/// Checks that the answer is the one to that request; returns the broker's error code, 0 for success.
pub(crate) fn produce_outcome(answer: Bytes, correlation_id: i32) -> io::Result<i16> {
    let outcomes = produce_outcomes(answer, correlation_id)?;
    outcomes.first().map(|(_, code)| *code).ok_or_else(|| broken("an answer about no partition"))
}

/// The same for a request to several partitions: each with its error code.
pub(crate) fn produce_outcomes(answer: Bytes, correlation_id: i32) -> io::Result<Vec<(i32, i16)>> {
    let response: ProduceResponse = answer_to(ApiKey::Produce, PRODUCE_VERSION, correlation_id, answer)?;
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    Ok(partitions.map(|one| (one.index, one.error_code)).collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };

    use super::*;

    #[test]
    fn a_template_is_the_request_with_another_number() {
        let records = records(3, 400, 1).unwrap();
        let mut template = Template::new("topic", 7, &records).unwrap();
        let (head, tail) = template.numbered(0x0102_0304);
        let whole = [head, &tail].concat();
        assert_eq!(whole.len() - 4, u32::from_be_bytes(whole[..4].try_into().unwrap()) as usize);
        assert_eq!(head.len(), HEAD_BYTES);
        let mut request = Bytes::from(whole).split_off(4);
        let header = RequestHeader::decode(&mut request, ApiKey::Produce.request_header_version(9)).unwrap();
        assert_eq!((header.correlation_id, header.request_api_version), (0x0102_0304, 9));
        let request = ProduceRequest::decode(&mut request, 9).unwrap();
        let data = &request.topic_data[0].partition_data[0];
        assert_eq!((data.index, data.records.as_ref()), (7, Some(&records)));
    }

    #[test]
    fn answers_of_another_request_are_refused() {
        let mut answer = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(5);
        header.encode(&mut answer, ApiKey::Produce.response_header_version(9)).unwrap();
        ProduceResponse::default().encode(&mut answer, 9).unwrap();
        let answer = answer.freeze();
        assert!(produce_outcome(answer.clone(), 6).unwrap_err().to_string().contains("instead of 6"));
        assert!(produce_outcome(answer, 5).unwrap_err().to_string().contains("no partition"));
        assert!(answer_length([0xFF; 4]).is_err());
    }

    fn metadata_answer(response: &MetadataResponse) -> Bytes {
        let mut answer = BytesMut::new();
        let version = ApiKey::Metadata.response_header_version(METADATA_VERSION);
        ResponseHeader::default().encode(&mut answer, version).unwrap();
        response.encode(&mut answer, METADATA_VERSION).unwrap();
        answer.freeze()
    }

    #[test]
    fn a_broker_that_does_not_know_the_topic_names_no_leaders() {
        let answer = metadata_answer(&MetadataResponse::default());
        assert!(leaders(answer).unwrap_err().to_string().contains("try again"));
    }

    #[test]
    fn a_partition_has_the_address_of_its_leader_or_none() {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(3))
            .with_host(StrBytes::from_static_str("host"))
            .with_port(9);
        let partition = |index, leader| {
            MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(leader))
        };
        let topic = MetadataResponseTopic::default()
            .with_name(Some(topic_name("topic")))
            .with_partitions(vec![partition(0, 3), partition(1, -1)]);
        let response = MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
        let expected =
            [Led { partition: 0, leader: Some("host:9".into()) }, Led { partition: 1, leader: None }];
        assert_eq!(leaders(metadata_answer(&response)).unwrap(), expected);
    }
}
