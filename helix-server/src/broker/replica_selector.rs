//! Where a consumer reads best: from the leader, or from a follower in its own rack (KIP-392).

use helix_raft::{GroupId, ReplicaId};

use super::Broker;
use crate::config::ReplicaSelector;
use crate::ids::NodeId;

/// A replica that could serve reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate<'a> {
    node: NodeId,
    rack: Option<&'a str>,
}

/// The follower that a client in `rack` should read from; `None` if it stays with the leader. As Kafka's `RackAwareReplicaSelector`: a leader in
/// the rack is best, and of several followers the one with the lowest number, since those here are all in sync.
fn select(rack: &str, leader: NodeId, in_sync: &[Candidate<'_>]) -> Option<NodeId> {
    let near = || in_sync.iter().filter(|candidate| candidate.rack == Some(rack)).map(|near| near.node);
    if near().any(|node| node == leader) { None } else { near().min() }
}

impl Broker {
    /// The follower that a client in `rack` should read a group from that this node leads; `None` if there is no better place than
    /// here.
    pub(crate) fn preferred_follower(&self, group: GroupId, rack: &str) -> Option<NodeId> {
        if self.config().replica_selector_class != ReplicaSelector::RackAware {
            return None;
        }
        let leader = self.parts.node;
        let known = self.leaders().get(group)?;
        let image = self.image();
        let brokers =
            known.in_sync.iter().filter_map(|replica: &ReplicaId| image.broker_of_replica(*replica));
        let candidates: Vec<Candidate<'_>> = brokers
            .filter(|broker| self.is_alive(broker.node))
            .map(|broker| Candidate { node: broker.node, rack: broker.rack.as_deref() })
            .collect();
        select(rack, leader, &candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_replica_in_sync_is_chosen() {
        let at = |node, rack| Candidate { node: NodeId(node), rack };
        let all = [at(1, Some("a")), at(3, Some("b")), at(2, Some("b")), at(4, None)];
        let chosen =
            |rack, leader, in_sync: &[Candidate<'_>]| select(rack, NodeId(leader), in_sync).map(|n| n.0);
        assert_eq!(chosen("b", 1, &all), Some(2));
        assert_eq!(chosen("b", 1, &all[..2]), Some(3), "node 2 is not in sync");
        assert_eq!(chosen("b", 3, &all), None, "the leader is in the rack");
        assert_eq!(chosen("a", 1, &all), None);
        assert_eq!(chosen("c", 1, &all), None, "nobody is in the rack");
    }
}
