//! A cluster under a random schedule: every message, write, report and tick happens when chance says so.

use std::collections::BTreeMap;

use helix_raft::{
    GroupId, Heartbeat, HeartbeatAnswer, Membership, Message, MessageBody, ReplicaId, Role, StepOutcome,
};

use crate::checker::Checker;
use crate::disk::{GroupDisk, Payload};
use crate::node::{Node, TICK_MS, required};
use crate::profile::{Action, Profile};
use crate::rng::Rng;

#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Raft(Message<Payload>),
    Heartbeat(ReplicaId, ReplicaId, Heartbeat),
    Answer(ReplicaId, ReplicaId, HeartbeatAnswer),
}

impl Packet {
    fn route(&self) -> (ReplicaId, ReplicaId) {
        match self {
            Packet::Raft(message) => (message.from, message.to),
            Packet::Heartbeat(from, to, _) | Packet::Answer(from, to, _) => (*from, *to),
        }
    }
}

/// What happened in a run, for those who want to know that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) committed: u64,
    pub(crate) confirmed: u64,
    pub(crate) deposed_asked: u64,
    pub(crate) crashes: u64,
    pub(crate) power_losses: u64,
    pub(crate) installs: u64,
    pub(crate) wal_reads: u64,
    pub(crate) elections: u64,
    pub(crate) changes: u64,
    pub(crate) joins: u64,
    pub(crate) deletions: u64,
    pub(crate) disks_lost: u64,
    pub(crate) blackouts: u64,
    pub(crate) unclean: u64,
    pub(crate) forced: u64,
    pub(crate) entries_lost: u64,
    pub(crate) diverged: u64,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) profile: Profile,
    pub(crate) nodes: Vec<Node>,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) network: Vec<Packet>,
    /// Packets that stay on the way for long.
    pub(crate) stragglers: Vec<Packet>,
    /// Pairs between which nothing passes, one way.
    pub(crate) cut: Vec<(ReplicaId, ReplicaId)>,
    pub(crate) checker: Checker,
    proposals: u64,
    pub(crate) trace: u64,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let size = if rng.chance(750) { 3 } else { 5 };
        let groups: Vec<GroupId> = (1..=1 + rng.next() % 2).map(GroupId).collect();
        let voters: Vec<ReplicaId> = (1..=size).map(ReplicaId).collect();
        let mut members = Membership::of_voters(voters.clone());
        if size == 5 && rng.chance(500) {
            let joint = rng.chance(500);
            members = Membership {
                voters: voters[..3].to_vec(),
                outgoing: if joint { voters[1..4].to_vec() } else { Vec::new() },
                learners: voters[if joint { 4 } else { 3 }..].to_vec(),
            };
        }
        let profile = Profile::new(&mut rng);
        let mut nodes: Vec<Node> =
            members.members().iter().map(|id| Node::new(*id, &groups, &members)).collect();
        for id in size + 1..=size + 2 {
            nodes.push(Node::new(ReplicaId(id), &[], &members));
        }
        let mut world = World {
            rng,
            profile,
            nodes,
            groups,
            network: Vec::new(),
            stragglers: Vec::new(),
            cut: Vec::new(),
            checker: Checker::default(),
            proposals: 0,
            trace: seed,
            tally: Tally::default(),
        };
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        world
    }

    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.random_step();
        }
        self.heal();
    }

    // ------------------------------------------------------------------------------------------------------------

    fn random_step(&mut self) {
        let node = self.some_node();
        let group = self.groups[self.rng.below(self.groups.len())];
        let action = self.profile.pick(&mut self.rng);
        self.note(action as u64, node as u64, self.network.len() as u64);
        match action {
            Action::Deliver => self.deliver_some(),
            Action::Duplicate => self.duplicate_random(),
            Action::Lose => self.lose_random(),
            Action::Tick => {
                for _ in 0..1 + self.rng.below(3) {
                    self.tick(node);
                    self.settle(node, false);
                }
            }
            Action::Propose => self.propose(node, group),
            Action::Confirm => self.confirm(group),
            Action::Write => self.complete(node),
            Action::Report => self.report(node),
            Action::Serve => self.serve(node, group),
            Action::Checkpoint => self.nodes[node].checkpoint(group),
            Action::MoveStart => {
                let mut rng = Rng::new(self.rng.next());
                self.nodes[node].move_start(group, &mut rng);
            }
            Action::Transfer => self.transfer(node, group),
            Action::Campaign => self.with_process(node, |process| process.raft.campaign(group)),
            Action::Crash => self.crash(node),
            Action::Start => self.start_some(),
            Action::Partition => self.partition(),
            Action::Heal => self.cut.clear(),
            Action::Refuse => self.refuse(node),
            Action::Change => self.change(group),
            Action::Delete => self.delete(node, group),
            Action::Blackout => self.blackout(),
            Action::LoseDisk => self.lose_disk(node),
        }
        self.settle(node, false);
    }

    /// Mostly one to which something can happen.
    fn some_node(&mut self) -> usize {
        let busy = |node: &Node| node.process.is_some() && !node.disks.is_empty();
        let busy: Vec<usize> = (0..self.nodes.len()).filter(|node| busy(&self.nodes[*node])).collect();
        let any = self.rng.below(self.nodes.len());
        if self.rng.chance(100) { any } else { self.rng.pick(&busy).unwrap_or(any) }
    }

    fn start_some(&mut self) {
        let down = |node: &Node| node.process.is_none() && !node.lost;
        let down: Vec<usize> = (0..self.nodes.len()).filter(|node| down(&self.nodes[*node])).collect();
        if let Some(node) = self.rng.pick(&down) {
            self.start(node);
        }
    }

    fn note(&mut self, a: u64, b: u64, c: u64) {
        for value in [a, b, c] {
            self.trace = (self.trace ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
    }

    pub(crate) fn with_process(&mut self, node: usize, act: impl FnOnce(&mut crate::node::Process)) {
        if let Some(process) = &mut self.nodes[node].process {
            act(process);
        }
    }

    /// Lets the core of a node say what it wants, at once or after more has happened to it.
    pub(crate) fn settle(&mut self, node: usize, now: bool) {
        self.nodes[node].deliver_events();
        self.check(node);
        if !now && self.rng.chance(250) {
            return;
        }
        let mut rng = Rng::new(self.rng.next());
        let messages = self.nodes[node].drive(&mut rng, &mut self.checker);
        for message in messages {
            self.note(message.to.get(), message.term.get(), message.body.name().len() as u64);
            self.tally.installs += u64::from(matches!(message.body, MessageBody::InstallStart { .. }));
            self.tally.elections += u64::from(matches!(message.body, MessageBody::Vote { .. }));
            self.network.push(Packet::Raft(message));
        }
        self.check(node);
        self.with_process(node, |process| process.raft.trim_tails());
    }

    fn check(&mut self, node: usize) {
        let World { nodes, checker, groups, .. } = self;
        for group in groups {
            check_election(nodes, node, *group, checker);
            nodes[node].check(*group, checker);
            nodes[node].confirm_if_deposed(*group, checker);
        }
    }

    fn deliver_some(&mut self) {
        for _ in 0..2 + self.rng.below(10) {
            self.deliver_random();
        }
        if self.rng.chance(100) {
            self.deliver_straggler();
        }
    }

    fn deliver_random(&mut self) {
        if self.network.is_empty() {
            return;
        }
        // Mostly in order, as a connection would have it, and sometimes not at all so.
        let at = if self.rng.chance(self.profile.in_order) {
            self.rng.below(self.network.len().min(4))
        } else {
            self.rng.below(self.network.len())
        };
        let packet = self.network.remove(at);
        if matches!(packet, Packet::Raft(_)) && self.rng.chance(self.profile.stragglers) {
            self.stragglers.push(packet);
        } else {
            self.deliver(packet);
        }
    }

    fn deliver_straggler(&mut self) {
        if !self.stragglers.is_empty() {
            let at = self.rng.below(self.stragglers.len());
            let packet = self.stragglers.swap_remove(at);
            self.deliver(packet);
        }
    }

    fn duplicate_random(&mut self) {
        let at = self.rng.below(self.network.len());
        if let Some(packet) = self.network.get(at).cloned() {
            self.network.push(packet);
        }
    }

    fn lose_random(&mut self) {
        if !self.network.is_empty() {
            let at = self.rng.below(self.network.len());
            self.network.swap_remove(at);
        }
    }

    pub(crate) fn deliver(&mut self, packet: Packet) {
        let (from, to) = packet.route();
        if self.cut.contains(&(from, to)) {
            return;
        }
        let node = to.get() as usize - 1;
        let now_ms = self.nodes[node].clock_ms;
        let Some(process) = &mut self.nodes[node].process else { return };
        match packet {
            Packet::Raft(message) => {
                let group = message.group;
                if process.raft.step(message) == StepOutcome::UnknownGroup && self.rng.chance(300) {
                    self.join(node, group);
                }
            }
            Packet::Heartbeat(_, _, heartbeat) => {
                let (answer, wakes) =
                    process.heartbeats.on_heartbeat(now_ms, from, &heartbeat, &process.raft);
                for wake in wakes {
                    process.raft.wake(wake.replica, wake.bucket);
                }
                self.network.extend(answer.map(|answer| Packet::Answer(to, from, answer)));
            }
            Packet::Answer(_, _, answer) => {
                for wake in process.heartbeats.on_answer(now_ms, from, &answer) {
                    process.raft.wake(wake.replica, wake.bucket);
                }
            }
        }
        self.settle(node, false);
    }

    pub(crate) fn tick(&mut self, node: usize) {
        let id = self.nodes[node].id;
        self.nodes[node].clock_ms += TICK_MS;
        let now_ms = self.nodes[node].clock_ms;
        let Some(process) = &mut self.nodes[node].process else { return };
        for (to, heartbeat) in process.heartbeats.tick(now_ms, &process.raft) {
            self.network.push(Packet::Heartbeat(id, to, heartbeat));
        }
        self.nodes[node].deliver_events();
        self.with_process(node, |process| process.raft.tick());
    }

    pub(crate) fn propose(&mut self, node: usize, group: GroupId) {
        let proposals = 1 + self.rng.below(4);
        for _ in 0..proposals {
            self.proposals += 1;
            let mut payload = self.proposals.to_le_bytes().to_vec();
            payload.resize(8 + self.rng.below(600), 0);
            self.with_process(node, |process| {
                let _ = process.raft.propose(group, payload);
            });
        }
    }

    /// Whoever takes itself for the leader of a group is asked whether it is.
    fn confirm(&mut self, group: GroupId) {
        for node in &mut self.nodes {
            node.confirm(group, &self.checker);
        }
        for node in 0..self.nodes.len() {
            self.settle(node, false);
        }
    }

    /// A disk does some of what it was asked for.
    fn complete(&mut self, node: usize) {
        for group in self.groups.clone() {
            for _ in 0..self.rng.below(4) {
                let hard = self.rng.chance(400);
                self.nodes[node].complete(group, hard, &mut self.checker);
            }
        }
    }

    /// The core is told some of what its disk has done.
    fn report(&mut self, node: usize) {
        for group in self.groups.clone() {
            for _ in 0..self.rng.below(4) {
                let (hard, merge) = (self.rng.chance(400), self.rng.chance(300));
                self.nodes[node].report(group, hard, merge);
            }
        }
    }

    pub(crate) fn serve(&mut self, node: usize, group: GroupId) {
        let mut rng = Rng::new(self.rng.next());
        self.tally.wal_reads += u64::from(self.nodes[node].serve_read(group, &mut rng));
        self.nodes[node].serve_committed_read(group, &mut rng, &mut self.checker);
        self.nodes[node].serve_start(group);
    }

    fn transfer(&mut self, node: usize, group: GroupId) {
        let to = ReplicaId(1 + self.rng.below(self.nodes.len()) as u64);
        self.with_process(node, |process| {
            let _ = process.raft.transfer_leadership(group, to);
        });
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_none() && !self.nodes[node].lost {
            let mut rng = Rng::new(self.rng.next());
            let peers: Vec<ReplicaId> = self.nodes.iter().map(|node| node.id).collect();
            self.nodes[node].start(&peers, &mut rng, &mut self.checker);
        }
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        let power = self.rng.chance(self.profile.power_losses);
        self.stop(node, power);
    }

    fn stop(&mut self, node: usize, power: bool) {
        let mut rng = Rng::new(self.rng.next());
        self.nodes[node].crash(power, &mut rng, &mut self.checker);
        self.tally.crashes += 1;
        self.tally.power_losses += u64::from(power);
    }

    /// Many machines lose their power at once: mostly all of them, or those of all voters of a group.
    fn blackout(&mut self) {
        let (kind, group) = (self.rng.below(10), self.rng.pick(&self.groups));
        let voters = group.and_then(|group| {
            (0..self.nodes.len()).find_map(|node| Some(self.status(node, group)?.membership.all_voters()))
        });
        for node in 0..self.nodes.len() {
            let hit = match kind {
                0..=5 => true,
                6 | 7 => voters.as_ref().is_some_and(|voters| voters.contains(&self.nodes[node].id)),
                _ => self.rng.chance(600),
            };
            if hit {
                self.stop(node, true);
            }
        }
        self.tally.blackouts += 1;
    }

    fn partition(&mut self) {
        self.cut.clear();
        let mut side = self.rng.next();
        if self.rng.chance(600)
            && let Some(leader) = self.some_leader()
        {
            // A leader alone, or with one companion: what it appends now may come back much later.
            side = 1 << leader | if self.rng.chance(500) { 1 << self.rng.below(self.nodes.len()) } else { 0 };
            side <<= 1;
        }
        let one_way = self.rng.chance(300);
        let ids: Vec<ReplicaId> = self.nodes.iter().map(|node| node.id).collect();
        for from in &ids {
            for to in &ids {
                let (from_side, to_side) = (side >> from.get() & 1, side >> to.get() & 1);
                if from_side != to_side && (!one_way || from_side == 0) {
                    self.cut.push((*from, *to));
                }
            }
        }
    }

    fn some_leader(&mut self) -> Option<usize> {
        let group = self.rng.pick(&self.groups)?;
        let leads = |node: &Node| {
            let process = node.process.as_ref();
            process
                .and_then(|process| process.raft.status(group))
                .is_some_and(|status| status.role == Role::Leader)
        };
        self.nodes.iter().position(leads)
    }

    /// A connection is refused by a node whose process is gone, or so it seems.
    fn refuse(&mut self, node: usize) {
        let any = self.rng.chance(self.profile.false_alarms);
        let gone = |node: &&Node| any || node.process.is_none();
        let gone: Vec<ReplicaId> = self.nodes.iter().filter(gone).map(|node| node.id).collect();
        let now_ms = self.nodes[node].clock_ms;
        if let Some(peer) = self.rng.pick(&gone) {
            self.with_process(node, |process| process.heartbeats.refused(now_ms, peer));
        }
    }
}

/// Notices that `node` leads the group in a term that had no leader so far.
fn check_election(nodes: &[Node], node: usize, group: GroupId, checker: &mut Checker) {
    let Some(process) = &nodes[node].process else { return };
    let Some(status) = process.raft.status(group) else { return };
    if status.role != Role::Leader || checker.knows_leader(group, status.term) {
        return;
    }
    let disks: BTreeMap<ReplicaId, &GroupDisk> =
        nodes.iter().filter_map(|node| Some((node.id, node.disks.get(&group)?))).collect();
    let term_at = |index| process.raft.term_at(group, index);
    checker.elected(group, nodes[node].id, required(group), &status, &disks, term_at);
}
