//! Elections: timers, pre-votes, votes.

use crate::group::Group;
use crate::message::{Message, MessageBody};
use crate::peers::Context;
use crate::quorum::{self, VoteResult};
use crate::types::{HardState, Payload, Position, ReplicaId, Role, Term};

impl<P: Payload> Group<P> {
    /// Whether this replica may ask for votes.
    pub(super) fn may_campaign(&self, cx: &Context) -> bool {
        !self.recovering && self.membership().is_voter(cx.me())
    }

    /// Whether there is a leader that this replica has no reason to doubt.
    pub(super) fn has_live_leader(&self, cx: &Context) -> bool {
        match self.leader {
            Some(leader) if leader == cx.me() => self.has_quorum_contact(cx),
            Some(leader) => self.confirmed && cx.hears(leader),
            None => false,
        }
    }

    fn random_timeout(&mut self, cx: &Context) -> u32 {
        let ticks = cx.config.election_timeout_ticks.max(1);
        self.rng.between(ticks, 2 * ticks)
    }

    /// Lets the election timer run, or stops it, as the state of things demands.
    pub(super) fn rearm(&mut self, cx: &Context) {
        if self.role == Role::Follower && (self.has_live_leader(cx) || !self.may_campaign(cx)) {
            self.timer = None;
        } else if self.timer.is_none() {
            self.timer = Some(self.random_timeout(cx));
        }
    }

    fn restart_timer(&mut self, cx: &Context) {
        self.timer = None;
        self.rearm(cx);
    }

    pub(super) fn tick_election(&mut self, cx: &Context) {
        let Some(ticks) = self.timer else { return };
        if ticks <= 1 {
            self.timer = None;
            if self.may_campaign(cx) {
                self.pre_campaign(cx);
            } else {
                self.rearm(cx);
            }
            return;
        }
        self.timer = Some(ticks - 1);
        if self.role != Role::Follower {
            self.repeat = self.repeat.saturating_sub(1);
            if self.repeat == 0 {
                self.ask_for_votes(cx);
            }
        }
    }

    /// The leader may be gone: the first live voter campaigns at once, the others give it time.
    pub(super) fn leader_doubted(&mut self, cx: &Context) {
        if self.role != Role::Follower {
            return;
        }
        self.rearm(cx);
        if self.has_live_leader(cx) {
            return;
        }
        if self.may_campaign(cx) && cx.is_first_live_voter(self.membership()) {
            self.pre_campaign(cx);
        } else {
            self.reconsider_pre_vote(cx);
        }
    }

    /// Looks again at a pre-vote that was not answered because of a live leader.
    pub(super) fn reconsider_pre_vote(&mut self, cx: &Context) {
        if let Some(deferred) = self.deferred_pre_vote.take() {
            self.on_pre_vote(cx, deferred);
        }
    }

    /// Starts an election on request of the operator.
    pub(crate) fn campaign_on_request(&mut self, cx: &Context) {
        if self.role != Role::Leader && self.may_campaign(cx) {
            self.pre_campaign(cx);
        }
    }

    pub(super) fn pre_campaign(&mut self, cx: &Context) {
        if self.membership().is_sole_voter(cx.me()) {
            self.campaign(cx);
            return;
        }
        self.role = Role::PreCandidate;
        self.leader = None;
        self.confirmed = false;
        self.deferred_pre_vote = None;
        self.votes.clear();
        self.votes.insert(cx.me(), true);
        self.restart_timer(cx);
        self.ask_for_votes(cx);
    }

    pub(super) fn campaign(&mut self, cx: &Context) {
        self.role = Role::Candidate;
        self.leader = None;
        self.confirmed = false;
        self.deferred_pre_vote = None;
        self.votes.clear();
        self.hard = HardState { term: self.hard.term.next(), vote: Some(cx.me()) };
        self.following.forget_leader(self.log.committed());
        self.restart_timer(cx);
        self.ask_for_votes(cx);
    }

    /// Sends the request of the current phase to every voter that has not answered it.
    fn ask_for_votes(&mut self, cx: &Context) {
        self.repeat = (cx.config.election_timeout_ticks / 3).max(1);
        let last = self.log.last();
        for voter in self.membership().all_voters() {
            if voter == cx.me() || self.votes.contains_key(&voter) {
                continue;
            }
            if self.role == Role::PreCandidate {
                let body = MessageBody::PreVote { last_index: last.index, last_term: last.term };
                self.send_in_term(cx, voter, self.hard.term.next(), body);
            } else {
                self.send(cx, voter, MessageBody::Vote { last_index: last.index, last_term: last.term });
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Being asked

    pub(super) fn on_pre_vote(&mut self, cx: &Context, message: Message<P>) {
        let MessageBody::PreVote { last_index, last_term } = message.body else { return };
        if message.term <= self.hard.term {
            // The term of this answer brings the candidate up to date.
            self.send(cx, message.from, MessageBody::PreVoteAnswer { granted: false });
            return;
        }
        if self.leader == Some(message.from) {
            // Who asks for votes leads no more.
            self.leader = None;
            self.confirmed = false;
            self.rearm(cx);
        }
        if self.has_live_leader(cx) {
            if self.role == Role::Leader {
                self.answer_stray(cx, message.from);
            } else {
                self.deferred_pre_vote = Some(message);
            }
            return;
        }
        let covered = self.log.is_covered_by(Position::new(last_index, last_term));
        let granted = !self.recovering && covered;
        let term = if granted { message.term } else { self.hard.term };
        self.send_in_term(cx, message.from, term, MessageBody::PreVoteAnswer { granted });
        if !covered {
            self.campaign_instead(cx);
        }
    }

    /// The candidate lacks entries that are here, so it cannot win by this vote: this replica, missing a leader like the
    /// candidate, goes first. Else the group would wait for the election timer of a replica that can win.
    fn campaign_instead(&mut self, cx: &Context) {
        if self.role == Role::Follower && self.may_campaign(cx) && !self.has_live_leader(cx) {
            self.pre_campaign(cx);
        }
    }

    pub(super) fn on_vote(&mut self, cx: &Context, from: ReplicaId, last: Position) {
        let free = match self.hard.vote {
            Some(vote) => vote == from,
            None => self.leader.is_none() && self.role != Role::Leader,
        };
        let covered = self.log.is_covered_by(last);
        let granted = free && !self.recovering && covered;
        if granted {
            self.hard.vote = Some(from);
            // Gives the candidate time; one that only thought of campaigning leaves it the field.
            self.role = Role::Follower;
            self.votes.clear();
            self.restart_timer(cx);
        }
        // Who is refused here for its log was so before, when it asked whether to ask: no second move is due. Answering one election by
        // the next, two replicas could depose each other for ever.
        self.send(cx, from, MessageBody::VoteAnswer { granted });
    }

    pub(super) fn on_timeout_now(&mut self, cx: &Context, from: ReplicaId) {
        if self.role == Role::Follower
            && self.leader.is_none_or(|leader| leader == from)
            && self.may_campaign(cx)
        {
            self.campaign(cx);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Being answered

    pub(super) fn on_pre_vote_granted(&mut self, cx: &Context, message: &Message<P>) {
        if self.role == Role::PreCandidate && message.term == self.hard.term.next() {
            self.votes.insert(message.from, true);
            self.count_votes(cx);
        }
    }

    pub(super) fn on_pre_vote_answer(&mut self, cx: &Context, from: ReplicaId, granted: bool) {
        if self.role == Role::PreCandidate {
            self.votes.entry(from).or_insert(granted);
            self.count_votes(cx);
        }
    }

    pub(super) fn on_vote_answer(&mut self, cx: &Context, from: ReplicaId, granted: bool) {
        if self.role == Role::Candidate {
            self.votes.entry(from).or_insert(granted);
            self.count_votes(cx);
        }
    }

    fn count_votes(&mut self, cx: &Context) {
        let result = quorum::vote_result(self.membership(), |voter| self.votes.get(&voter).copied());
        match (result, self.role) {
            (VoteResult::Won, Role::PreCandidate) => self.campaign(cx),
            (VoteResult::Won, Role::Candidate) => self.become_leader(cx),
            (VoteResult::Lost, _) => self.become_follower(cx, self.hard.term, None),
            _ => {}
        }
    }

    pub(super) fn become_follower(&mut self, cx: &Context, term: Term, leader: Option<ReplicaId>) {
        if term > self.hard.term {
            self.hard = HardState { term, vote: None };
        }
        self.following.forget_leader(self.log.committed());
        self.role = Role::Follower;
        self.leader = leader;
        self.confirmed = leader.is_some();
        self.leading = None;
        self.votes.clear();
        self.restart_timer(cx);
    }
}
