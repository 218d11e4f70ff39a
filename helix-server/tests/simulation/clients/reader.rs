//! A consumer of one partition: reads from the beginning on, without a gap but for what retention has removed, never back. From the leader,
//! or from any replica that serves it as one that is near.

use std::sync::{Arc, Weak};
use std::time::Duration;

use helix_server::broker::Broker;
use helix_server::env::watch;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use kafka_protocol::protocol::StrBytes;
use rand::Rng;

use super::call::{Connection, Nodes, topic_name};
use super::ledger::{Ledger, Partition};
use super::message;

const FETCH_VERSION: i16 = 12;
const LIST_VERSION: i16 = 7;
/// Asks where the log begins.
const EARLIEST: i64 = -2;

/// A consumer at work.
pub(crate) struct Reader {
    nodes: Nodes,
    ledger: Arc<Ledger>,
    partition: Partition,
    position: watch::Sender<i64>,
    epoch: i32,
    connection: Option<Connection>,
    /// The process that answered last, and how far it said that readers may go.
    high_watermark: Option<(Weak<Broker>, i64)>,
    /// Whether old records are removed.
    retention: bool,
}

impl Reader {
    pub(crate) fn new(nodes: Nodes, ledger: Arc<Ledger>, partition: Partition, retention: bool) -> Self {
        let position = watch::Sender::new(0);
        let (epoch, connection, high_watermark) = (0, None, None);
        Self { nodes, ledger, partition, position, epoch, connection, high_watermark, retention }
    }

    /// The next offset that it will read.
    pub(crate) fn position(&self) -> watch::Receiver<i64> {
        self.position.subscribe()
    }

    pub(crate) async fn run(mut self) {
        loop {
            let pause_ms = if self.round().await { 20 } else { 150 };
            let pause_ms = self.nodes.random(|random| random.random_range(0..=pause_ms));
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Fetches once. Whether there was an answer of any use.
    async fn round(&mut self) -> bool {
        if self.connection.is_none() {
            let Partition { topic, number } = &self.partition;
            self.connection = if self.nodes.random(|random| random.random()) {
                self.nodes.connect_to_any()
            } else {
                self.nodes.connect_to_leader(topic, *number).await
            };
        }
        let Some(connection) = self.connection.take() else { return false };
        let request = self.request();
        let answer: Option<FetchResponse> = connection.ask(ApiKey::Fetch, FETCH_VERSION, &request).await;
        let Some(mut answer) = answer else { return false };
        let data = answer.responses.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(data) = data else { return false };
        match ResponseError::try_from_code(data.error_code) {
            None => {
                self.take(&data, &connection.process);
                self.connection = Some(connection);
                true
            }
            Some(ResponseError::OffsetOutOfRange) => {
                let begins = self.ask_where_it_begins(&connection).await;
                self.out_of_range(&data, begins);
                false
            }
            Some(error) if error.is_retriable() => false,
            Some(error) => {
                self.ledger.accuse(format!("{:?}: a fetch is answered with {error:?}", self.partition));
                false
            }
        }
    }

    fn request(&self) -> FetchRequest {
        let partition = FetchPartition::default()
            .with_partition(self.partition.number)
            .with_fetch_offset(self.position.get())
            .with_partition_max_bytes(64 << 10);
        let topic = FetchTopic::default()
            .with_topic(topic_name(&self.partition.topic))
            .with_partitions(vec![partition]);
        FetchRequest::default()
            .with_max_wait_ms(200)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_rack_id(StrBytes::from_static_str("near"))
            .with_topics(vec![topic])
    }

    fn take(&mut self, data: &PartitionData, process: &Weak<Broker>) {
        if let Some((before, high_watermark)) = &self.high_watermark
            && before.ptr_eq(process)
            && data.high_watermark < *high_watermark
            && !self.ledger.has_lost(&self.partition)
        {
            self.ledger.accuse(format!(
                "{:?}: the high watermark goes back from {high_watermark} to {}",
                self.partition, data.high_watermark
            ));
        }
        self.high_watermark = Some((Weak::clone(process), data.high_watermark));
        let Some(records) = data.records.clone() else { return };
        let messages = match message::messages(records) {
            Ok(messages) => messages,
            Err(error) => return self.ledger.accuse(format!("{:?}: {error}", self.partition)),
        };
        for (offset, epoch, id) in messages {
            let position = self.position.get();
            // The first batch may begin before the offset that was asked for.
            if offset < position {
                continue;
            }
            let lost = self.ledger.has_lost(&self.partition);
            if offset > position && !lost {
                self.ledger.accuse(format!("{:?}: {offset} is read after {position}", self.partition));
            }
            if offset >= data.high_watermark {
                self.ledger.accuse(format!(
                    "{:?}: {offset} is read with the high watermark at {}",
                    self.partition, data.high_watermark
                ));
            }
            if epoch < self.epoch && !lost {
                self.ledger.accuse(format!(
                    "{:?}: {offset} has the epoch {epoch} after {}",
                    self.partition, self.epoch
                ));
            }
            self.epoch = epoch;
            self.ledger.read(&self.partition, offset, id);
            self.position.send_replace(offset + 1);
        }
    }

    async fn ask_where_it_begins(&self, connection: &Connection) -> Option<i64> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(self.partition.number)
            .with_timestamp(EARLIEST);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&self.partition.topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let answer: ListOffsetsResponse = connection.ask(ApiKey::ListOffsets, LIST_VERSION, &request).await?;
        let partition = answer.topics.first()?.partitions.first()?;
        (partition.error_code == 0).then_some(partition.offset)
    }

    /// Retention may have removed what comes next. Otherwise the log never ends before what was read of it.
    fn out_of_range(&mut self, data: &PartitionData, begins: Option<i64>) {
        if self.retention {
            match begins {
                Some(begins) if begins > self.position.get() => {
                    self.ledger.retired(&self.partition, begins);
                    self.position.send_replace(begins);
                    return;
                }
                // Whoever answered leads no more, or is gone.
                None => return,
                Some(_) => {}
            }
        }
        if !self.ledger.has_lost(&self.partition) {
            self.ledger.accuse(format!(
                "{:?}: {} is out of range, says who knows {}",
                self.partition,
                self.position.get(),
                data.high_watermark
            ));
        }
        self.position.send_replace(0);
    }
}
