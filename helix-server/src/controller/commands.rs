//! The commands of the metadata group (group 0) and what applying one can answer.
//!
//! A command states an intent ("create this topic with so many partitions"); everything derived (group ids, placement,
//! producer id ranges) is computed when it is applied, from the image alone, so that every node derives the same.

use std::collections::{BTreeMap, HashSet};

use helix_raft::{Incarnation, ReplicaId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::config::kind::list;
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
    /// What becomes of single ones, by name.
    pub values: BTreeMap<String, ConfigOperation>,
}

/// What becomes of a configuration. A log may hold changes from before lists could be changed, when this was an optional text:
/// the first two are encoded as that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigOperation {
    /// It goes back to its default.
    Delete,
    /// It gets this value.
    Set(String),
    /// A list gets more words.
    Append(ListChange),
    /// A list gets fewer words.
    Subtract(ListChange),
}

/// Words that a list gets or loses. The list is looked up when the change is applied, so that no other change of it is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChange {
    /// The words.
    pub words: Vec<String>,
    /// The list that was in force, if the subject has none of its own.
    pub inherited: String,
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
        for (name, operation) in &self.values {
            match operation.value(after.get(name)) {
                Some(value) => drop(after.insert(name.clone(), value)),
                None => drop(after.remove(name)),
            }
        }
        after
    }
}

impl ConfigOperation {
    /// The value afterwards, `None` for the default.
    fn value(&self, before: Option<&String>) -> Option<String> {
        match self {
            Self::Delete => None,
            Self::Set(value) => Some(value.clone()),
            Self::Append(change) => {
                let mut words = change.list(before);
                let mut known: HashSet<String> = words.iter().cloned().collect();
                words.extend(change.words.iter().filter(|word| known.insert((*word).clone())).cloned());
                Some(words.join(","))
            }
            Self::Subtract(change) => {
                // Of a word that is there twice, one stays, as in Kafka.
                let mut gone: HashSet<&String> = change.words.iter().collect();
                let mut words = change.list(before);
                words.retain(|word| !gone.remove(word));
                Some(words.join(","))
            }
        }
    }
}

impl ListChange {
    /// The words before.
    fn list(&self, own: Option<&String>) -> Vec<String> {
        list(own.unwrap_or(&self.inherited))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versioned;

    fn change(operation: ConfigOperation) -> ConfigChange {
        let values = BTreeMap::from([("policy".to_owned(), operation)]);
        ConfigChange { subject: ConfigSubject::Brokers, replace: false, values }
    }

    fn words(words: &[&str]) -> ListChange {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        ListChange { words, inherited: "delete".to_owned() }
    }

    /// The list after these changes, one after the other.
    fn after(changes: &[ConfigOperation]) -> Option<String> {
        let apply = |before, one: &ConfigOperation| change(one.clone()).apply_to(&before);
        changes.iter().fold(BTreeMap::new(), apply).remove("policy")
    }

    #[test]
    fn changes_of_a_list_build_on_each_other() {
        use ConfigOperation::{Append, Delete, Set, Subtract};
        // Both were sent when the list was inherited still.
        let both = [Append(words(&["compact"])), Append(words(&["a", "a"]))];
        assert_eq!(after(&both).as_deref(), Some("delete,compact,a"));
        assert_eq!(after(&[both[0].clone(), both[0].clone()]).as_deref(), Some("delete,compact"));
        assert_eq!(after(&[Set("a, b".into()), Subtract(words(&["b", "c"]))]).as_deref(), Some("a"));
        assert_eq!(after(&[Subtract(words(&["delete"]))]).as_deref(), Some(""));
        assert_eq!(after(&[Set("a,b,a".into()), Subtract(words(&["a"]))]).as_deref(), Some("b,a"));
        assert_eq!(after(&[both[1].clone(), Delete]), None);
    }

    #[test]
    fn changes_from_before_lists_could_be_changed_are_read() {
        #[derive(Serialize)]
        struct Before {
            subject: ConfigSubject,
            replace: bool,
            values: BTreeMap<String, Option<String>>,
        }
        for (value, operation) in [
            (Some("compact".to_owned()), ConfigOperation::Set("compact".to_owned())),
            (None, ConfigOperation::Delete),
        ] {
            let values = BTreeMap::from([("policy".to_owned(), value)]);
            let before = Before { subject: ConfigSubject::Brokers, replace: false, values };
            let read: ConfigChange = versioned::decode(&versioned::encode(&before)).expect("readable");
            assert_eq!(read, change(operation));
        }
    }
}
