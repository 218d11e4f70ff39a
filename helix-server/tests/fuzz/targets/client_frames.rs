//! What a client sends, from the length prefix on: the header is found, the guard knows what decoding will cost, whatever it
//! accepts is decoded without a panic, batches are validated, and a produce request that is refused unread names the same
//! partitions as one that is read.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Buf, Bytes};
use helix_server::api::{self, Outcome, table};
use helix_server::net::frame::{self, RequestHead};
use helix_server::net::reader::FrameReader;
use helix_server::net::skeleton::{self, Skeleton};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::Decodable;
use tokio::runtime::Runtime;

use super::{batches, record_batches};
use crate::support::allocations::within;
use crate::support::requests::{encoded, every_version, framed, guard_holds, sample};
use crate::target::Target;

pub(crate) const TARGET: Target = Target { name: "client_frames", run, seeds };

const MAX_FRAME_BYTES: usize = 1 << 20;
/// Prefixes of a frame that are looked at, as they may arrive.
const PEEKED_PREFIXES: usize = 80;

fn run(input: &[u8]) {
    let mut rest = input;
    while let Some((prefix, behind)) = rest.split_first_chunk() {
        let Ok(frame_bytes) = frame::frame_bytes(*prefix, MAX_FRAME_BYTES) else { return };
        let (arrived, next) = behind.split_at(frame_bytes.min(behind.len()));
        if let Some(head) = head(arrived, frame_bytes)
            && arrived.len() == frame_bytes
        {
            request(&head, Bytes::copy_from_slice(&arrived[head.body_at..]));
        }
        rest = next;
    }
}

/// The header, which must not depend on how much of the frame has arrived.
fn head(arrived: &[u8], frame_bytes: usize) -> Option<RequestHead> {
    let whole = within(1024, || frame::peek_head(arrived, frame_bytes));
    for end in 0..arrived.len().min(PEEKED_PREFIXES) {
        let early = frame::peek_head(&arrived[..end], frame_bytes);
        assert!(early == Ok(None) || early == whole, "{early:?} of {end} bytes, {whole:?} of all");
    }
    let head = whole.ok()??;
    assert!(head.body_at <= arrived.len());
    assert!(head.client_id.as_ref().is_none_or(|client_id| client_id.end <= head.body_at));
    let _ = frame::peek_produce(&head, &arrived[head.body_at..]);
    Some(head)
}

fn request(head: &RequestHead, body: Bytes) {
    let Some(served) = table::served(head.api_key) else { return };
    let version = head.api_version;
    if !(served.min..=served.max).contains(&version) {
        return;
    }
    let accepted = guard_holds(served.key, version, &body, &api::DECODE_LIMITS);
    if served.key == ApiKey::Produce {
        let refused = refuse(head, &body);
        if accepted && let Some(read) = produce(version, body) {
            assert_eq!(refused, Some(read), "a refused request names other partitions");
        }
    }
}

/// Decodes a produce request and validates its batches. `None` if it can't be decoded, or bytes follow it.
fn produce(version: i16, mut body: Bytes) -> Option<Skeleton> {
    let request = ProduceRequest::decode(&mut body, version).ok()?;
    let topics = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.into_iter().map(|partition| {
            record_batches::validate(&partition.records.unwrap_or_default(), version);
            partition.index
        });
        (topic.name, topic.topic_id, partitions.collect())
    });
    let topics = topics.collect();
    body.is_empty().then_some(topics)
}

/// Reads past a produce request as a broker without memory does, and answers it.
fn refuse(head: &RequestHead, body: &Bytes) -> Option<Skeleton> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    let version = head.api_version;
    // The buffer of the reader, and a few words for each byte at most.
    let topics = within((1 << 20) + 64 * body.len(), || {
        let mut reader = FrameReader::new(&body[..], Duration::from_secs(60));
        RUNTIME.block_on(skeleton::read(&mut reader, body.len(), version)).ok()
    })?;
    let Outcome::Response(response) = api::refused_produce(head.correlation_id, version, topics.clone())
    else {
        panic!("a refusal can't be encoded");
    };
    let mut answer = Bytes::from(response.chunks.concat());
    assert_eq!(answer.get_i32(), head.correlation_id);
    answer.advance(usize::from(frame::response_header_version(head.api_key, version) > 0));
    let answer = ProduceResponse::decode(&mut answer, version).expect("a refusal can be read");
    let answered = answer.responses.into_iter().map(|topic| {
        let partitions = topic.partition_responses.iter().map(|partition| partition.index).collect();
        (topic.name, topic.topic_id, partitions)
    });
    assert_eq!(answered.collect::<Skeleton>(), topics);
    Some(topics)
}

/// One request of every API and version, and produce requests with real batches.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> =
        every_version().map(|(key, version)| framed(key, version, &sample(key, version))).collect();
    for batch in batches::examples() {
        let mut request = crate::support::requests::produce(8);
        for topic in &mut request.topic_data {
            topic.partition_data[0].records = Some(batch.clone());
        }
        seeds.push(framed(ApiKey::Produce, 8, &encoded(&request, 8)));
    }
    seeds
}
