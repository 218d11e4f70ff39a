//! Leading: proposals, feeding the followers, committing, handing over.

use std::collections::BTreeMap;

use crate::config::{ProposeError, TransferError};
use crate::group::Group;
use crate::inflights::Inflights;
use crate::log::RaftLog;
use crate::message::{Append, AppendAnswer, AppendResult, MessageBody, Start};
use crate::peers::Context;
use crate::progress::{Progress, ProgressState};
use crate::quorum;
use crate::ready::ReadRequest;
use crate::types::{Body, Durability, Entry, Incarnation, Index, Payload, Position, ReplicaId, Role, Term};

/// A probe carries entries only up to this size: it may well be refused.
const PROBE_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Transfer {
    to: ReplicaId,
    ticks_left: u32,
    /// Ticks until the target is told again; `None` before it was told.
    told: Option<u32>,
}

/// What a leader keeps beside what every replica keeps.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    progress: BTreeMap<ReplicaId, Progress>,
    /// The first entry of this term.
    first_index: Index,
    /// That entry is committed and handed out for apply.
    pub(super) ready: bool,
    transfer: Option<Transfer>,
    /// Ticks left until this leader steps down, while no majority answers.
    contact_ticks_left: Option<u32>,
}

impl Leading {
    pub(super) fn set_members(&mut self, cx: &Context, members: &[ReplicaId], next: Index) {
        self.progress.retain(|replica, _| members.contains(replica));
        for member in members.iter().filter(|member| **member != cx.me()) {
            self.progress.entry(*member).or_insert_with(|| {
                let inflights = Inflights::new(cx.config.max_inflight_appends, cx.config.max_inflight_bytes);
                Progress::new(next, cx.incarnation_of(*member), inflights)
            });
        }
    }

    /// A message of `replica` carries `incarnation`: if it is a new one, its process has started anew.
    pub(super) fn see_incarnation(&mut self, replica: ReplicaId, incarnation: Incarnation) {
        let Some(progress) = self.progress.get_mut(&replica) else { return };
        if progress.incarnation == Incarnation::UNKNOWN {
            progress.incarnation = incarnation;
        } else if incarnation > progress.incarnation {
            progress.reset(incarnation);
        }
    }

    pub(super) fn is_active<P: Payload>(&self, cx: &Context, log: &RaftLog<P>) -> bool {
        let (last, committed) = (log.last().index, log.committed());
        self.transfer.is_some()
            || self.contact_ticks_left.is_some()
            || self
                .progress
                .iter()
                .any(|(replica, progress)| cx.hears(*replica) && !progress.is_up_to_date(last, committed))
    }

    pub(super) fn progress(&self) -> impl Iterator<Item = (ReplicaId, &Progress)> {
        self.progress.iter().map(|(replica, progress)| (*replica, progress))
    }

    pub(super) fn transferring_to(&self) -> Option<ReplicaId> {
        self.transfer.map(|transfer| transfer.to)
    }
}

/// What to do next for one follower.
enum Step<P> {
    Nothing,
    AskForStart,
    Read { from: Index },
    Append { prev: Position, entries: Vec<Entry<P>> },
}

impl<P: Payload> Group<P> {
    pub(super) fn become_leader(&mut self, cx: &Context) {
        self.role = Role::Leader;
        self.leader = Some(cx.me());
        self.confirmed = true;
        self.timer = None;
        self.votes.clear();
        self.deferred_pre_vote = None;
        let first_index = self.log.last().index.next();
        let mut leading = Leading {
            progress: BTreeMap::new(),
            first_index,
            ready: false,
            transfer: None,
            contact_ticks_left: None,
        };
        leading.set_members(cx, &self.membership().members(), first_index);
        self.leading = Some(leading);
        self.push_own(Body::NoOp);
        self.check_quorum_contact(cx);
    }

    fn push_own(&mut self, body: Body<P>) -> Position {
        let last = self.log.last();
        let entry = Entry { index: last.index.next(), term: self.hard.term, prev_term: last.term, body };
        let position = entry.position();
        self.log.push(entry);
        if self.requires_sync_through(position.index) {
            self.log.want_sync(position.index);
        }
        position
    }

    /// Whether anything uncommitted up to `index` counts only once it is synced.
    fn requires_sync_through(&self, index: Index) -> bool {
        self.required == Durability::Synced || self.memberships.changes_within(self.log.committed(), index)
    }

    pub(crate) fn propose(&mut self, payload: P) -> Result<Position, ProposeError> {
        let Some(leading) = &self.leading else {
            return Err(ProposeError::NotLeader { leader: self.leader });
        };
        if let Some(to) = leading.transferring_to() {
            return Err(ProposeError::Transferring { to });
        }
        Ok(self.push_own(Body::Data(payload)))
    }

    // ------------------------------------------------------------------------------------------------------------
    // Contact

    pub(super) fn has_quorum_contact(&self, cx: &Context) -> bool {
        quorum::has_majority(self.membership(), |voter| cx.reaches(voter))
    }

    pub(super) fn check_quorum_contact(&mut self, cx: &Context) {
        let contact = self.has_quorum_contact(cx);
        let Some(leading) = &mut self.leading else { return };
        if contact {
            leading.contact_ticks_left = None;
        } else if leading.contact_ticks_left.is_none() {
            leading.contact_ticks_left = Some(cx.config.election_timeout_ticks);
        }
    }

    /// Tells `replica` that this leader is here, whatever else there is to say.
    pub(super) fn greet(&mut self, cx: &Context, replica: ReplicaId) {
        let committed = self.log.committed();
        let Some(progress) = self.leading.as_mut().and_then(|leading| leading.progress.get_mut(&replica))
        else {
            return;
        };
        // What was under way while the node was away is lost more often than not.
        progress.give_up_waiting();
        let seq = progress.next_seq();
        progress.commit_seq = Some(seq);
        let commit = committed.min(progress.matched);
        self.send(cx, replica, MessageBody::Heartbeat { seq, commit });
    }

    // ------------------------------------------------------------------------------------------------------------
    // Time

    pub(super) fn tick_leader(&mut self, cx: &Context) {
        let last = self.log.last().index;
        let Some(leading) = &mut self.leading else { return };
        for (replica, progress) in &mut leading.progress {
            if progress.matched >= last {
                progress.lagging_ticks = 0;
            } else {
                progress.lagging_ticks = progress.lagging_ticks.saturating_add(1);
            }
            if cx.hears(*replica) && (progress.is_waiting() || progress.recovering) {
                progress.silent_ticks += 1;
                if progress.silent_ticks >= progress.patience(cx.config.election_timeout_ticks) {
                    progress.give_up_waiting();
                    if progress.recovering {
                        progress.become_probe(progress.matched.next());
                    }
                }
            }
        }
        self.tick_transfer();
        self.tick_contact(cx);
    }

    fn tick_transfer(&mut self) {
        let Some(leading) = &mut self.leading else { return };
        if let Some(transfer) = &mut leading.transfer {
            transfer.ticks_left = transfer.ticks_left.saturating_sub(1);
            transfer.told = transfer.told.map(|ticks| ticks.saturating_sub(1));
            if transfer.ticks_left == 0 {
                leading.transfer = None;
            }
        }
    }

    fn tick_contact(&mut self, cx: &Context) {
        let Some(ticks) = self.leading.as_mut().and_then(|leading| leading.contact_ticks_left.as_mut())
        else {
            return;
        };
        *ticks = ticks.saturating_sub(1);
        if *ticks == 0 {
            self.become_follower(cx, self.hard.term, None);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Handing over

    pub(crate) fn transfer_leadership(&mut self, cx: &Context, to: ReplicaId) -> Result<(), TransferError> {
        let voter = self.membership().is_voter(to);
        let leader = self.leader;
        let Some(leading) = &mut self.leading else {
            return Err(TransferError::NotLeader { leader });
        };
        if let Some(to) = leading.transferring_to() {
            return Err(TransferError::UnderWay { to });
        }
        if to == cx.me() {
            return Ok(());
        }
        if !voter || leading.progress.get(&to).is_none_or(|progress| progress.recovering) {
            return Err(TransferError::Unfit(to));
        }
        let ticks_left = cx.config.election_timeout_ticks.max(1);
        leading.transfer = Some(Transfer { to, ticks_left, told: None });
        Ok(())
    }

    /// Tells the target of a transfer to go ahead once it holds the whole log.
    pub(super) fn advance_transfer(&mut self, cx: &Context) {
        let last = self.log.last().index;
        let Some(leading) = &mut self.leading else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        let caught_up = leading.progress.get(&transfer.to).is_some_and(|progress| progress.matched >= last);
        if caught_up && transfer.told.is_none_or(|ticks| ticks == 0) {
            transfer.told = Some((cx.config.election_timeout_ticks / 3).max(1));
            let to = transfer.to;
            self.send(cx, to, MessageBody::TimeoutNow);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Feeding

    /// Sends everything that the windows of all followers allow.
    pub(super) fn replicate(&mut self, cx: &Context) {
        let Some(leading) = &self.leading else { return };
        let followers: Vec<ReplicaId> = leading.progress.keys().copied().collect();
        for to in followers {
            while self.replicate_once(cx, to) {}
            self.tell_commit(cx, to);
        }
    }

    fn progress_mut(&mut self, replica: ReplicaId) -> Option<&mut Progress> {
        self.leading.as_mut()?.progress.get_mut(&replica)
    }

    /// Sends or asks for one thing; returns whether there may be more.
    fn replicate_once(&mut self, cx: &Context, to: ReplicaId) -> bool {
        let step = match self.leading.as_ref().and_then(|leading| leading.progress.get(&to)) {
            Some(progress) => next_step(&self.log, progress, cx.config.max_append_bytes),
            None => return false,
        };
        match step {
            Step::Nothing => false,
            Step::AskForStart => {
                if let Some(progress) = self.progress_mut(to) {
                    progress.become_start();
                }
                self.out.need_start.push(to);
                false
            }
            Step::Read { from } => {
                let through = self.log.tail_first().prev();
                let mut max_bytes = cx.config.max_append_bytes;
                if let Some(progress) = self.progress_mut(to) {
                    progress.reading = Some(from);
                    max_bytes = max_bytes.min(progress.inflights.room().unwrap_or(0)).max(1);
                }
                self.out.reads.push(ReadRequest { to, from, through, max_bytes });
                false
            }
            Step::Append { prev, entries } => {
                self.send_append(cx, to, prev, entries);
                true
            }
        }
    }

    fn send_append(&mut self, cx: &Context, to: ReplicaId, prev: Position, entries: Vec<Entry<P>>) {
        let commit = self.log.committed();
        let last = entries.last().map_or(prev.index, |entry| entry.index);
        let synced = self.requires_sync_through(last);
        let Some(progress) = self.progress_mut(to) else { return };
        let seq = progress.next_seq();
        match progress.state {
            ProgressState::Replicate => {
                progress.next = last.next();
                progress.inflights.add(last, entries.iter().map(Entry::len_bytes).sum());
            }
            _ => progress.probe_seq = Some(seq),
        }
        progress.commit_sent = progress.commit_sent.max(commit.min(last));
        let append = Append {
            seq,
            prev_index: prev.index,
            prev_term: prev.term,
            entries,
            commit,
            required: if synced { Durability::Synced } else { Durability::PageCache },
            sound_through: progress.sound_through,
        };
        self.send(cx, to, MessageBody::Append(append));
    }

    /// Lets a follower that holds everything know how much of it is committed, by one message at a time.
    fn tell_commit(&mut self, cx: &Context, to: ReplicaId) {
        let (committed, last) = (self.log.committed(), self.log.last().index);
        let Some(progress) = self.progress_mut(to) else { return };
        let commit = committed.min(progress.matched);
        let streaming = progress.state == ProgressState::Replicate && progress.next > last;
        if !streaming
            || progress.commit_seq.is_some()
            || commit <= progress.commit_sent.max(progress.commit_known)
        {
            return;
        }
        let seq = progress.next_seq();
        progress.commit_seq = Some(seq);
        progress.commit_sent = commit;
        self.send(cx, to, MessageBody::Heartbeat { seq, commit });
    }

    /// The driver has read entries that memory no longer holds.
    pub(crate) fn entries_read(
        &mut self,
        cx: &Context,
        to: ReplicaId,
        from: Index,
        prev_term: Term,
        entries: Vec<Entry<P>>,
    ) {
        let term = self.hard.term;
        let Some(progress) = self.progress_mut(to) else { return };
        if progress.reading != Some(from) {
            return;
        }
        progress.reading = None;
        let prev = Position::new(from.prev(), prev_term);
        let wanted = progress.state == ProgressState::Replicate && progress.next == from;
        let append = Append {
            seq: 0,
            prev_index: prev.index,
            prev_term,
            entries,
            commit: Index::ZERO,
            required: Durability::PageCache,
            sound_through: None,
        };
        let usable = !append.entries.is_empty() && append.is_well_formed(term);
        if !wanted {
            return;
        }
        if usable && self.is_in_log(prev, &append.entries) {
            self.send_append(cx, to, prev, append.entries);
        } else if let Some(progress) = self.progress_mut(to) {
            // Not readable, or no longer there: begins again after a pause.
            progress.become_probe(from);
            progress.probe_seq = Some(progress.seq.saturating_add(1));
        }
    }

    fn is_in_log(&self, prev: Position, entries: &[Entry<P>]) -> bool {
        let in_log = |position: Position| self.log.term_at(position.index) == Some(position.term);
        in_log(prev) && entries.last().is_some_and(|last| in_log(last.position()))
    }

    /// The driver has the start that a follower needs.
    pub(crate) fn start_provided(&mut self, cx: &Context, to: ReplicaId, start: Start<P>) {
        let committed = self.log.committed();
        let Some(progress) = self.progress_mut(to) else { return };
        if progress.state == ProgressState::Start && start.index <= committed {
            progress.silent_ticks = 0;
            self.send(cx, to, MessageBody::InstallStart { start });
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Answers

    pub(super) fn on_append_answer(&mut self, cx: &Context, from: ReplicaId, answer: &AppendAnswer) {
        let last = self.log.last().index;
        let start = self.log.start().index;
        let committed = self.log.committed();
        let Some(leading) = &mut self.leading else { return };
        let ready = leading.ready;
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        progress.answered(answer.seq);
        note_recovery(progress, answer.recovering, ready.then_some(committed));
        match answer.result {
            AppendResult::Matched { stored, synced, received, commit } => {
                let received = received.min(last);
                progress.commit_known = progress.commit_known.max(commit);
                let news = progress.stored(stored.min(received), synced.min(received));
                let found = match progress.state {
                    ProgressState::Probe => progress.probe_seq.is_some_and(|seq| answer.seq >= seq),
                    ProgressState::Start => received >= start,
                    ProgressState::Replicate => false,
                };
                if found {
                    progress.become_replicate(received);
                } else if answer.seq == progress.seq {
                    progress.all_seen(received);
                }
                if news || !answer.recovering {
                    self.try_commit(cx);
                }
            }
            AppendResult::Mismatch { prev_index, hint_index, hint_term } => {
                let hint = self.log.last_not_above(hint_index, hint_term);
                on_mismatch(progress, answer.seq, prev_index, hint.index);
            }
            AppendResult::OldTerm => {}
        }
    }

    pub(super) fn on_install_start_answer(&mut self, cx: &Context, from: ReplicaId, index: Index) {
        let committed = self.log.committed();
        let Some(progress) = self.progress_mut(from) else { return };
        progress.answered(0);
        let index = index.min(committed);
        progress.stored(index, index);
        progress.commit_known = progress.commit_known.max(index);
        if progress.state == ProgressState::Start {
            progress.become_probe(index.next());
        }
        self.try_commit(cx);
    }

    /// Moves the commit index as far as majorities have stored entries of this term as durably as they require.
    pub(super) fn try_commit(&mut self, _cx: &Context) {
        let Some(leading) = &self.leading else { return };
        let committed = self.log.committed();
        let reached = |durability| {
            quorum::majority_index(self.memberships.current(), |voter| match leading.progress.get(&voter) {
                Some(progress) => progress.counted(durability),
                None => self.log.durable(durability),
            })
        };
        let synced = reached(Durability::Synced);
        let mut candidate = synced;
        if self.required == Durability::PageCache {
            let must_be_synced = self.memberships.first_after(committed.max(synced));
            let stored = reached(Durability::PageCache);
            candidate = synced.max(must_be_synced.map_or(stored, |index| stored.min(index.prev())));
        }
        if candidate > committed && self.log.term_at(candidate) == Some(self.hard.term) {
            self.log.commit_to(candidate);
        }
    }

    /// Notices when the first entry of this term has been handed out for apply.
    pub(super) fn check_leader_ready(&mut self) {
        let applied = self.log.applied();
        if let Some(leading) = &mut self.leading
            && !leading.ready
            && applied >= leading.first_index
        {
            leading.ready = true;
            self.out.leader_ready = true;
        }
    }
}

/// Decides what one follower gets next.
fn next_step<P: Payload>(log: &RaftLog<P>, progress: &Progress, max_append_bytes: usize) -> Step<P> {
    let prev_index = progress.next.prev();
    let last = log.last().index;
    let probing = progress.state == ProgressState::Probe;
    if progress.state == ProgressState::Start || (probing && progress.probe_seq.is_some()) {
        return Step::Nothing;
    }
    let Some(prev_term) = log.term_at(prev_index) else { return Step::AskForStart };
    let prev = Position::new(prev_index, prev_term);
    if probing {
        let mut entries = log.slice(progress.next, last, PROBE_BYTES);
        if entries.first().is_some_and(|first| first.len_bytes() > PROBE_BYTES) {
            entries.clear();
        }
        return Step::Append { prev, entries };
    }
    let Some(room) =
        progress.inflights.room().filter(|_| progress.next <= last && progress.reading.is_none())
    else {
        return Step::Nothing;
    };
    if progress.next < log.tail_first() {
        return Step::Read { from: progress.next };
    }
    let entries = log.slice(progress.next, last, max_append_bytes.min(room));
    let bytes: usize = entries.iter().map(Entry::len_bytes).sum();
    if bytes > room && !progress.inflights.is_empty() {
        return Step::Nothing;
    }
    Step::Append { prev, entries }
}

/// Follows a follower through its recovery: from its first answer that reaches a leader which has committed in its own
/// term, the commit index of that moment is the point through which its log has to match.
fn note_recovery(progress: &mut Progress, recovering: bool, committed_when_ready: Option<Index>) {
    progress.recovering = recovering;
    if !recovering {
        progress.sound_through = None;
    } else if progress.sound_through.is_none() && committed_when_ready.is_some() {
        progress.sound_through = committed_when_ready;
        progress.become_probe(progress.next);
    }
}

fn on_mismatch(progress: &mut Progress, seq: u64, prev_index: Index, hint: Index) {
    let current = match progress.state {
        ProgressState::Probe => progress.probe_seq == Some(seq),
        ProgressState::Replicate => prev_index > progress.matched,
        ProgressState::Start => false,
    };
    if current {
        progress.become_probe(hint.min(prev_index.prev()).next());
    }
}
