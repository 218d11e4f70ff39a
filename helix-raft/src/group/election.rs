//! Elections: timers, pre-votes, votes.

use crate::group::Group;
use crate::group::leader::Leading;
use crate::message::{Message, MessageBody};
use crate::peers::Context;
use crate::planted::planted;
use crate::recovering::{Ballot, Election, ForceRecoverError, Outcome, RECOVERING_PATIENCE, outcome};
use crate::types::{HardState, Payload, Position, ReplicaId, Role, Term};

impl<P: Payload> Group<P> {
    /// Whether this replica may ask for votes, if need be for those of everybody. That includes one that is out of the last
    /// configuration while that is not committed: it may hold the longest log, and nobody else could win (Raft thesis, 4.2.2).
    pub(super) fn may_campaign(&self, cx: &Context) -> bool {
        let mut possible = self.memberships.since(self.log.committed());
        !self.following.diverged && possible.any(|membership| membership.is_voter(cx.me()))
    }

    /// Whether this replica may ask for votes without giving others time to do so.
    pub(super) fn may_go_first(&self, cx: &Context) -> bool {
        !self.recovering && self.may_campaign(cx)
    }

    /// Whether there is a leader that this replica has no reason to doubt.
    pub(super) fn has_live_leader(&self, cx: &Context) -> bool {
        match self.leader {
            Some(leader) if leader == cx.me() => self.has_quorum_contact(cx),
            Some(leader) => self.confirmed && cx.hears(leader),
            None => false,
        }
    }

    /// Whether this replica follows a leader that it has no reason to doubt, with a log that is not suspect.
    pub(crate) fn follows(&self, cx: &Context) -> bool {
        self.role == Role::Follower && !self.recovering && self.has_live_leader(cx)
    }

    fn random_timeout(&mut self, cx: &Context) -> u32 {
        let patience = if self.recovering { RECOVERING_PATIENCE } else { 1 };
        let ticks = cx.config.election_timeout_ticks.max(1) * patience;
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
        if self.may_go_first(cx) && cx.is_first_live_voter(self.membership()) {
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
        if self.role != Role::Leader && self.may_go_first(cx) {
            self.pre_campaign(cx);
        }
    }

    /// Starts an election that recovering replicas decide too, on request of the operator.
    pub(crate) fn force_recover(&mut self, cx: &Context) -> Result<(), ForceRecoverError> {
        if !self.may_campaign(cx) {
            return Err(ForceRecoverError::NotAVoter(cx.me()));
        }
        let committed = self.log.committed();
        let is_helpless = |leading: &Leading| leading.soundness_point(committed).is_none();
        if self.leading.as_ref().is_some_and(is_helpless) {
            self.become_follower(cx, self.hard.term, None);
        }
        if let Some(leader) = self.leader.filter(|_| self.has_live_leader(cx)) {
            return Err(ForceRecoverError::HasLeader { leader });
        }
        self.pre_campaign_for(cx, Election::Forced);
        Ok(())
    }

    pub(super) fn pre_campaign(&mut self, cx: &Context) {
        let election = if self.recovering { Election::EveryVoter } else { Election::Sound };
        self.pre_campaign_for(cx, election);
    }

    pub(super) fn pre_campaign_for(&mut self, cx: &Context, election: Election) {
        self.election = election;
        if self.membership().is_sole_voter(cx.me()) {
            self.campaign(cx);
            return;
        }
        self.role = Role::PreCandidate;
        self.leader = None;
        self.confirmed = false;
        self.deferred_pre_vote = None;
        self.votes.clear();
        self.votes.insert(cx.me(), self.own_ballot());
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
        let Position { index: last_index, term: last_term } = self.log.last();
        let unclean = self.election.is_unclean();
        for voter in self.membership().all_voters() {
            if voter == cx.me() || self.votes.contains_key(&voter) {
                continue;
            }
            if self.role == Role::PreCandidate {
                let body = MessageBody::PreVote { last_index, last_term, unclean };
                self.send_in_term(cx, voter, self.hard.term.next(), body);
            } else {
                self.send(cx, voter, MessageBody::Vote { last_index, last_term, unclean });
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Being asked

    pub(super) fn on_pre_vote(&mut self, cx: &Context, message: Message<P>) {
        let MessageBody::PreVote { last_index, last_term, unclean } = message.body else { return };
        let recovering = self.recovering;
        if message.term <= self.hard.term {
            // The term of this answer brings the candidate up to date.
            self.send(cx, message.from, MessageBody::PreVoteAnswer { granted: false, recovering });
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
        let first = unclean && self.goes_before(cx, message.from, Position::new(last_index, last_term));
        let granted = covered && !first && (!recovering || unclean) && !self.following.diverged;
        let term = if granted { message.term } else { self.hard.term };
        self.send_in_term(cx, message.from, term, MessageBody::PreVoteAnswer { granted, recovering });
        if !covered && (!recovering || unclean) {
            self.campaign_instead(cx);
        }
    }

    /// Whether this replica asks every voter too, with a log as long, and is preferred. An election that takes every vote is lost by
    /// a single one that is given to another candidate, and those with the longest log begin together: one has to give way. Not so
    /// if some voter is not there: then this replica cannot win, and the other one may be forced.
    fn goes_before(&self, cx: &Context, candidate: ReplicaId, last: Position) -> bool {
        let asks_too = self.role == Role::PreCandidate && self.election == Election::EveryVoter;
        let voters = self.membership().all_voters();
        let rank = |replica| voters.iter().position(|voter| *voter == replica);
        let complete = voters.iter().all(|voter| cx.hears(*voter));
        asks_too && complete && last == self.log.last() && rank(cx.me()) < rank(candidate)
    }

    /// The candidate lacks entries that are here, so it cannot win by this vote: this replica, missing a leader like the
    /// candidate, goes first. Else the group would wait for the election timer of a replica that can win.
    fn campaign_instead(&mut self, cx: &Context) {
        if self.role == Role::Follower && self.may_campaign(cx) && !self.has_live_leader(cx) {
            self.pre_campaign(cx);
        }
    }

    pub(super) fn on_vote(&mut self, cx: &Context, from: ReplicaId, last: Position, unclean: bool) {
        let free = planted("second-vote")
            || match self.hard.vote {
                Some(vote) => vote == from,
                None => self.leader.is_none() && self.role != Role::Leader,
            };
        let covered = self.log.is_covered_by(last);
        let recovering = self.recovering;
        let granted = free && covered && (!recovering || unclean) && !self.following.diverged;
        if granted {
            self.hard.vote = Some(from);
            // Gives the candidate time; one that only thought of campaigning leaves it the field.
            self.role = Role::Follower;
            self.votes.clear();
            self.restart_timer(cx);
        }
        // Who is refused here for its log was so before, when it asked whether to ask: no second move is due. Answering one election by
        // the next, two replicas could depose each other for ever.
        self.send(cx, from, MessageBody::VoteAnswer { granted, recovering });
    }

    pub(super) fn on_timeout_now(&mut self, cx: &Context, from: ReplicaId) {
        if self.role == Role::Follower
            && self.leader.is_none_or(|leader| leader == from)
            && self.may_go_first(cx)
        {
            self.election = Election::Sound;
            self.campaign(cx);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Being answered

    pub(super) fn own_ballot(&self) -> Ballot {
        Ballot { granted: true, recovering: self.recovering }
    }

    pub(super) fn on_pre_vote_granted(&mut self, cx: &Context, message: &Message<P>) {
        let MessageBody::PreVoteAnswer { granted, recovering } = message.body else { return };
        if message.term == self.hard.term.next() {
            self.on_ballot(cx, Role::PreCandidate, message.from, Ballot { granted, recovering });
        }
    }

    /// The answer of a voter to the request that this replica makes in `role`.
    pub(super) fn on_ballot(&mut self, cx: &Context, role: Role, from: ReplicaId, ballot: Ballot) {
        if self.role == role && ballot.counts_in(self.election) {
            self.votes.entry(from).or_insert(ballot);
            self.count_votes(cx);
        }
    }

    fn count_votes(&mut self, cx: &Context) {
        let ballot = |voter: ReplicaId| self.votes.get(&voter).copied();
        match (outcome(self.election, self.membership(), cx.me(), ballot), self.role) {
            (Outcome::Won { .. }, Role::PreCandidate) => self.campaign(cx),
            (Outcome::Won { clean }, Role::Candidate) => self.become_leader(cx, clean),
            (Outcome::TooFewSound, _) => self.pre_campaign_for(cx, Election::EveryVoter),
            (Outcome::Lost, _) => self.become_follower(cx, self.hard.term, None),
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
