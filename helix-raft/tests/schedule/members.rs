//! What the controller and the operators do: replicas come and go, disks are lost and replaced.

use helix_raft::{GroupId, Membership, ReplicaId, Role, Status};

use crate::node::Node;
use crate::rng::Rng;
use crate::world::World;

/// No more nodes than this, lost ones included.
const MAX_NODES: usize = 10;

impl World {
    pub(crate) fn status(&self, node: usize, group: GroupId) -> Option<Status> {
        self.nodes[node].process.as_ref()?.raft.status(group)
    }

    pub(crate) fn join(&mut self, node: usize, group: GroupId) {
        let mut rng = Rng::new(self.rng.next());
        self.tally.joins += u64::from(!self.nodes[node].disks.contains_key(&group));
        self.nodes[node].join(group, &mut rng, &mut self.checker);
    }

    /// Some leader is asked for some change.
    pub(crate) fn change(&mut self, group: GroupId) {
        let leads = |status: &Status| status.role == Role::Leader;
        let leaders: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.status(*node, group).as_ref().is_some_and(leads))
            .collect();
        let Some(leader) = self.rng.pick(&leaders) else { return };
        let Some(status) = self.status(leader, group) else { return };
        let target = self.target(&status.membership);
        if self.may_vote_alone(&target) {
            self.ask_for_change(leader, group, &target);
        }
    }

    /// Groups of one voter are rare: all they know hangs on one disk.
    fn may_vote_alone(&mut self, target: &Membership) -> bool {
        target.voters.len() > 1 || self.rng.chance(100)
    }

    pub(crate) fn ask_for_change(&mut self, leader: usize, group: GroupId, target: &Membership) -> bool {
        // Mostly the new replica is there before the change is asked for.
        if self.rng.chance(800) {
            for learner in target.learners.clone() {
                self.join(learner.get() as usize - 1, group);
            }
        }
        let mut changed = false;
        self.with_process(leader, |process| {
            changed = process.raft.change_membership(group, target).is_ok();
        });
        self.tally.changes += u64::from(changed);
        self.settle(leader, false);
        changed
    }

    fn target(&mut self, now: &Membership) -> Membership {
        let mut target = now.left();
        let outside: Vec<ReplicaId> = self
            .nodes
            .iter()
            .filter(|node| !node.lost && !now.contains(node.id))
            .map(|node| node.id)
            .collect();
        let lost = now.voters.iter().copied().find(|voter| self.nodes[voter.get() as usize - 1].lost);
        let voter = lost.or_else(|| self.rng.pick(&now.voters));
        let (learner, voters) = (self.rng.pick(&now.learners), now.voters.len());
        match self.rng.below(10) {
            0..=2 => target.learners.extend(self.rng.pick(&outside)),
            3 | 4 => {
                if let (Some(voter), Some(learner)) = (voter, learner) {
                    target = target.replacing(voter, learner);
                }
            }
            5 => {
                if let Some(learner) = learner {
                    target.learners.retain(|other| *other != learner);
                    target.voters.insert(self.rng.below(voters + 1), learner);
                }
            }
            6 => target.voters.retain(|other| Some(*other) != voter),
            7 => {
                target.voters.retain(|other| Some(*other) != voter);
                target.learners.extend(voter);
            }
            8 => target.learners.retain(|other| Some(*other) != learner),
            _ => {
                let by = self.rng.below(voters);
                target.voters.rotate_left(by);
                target.voters.append(&mut target.learners);
            }
        }
        target
    }

    /// A node that knows that it is out of a group deletes its log.
    pub(crate) fn delete(&mut self, node: usize, group: GroupId) {
        if self.nodes[node].is_removed(group) {
            self.nodes[node].delete(group, &mut self.checker);
            self.tally.deletions += 1;
        }
    }

    /// A disk is lost, and a node with an empty one takes its place under a new replica id. One at a time, and only where the
    /// others can do without it: that is what the groups promise to survive.
    pub(crate) fn lose_disk(&mut self, node: usize) {
        let id = self.nodes[node].id;
        if self.nodes.len() >= MAX_NODES || !self.can_do_without(id) {
            return;
        }
        self.nodes[node].lose_disk();
        self.tally.disks_lost += 1;
        let new = ReplicaId(self.nodes.len() as u64 + 1);
        for node in &mut self.nodes {
            let now_ms = node.clock_ms;
            if let Some(process) = &mut node.process {
                process.heartbeats.add_peer(now_ms, new);
            }
        }
        self.nodes.push(Node::new(new, &[], &Membership::default()));
        self.start(self.nodes.len() - 1);
    }

    fn can_do_without(&self, id: ReplicaId) -> bool {
        let lost: Vec<ReplicaId> = self.nodes.iter().filter(|node| node.lost).map(|node| node.id).collect();
        let logs = self.nodes.iter().flat_map(|node| node.disks.values()).flat_map(|disk| {
            let queued = disk.wal_queue.iter().flat_map(crate::disk::WalOp::memberships);
            disk.log.all_memberships().into_iter().chain(queued).collect::<Vec<_>>()
        });
        let in_force = self.groups.iter().flat_map(|group| {
            (0..self.nodes.len()).filter_map(|node| Some(self.status(node, *group)?.membership))
        });
        logs.chain(in_force).all(|membership| {
            let halves = [&membership.voters, &membership.outgoing];
            let held_up = halves.into_iter().any(|half| half.contains(&id) && half.len() < 3);
            !held_up && !lost.iter().any(|lost| membership.is_voter(*lost))
        })
    }
}
