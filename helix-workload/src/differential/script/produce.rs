//! Produce, InitProducerId, and the records that other APIs ask for.

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProducerId, TransactionalId};
use uuid::Uuid;

use super::super::case::{Case, ask, ask_with};
use super::records::{Batch, Producer};
use super::{Times, made_topic, nobodys_id, text, topic};

const TIMEOUT_MS: i32 = 30_000;
/// First version whose topics are ids.
const IDS_FROM: i16 = 13;
/// The last version with names: what the script itself stores.
const NAMES_UNTIL: i16 = 12;
/// An hour and more ahead of now is too far.
const TOO_FAR_MS: i64 = 3 * 3_600_000;
/// More than a message may have.
const TOO_LARGE: usize = 1_100_000;

/// Two batches in the first partition of `orders`: three records from the first time on, two a second later.
pub(super) fn before_all(times: &Times) -> Vec<Case> {
    let producing = Producing { version: NAMES_UNTIL };
    let store = |what: &str, name: &'static str, batch: Batch| {
        producing.ask(what, name, vec![(0, Some(batch.bytes()))])
    };
    vec![
        ask("until there are producer ids", 0, nameless()).until("error_code", "0"),
        store("three records", "orders", Batch::of(&["a", "b", "c"], times.at(0))),
        store("two records", "orders", Batch::of(&["d", "e"], times.at(1_000))),
        store("two records to be timed", "log-append", Batch::of(&["f", "g"], times.at(0))),
    ]
}

/// Five records in a partition of a topic.
pub(super) fn stored(what: &str, name: &str, partition: i32, times: &Times) -> Case {
    let batch = Batch::of(&["a", "b", "c", "d", "e"], times.at(0));
    Producing { version: NAMES_UNTIL }.ask(what, name, vec![(partition, Some(batch.bytes()))])
}

/// Records in the first partition of a topic, of two producers, the first of which goes on in its next epoch.
pub(super) fn stored_by_producers(name: &str, times: &Times) -> Vec<Case> {
    let producing = Producing { version: NAMES_UNTIL };
    let by = |what: &str, producer: &'static str, epoch: i16, sequence: i32| {
        producing.ask_by(what, name, producer, epoch, sequence, times.at(2_000))
    };
    vec![
        ask("one who produces", 0, nameless()).keep("one who produces", "producer_id"),
        ask("another who produces", 0, nameless()).keep("another who produces", "producer_id"),
        by("one begins", "one who produces", 0, 0),
        by("another begins", "another who produces", 0, 0),
        by("another goes on", "another who produces", 0, 2),
        by("one goes on", "one who produces", 1, 0),
    ]
}

#[derive(Clone, Copy)]
struct Producing {
    version: i16,
}

impl Producing {
    fn of(self, name: &str, id: Uuid, partitions: &[(i32, Option<Bytes>)]) -> TopicProduceData {
        let data = partitions.iter().map(|(number, records)| {
            PartitionProduceData::default().with_index(*number).with_records(records.clone())
        });
        let out = TopicProduceData::default().with_partition_data(data.collect());
        if self.version >= IDS_FROM { out.with_topic_id(id) } else { out.with_name(topic(name)) }
    }

    fn request(topics: Vec<TopicProduceData>) -> ProduceRequest {
        ProduceRequest::default().with_acks(-1).with_timeout_ms(TIMEOUT_MS).with_topic_data(topics)
    }

    fn ask(self, what: &str, name: &str, partitions: Vec<(i32, Option<Bytes>)>) -> Case {
        self.ask_as(what, name, partitions, |request| request)
    }

    fn ask_as(
        self,
        what: &str,
        name: &str,
        partitions: Vec<(i32, Option<Bytes>)>,
        change: impl Fn(ProduceRequest) -> ProduceRequest + 'static,
    ) -> Case {
        let name = name.to_owned();
        ask_with(what, self.version, move |known| {
            let topic = self.of(&name, known.id(&format!("id of {name}"))?, &partitions);
            Ok(change(Self::request(vec![topic])))
        })
    }

    /// As an idempotent producer.
    fn ask_by(
        self,
        what: &str,
        name: &str,
        producer: &'static str,
        epoch: i16,
        sequence: i32,
        at_ms: i64,
    ) -> Case {
        let name = name.to_owned();
        ask_with(what, self.version, move |known| {
            let id = if producer.is_empty() { 987_654 } else { known.number(producer)? };
            let batch = Batch::by(Producer { id, epoch, sequence }, &["x", "y"], at_ms);
            let topic = self.of(&name, known.id(&format!("id of {name}"))?, &[(0, Some(batch.bytes()))]);
            Ok(Self::request(vec![topic]))
        })
        // On a connection that has been refused nothing: what follows a refusal is judged by that in Helix.
        .on(what)
    }
}

pub(super) fn produce(version: i16, times: &Times) -> Vec<Case> {
    let producing = Producing { version };
    let name = format!("produced-{version}");
    let batch = || Batch::of(&["a", "b"], times.at(0));
    let good = || Some(batch().bytes());
    let nowhere = producing.of("nowhere", nobodys_id(), &[(0, good())]);
    let mut cases = made_topic(&name, 5, &[]);
    cases.extend([
        producing.ask("two records", &name, vec![(0, good())]),
        producing.ask_as("acknowledged by the leader", &name, vec![(0, good())], |r| r.with_acks(1)),
        producing.ask_as("acknowledged by two", &name, vec![(0, good())], |r| r.with_acks(2)),
        producing.ask_as("very negative acks", &name, vec![(0, good())], |r| r.with_acks(-2)),
        producing.ask_as("not acknowledged", &name, vec![(1, good())], |r| r.with_acks(0)).unanswered(),
        producing
            .ask_as("not acknowledged and refused", &name, vec![(99, good())], |r| r.with_acks(0))
            .unanswered(),
        producing.ask("after what was not acknowledged", &name, vec![(1, good())]),
        ask("unknown topic", version, Producing::request(vec![nowhere])),
        producing.ask("known and unknown partition", &name, vec![(0, good()), (99, good())]),
        producing.ask("negative partition", &name, vec![(-1, good())]),
        producing.ask("the same partition twice", &name, vec![(2, good()), (2, good())]),
        producing.ask("no records", &name, vec![(0, Some(Bytes::new()))]),
        producing.ask("no partitions", &name, Vec::new()),
        ask("no topics", version, Producing::request(Vec::new())),
        producing.ask_as("negative timeout", &name, vec![(3, good())], |r| r.with_timeout_ms(-1)),
        producing.ask("a topic of the broker's own", "__consumer_offsets", vec![(0, good())]),
        producing.ask("both kinds of time", "log-append", vec![(0, good())]),
    ]);
    // Apache Kafka does not answer at all: once is enough to wait for that.
    if version == NAMES_UNTIL {
        cases.push(producing.ask("null records", &name, vec![(0, None)]).on("to be forgotten"));
    }
    cases.extend(damaged(producing, &batch, times));
    cases.extend(transactional(producing, &name, good()));
    cases.extend(idempotent(producing, &name, times));
    cases
}

/// Each in a partition of its own: what one broker takes and the other refuses must not move the offsets of the rest.
fn damaged(producing: Producing, batch: &dyn Fn() -> Batch, times: &Times) -> Vec<Case> {
    let large = "x".repeat(TOO_LARGE);
    let all = [
        ("a damaged byte", batch().damaged()),
        ("cut short", batch().cut()),
        ("two batches", batch().and(batch())),
        ("magic 0", batch().magic(0)),
        ("magic 1", batch().magic(1)),
        ("magic 3", batch().magic(3)),
        ("claims more records", batch().claims(3)),
        ("claims fewer records", batch().claims(1)),
        ("claims no records", batch().claims(0)),
        ("claims negative records", batch().claims(-1)),
        ("a wrong last offset", batch().ends_at(5)),
        ("a negative last offset", batch().ends_at(-1)),
        ("control records", batch().attributes(0x20)),
        ("transactional records", batch().attributes(0x10)),
        ("says that its times are appended", batch().attributes(0x08)),
        ("unknown compression", batch().attributes(0x07)),
        ("claims to be compressed with gzip", batch().attributes(0x01)),
        ("claims to be compressed with zstd", batch().attributes(0x04)),
        ("no time", Batch::of(&["a"], -1)),
        ("a negative time", Batch::of(&["a"], -5)),
        ("a time long ago", Batch::of(&["a"], 1)),
        ("a time too far ahead", Batch::of(&["a"], times.at(TOO_FAR_MS))),
        ("too large", Batch::of(&[&large], times.at(0))),
    ];
    let name = format!("damaged-{}", producing.version);
    let mut cases = made_topic(&name, i32::try_from(all.len()).unwrap_or(i32::MAX), &[]);
    let one = |(partition, (what, batch)): (i32, (&str, Batch))| {
        producing.ask(what, &name, vec![(partition, Some(batch.bytes()))])
    };
    cases.extend((0..).zip(all).map(one));
    cases
}

fn transactional(producing: Producing, name: &str, good: Option<Bytes>) -> Vec<Case> {
    vec![producing.ask_as("in an unknown transaction", name, vec![(4, good)], |request| {
        request.with_transactional_id(Some(TransactionalId(text("transaction"))))
    })]
}

fn idempotent(producing: Producing, name: &str, times: &Times) -> Vec<Case> {
    let by = |what: &str, epoch: i16, sequence: i32| {
        producing.ask_by(what, name, "producer", epoch, sequence, times.at(2_000))
    };
    vec![
        ask("a producer", 0, nameless()).keep("producer", "producer_id"),
        by("first sequence", 0, 0),
        by("first sequence again", 0, 0),
        by("a gap", 0, 5),
        by("next sequence", 0, 2),
        by("an overlap", 0, 3),
        by("negative sequence", 0, -2),
        by("no sequence", 0, -1),
        by("next epoch from the middle", 1, 7),
        by("next epoch", 1, 0),
        by("former epoch", 0, 4),
        by("negative epoch", -1, 0),
        producing.ask_by("unknown producer", name, "", 0, 0, times.at(2_000)),
        producing.ask_by("unknown producer, then a gap", name, "", 0, 9, times.at(2_000)),
        ask("another producer", 0, nameless()).keep("another producer", "producer_id"),
        producing.ask_by("begins in the middle", name, "another producer", 0, 4, times.at(2_000)),
        producing.ask_by(
            "the last sequence there is",
            name,
            "another producer",
            0,
            i32::MAX,
            times.at(2_000),
        ),
    ]
}

/// Without a transactional id; the library's default is an empty one.
fn nameless() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None)
}

/// First version of InitProducerId that says which producer one was.
const PRODUCER_FROM: i16 = 3;

pub(super) fn init_producer_id(version: i16, _: &Times) -> Vec<Case> {
    let plain = nameless();
    let transactional = |id: &str| plain.clone().with_transactional_id(Some(TransactionalId(text(id))));
    let mut cases = vec![
        ask("plain", version, plain.clone()),
        ask("with a timeout", version, plain.clone().with_transaction_timeout_ms(60_000)),
        ask("negative timeout", version, plain.clone().with_transaction_timeout_ms(-1)),
        ask("empty transactional id", version, transactional("").with_transaction_timeout_ms(60_000)),
        ask("transactional id without a timeout", version, transactional("t").with_transaction_timeout_ms(0)),
    ];
    if version >= PRODUCER_FROM {
        let was = |what: &str, id: i64, epoch: i16| {
            let request = plain.clone().with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
            ask(what, version, request)
        };
        cases.push(was("was another producer", 987_654, 3));
        cases.push(was("was a producer without an epoch", 987_654, -1));
        cases.push(was("was no producer, but has an epoch", -1, 3));
        cases.push(was("negative producer", -5, -5));
    }
    cases
}
