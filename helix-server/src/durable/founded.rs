//! Which cluster a node belongs to, and which disks founded it.

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, NodeId, ReplicaId};

/// A node that took part in founding a cluster, and the disk that it had then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingMember {
    /// The node.
    pub node: NodeId,
    /// The identity of its disk.
    pub replica: ReplicaId,
}

/// What the nodes of a cluster agree on before there is a log to agree in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundedCluster {
    /// The cluster's identity.
    pub cluster: ClusterId,
    /// The founding nodes by ascending node id: the first voters of group 0.
    pub members: Vec<FoundingMember>,
}

impl FoundedCluster {
    /// The disk that `node` had when the cluster was founded.
    #[must_use]
    pub fn replica_of(&self, node: NodeId) -> Option<ReplicaId> {
        self.members.iter().find(|member| member.node == node).map(|member| member.replica)
    }

    /// Whether this disk founded the cluster.
    #[must_use]
    pub fn has_replica(&self, replica: ReplicaId) -> bool {
        self.members.iter().any(|member| member.replica == replica)
    }
}

/// How far the founding of a node's cluster has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Founding {
    /// The node is blank: it belongs to no cluster.
    #[default]
    Blank,
    /// The node has accepted this record and will never accept another one. Not every other node may have.
    Accepted(FoundedCluster),
    /// Every founding node has accepted this record: the cluster exists.
    Founded(FoundedCluster),
}

impl Founding {
    /// The record that binds the node, if any.
    #[must_use]
    pub const fn record(&self) -> Option<&FoundedCluster> {
        match self {
            Self::Blank => None,
            Self::Accepted(record) | Self::Founded(record) => Some(record),
        }
    }

    /// The cluster, once it exists.
    #[must_use]
    pub const fn founded(&self) -> Option<&FoundedCluster> {
        match self {
            Self::Founded(record) => Some(record),
            Self::Blank | Self::Accepted(_) => None,
        }
    }
}
