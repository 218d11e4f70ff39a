//! What must hold at every step, over all replicas, processes and times.

use std::collections::{BTreeMap, BTreeSet};

use helix_raft::{
    AppendResult, Body, Durability, Entry, GroupId, Index, Message, MessageBody, Position, ReplicaId, Status,
    Term, quorum,
};

use crate::disk::{GroupDisk, Payload, StoredLog};

type At = (GroupId, Index);

#[derive(Default)]
pub(crate) struct Checker {
    /// Election safety: at most one leader per term.
    leaders: BTreeMap<(GroupId, Term), ReplicaId>,
    /// Log matching: index and term name one entry and one predecessor.
    entries: BTreeMap<(GroupId, Index, Term), (Term, Body<Payload>)>,
    /// Who has ever stored an entry, and who has synced it.
    stored: BTreeMap<(GroupId, Index, Term), BTreeSet<ReplicaId>>,
    synced: BTreeMap<(GroupId, Index, Term), BTreeSet<ReplicaId>>,
    /// Up to where a replica's log was replaced by a start: it holds everything below.
    starts: BTreeMap<(GroupId, ReplicaId), Index>,
    /// Committed entries never change: term of each, and the term in which it was first seen to be committed.
    committed: BTreeMap<At, (Term, Term)>,
    pub(crate) last_committed: BTreeMap<GroupId, Index>,
    /// State machine safety: the state after each entry.
    states: BTreeMap<(GroupId, Index, Term), u64>,
    /// One vote per term and replica, over all its processes, and whether it was sound when it gave it.
    votes: BTreeMap<(GroupId, ReplicaId, Term), (ReplicaId, bool)>,
    /// Groups that have lost committed entries to losses of power, and the term in which that came out.
    lost: BTreeMap<GroupId, Term>,
    pub(crate) entries_lost: u64,
    /// Elections that the operator forces.
    pub(crate) forced: BTreeSet<(GroupId, ReplicaId)>,
    /// The commit index of each process never falls.
    commits: BTreeMap<(GroupId, ReplicaId), Index>,
}

impl Checker {
    pub(crate) fn entry(&mut self, group: GroupId, entry: &Entry<Payload>) {
        let key = (group, entry.index, entry.term);
        let value = (entry.prev_term, entry.body.clone());
        let known = self.entries.entry(key).or_insert_with(|| value.clone());
        assert_eq!(*known, value, "log matching: two entries at {key:?}");
    }

    pub(crate) fn log_written(&mut self, group: GroupId, replica: ReplicaId, disk: &GroupDisk) {
        note(&mut self.stored, group, replica, &disk.log);
        note(&mut self.synced, group, replica, &disk.synced);
        let start = self.starts.entry((group, replica)).or_default();
        *start = (*start).max(disk.log.start.index);
    }

    pub(crate) fn log_deleted(&mut self, group: GroupId, replica: ReplicaId) {
        for ((of, ..), holders) in self.stored.iter_mut().chain(&mut self.synced) {
            if *of == group {
                holders.remove(&replica);
            }
        }
        self.starts.remove(&(group, replica));
    }

    pub(crate) fn has_lost(&self, group: GroupId) -> bool {
        self.lost.contains_key(&group)
    }

    pub(crate) fn process_started(&mut self, group: GroupId, replica: ReplicaId) {
        self.commits.remove(&(group, replica));
    }

    /// A message is about to leave.
    pub(crate) fn message(&mut self, message: &Message<Payload>, disk: &GroupDisk) {
        let group = message.group;
        match &message.body {
            // It carries the term of the question and promises nothing.
            MessageBody::PreVoteAnswer { granted: true, .. } => return,
            MessageBody::PreVote { .. } => {
                assert!(
                    disk.hard.term.next() >= message.term,
                    "left before its term was persisted: {message:?}"
                );
                return;
            }
            MessageBody::Vote { .. } => self.vote(message, message.from, disk),
            MessageBody::VoteAnswer { granted: true, recovering } => {
                assert!(*recovering || !disk.recovering, "a suspect log is passed off as sound: {message:?}");
                self.vote(message, message.to, disk);
            }
            MessageBody::Append(append) => append.entries.iter().for_each(|entry| self.entry(group, entry)),
            MessageBody::AppendAnswer(answer) => {
                if let AppendResult::Matched { stored, synced, .. } = answer.result {
                    assert!(stored <= disk.log.last().index, "answered before stored: {message:?}");
                    assert!(synced <= disk.synced.last().index, "answered before synced: {message:?}");
                }
                assert!(
                    answer.recovering || !disk.recovering,
                    "a suspect log is passed off as sound: {message:?}"
                );
            }
            _ => {}
        }
        assert!(disk.hard.term >= message.term, "left before its term was persisted: {message:?}");
    }

    fn vote(&mut self, message: &Message<Payload>, candidate: ReplicaId, disk: &GroupDisk) {
        let (group, voter, term) = (message.group, message.from, message.term);
        let (given, _) = *self.votes.entry((group, voter, term)).or_insert((candidate, !disk.recovering));
        assert_eq!(given, candidate, "{voter} voted twice in {term} of {group}");
        let kept = disk.hard.term > term || (disk.hard.term == term && disk.hard.vote == Some(candidate));
        assert!(kept, "{voter} votes in {term} of {group} and may forget it: {:?}", disk.hard);
    }

    pub(crate) fn knows_leader(&self, group: GroupId, term: Term) -> bool {
        self.leaders.contains_key(&(group, term))
    }

    /// A replica has just been elected: by a majority of sound voters, or else by all of them; and then what is committed is lost only
    /// where none of them holds it any more.
    pub(crate) fn elected(
        &mut self,
        group: GroupId,
        leader: ReplicaId,
        required: Durability,
        status: &Status,
        disks: &BTreeMap<ReplicaId, &GroupDisk>,
        term_at: impl Fn(Index) -> Option<Term>,
    ) {
        let vote = |voter: ReplicaId| self.votes.get(&(group, voter, status.term)).copied();
        let granted = |voter: ReplicaId| voter == leader || vote(voter).is_some_and(|vote| vote.0 == leader);
        let sound_grant = |voter: ReplicaId| match voter == leader {
            true => !disks[&leader].recovering,
            false => vote(voter) == Some((leader, true)),
        };
        let members = &status.membership;
        if quorum::has_majority(members, sound_grant) && !disks[&leader].recovering {
            return; // Completeness is checked below, as always.
        }
        let all = members.all_voters().into_iter().all(granted);
        if self.forced.remove(&(group, leader)) {
            assert!(quorum::has_majority(members, granted), "{leader} of {group} lacks votes: {status:?}");
        } else {
            assert!(
                all,
                "{leader} leads {group} without every vote, and with too few sound ones: {status:?}"
            );
        }
        let holders: Vec<&GroupDisk> = members
            .all_voters()
            .into_iter()
            .filter(|voter| granted(*voter))
            .filter_map(|voter| disks.get(&voter).copied())
            .collect();
        self.lose(group, required, status, &holders, term_at);
    }

    /// Committed entries that the new leader lacks are lost.
    fn lose(
        &mut self,
        group: GroupId,
        required: Durability,
        status: &Status,
        voters: &[&GroupDisk],
        term_at: impl Fn(Index) -> Option<Term>,
    ) {
        let from = (group, status.start_index.next());
        let known = self.committed.range(from..=(group, Index(u64::MAX)));
        let first_lost = known.into_iter().find(|(at, committed)| term_at(at.1) != Some(committed.0));
        let Some((&(_, first), _)) = first_lost else { return };
        let mut lost = self.committed.split_off(&(group, first));
        self.committed.append(&mut lost.split_off(&(GroupId(group.get() + 1), Index::ZERO)));
        for ((_, index), (term, _)) in lost {
            assert_ne!(required, Durability::Synced, "{index}/{term} of {group} was synced, and is lost");
            let body = self.entries.get(&(group, index, term)).map(|entry| &entry.1);
            assert!(
                !matches!(body, Some(Body::Membership(_))),
                "a configuration of {group} is lost: {index}/{term}"
            );
            for disk in voters {
                let held = disk.log.start.index >= index
                    || disk.log.entry(index).is_some_and(|entry| entry.term == term);
                assert!(!held, "{index}/{term} of {group} is lost, and a voter holds it: {status:?}");
            }
            self.entries_lost += 1;
        }
        self.last_committed.insert(group, first.prev());
        self.lost.insert(group, status.term);
    }

    /// A look at one group of one process, after anything happened to it.
    pub(crate) fn status(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        required: Durability,
        status: &Status,
        term_at: impl Fn(Index) -> Option<Term>,
    ) {
        let commit = self.commits.entry((group, replica)).or_insert(status.commit);
        assert!(status.commit >= *commit, "the commit index of {group} at {replica} falls: {status:?}");
        let before = std::mem::replace(commit, status.commit);
        // What was committed in a term before the loss came out may be lost.
        let of_the_past = self.lost.get(&group).is_some_and(|term| status.term < *term);
        for index in (before.get() + 1..=status.commit.get()).map(Index).filter(|_| !of_the_past) {
            let Some(term) = term_at(index) else { continue };
            self.commit(group, index, term, required, status);
        }
        if status.role == helix_raft::Role::Leader {
            let own_term = status.commit == before || term_at(status.commit) == Some(status.term);
            assert!(own_term, "an entry of an earlier term is committed by counting: {group} {status:?}");
            let leader = *self.leaders.entry((group, status.term)).or_insert(replica);
            assert_eq!(leader, replica, "two leaders in {} of {group}", status.term);
            self.completeness(group, status, term_at);
        }
    }

    fn commit(&mut self, group: GroupId, index: Index, term: Term, required: Durability, status: &Status) {
        let (known, _) = *self.committed.entry((group, index)).or_insert((term, status.term));
        assert_eq!(known, term, "committed entry {index} of {group} changes");
        let last = self.last_committed.entry(group).or_default();
        *last = (*last).max(index);
        if status.role != helix_raft::Role::Leader {
            return;
        }
        let holders = match required {
            Durability::PageCache => &self.stored,
            Durability::Synced => &self.synced,
        };
        let holders = holders.get(&(group, index, term));
        let stored = quorum::has_majority(&status.membership, |voter| {
            holders.is_some_and(|holders| holders.contains(&voter))
                || self.starts.get(&(group, voter)).is_some_and(|start| *start >= index)
        });
        assert!(stored, "{index}/{term} of {group} is committed without a majority: {holders:?} {status:?}");
    }

    /// A leader has every entry that was committed in its term or before.
    fn completeness(&self, group: GroupId, status: &Status, term_at: impl Fn(Index) -> Option<Term>) {
        let Some(last) = self.last_committed.get(&group) else { return };
        let Some((term, seen_in)) = self.committed.get(&(group, *last)).copied() else { return };
        if seen_in <= status.term && *last > status.start_index {
            assert_eq!(term_at(*last), Some(term), "the leader of {} in {group} lacks {last}", status.term);
        }
    }

    pub(crate) fn applied(&mut self, group: GroupId, at: Position, state: u64) {
        let known = *self.states.entry((group, at.index, at.term)).or_insert(state);
        assert_eq!(known, state, "state machines of {group} differ after {at}");
    }
}

fn note(
    holders: &mut BTreeMap<(GroupId, Index, Term), BTreeSet<ReplicaId>>,
    group: GroupId,
    replica: ReplicaId,
    log: &StoredLog,
) {
    // What lies below was noted when it was written.
    for entry in log.entries.iter().rev() {
        if !holders.entry((group, entry.index, entry.term)).or_default().insert(replica) {
            break;
        }
    }
}
