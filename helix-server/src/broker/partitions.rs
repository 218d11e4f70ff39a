//! The partition replicas of this node: where to read them, and which shard owns them.

use std::collections::HashMap;
use std::sync::Arc;

use helix_raft::GroupId;
use parking_lot::RwLock;

use crate::partition::view::PartitionView;

/// The views of this node's partition replicas, by group. Written when replicas come and go.
#[derive(Debug, Default)]
pub struct PartitionTable {
    views: RwLock<HashMap<GroupId, Arc<PartitionView>>>,
}

impl PartitionTable {
    /// The view of a partition replica on this node.
    pub fn get(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        self.views.read().get(&group).cloned()
    }

    /// Number of partition replicas on this node.
    pub fn len(&self) -> usize {
        self.views.read().len()
    }

    /// Whether this node has no partition replica.
    pub fn is_empty(&self) -> bool {
        self.views.read().is_empty()
    }

    /// All views.
    pub fn all(&self) -> Vec<Arc<PartitionView>> {
        self.views.read().values().cloned().collect()
    }

    pub(crate) fn insert(&self, view: Arc<PartitionView>) {
        self.views.write().insert(view.group, view);
    }

    pub(crate) fn remove(&self, group: GroupId) {
        self.views.write().remove(&group);
    }
}
