//! The end of a run: everything works from now on. All replicas must agree, and commit what is proposed.

use helix_raft::{GroupId, Membership, Role, Status};

use crate::node::ELECTION_TICKS;
use crate::world::{Packet, World};

impl World {
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.network.append(&mut self.stragglers);
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        self.quiet_rounds(20 * ELECTION_TICKS);
        for group in self.groups.clone() {
            self.recover(group);
            self.drop_lost_members(group);
            self.delete_elsewhere(group);
        }
        self.quiet_rounds(6 * ELECTION_TICKS);
        for group in self.groups.clone() {
            let leader = self.leader(group);
            self.propose(leader, group);
            self.nodes[leader].confirm(group, &self.checker);
        }
        self.quiet_rounds(6 * ELECTION_TICKS);
        for group in self.groups.clone() {
            self.check_agreement(group);
            let waiting: usize = self.nodes.iter().map(|node| node.unconfirmed(group)).sum();
            assert_eq!(waiting, 0, "a leader of {group} is not confirmed: {}", self.describe(group));
        }
        self.check_rest();
        self.tally.entries_lost = self.checker.entries_lost;
        self.tally.confirmed = self.nodes.iter().map(|node| node.confirmed).sum();
        self.tally.deposed_asked = self.nodes.iter().map(|node| node.deposed_asked).sum();
        self.tally.unclean = self.nodes.iter().map(|node| node.unclean).sum();
        self.tally.diverged = self.nodes.iter().map(|node| node.diverged).sum();
    }

    fn check_rest(&self) {
        for node in self.nodes.iter().filter(|node| !node.lost) {
            let process = node.process.as_ref().expect("every node runs");
            assert_eq!(process.raft.active_groups(), 0, "a group at rest costs ticks at {}", node.id);
        }
        let idle = self.network.iter().all(|packet| !matches!(packet, Packet::Raft(_)));
        assert!(idle, "groups at rest still talk: {:?}", self.network);
    }

    pub(crate) fn quiet_rounds(&mut self, rounds: u32) {
        for _ in 0..rounds {
            for node in 0..self.nodes.len() {
                self.tick(node);
                self.settle(node, true);
            }
            self.drain();
        }
    }

    /// Delivers, writes and reports until nothing is left to do.
    fn drain(&mut self) {
        for _ in 0..200 {
            for packet in std::mem::take(&mut self.network) {
                self.deliver(packet);
            }
            let mut busy = false;
            for node in 0..self.nodes.len() {
                for group in self.groups.clone() {
                    while self.nodes[node].complete(group, false, &mut self.checker) {}
                    while self.nodes[node].complete(group, true, &mut self.checker) {}
                    while self.nodes[node].report(group, false, false) {}
                    while self.nodes[node].report(group, true, false) {}
                    self.serve(node, group);
                }
                self.settle(node, true);
                busy |= self.nodes[node].process.as_ref().is_some_and(|process| process.raft.has_ready());
            }
            if self.network.is_empty() && !busy {
                return;
            }
        }
        panic!("the cluster does not come to rest: {:?}", self.network);
    }

    fn ready_leader(&self, group: GroupId) -> Option<usize> {
        let leads = |status: &Status| status.role == Role::Leader && status.leader_ready;
        let leaders = (0..self.nodes.len()).filter_map(|node| {
            let status = self.status(node, group)?;
            leads(&status).then_some((status.term, node))
        });
        leaders.max().map(|(_, node)| node)
    }

    pub(crate) fn leader(&self, group: GroupId) -> usize {
        self.ready_leader(group).unwrap_or_else(|| {
            let statuses: Vec<_> = (0..self.nodes.len()).map(|node| self.status(node, group)).collect();
            panic!("{group} has no leader: {statuses:?}")
        })
    }

    fn is_lost(&self, replica: helix_raft::ReplicaId) -> bool {
        self.nodes[replica.get() as usize - 1].lost
    }

    /// A group that waits for a voter whose disk is lost is helped by the operator, who chooses the replica that holds the most.
    fn recover(&mut self, group: GroupId) {
        if self.ready_leader(group).is_some() {
            return;
        }
        let mut replicas: Vec<_> = (0..self.nodes.len())
            .filter_map(|node| {
                let status = self.status(node, group)?;
                let last_term = self.nodes[node].process.as_ref()?.raft.term_at(group, status.last_index)?;
                let leads = status.role == Role::Leader;
                let waits = status.membership.all_voters().into_iter().any(|voter| self.is_lost(voter));
                Some(((leads, last_term, status.last_index), node, waits))
            })
            .collect();
        let lost = replicas.iter().any(|replica| replica.2);
        assert!(lost, "{group} has all its voters and no leader: {}", self.describe(group));
        replicas.sort();
        let chosen = loop {
            let (_, node, _) = replicas.pop().expect("some replica is a voter");
            let mut forced = false;
            self.with_process(node, |process| forced = process.raft.force_recover(group).is_ok());
            if forced {
                break node;
            }
        };
        self.checker.forced.insert((group, self.nodes[chosen].id));
        self.tally.forced += 1;
        self.settle(chosen, true);
        self.quiet_rounds(6 * ELECTION_TICKS);
        assert!(self.ready_leader(group).is_some(), "{group} cannot be forced: {}", self.describe(group));
    }

    pub(crate) fn describe(&self, group: GroupId) -> String {
        let statuses = (0..self.nodes.len()).map(|node| format!("{:?}\n", self.status(node, group)));
        statuses.collect()
    }

    fn drop_lost_members(&mut self, group: GroupId) {
        let leader = self.leader(group);
        let members = self.status(leader, group).expect("it leads").membership;
        for member in members.members() {
            self.join(member.get() as usize - 1, group);
        }
        let remaining =
            |replicas: &[_]| replicas.iter().copied().filter(|replica| !self.is_lost(*replica)).collect();
        let target = Membership {
            voters: remaining(&members.voters),
            learners: remaining(&members.learners),
            ..Membership::default()
        };
        if target != members {
            let changed = self.ask_for_change(leader, group, &target);
            assert!(changed, "{group} keeps a lost replica: {}", self.describe(group));
        }
        self.quiet_rounds(6 * ELECTION_TICKS);
    }

    /// Who was away when it was removed is told by the controller.
    fn delete_elsewhere(&mut self, group: GroupId) {
        let leader = self.leader(group);
        let committed = self.status(leader, group).expect("it leads").committed_membership.membership;
        for node in 0..self.nodes.len() {
            if !committed.contains(self.nodes[node].id) {
                self.nodes[node].delete(group, &mut self.checker);
            }
        }
    }

    fn check_agreement(&mut self, group: GroupId) {
        let leader = self.leader(group);
        let first = self.status(leader, group).expect("it leads");
        assert!(!first.membership.is_joint(), "{group} does not leave its joint configuration: {first:?}");
        for member in first.membership.members() {
            let status = self.status(member.get() as usize - 1, group).expect("every member has a replica");
            let same = status.term == first.term
                && status.leader == first.leader
                && status.last_index == first.last_index
                && status.commit == status.last_index
                && status.applied == status.commit
                && !status.recovering
                && status.membership == first.membership
                && status.committed_membership.membership == first.membership;
            assert!(same, "{group} does not converge: {}", self.describe(group));
        }
        self.tally.committed += first.commit.get();
    }
}
