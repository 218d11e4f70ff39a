//! What many groups cost while nothing happens to them, and how the memory for their tails is shared.

use std::collections::BTreeMap;

use helix_raft::{
    BUCKETS, Body, Bucket, DigestSource, Durability, GroupId, GroupOptions, HardState, Incarnation, Index,
    Liveness, Membership, Message, MessageBody, MultiRaft, MultiRaftConfig, ProposeError, ReplicaId, Role,
    StepOutcome, Term,
};

type Raft = MultiRaft<Vec<u8>>;

struct Cluster {
    nodes: BTreeMap<ReplicaId, Raft>,
    network: Vec<Message<Vec<u8>>>,
    groups_with_work: usize,
}

/// Does what a node has to do with a disk that takes no time: for how many groups, and what is to be sent.
fn write_ready(raft: &mut Raft) -> (usize, Vec<Message<Vec<u8>>>) {
    let readies = raft.take_ready();
    let (groups, mut messages) = (readies.len(), Vec::new());
    for (group, ready) in readies {
        if let Some(hard) = ready.hard_state {
            raft.hard_state_persisted(group, hard);
        }
        if let Some(last) = ready.append.last() {
            raft.appended(group, last.index, last.term, ready.append_required);
        }
        messages.extend(ready.messages);
    }
    (groups, messages)
}

impl Cluster {
    fn new(groups: u64, max_tail_bytes: usize) -> Cluster {
        let ids: Vec<ReplicaId> = (1..=3).map(ReplicaId).collect();
        let mut nodes = BTreeMap::new();
        for id in &ids {
            let mut config = MultiRaftConfig::new(*id, Incarnation(1), 1);
            config.max_tail_bytes = max_tail_bytes;
            let mut raft = Raft::new(config);
            for group in 1..=groups {
                let mut voters = ids.clone();
                voters.rotate_left((group % 3) as usize);
                let options = GroupOptions::new(Membership::of_voters(voters), Durability::PageCache);
                raft.add_group(GroupId(group), options).expect("a new group");
            }
            nodes.insert(*id, raft);
        }
        let mut cluster = Cluster { nodes, network: Vec::new(), groups_with_work: 0 };
        cluster.settle();
        cluster
    }

    fn node(&mut self, id: u64) -> &mut Raft {
        self.nodes.get_mut(&ReplicaId(id)).expect("there is such a node")
    }

    /// Does all there is to do, with disks and a network that take no time.
    fn settle(&mut self) {
        loop {
            for raft in self.nodes.values_mut() {
                while raft.has_ready() {
                    let (groups, messages) = write_ready(raft);
                    self.groups_with_work += groups;
                    self.network.extend(messages);
                }
            }
            if self.network.is_empty() {
                return;
            }
            for message in std::mem::take(&mut self.network) {
                let raft = self.nodes.get_mut(&message.to).expect("there is such a node");
                assert_eq!(raft.step(message), StepOutcome::Handled);
            }
        }
    }

    /// Where a node disagrees with another one about which groups that leads.
    fn differing(&self) -> Vec<Bucket> {
        let mut differing = Vec::new();
        for (leader, leading) in &self.nodes {
            for (follower, following) in self.nodes.iter().filter(|node| node.0 != leader) {
                let differs = |bucket: &Bucket| {
                    DigestSource::led_digest(leading, *follower, *bucket)
                        != DigestSource::followed_digest(following, *leader, *bucket)
                };
                differing.extend(Bucket::all().filter(differs));
            }
        }
        differing
    }

    fn visited(&self) -> u64 {
        self.nodes.values().map(Raft::ticks_visited).sum()
    }
}

#[test]
fn ten_thousand_idle_groups_cost_nothing() {
    let mut cluster = Cluster::new(10_000, 1 << 20);
    let led = |raft: &Raft| raft.groups().filter(|id| raft.status(*id).unwrap().role == Role::Leader).count();
    let leaders: Vec<usize> = cluster.nodes.values().map(led).collect();
    assert_eq!(leaders.iter().sum::<usize>(), 10_000);
    assert!(leaders.iter().all(|led| led.abs_diff(3333) <= 1), "preferred leaders are spread: {leaders:?}");

    let (visited, work) = (cluster.visited(), cluster.groups_with_work);
    for _ in 0..100 {
        for raft in cluster.nodes.values_mut() {
            raft.tick();
            assert!(!raft.has_ready());
            assert!(raft.take_ready().is_empty());
        }
    }
    assert_eq!(cluster.visited(), visited, "ticks visit no idle group");

    // One proposal is work for its own group alone.
    let group = GroupId(3);
    cluster.node(1).propose(group, vec![1]).unwrap();
    assert_eq!(cluster.node(1).active_groups(), 1);
    cluster.node(1).tick();
    assert_eq!(cluster.visited(), visited + 1);
    cluster.settle();
    assert!(cluster.groups_with_work - work < 20, "{}", cluster.groups_with_work - work);
    assert_eq!(cluster.node(1).active_groups(), 0);
}

#[test]
fn digests_agree_while_leaders_do() {
    let mut cluster = Cluster::new(500, 1 << 20);
    assert_eq!(cluster.differing(), []);
    let led = |cluster: &Cluster, bucket| cluster.nodes[&ReplicaId(1)].led_digest(ReplicaId(2), bucket);
    assert!(Bucket::all().any(|bucket| led(&cluster, bucket) != 0));

    // A leader steps down, and nobody is told: both others still follow it.
    let group = GroupId(u64::from(BUCKETS) + 2);
    let leader = cluster.node(1).status(group).unwrap().leader.unwrap();
    cluster.nodes.get_mut(&leader).unwrap().append_failed(group);
    assert_eq!(cluster.differing(), [Bucket(2); 2]);
}

#[test]
fn who_is_removed_and_knows_it_follows_nobody() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let (group, left) = (GroupId(1), Membership::of_voters(vec![ReplicaId(2), ReplicaId(3)]));
    assert_eq!(cluster.node(2).status(group).unwrap().role, Role::Leader);
    cluster.node(2).change_membership(group, &left).unwrap();
    cluster.settle();
    let removed = cluster.node(1).status(group).unwrap();
    assert_eq!((removed.membership, removed.leader), (left, Some(ReplicaId(2))));
    assert_eq!(cluster.differing(), []);
}

#[test]
fn the_node_of_who_is_out_of_a_group_is_no_matter_to_it() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let (group, gone) = (GroupId(1), Liveness { heard: false, round_trip: false });
    cluster
        .node(2)
        .change_membership(group, &Membership::of_voters(vec![ReplicaId(2), ReplicaId(3)]))
        .unwrap();
    cluster.settle();
    for id in [2, 3] {
        cluster.node(id).peer_liveness(ReplicaId(1), gone);
        assert!(!cluster.node(id).has_ready());
    }
    cluster.node(2).peer_liveness(ReplicaId(3), gone);
    assert!(cluster.node(2).has_ready());
}

/// A replica that has deleted its log goes on in the same process: what it says is told from what it said before.
#[test]
fn who_is_added_again_is_fed_at_once() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let (group, three) = (GroupId(1), ReplicaId(3));
    let voters = vec![ReplicaId(2), ReplicaId(1)];
    cluster.node(2).change_membership(group, &Membership::of_voters(voters.clone())).unwrap();
    cluster.settle();
    cluster.node(3).remove_group(group);
    let options = GroupOptions::new(Membership::default(), Durability::PageCache);
    cluster.node(3).add_group(group, options).expect("it is not there any more");
    let again = Membership { learners: vec![three], ..Membership::of_voters(voters) };
    cluster.node(2).change_membership(group, &again).unwrap();
    cluster.settle();
    let status = cluster.node(2).status(group).unwrap();
    let progress = status.progress.iter().find(|progress| progress.replica == three).unwrap();
    assert!(progress.replicating);
    assert_eq!(progress.matched, status.last_index);
}

/// A replica that was removed, does not know, and asks for votes is told, and its node is of interest as long as that takes.
#[test]
fn who_strays_is_told() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let (group, gone) = (GroupId(1), Liveness { heard: false, round_trip: false });
    cluster
        .node(2)
        .change_membership(group, &Membership::of_voters(vec![ReplicaId(2), ReplicaId(3)]))
        .unwrap();
    cluster.settle();
    let stray = Message {
        group,
        from: ReplicaId(1),
        to: ReplicaId(2),
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
        term: Term(9),
        body: MessageBody::PreVote { last_index: Index(1), last_term: Term(1), unclean: false },
    };
    cluster.node(2).step(stray);
    let told = cluster.node(2).take_ready().into_iter().flat_map(|(_, ready)| ready.messages);
    assert!(told.into_iter().any(|message| message.to == ReplicaId(1)));
    cluster.node(2).peer_liveness(ReplicaId(1), gone);
    assert!(cluster.node(2).has_ready(), "the group cares");
    for _ in 0..19 {
        assert_eq!(cluster.node(2).active_groups(), 1);
        cluster.node(2).tick();
        write_ready(cluster.node(2));
    }
    cluster.node(2).tick();
    write_ready(cluster.node(2));
    assert_eq!(cluster.node(2).active_groups(), 0, "it has had its time");
    cluster.node(2).peer_liveness(ReplicaId(1), Liveness { heard: true, round_trip: true });
    assert!(!cluster.node(2).has_ready());
}

#[test]
fn a_leader_counts_for_how_long_a_follower_lags() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let group = GroupId(1);
    let lagging = |cluster: &Cluster| {
        let status = cluster.nodes[&ReplicaId(2)].status(group).unwrap();
        status.progress.iter().map(|progress| progress.lagging_ticks).collect::<Vec<_>>()
    };
    cluster.node(2).propose(group, vec![1]).unwrap();
    for _ in 0..3 {
        cluster.node(2).tick();
    }
    assert_eq!(lagging(&cluster), [3, 3]);
    cluster.settle();
    cluster.node(2).propose(group, vec![2]).unwrap();
    while cluster.node(1).has_ready() || cluster.node(2).has_ready() {
        let mut messages = write_ready(cluster.node(2)).1;
        messages.extend(write_ready(cluster.node(1)).1);
        for message in messages.into_iter().filter(|message| message.to != ReplicaId(3)) {
            cluster.node(message.to.get()).step(message);
        }
    }
    cluster.node(2).tick();
    assert_eq!(lagging(&cluster), [0, 4]);
}

#[test]
fn who_has_voted_is_counted_and_who_of_them_is_sound() {
    let mut raft = Raft::new(MultiRaftConfig::new(ReplicaId(1), Incarnation(1), 1));
    let group = GroupId(1);
    let options =
        GroupOptions::new(Membership::of_voters((1..=7).map(ReplicaId).collect()), Durability::PageCache);
    raft.add_group(group, options).expect("a new group");
    for (from, recovering) in [(2, true), (3, false)] {
        raft.step(Message {
            group,
            from: ReplicaId(from),
            to: ReplicaId(1),
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            term: Term(0),
            body: MessageBody::PreVoteAnswer { granted: false, recovering },
        });
    }
    let ballots = raft.status(group).unwrap().ballots;
    assert_eq!((ballots.answered, ballots.sound), (3, 2));
}

/// An entry that could not be written is taken back, and with it that this replica is out.
#[test]
fn who_takes_back_its_removal_follows_again() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let group = GroupId(1);
    let followed =
        |cluster: &Cluster| cluster.nodes[&ReplicaId(1)].followed_digest(ReplicaId(2), Bucket::of(group));
    let before = followed(&cluster);
    assert_ne!(before, 0);
    cluster
        .node(2)
        .change_membership(group, &Membership::of_voters(vec![ReplicaId(2), ReplicaId(3)]))
        .unwrap();
    // Through the joint configuration, up to where the one without this replica arrives and is not stored.
    let removed = |cluster: &Cluster| {
        let membership = cluster.nodes[&ReplicaId(1)].status(group).unwrap().membership;
        !membership.contains(ReplicaId(1))
    };
    while !removed(&cluster) {
        for raft in cluster.nodes.values_mut() {
            cluster.network.extend(write_ready(raft).1);
        }
        for message in std::mem::take(&mut cluster.network) {
            cluster.node(message.to.get()).step(message);
        }
    }
    assert_eq!(followed(&cluster), 0);
    cluster.node(1).append_failed(group);
    assert!(!removed(&cluster));
    assert_eq!(followed(&cluster), before);
}

#[test]
fn a_dead_node_wakes_only_the_groups_it_leads() {
    let mut cluster = Cluster::new(300, 1 << 20);
    cluster.nodes.remove(&ReplicaId(1));
    for id in [2, 3] {
        cluster.node(id).peer_liveness(ReplicaId(1), Liveness { heard: false, round_trip: false });
        let led_by_dead = (1..=300)
            .filter(|group| {
                cluster.nodes[&ReplicaId(id)].status(GroupId(*group)).unwrap().leader == Some(ReplicaId(1))
            })
            .count();
        assert!(cluster.node(id).active_groups() <= 100, "{led_by_dead}");
    }
    // Without any tick, the next voter in order takes over each of them.
    for _ in 0..20 {
        for raft in cluster.nodes.values_mut() {
            cluster.network.extend(write_ready(raft).1);
        }
        for message in std::mem::take(&mut cluster.network) {
            if let Some(raft) = cluster.nodes.get_mut(&message.to) {
                raft.step(message);
            }
        }
    }
    for group in (1..=300).map(GroupId) {
        let leader = cluster.node(2).status(group).unwrap().leader.unwrap();
        assert_ne!(leader, ReplicaId(1), "{group}");
        assert!(cluster.nodes[&leader].status(group).unwrap().leader_ready, "{group}");
    }
    assert_eq!(cluster.node(2).active_groups() + cluster.node(3).active_groups(), 0);
}

#[test]
fn tails_share_one_budget_and_the_least_recently_used_goes_first() {
    let mut cluster = Cluster::new(3, 3000);
    let mine = [2, 3, 1].map(GroupId);
    for group in &mine {
        let leader = cluster.node(1).status(*group).unwrap().leader.unwrap();
        for _ in 0..10 {
            cluster.nodes.get_mut(&leader).unwrap().propose(*group, vec![0; 100]).unwrap();
        }
        cluster.settle();
    }
    let raft = cluster.node(1);
    assert!(raft.tail_bytes() > 3000);
    raft.trim_tails();
    assert!(raft.tail_bytes() <= 3000);
    assert!(raft.tail_entries(mine[0], Index::ZERO).is_empty(), "the oldest went first");
    let newest = raft.tail_entries(mine[2], Index::ZERO);
    assert!(matches!(newest.last().unwrap().body, Body::Data(_)));
    assert_eq!(newest.len(), 11);
    for group in mine {
        cluster.node(1).remove_group(group);
    }
    assert_eq!(cluster.node(1).tail_bytes(), 0);
    assert_eq!(cluster.node(1).active_groups(), 0);
    assert_eq!(cluster.node(1).groups().count(), 0);
    assert_eq!(cluster.node(2).groups().collect::<Vec<_>>(), [1, 2, 3].map(GroupId));
}

#[test]
fn what_is_known_of_groups_and_nodes() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let group = GroupId(1);
    cluster.node(2).propose(group, vec![1]).unwrap();
    cluster.settle();
    let raft = &cluster.nodes[&ReplicaId(1)];
    assert_eq!((raft.committed(group), raft.committed(GroupId(9))), (Some(Index(2)), None));
    assert_eq!(raft.incarnation_of(ReplicaId(1)), Incarnation(1));
    assert_eq!(raft.incarnation_of(ReplicaId(2)), Incarnation(1));
    assert_eq!(raft.incarnation_of(ReplicaId(9)), Incarnation::UNKNOWN);
}

#[test]
fn what_is_not_here_is_reported_and_does_no_harm() {
    let mut cluster = Cluster::new(1, 1 << 20);
    let raft = cluster.node(1);
    let nowhere = GroupId(99);
    assert_eq!(raft.propose(nowhere, vec![]), Err(ProposeError::UnknownGroup(nowhere)));
    assert!(raft.status(nowhere).is_none());
    raft.appended(nowhere, Index(1), Term(1), Durability::Synced);
    raft.campaign(nowhere);
    let options = GroupOptions::new(Membership::default(), Durability::PageCache);
    assert!(raft.add_group(GroupId(1), options).is_err(), "it is here already");
    assert!(raft.take_ready().is_empty());
}

/// A report about an earlier term, that comes late, says nothing about the vote in the present one.
#[test]
fn the_own_vote_counts_once_it_is_stored() {
    let (me, group) = (ReplicaId(1), GroupId(1));
    let mut raft = Raft::new(MultiRaftConfig::new(me, Incarnation(1), 1));
    let options = GroupOptions::new(Membership::of_voters(vec![me]), Durability::PageCache);
    raft.add_group(group, options).expect("a new group");
    let to_persist = |raft: &mut Raft| raft.take_ready().into_iter().find_map(|(_, ready)| ready.hard_state);
    let role = |raft: &Raft| raft.status(group).unwrap().role;

    let first = to_persist(&mut raft).expect("it campaigns at once");
    let mut after_a_tick = || {
        raft.tick();
        to_persist(&mut raft)
    };
    let second = (0..100).find_map(|_| after_a_tick()).expect("its election timer runs out");
    assert!(second.term > first.term);
    raft.hard_state_persisted(group, first);
    assert_eq!(role(&raft), Role::Candidate);
    raft.hard_state_persisted(group, second);
    assert_eq!(role(&raft), Role::Leader);
}

#[test]
fn a_start_among_what_is_still_being_read_waits_for_the_rest() {
    const GROUP: GroupId = GroupId(1);
    let mut raft = Raft::new(MultiRaftConfig::new(ReplicaId(1), Incarnation(1), 1));
    let alone = Membership::of_voters(vec![ReplicaId(1)]);
    raft.add_group(
        GROUP,
        GroupOptions {
            hard_state: HardState { term: Term(1), vote: None },
            last_index: Index(10),
            last_term: Term(1),
            terms: vec![(Index(1), Term(1))],
            stored: Durability::Synced,
            ..GroupOptions::new(alone, Durability::PageCache)
        },
    )
    .expect("a new group");
    let range = loop {
        raft.tick();
        let mut ranges = Vec::new();
        for (group, ready) in raft.take_ready() {
            if let Some(hard) = ready.hard_state {
                raft.hard_state_persisted(group, hard);
            }
            if let Some(last) = ready.append.last() {
                raft.appended(group, last.index, last.term, ready.append_required);
            }
            ranges.extend(ready.committed_to_read);
        }
        if let Some(range) = ranges.pop() {
            break range;
        }
    };
    assert_eq!((range.from, range.through), (Index(1), Index(10)));
    // The driver has applied eight of them when it records this, and tells of what it has read at the end.
    raft.log_start_moved(GROUP, Index(7), Term(1));
    assert_eq!(raft.term_at(GROUP, Index(6)), Some(Term(1)), "not yet");
    raft.committed_read(GROUP, range.through);
    assert_eq!((raft.term_at(GROUP, Index(6)), raft.term_at(GROUP, Index(7))), (None, Some(Term(1))));
}
