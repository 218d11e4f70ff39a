//! What is altered on a live topic: its replicas here go on under another configuration.

use std::sync::Arc;

use helix_raft::{Durability, GroupId};
use tracing::{debug, warn};

use super::owner::Owner;
use super::recover::Opening;
use super::replica::{Machine, Replica};
use crate::config::WriteDurability;
use crate::config::topic::TopicConfig;
use crate::durable::recovering::Finding;

/// Whether data of this node need not be synced before it counts. The node's state has to say so before anything is acknowledged
/// by it: after a crash of the machine, the logs of a node that syncs everything are taken to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Relaxation {
    /// Nobody has asked for it.
    #[default]
    Unasked,
    /// It is on its way to the disk.
    Asked,
    /// It is on disk.
    Recorded,
}

impl Owner {
    /// The configuration of a group's topic, or of the broker, was altered.
    pub(super) fn configure(&mut self, group: GroupId, config: &Arc<TopicConfig>) {
        let machine = if let Some(anew) = self.anew.get_mut(&group) {
            &anew.machine
        } else if let Some(suspected) = self.suspected.get_mut(&group) {
            &suspected.machine
        } else if let Some(unopened) = self.unopened.get_mut(&group) {
            if let Opening::Partition(wanted) = &mut unopened.opening {
                wanted.config = Arc::clone(config);
            }
            return;
        } else if let Some(replica) = self.replicas.get_mut(&group) {
            &replica.machine
        } else {
            return;
        };
        if let Machine::Partition(partition) = machine {
            partition.configure(Arc::clone(config));
        }
        self.require(group);
    }

    /// Makes entries of a group count as its topic wants it, or the node if the topic says nothing.
    pub(super) fn require(&mut self, group: GroupId) {
        let Some(partition) = self.replicas.get_mut(&group).and_then(Replica::partition) else { return };
        let required = match partition.view().config().write_durability {
            None => self.context.required,
            Some(WriteDurability::Fsync) => Durability::Synced,
            Some(WriteDurability::ReplicationOnly) => Durability::PageCache,
        };
        let relaxed = self.context.required == Durability::PageCache
            || required == Durability::Synced
            || self.relaxation == Relaxation::Recorded;
        if !relaxed {
            return self.ask_relaxation();
        }
        if let Some(replica) = self.replicas.get_mut(&group) {
            replica.floor = required;
        }
        if self.raft.set_required(group, required) {
            debug!(%group, ?required, "entries count once they are stored so");
            // A leader may have appended an entry: the next one's offsets must be known.
            self.drive();
        }
    }

    fn ask_relaxation(&mut self) {
        if self.relaxation != Relaxation::Unasked {
            return;
        }
        self.relaxation = Relaxation::Asked;
        let (shards, number) = (self.context.shards.clone(), self.context.number);
        let recorded = Box::new(move || shards.relaxation_recorded(number));
        if self.context.findings.send(Finding::Relaxed { recorded }).is_err() {
            warn!("the node stops; data is synced before it counts until its next start");
        }
    }

    /// It is durable that data of this node need not be synced before it counts.
    pub(super) fn on_relaxation_recorded(&mut self) {
        self.relaxation = Relaxation::Recorded;
        let groups: Vec<GroupId> = self.replicas.keys().copied().collect();
        for group in groups {
            self.guarded(group, |owner| owner.require(group));
        }
    }
}
