//! Feeding the followers of a leader, hearing what they hold, and committing.

use crate::group::Group;
use crate::log::RaftLog;
use crate::message::{Append, AppendAnswer, AppendResult, MessageBody, Start};
use crate::peers::Context;
use crate::planted::planted;
use crate::progress::{Progress, ProgressState};
use crate::quorum;
use crate::ready::ReadRequest;
use crate::types::{Durability, Entry, Index, Payload, Position, ReplicaId, Term};

/// A probe carries entries only up to this size: it may well be refused.
const PROBE_BYTES: usize = 4096;

/// What to do next for one follower.
enum Step<P> {
    Nothing,
    AskForStart,
    Read { from: Index },
    Append { prev: Position, entries: Vec<Entry<P>> },
}

impl<P: Payload> Group<P> {
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
        let soundness_point = leading.soundness_point(committed);
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        if answer.seq < progress.first_seq {
            return;
        }
        let silent_ticks = progress.silent_ticks;
        progress.answered(answer.seq);
        let confirms = progress.agrees(answer.seq);
        note_recovery(progress, answer.recovering, soundness_point);
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
                if confirms && !news && !found {
                    // However often it is asked for that, it says nothing about the entries that are on their way.
                    progress.silent_ticks = silent_ticks;
                }
                if news || !answer.recovering {
                    self.try_commit(cx);
                }
            }
            AppendResult::Mismatch { prev_index, hint_index, hint_term } => {
                let hint = self.log.last_not_above(hint_index, hint_term);
                on_mismatch(progress, answer.seq, prev_index, hint_index, hint.index);
            }
            AppendResult::OldTerm => {}
        }
    }

    /// The follower has begun anew after `index`. What it holds is then asked for like that of any other.
    pub(super) fn on_install_start_answer(&mut self, from: ReplicaId, index: Index) {
        let index = index.min(self.log.committed());
        let Some(progress) = self.progress_mut(from) else { return };
        if progress.state == ProgressState::Start {
            progress.silent_ticks = 0;
            progress.become_probe(index.next());
        }
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
        let own_term =
            planted("commit-of-an-earlier-term") || self.log.term_at(candidate) == Some(self.hard.term);
        if candidate > committed && own_term {
            self.log.commit_to(candidate);
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
        let mut entries = log.slice(progress.next, last, PROBE_BYTES.min(max_append_bytes));
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

/// Follows a follower through its recovery: from its first answer that reaches a leader which knows that point, its log has
/// to match through what the leader has committed at that moment, an entry of its own term being committed; or, before
/// that, through the end of the log with which the leader won an unclean election.
fn note_recovery(progress: &mut Progress, recovering: bool, soundness_point: Option<Index>) {
    progress.recovering = recovering;
    if !recovering {
        progress.sound_through = None;
    } else if progress.sound_through.is_none() && soundness_point.is_some() {
        progress.sound_through = soundness_point;
        progress.become_probe(progress.next);
    }
}

/// The logs differ at `prev_index`. They may agree up to `theirs` as the follower sees it, up to `ours` as this log does.
fn on_mismatch(progress: &mut Progress, seq: u64, prev_index: Index, theirs: Index, ours: Index) {
    let current = match progress.state {
        ProgressState::Probe if progress.probe_seq == Some(seq) => {
            // It cannot lack what it has stored, unless it was removed, deleted its log, and came back.
            progress.limit_stored(theirs.min(prev_index.prev()));
            true
        }
        ProgressState::Probe => false,
        ProgressState::Replicate => prev_index > progress.matched,
        ProgressState::Start => false,
    };
    if current {
        progress.become_probe(ours.min(prev_index.prev()).next());
    }
}
