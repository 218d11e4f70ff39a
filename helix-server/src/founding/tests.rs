//! Foundings over a simulated exchange of messages, with crashes and replaced disks.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::ids::Incarnation;

fn node(number: usize) -> NodeId {
    NodeId(number as i32 + 1)
}

/// A node: what is on its disk, and the process that runs on it.
struct Node {
    number: usize,
    replica: ReplicaId,
    stored: Founding,
    machine: Option<FoundingMachine>,
}

struct Cluster {
    nodes: Vec<Node>,
    /// On their way: sender's identity, receiver, status.
    messages: Vec<(Identity, usize, FoundingStatus)>,
    /// Every record that any disk has ever called founded.
    founded: BTreeSet<[u8; 16]>,
    drawn: u8,
    replaced: u64,
}

impl Cluster {
    fn new(size: usize) -> Self {
        let nodes = (0..size).map(|number| Node {
            number,
            replica: ReplicaId(number as u64 + 100),
            stored: Founding::Blank,
            machine: None,
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            messages: vec![],
            founded: BTreeSet::new(),
            drawn: 0,
            replaced: 0,
        };
        (0..size).for_each(|number| cluster.start(number));
        cluster
    }

    fn start(&mut self, number: usize) {
        let size = self.nodes.len();
        let this = &mut self.nodes[number];
        let me = FoundingMember { node: node(number), replica: this.replica };
        this.machine = Some(FoundingMachine::new(me, (0..size).map(node), this.stored.clone()));
    }

    fn kill(&mut self, number: usize) {
        self.nodes[number].machine = None;
        for other in &mut self.nodes {
            if let Some(machine) = &mut other.machine {
                machine.lost(node(number));
            }
        }
        // What a killed process sent is lost with its connections.
        let dead = node(number);
        self.messages.retain(|(from, to, _)| from.node != dead && *to != number);
    }

    fn replace_disk(&mut self, number: usize) {
        self.kill(number);
        self.replaced += 1;
        let this = &mut self.nodes[number];
        this.replica = ReplicaId(1000 + self.replaced);
        this.stored = Founding::Blank;
    }

    fn announce(&mut self, number: usize) {
        let this = &self.nodes[number];
        let Some(machine) = &this.machine else { return };
        let cluster = this.stored.founded().map(|record| record.cluster);
        let from =
            Identity { node: node(number), replica: this.replica, incarnation: Incarnation(1), cluster };
        for to in (0..self.nodes.len()).filter(|to| *to != number) {
            self.messages.push((from, to, machine.status()));
        }
    }

    /// Stores the next step if there is one; the process may die before it notices.
    fn step(&mut self, number: usize, survives: bool) -> bool {
        let drawn = self.drawn;
        let this = &mut self.nodes[number];
        let Some(machine) = &mut this.machine else { return false };
        let Some(step) = machine.next_step(|| ClusterId::from_bytes([drawn; 16])) else { return false };
        self.drawn += 1;
        if let Some(record) = step.founded() {
            self.founded.insert(*record.cluster.as_bytes());
        }
        this.stored = step.clone();
        if survives {
            machine.stored(step);
        } else {
            self.kill(number);
        }
        self.check();
        true
    }

    fn deliver(&mut self, at: usize) {
        let (from, to, status) = self.messages.swap_remove(at);
        if let Some(machine) = &mut self.nodes[to].machine {
            machine.heard(&from, status);
        }
    }

    /// There is one cluster at most, and whoever belongs to it has stored the same record.
    fn check(&self) {
        assert!(self.founded.len() <= 1, "two clusters: {:?}", self.founded);
    }

    /// Everybody runs and everything arrives, until nothing changes any more.
    fn settle(&mut self) {
        for number in 0..self.nodes.len() {
            if self.nodes[number].machine.is_none() {
                self.start(number);
            }
        }
        for _ in 0..20 {
            (0..self.nodes.len()).for_each(|number| self.announce(number));
            while !self.messages.is_empty() {
                self.deliver(0);
            }
            for number in 0..self.nodes.len() {
                while self.step(number, true) {}
            }
        }
    }

    fn is_founded(&self) -> bool {
        let record = self.nodes[0].stored.founded();
        record.is_some() && self.nodes.iter().all(|node| node.stored.founded() == record)
    }

    fn obstacles(&self, number: usize) -> String {
        match self.nodes[number].machine.as_ref().unwrap().outlook() {
            Outlook::Blocked(obstacles) => obstacles.iter().map(ToString::to_string).collect(),
            outlook => panic!("node {number} is not blocked: {outlook:?}"),
        }
    }
}

#[test]
fn blank_nodes_found_a_cluster() {
    for size in [1, 2, 3, 5] {
        let mut cluster = Cluster::new(size);
        cluster.settle();
        assert!(cluster.is_founded());
        let record = cluster.nodes[0].stored.founded().unwrap();
        assert_eq!(record.members.len(), size);
        for node in &cluster.nodes {
            assert_eq!(record.replica_of(NodeId(node.number as i32 + 1)), Some(node.replica));
        }
    }
}

#[test]
fn nothing_is_founded_while_a_node_is_missing() {
    let mut cluster = Cluster::new(3);
    cluster.kill(2);
    for _ in 0..5 {
        (0..2).for_each(|number| cluster.announce(number));
        while !cluster.messages.is_empty() {
            cluster.deliver(0);
        }
        assert!(!cluster.step(0, true) && !cluster.step(1, true));
    }
    let machine = cluster.nodes[0].machine.as_ref().unwrap();
    assert_eq!(machine.outlook(), Outlook::WaitingFor(vec![NodeId(3)]));
    cluster.settle();
    assert!(cluster.is_founded());
}

#[test]
fn a_crash_at_any_step_ends_in_the_same_cluster() {
    for seed in 0..3000 {
        let mut dice = SmallRng::seed_from_u64(seed);
        let mut cluster = Cluster::new(3);
        for _ in 0..dice.random_range(1..60) {
            let number = dice.random_range(0..3);
            match dice.random_range(0..12) {
                0 => cluster.kill(number),
                1 | 2 => cluster.start(number),
                3..=5 => cluster.announce(number),
                6 | 7 => drop(cluster.step(number, dice.random_bool(0.7))),
                _ if cluster.messages.is_empty() => {}
                8 => drop(cluster.messages.swap_remove(dice.random_range(0..cluster.messages.len()))),
                _ => cluster.deliver(dice.random_range(0..cluster.messages.len())),
            }
        }
        cluster.settle();
        assert!(cluster.is_founded(), "seed {seed}");
    }
}

#[test]
fn disks_that_are_replaced_at_any_step_never_make_a_second_cluster() {
    for seed in 0..3000 {
        let mut dice = SmallRng::seed_from_u64(seed);
        let mut cluster = Cluster::new(3);
        for _ in 0..dice.random_range(10..80) {
            let number = dice.random_range(0..3);
            match dice.random_range(0..12) {
                // One disk always stays, and with it what it knows.
                0 if number != 2 => cluster.replace_disk(number),
                0..=2 => cluster.start(number),
                3..=5 => cluster.announce(number),
                6 | 7 => drop(cluster.step(number, dice.random_bool(0.9))),
                _ if cluster.messages.is_empty() => {}
                _ => cluster.deliver(dice.random_range(0..cluster.messages.len())),
            }
        }
        cluster.settle();
        cluster.check();
    }
}

#[test]
fn two_replaced_disks_out_of_three_join_the_third_and_found_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    let before = cluster.nodes[1].stored.clone();
    cluster.replace_disk(0);
    cluster.replace_disk(2);
    cluster.settle();
    for number in [0, 2] {
        let joined = &cluster.nodes[number];
        assert_eq!(joined.stored, before);
        assert!(!joined.stored.founded().unwrap().has_replica(joined.replica), "it is a new replica");
    }
    assert_eq!(cluster.nodes[1].stored, before);
}

#[test]
fn replaced_disks_wait_for_a_node_that_knows_the_cluster() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    cluster.replace_disk(0);
    cluster.replace_disk(2);
    cluster.kill(1);
    for _ in 0..20 {
        for number in [0, 2] {
            cluster.announce(number);
            assert!(!cluster.step(number, true), "nothing may be stored");
        }
        while !cluster.messages.is_empty() {
            cluster.deliver(0);
        }
    }
    assert_eq!(cluster.nodes[0].stored, Founding::Blank);
    assert_eq!(cluster.nodes[2].stored, Founding::Blank);
}

#[test]
fn a_disk_that_is_replaced_during_the_founding_is_named() {
    let mut cluster = Cluster::new(3);
    for number in 0..3 {
        cluster.announce(number);
    }
    while !cluster.messages.is_empty() {
        cluster.deliver(0);
    }
    assert!(cluster.step(0, true));
    cluster.replace_disk(1);
    cluster.settle();
    assert!(!cluster.is_founded());
    let obstacles = cluster.obstacles(0);
    assert!(obstacles.contains("node 2 has another disk"), "{obstacles}");
    let obstacles = cluster.obstacles(1);
    assert!(obstacles.contains("was about to be founded"), "{obstacles}");
}

#[test]
fn nodes_with_different_lists_refuse_each_other() {
    let member = |number: usize| FoundingMember { node: node(number), replica: ReplicaId(number as u64) };
    let mut one = FoundingMachine::new(member(0), [node(0), node(1)], Founding::Blank);
    let other = FoundingMachine::new(member(1), [node(0), node(1), node(2)], Founding::Blank);
    let from = Identity { node: node(1), replica: ReplicaId(1), incarnation: Incarnation(1), cluster: None };
    assert!(one.heard(&from, other.status()));
    assert_eq!(one.next_step(|| ClusterId::random(uuid::Uuid::new_v4)), None);
    let Outlook::Blocked(obstacles) = one.outlook() else { panic!("not blocked") };
    let text = obstacles[0].to_string();
    assert!(text.contains("other --peers (1, 2, 3) than this node (1, 2)"), "{text}");
}

#[test]
fn a_node_that_the_cluster_was_founded_without_is_told() {
    let mut cluster = Cluster::new(2);
    cluster.settle();
    let me = FoundingMember { node: NodeId(3), replica: ReplicaId(3) };
    let mut late = FoundingMachine::new(me, [1, 2].map(NodeId), Founding::Blank);
    let from =
        Identity { node: NodeId(1), replica: ReplicaId(100), incarnation: Incarnation(1), cluster: None };
    let record = cluster.nodes[0].stored.founded().unwrap();
    let status =
        FoundingStatus { peers: [1, 2, 3].map(NodeId).to_vec(), founding: Founding::Founded(record.clone()) };
    late.heard(&from, status);
    let Outlook::Blocked(obstacles) = late.outlook() else { panic!("not blocked") };
    assert!(obstacles[0].to_string().contains("founded without this node"), "{}", obstacles[0]);
}

#[test]
fn founded_nodes_answer_those_that_are_not() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    let record = cluster.nodes[0].stored.founded().unwrap();
    let from =
        Identity { node: NodeId(2), replica: ReplicaId(101), incarnation: Incarnation(1), cluster: None };
    let peers = [1, 2, 3].map(NodeId).to_vec();
    let asks = FoundingStatus { peers: peers.clone(), founding: Founding::Accepted(record.clone()) };
    assert!(answer(record, &peers, &from, &asks).is_some());
    let knows = FoundingStatus { peers: peers.clone(), founding: Founding::Founded(record.clone()) };
    assert!(answer(record, &peers, &from, &knows).is_none());
}
