//! Following a leader: taking over entries, answering for what is stored, starting anew where the leader says.

use crate::group::Group;
use crate::log::Offer;
use crate::memberships::Memberships;
use crate::message::{Append, AppendAnswer, AppendResult, MessageBody, Start};
use crate::peers::Context;
use crate::types::{Durability, Index, Membership, Payload, Position, ReplicaId, Role};

/// What a follower remembers of its leader's messages.
#[derive(Clone, Debug)]
pub(super) struct Following<P> {
    /// The log agrees with that of the leader up to here.
    pub(super) verified: Index,
    /// Highest message number seen from this leader.
    seq: u64,
    /// How safely the leader wants the entries stored.
    required: Durability,
    /// While recovering: the log is sound once it is verified and stored through this index.
    sound_through: Option<Index>,
    /// What is committed here is not in the leader's log: this replica has to begin anew.
    pub(super) diverged: bool,
    /// A start that the driver is yet to be given.
    pub(super) install: Option<Start<P>>,
    /// A start that is being installed: nothing else is written or applied meanwhile.
    pub(super) installing: Option<(Position, Membership)>,
}

impl<P> Following<P> {
    pub(super) const fn new(verified: Index) -> Following<P> {
        Following {
            verified,
            seq: 0,
            required: Durability::PageCache,
            sound_through: None,
            diverged: false,
            install: None,
            installing: None,
        }
    }

    /// Another leader, or none: only what is committed is certain to be in its log.
    pub(super) const fn forget_leader(&mut self, committed: Index) {
        self.verified = committed;
        self.seq = 0;
        self.required = Durability::PageCache;
        self.sound_through = None;
    }
}

impl<P: Payload> Group<P> {
    /// A message of the leader of this term arrived. `false` if it cannot be that.
    fn hear_leader(&mut self, cx: &Context, from: ReplicaId) -> bool {
        if self.role == Role::Leader {
            return false;
        }
        if self.role != Role::Follower || self.leader != Some(from) {
            self.become_follower(cx, self.hard.term, Some(from));
        }
        self.confirmed = true;
        self.deferred_pre_vote = None;
        self.timer = None;
        self.rearm(cx);
        true
    }

    pub(super) fn on_append(&mut self, cx: &Context, from: ReplicaId, append: &Append<P>) {
        if !append.is_well_formed(self.hard.term) || !self.hear_leader(cx, from) {
            return;
        }
        self.following.seq = self.following.seq.max(append.seq);
        if self.following.installing.is_some() || self.following.diverged {
            return;
        }
        let prev = Position::new(append.prev_index, append.prev_term);
        match self.log.offer(prev, &append.entries) {
            Offer::Mismatch(hint) => {
                let result = AppendResult::Mismatch {
                    prev_index: prev.index,
                    hint_index: hint.index,
                    hint_term: hint.term,
                };
                let answer = AppendAnswer { seq: append.seq, result, recovering: self.recovering };
                self.send(cx, from, MessageBody::AppendAnswer(answer));
            }
            Offer::Diverged(at) => {
                self.following.diverged = true;
                self.recovering = true;
                self.out.diverged = Some(at);
            }
            Offer::Matched { truncated_from, added_from } => {
                self.update_memberships(cx, append, truncated_from, added_from);
                self.accept(cx, from, append, added_from.is_none());
            }
        }
    }

    fn update_memberships(
        &mut self,
        cx: &Context,
        append: &Append<P>,
        truncated_from: Option<Index>,
        added_from: Option<Index>,
    ) {
        let mut changed = truncated_from.is_some_and(|from| self.roll_back_memberships(from));
        if let Some(from) = added_from {
            let added = append.entries.partition_point(|entry| entry.index < from);
            changed |= self.note_memberships(&append.entries[added..]);
        }
        if changed {
            self.membership_changed(cx);
        }
    }

    /// The log agrees with the leader's through the end of `append`: commits, and answers if all of it is stored, or
    /// nothing of it was news; otherwise the answer follows when it is stored.
    fn accept(&mut self, cx: &Context, from: ReplicaId, append: &Append<P>, nothing_new: bool) {
        let through = append.last_index();
        let following = &mut self.following;
        following.verified = following.verified.max(through);
        following.required = append.required;
        if append.sound_through.is_some() {
            following.sound_through = append.sound_through;
        }
        if append.required == Durability::Synced {
            self.log.want_sync(through);
        }
        self.log.commit_to(append.commit.min(self.following.verified));
        self.check_sound();
        if nothing_new || self.log.durable(append.required) >= through {
            self.send_answer(cx, from);
        }
    }

    pub(super) fn on_heartbeat(&mut self, cx: &Context, from: ReplicaId, seq: u64, commit: Index) {
        if !self.hear_leader(cx, from) || self.following.diverged {
            return;
        }
        self.following.seq = self.following.seq.max(seq);
        self.log.commit_to(commit.min(self.following.verified));
        self.send_answer(cx, from);
    }

    /// More of the log is stored than `before`: tells the leader, as far as it concerns its log.
    pub(super) fn answer_stored(&mut self, cx: &Context, before: (Index, Index)) {
        let was_recovering = self.recovering;
        self.check_sound();
        let verified = self.following.verified;
        let news = before.0.min(verified) < self.log.stored().min(verified)
            || before.1.min(verified) < self.log.synced().min(verified)
            || was_recovering != self.recovering;
        let Some(leader) = self.leader.filter(|_| self.role == Role::Follower) else { return };
        // In between the entries are in the page cache and not yet synced: no answer before they are what was asked.
        let partial = self.following.required == Durability::Synced && before.1 == self.log.synced();
        if news && !partial {
            self.send_answer(cx, leader);
        }
    }

    fn check_sound(&mut self) {
        let durable = self.log.durable(self.following.required).min(self.following.verified);
        let through = self.following.sound_through;
        if self.recovering && through.is_some_and(|through| durable >= through) {
            self.recovering = false;
            self.out.sound = true;
        }
    }

    fn send_answer(&mut self, cx: &Context, leader: ReplicaId) {
        let verified = self.following.verified;
        let result = AppendResult::Matched {
            stored: self.log.stored().min(verified),
            synced: self.log.synced().min(verified),
            received: verified,
            commit: self.log.committed(),
        };
        let answer = AppendAnswer { seq: self.following.seq, result, recovering: self.recovering };
        self.send(cx, leader, MessageBody::AppendAnswer(answer));
    }

    pub(super) fn answer_old_term(&mut self, cx: &Context, leader: ReplicaId) {
        let answer = AppendAnswer { seq: 0, result: AppendResult::OldTerm, recovering: self.recovering };
        self.send(cx, leader, MessageBody::AppendAnswer(answer));
    }

    // ------------------------------------------------------------------------------------------------------------
    // Start here

    pub(super) fn on_install_start(&mut self, cx: &Context, from: ReplicaId, start: Start<P>) {
        if !self.hear_leader(cx, from) || self.following.installing.is_some() || self.following.diverged {
            return;
        }
        if start.index <= self.log.committed() || self.log.term_at(start.index) == Some(start.term) {
            // Nothing is missing; the answer tells where the leader can go on.
            self.following.verified = self.following.verified.max(start.index);
            self.log.commit_to(start.index);
            self.send_answer(cx, from);
            return;
        }
        self.following.installing = Some((Position::new(start.index, start.term), start.membership.clone()));
        self.following.install = Some(start);
    }

    pub(crate) fn start_installed(&mut self, cx: &Context, start: Position) {
        let Some((_, membership)) = self.following.installing.take_if(|installing| installing.0 == start)
        else {
            return;
        };
        self.following.install = None;
        self.log.restart_at(start);
        self.memberships = Memberships::new(start.index, membership, Vec::new());
        self.following.verified = start.index;
        self.membership_changed(cx);
        if let Some(leader) = self.leader.filter(|_| self.role == Role::Follower) {
            self.send(cx, leader, MessageBody::InstallStartAnswer { index: start.index });
        }
    }
}
