//! A producer with one partition: sends batches, several at a time, and repeats in order what was not acknowledged, as real ones do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_server::env::watch;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
};
use rand::Rng;

use super::call::{Answer, Connection, Nodes, topic_name};
use super::ledger::{Ledger, Partition};
use super::message::{self, MessageId, NOBODY, Producer};

const PRODUCE_VERSION: i16 = 11;
const INIT_VERSION: i16 = 4;

/// What a producer is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) idempotent: bool,
    /// Batches that may wait for their answers.
    pub(crate) in_flight: usize,
    /// Longest pause between two rounds.
    pub(crate) pause_ms: u64,
    /// Largest message.
    pub(crate) message_bytes: usize,
}

/// A batch that was not acknowledged yet.
struct Batch {
    first: MessageId,
    count: u32,
    message_bytes: usize,
    sequence: i32,
}

/// A producer at work.
pub(crate) struct Lane {
    nodes: Nodes,
    ledger: Arc<Ledger>,
    partition: Partition,
    habits: Habits,
    lane: u32,
    producer: Option<Producer>,
    next_number: u64,
    next_sequence: i32,
    unacknowledged: VecDeque<Batch>,
    connection: Option<Connection>,
}

/// What an answer says of a batch.
#[derive(Debug)]
enum Verdict {
    Acknowledged(i64),
    /// Try again; whether it was stored is not known, or it was not.
    Again,
    /// The producer's own state is of no use any more.
    Fatal(ResponseError),
}

impl Lane {
    pub(crate) fn new(
        nodes: Nodes,
        ledger: Arc<Ledger>,
        partition: Partition,
        habits: Habits,
        lane: u32,
    ) -> Self {
        ledger.begin_lane(lane, habits.idempotent);
        Self {
            nodes,
            ledger,
            partition,
            habits,
            lane,
            producer: (!habits.idempotent).then_some(NOBODY),
            next_number: 0,
            next_sequence: 0,
            unacknowledged: VecDeque::new(),
            connection: None,
        }
    }

    /// Produces until told to stop, then until everything is acknowledged.
    pub(crate) async fn run(mut self, stop: watch::Receiver<bool>) {
        loop {
            if !stop.get() {
                self.write_more();
            } else if self.unacknowledged.is_empty() {
                return;
            }
            let progress = self.round().await;
            let pause_ms = if progress { self.habits.pause_ms } else { 100 };
            let pause_ms = self.nodes.random(|random| random.random_range(0..=pause_ms));
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    fn write_more(&mut self) {
        while self.unacknowledged.len() < self.habits.in_flight {
            let largest = self.habits.message_bytes;
            let (count, message_bytes) =
                self.nodes.random(|random| (random.random_range(1..=3), random.random_range(0..=largest)));
            let first = MessageId { lane: self.lane, number: self.next_number };
            let sequence = self.next_sequence;
            self.next_number += u64::from(count);
            self.next_sequence += count as i32;
            self.unacknowledged.push_back(Batch { first, count, message_bytes, sequence });
        }
    }

    /// Sends everything that is not acknowledged, and waits for all answers. Whether anything was acknowledged.
    async fn round(&mut self) -> bool {
        if !self.has_producer_id().await {
            return false;
        }
        if self.connection.is_none() {
            let Partition { topic, number } = &self.partition;
            self.connection = self.nodes.connect_to_leader(topic, *number).await;
        }
        let Some(connection) = self.connection.take() else { return false };
        let mut answers: Vec<Option<Answer<ProduceResponse>>> = Vec::new();
        for batch in &self.unacknowledged {
            let request = self.request(batch);
            let answer = connection.send(ApiKey::Produce, PRODUCE_VERSION, &request).await;
            let lost = answer.is_none();
            answers.push(answer);
            if lost {
                break;
            }
        }
        let answers = futures_util::future::join_all(answers.into_iter().map(|answer| async {
            match answer {
                Some(answer) => answer.await,
                None => None,
            }
        }))
        .await;
        let sent = self.unacknowledged.len();
        let all = self.take_answers(answers);
        if all {
            self.connection = Some(connection);
        }
        self.unacknowledged.len() < sent
    }

    /// Whether all of it was acknowledged.
    fn take_answers(&mut self, answers: Vec<Option<ProduceResponse>>) -> bool {
        let mut again = VecDeque::new();
        // Answers come in order: with one all later ones are lost.
        let mut answers = answers.into_iter().map_while(|answer| answer).fuse().enumerate();
        while let Some(batch) = self.unacknowledged.pop_front() {
            let Some((place, answer)) = answers.next() else {
                again.push_back(batch);
                continue;
            };
            let verdict = verdict(&answer);
            tracing::debug!(lane = self.lane, first = ?batch.first, sequence = batch.sequence, ?verdict, "produced");
            match verdict {
                Verdict::Acknowledged(offset) => {
                    self.ledger.acknowledged(&self.partition, offset, batch.first, batch.count);
                }
                Verdict::Again => again.push_back(batch),
                Verdict::Fatal(error) => {
                    self.give_up_producer_id(error, place, &batch);
                    again.push_back(batch);
                }
            }
        }
        let all = again.is_empty() && self.unacknowledged.is_empty();
        again.append(&mut self.unacknowledged);
        self.unacknowledged = again;
        all
    }

    /// Only an unclean recovery may make brokers forget what a producer wrote.
    fn give_up_producer_id(&mut self, error: ResponseError, place: usize, batch: &Batch) {
        if !self.ledger.has_lost(&self.partition) {
            self.ledger.accuse(format!(
                "{:?}: batch {place} of lane {}, sequence {}, is refused with {error:?}",
                self.partition, self.lane, batch.sequence
            ));
        }
        self.producer = None;
    }

    async fn has_producer_id(&mut self) -> bool {
        if self.producer.is_some() {
            return true;
        }
        let request =
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let Some(connection) = self.nodes.connect_to_any() else { return false };
        let answer: Option<InitProducerIdResponse> =
            connection.ask(ApiKey::InitProducerId, INIT_VERSION, &request).await;
        let Some(answer) = answer.filter(|answer| answer.error_code == 0) else { return false };
        self.producer = Some(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch });
        // A new producer begins to count anew.
        self.next_sequence = 0;
        for batch in &mut self.unacknowledged {
            batch.sequence = self.next_sequence;
            self.next_sequence += batch.count as i32;
        }
        true
    }

    fn request(&self, batch: &Batch) -> ProduceRequest {
        let producer = self.producer.unwrap_or(NOBODY);
        let sequence = if self.habits.idempotent { batch.sequence } else { -1 };
        let records: Bytes =
            message::batch(batch.first, batch.count, batch.message_bytes, producer, sequence);
        let data =
            PartitionProduceData::default().with_index(self.partition.number).with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.partition.topic))
            .with_partition_data(vec![data]);
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic])
    }
}

fn verdict(answer: &ProduceResponse) -> Verdict {
    let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    let Some(partition) = partition else { return Verdict::Again };
    match ResponseError::try_from_code(partition.error_code) {
        None => Verdict::Acknowledged(partition.base_offset),
        Some(error) if error.is_retriable() || error == ResponseError::UnknownTopicOrPartition => {
            Verdict::Again
        }
        Some(error) => Verdict::Fatal(error),
    }
}
