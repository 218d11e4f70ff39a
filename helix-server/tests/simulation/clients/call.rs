//! The way from a client to the nodes: answers take time, and some never come.
//! Time is the simulated one: a pause here is a step of the schedule, and takes none of the real one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use helix_server::api::Outcome;
use helix_server::broker::Broker;
use helix_server::env::watch;
use helix_server::net::direct::DirectClient;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::network::Place;

/// The broker of a node while it takes clients.
pub(crate) type Door = watch::Sender<Option<Arc<Broker>>>;

/// A client waits this long for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
const METADATA_VERSION: i16 = 12;

/// All nodes, as clients see them.
#[derive(Clone)]
pub(crate) struct Nodes {
    doors: Arc<Vec<Door>>,
    random: Arc<Mutex<SmallRng>>,
    calls: Arc<AtomicU64>,
}

/// One connection to one node.
pub(crate) struct Connection {
    client: DirectClient,
    door: Door,
    broker: Arc<Broker>,
    nodes: Nodes,
    /// The process at the other end. As long as this is there, no other one has its address.
    pub(crate) process: Weak<Broker>,
}

/// An answer that is on its way; `None` if it never comes.
pub(crate) type Answer<T> = BoxFuture<'static, Option<T>>;

impl Nodes {
    pub(crate) fn new(seed: u64, doors: Vec<Door>) -> Self {
        let random = Arc::new(Mutex::new(SmallRng::seed_from_u64(seed)));
        Self { doors: Arc::new(doors), random, calls: Arc::default() }
    }

    /// Requests so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.random.lock())
    }

    /// Brokers that take clients now.
    pub(crate) fn brokers(&self) -> Vec<Arc<Broker>> {
        self.doors.iter().filter_map(watch::Sender::get).collect()
    }

    /// Connects to a node, if it takes clients.
    pub(crate) fn connect(&self, place: Place) -> Option<Connection> {
        let door = self.doors.get(place)?;
        let broker = door.get()?;
        Some(Connection {
            client: DirectClient::new(Arc::clone(&broker)),
            door: door.clone(),
            process: Arc::downgrade(&broker),
            broker,
            nodes: self.clone(),
        })
    }

    /// Connects to any node that takes clients.
    pub(crate) fn connect_to_any(&self) -> Option<Connection> {
        let first = self.random(|random| random.random_range(0..self.doors.len()));
        (0..self.doors.len()).find_map(|next| self.connect((first + next) % self.doors.len()))
    }

    /// Connects to the leader of a partition, if there is one and it takes clients.
    pub(crate) async fn connect_to_leader(&self, topic: &str, partition: i32) -> Option<Connection> {
        let metadata = self.metadata(topic).await?;
        let topic = metadata.topics.first()?;
        let found = topic.partitions.iter().find(|found| found.partition_index == partition)?;
        let place = Place::try_from(found.leader_id.0 - 1).ok()?;
        self.connect(place)
    }

    async fn metadata(&self, topic: &str) -> Option<MetadataResponse> {
        let asked = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request =
            MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
        self.connect_to_any()?.ask(ApiKey::Metadata, METADATA_VERSION, &request).await
    }

    /// The time that something takes on its way between a client and a node.
    fn way(&self) -> Duration {
        Duration::from_millis(self.random(|random| random.random_range(0..6_u64).saturating_sub(3)))
    }
}

impl Connection {
    /// Sends a request and waits for its answer.
    pub(crate) async fn ask<T: Decodable + Send + 'static>(
        &self,
        key: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> Option<T> {
        self.send(key, version, request).await?.await
    }

    /// Sends a request. Those of one connection arrive in the order in which they are sent.
    pub(crate) async fn send<T: Decodable + Send + 'static>(
        &self,
        key: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> Option<Answer<T>> {
        self.nodes.calls.fetch_add(1, Ordering::Relaxed);
        let mut body = BytesMut::new();
        request.encode(&mut body, version).expect("the request fits its version");
        let sent = self.client.request(key, version, body.freeze());
        let outcome = tokio::time::timeout(PATIENCE, self.while_it_lives(sent)).await.ok()???;
        let (nodes, door, broker) = (self.nodes.clone(), self.door.clone(), Arc::clone(&self.broker));
        Some(Box::pin(async move {
            let answered = tokio::time::timeout(PATIENCE, while_it_lives(&door, &broker, outcome)).await;
            let Outcome::Response(response) = answered.ok()?? else { return None };
            // The way of the answer.
            tokio::time::sleep(nodes.way()).await;
            // Some answers are lost with their connection.
            if nodes.random(|random| random.random_range(0..300)) == 0 {
                return None;
            }
            Some(decode(key, version, response.chunks))
        }))
    }

    async fn while_it_lives<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        // The way of the request.
        tokio::time::sleep(self.nodes.way()).await;
        while_it_lives(&self.door, &self.broker, work).await
    }
}

/// Waits for the work, or until the process that does it is gone.
async fn while_it_lives<T>(door: &Door, broker: &Arc<Broker>, work: impl Future<Output = T>) -> Option<T> {
    let mut door = door.subscribe();
    let same = |now: &Option<Arc<Broker>>| now.as_ref().is_some_and(|now| Arc::ptr_eq(now, broker));
    if !same(&door.get()) {
        return None;
    }
    tokio::select! {
        biased;
        _ = door.wait_for(|now| !same(now)) => None,
        done = work => Some(done),
    }
}

fn decode<T: Decodable>(key: ApiKey, version: i16, chunks: Vec<Bytes>) -> T {
    let mut bytes = match <[Bytes; 1]>::try_from(chunks) {
        Ok([one]) => one,
        Err(several) => {
            let mut whole = BytesMut::new();
            several.iter().for_each(|chunk| whole.extend_from_slice(chunk));
            whole.freeze()
        }
    };
    bytes.advance(4);
    if key.response_header_version(version) >= 1 {
        bytes.advance(1);
    }
    T::decode(&mut bytes, version).expect("nodes answer in the version that they were asked in")
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
