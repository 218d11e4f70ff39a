//! The commands of the metadata group (group 0) and what applying one can answer.
//!
//! A command states an intent ("create this topic with so many partitions"); everything derived (group ids, placement,
//! producer id ranges) is computed when it is applied, from the image alone, so that every node derives the same.

use std::collections::BTreeMap;

use helix_raft::{Incarnation, ReplicaId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::ids::NodeId;

/// A change of the cluster's metadata, replicated through group 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataCommand {
    /// A node came up: its identity, incarnation and addresses. If it has another disk than before, that one takes the place of
    /// the old one in every partition, and the old one never comes back.
    RegisterBroker(BrokerRegistration),
    /// Create a topic with all its partitions.
    CreateTopic(NewTopic),
    /// Delete a topic; its group ids are never used again.
    DeleteTopic {
        /// The topic to delete.
        topic_id: Uuid,
    },
    /// Grow a topic to `total` partitions.
    CreatePartitions {
        /// The topic to grow.
        topic_id: Uuid,
        /// Partition count afterwards.
        total: i32,
        /// Explicit replicas of each new partition, if the client chose them.
        assignments: Option<Vec<Vec<NodeId>>>,
    },
    /// Reserve a block of producer ids for the node that asks.
    AllocateProducerIds {
        /// How many ids the block holds.
        count: u32,
    },
    /// Change the configuration of a topic or of brokers. What is asked for is already validated.
    AlterConfigs(ConfigChange),
}

/// A change of configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// Whose.
    pub subject: ConfigSubject,
    /// Whether what is not named below goes back to its default.
    pub replace: bool,
    /// New values by name; `None` goes back to the default.
    pub values: BTreeMap<String, Option<String>>,
}

/// What has configurations of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigSubject {
    /// A topic.
    Topic(Uuid),
    /// One broker.
    Broker(NodeId),
    /// All brokers.
    Brokers,
}

impl ConfigChange {
    /// What is in force of `before` after the change.
    pub fn apply_to(&self, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut after = if self.replace { BTreeMap::new() } else { before.clone() };
        for (name, value) in &self.values {
            match value {
                Some(value) => drop(after.insert(name.clone(), value.clone())),
                None => drop(after.remove(name)),
            }
        }
        after
    }
}

/// What a node says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistration {
    /// Kafka broker id.
    pub node: NodeId,
    /// Identity of the node's disk.
    pub replica: ReplicaId,
    /// Start counter of that disk.
    pub incarnation: Incarnation,
    /// Host that clients are told to connect to.
    pub host: String,
    /// Port that clients are told to connect to.
    pub port: u16,
    /// Rack name, if configured.
    pub rack: Option<String>,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    /// Topic name, already validated.
    pub name: String,
    /// Topic id chosen by the node that took the request.
    pub topic_id: Uuid,
    /// Number of partitions; ignored when `assignments` is given.
    pub partitions: i32,
    /// Replicas per partition; ignored when `assignments` is given.
    pub replication_factor: i16,
    /// Explicit replicas per partition, in partition order.
    pub assignments: Option<Vec<Vec<NodeId>>>,
    /// Topic configuration overrides, already validated.
    pub configs: BTreeMap<String, String>,
}

/// What a committed command produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// Applied; nothing to tell.
    Done,
    /// The topic exists now, with these partitions.
    TopicCreated {
        /// Its id.
        topic_id: Uuid,
        /// Number of partitions.
        partitions: i32,
        /// Replicas per partition.
        replication_factor: i16,
    },
    /// Producer ids `first .. first + count` belong to the caller.
    ProducerIds {
        /// First id of the block.
        first: i64,
        /// Number of ids in the block.
        count: u32,
    },
}

/// Why a committed command changed nothing. The same on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum CommandError {
    /// A topic of that name exists.
    #[error("topic '{name}' already exists")]
    TopicExists {
        /// The name in question.
        name: String,
    },
    /// No topic with that id.
    #[error("this server does not host this topic")]
    UnknownTopic,
    /// The partition count is not larger than before.
    #[error("the topic has {current} partitions, so {requested} would not be an increase")]
    NotAnIncrease {
        /// Partitions now.
        current: i32,
        /// Partitions asked for.
        requested: i32,
    },
    /// A partition count below one.
    #[error("number of partitions must be at least 1, but {requested} was asked for")]
    InvalidPartitions {
        /// Partitions asked for.
        requested: i32,
    },
    /// More partitions than a topic may have.
    #[error("{requested} partitions were asked for, and a topic has at most {limit}")]
    TooManyPartitions {
        /// Partitions asked for.
        requested: i64,
        /// The most that are allowed.
        limit: i32,
    },
    /// More replicas than brokers, or fewer than one.
    #[error(
        "replication factor {requested} is not possible with {available} registered broker(s): use a factor between 1 and {available}, or start more brokers"
    )]
    InvalidReplicationFactor {
        /// Replicas asked for.
        requested: i16,
        /// Brokers registered.
        available: usize,
    },
    /// An explicit assignment that names unknown or repeated brokers, or differs in length.
    #[error("invalid replica assignment: {reason}")]
    InvalidAssignment {
        /// What is wrong with it.
        reason: String,
    },
    /// A node registered with an incarnation lower than the recorded one.
    #[error(
        "node {node} registered with incarnation {got}, but {known} is recorded: its data directory was restored from an older \
         copy, and what it has promised since is not in there; start the node with an empty data directory, it is filled from the others"
    )]
    StaleIncarnation {
        /// The node.
        node: NodeId,
        /// Incarnation on record.
        known: Incarnation,
        /// Incarnation offered.
        got: Incarnation,
    },
    /// The disk was replaced by another one, which has taken its place since.
    #[error(
        "this data directory (replica {replica}) of node {node} was replaced by another one, which has taken its place in the cluster: \
         start the node with that one, or with an empty one"
    )]
    DiskRetired {
        /// The node.
        node: NodeId,
        /// The disk's replica id.
        replica: ReplicaId,
    },
}

/// What the waiter of a command receives.
pub type CommandResult = Result<CommandOutcome, CommandError>;

/// The most partitions of one topic. Each is a consensus group on every broker that holds it, so a slip of the keyboard must
/// not take the cluster down.
pub const MAX_TOPIC_PARTITIONS: i32 = 10_000;

pub use crate::ids::METADATA_GROUP;
