//! One consensus group: who it is, and what every event from outside leads to.
//!
//! The control flow is here; elections, following, leading and output are in the files below.

mod confirm;
mod election;
mod follower;
mod leader;
mod membership;
mod output;
mod replication;

use crate::planted::planted;
use std::collections::{BTreeMap, VecDeque};

use crate::config::{AddGroupError, GroupOptions};
use crate::digest::Contribution;
use crate::log::RaftLog;
use crate::memberships::Memberships;
use crate::message::{Message, MessageBody};
use crate::peers::Context;
use crate::ready::{ReadRequest, RoleChange};
use crate::recovering::{Ballot, Election};
use crate::rng::{Rng, mix};
use crate::types::{
    Durability, GroupId, HardState, Incarnation, Index, Membership, Payload, Position, ReplicaId, Role, Term,
};

use follower::Following;
use leader::Leading;

/// Everything by which a group can come to count differently in the digests.
pub(crate) type Standing = (Role, Term, Option<ReplicaId>, u64);

/// What the next `Ready` has to say beside what can be read off the state.
#[derive(Clone, Debug)]
struct Outbox<P> {
    messages: Vec<Message<P>>,
    reads: Vec<ReadRequest>,
    need_start: Vec<ReplicaId>,
    leader_ready: bool,
    sound: bool,
    unclean_recovery: bool,
    diverged: Option<Position>,
}

#[derive(Clone, Debug)]
pub(crate) struct Group<P> {
    id: GroupId,
    required: Durability,
    recovering: bool,
    log: RaftLog<P>,
    memberships: Memberships,
    /// Counts the changes of the configuration in force, and of who is being told that it is out.
    membership_version: u64,
    /// Index of the committed configuration that the driver knows of.
    membership_told: Index,
    /// Some configuration that was in force here had this replica in it.
    was_member: bool,
    rng: Rng,

    hard: HardState,
    /// What the driver was given, and what it has reported as persisted.
    hard_handed: HardState,
    hard_persisted: HardState,
    /// Messages that must not leave before the hard state beside them is persisted.
    held: VecDeque<(HardState, Message<P>)>,

    role: Role,
    leader: Option<ReplicaId>,
    /// The leader has been heard of in this group since there was last a reason to doubt it.
    confirmed: bool,
    /// Ticks until this replica campaigns.
    timer: Option<u32>,
    /// Ticks until a candidate repeats its requests.
    repeat: u32,
    votes: BTreeMap<ReplicaId, Ballot>,
    /// As a candidate: whose votes it takes.
    election: Election,
    /// A pre-vote not answered because the leader was alive: it is looked at again when that changes, since two
    /// replicas do not miss a leader in the same instant.
    deferred_pre_vote: Option<Message<P>>,

    following: Following<P>,
    /// A new start of the log that the driver has recorded, and that lies beyond what it has told to be applied.
    start_ahead: Option<Position>,
    leading: Option<Leading>,

    announced: RoleChange,
    out: Outbox<P>,
}

impl<P: Payload> Group<P> {
    pub(crate) fn open(
        cx: &Context,
        id: GroupId,
        options: GroupOptions<P>,
    ) -> Result<Group<P>, AddGroupError> {
        let inconsistent = |reason| AddGroupError::Inconsistent { group: id, reason };
        let log = RaftLog::open(&options).map_err(inconsistent)?;
        // A crash may keep an entry and lose the term it arrived with. No vote was given in that term, or it would
        // be on record.
        let mut hard = options.hard_state;
        if hard.term < log.last().term {
            hard = HardState { term: log.last().term, vote: None };
        }
        let mut memberships = Memberships::new(options.start_index, options.membership, options.memberships);
        memberships.truncate_from(log.last().index.next());
        let was_member = memberships.all().any(|membership| membership.contains(cx.me()));
        let mut group = Group {
            id,
            required: options.required,
            recovering: options.recovering,
            following: Following::new(log.committed()),
            start_ahead: None,
            log,
            membership_version: 0,
            membership_told: memberships.at(options.committed).0,
            was_member,
            memberships,
            rng: Rng::new(mix(cx.config.seed ^ mix(id.get())) ^ mix(cx.me().get())),
            hard,
            hard_handed: options.hard_state,
            hard_persisted: options.hard_state,
            held: VecDeque::new(),
            role: Role::Follower,
            leader: None,
            confirmed: false,
            timer: None,
            repeat: 0,
            votes: BTreeMap::new(),
            election: Election::Sound,
            deferred_pre_vote: None,
            leading: None,
            announced: RoleChange { role: Role::Follower, term: hard.term, leader: None },
            out: Outbox {
                messages: Vec::new(),
                reads: Vec::new(),
                need_start: Vec::new(),
                leader_ready: false,
                sound: false,
                unclean_recovery: false,
                diverged: None,
            },
        };
        group.begin(cx);
        Ok(group)
    }

    /// The first moves of a group that was just added: a sole voter elects itself; in a fresh group the preferred
    /// voter campaigns at once; after a restart the first live voter campaigns at the first tick.
    fn begin(&mut self, cx: &Context) {
        if self.membership().is_sole_voter(cx.me()) {
            self.pre_campaign(cx);
            return;
        }
        self.rearm(cx);
        if self.may_go_first(cx) && cx.is_first_live_voter(self.membership()) {
            if self.hard.term == Term::ZERO && self.log.last().index == Index::ZERO {
                self.pre_campaign(cx);
            } else {
                self.timer = Some(1);
            }
        }
    }

    pub(crate) fn membership(&self) -> &Membership {
        self.memberships.current()
    }

    pub(crate) const fn log(&self) -> &RaftLog<P> {
        &self.log
    }

    pub(crate) fn trim_tail(&mut self, bytes: usize) -> usize {
        self.log.trim(bytes)
    }

    /// Changes whenever the contribution to the digests does.
    pub(crate) const fn standing(&self) -> Standing {
        (self.role, self.hard.term, self.leader, self.membership_version)
    }

    /// What this group adds to the digests.
    pub(crate) fn contribution(&self, cx: &Context) -> Contribution {
        let leads = self.role == Role::Leader;
        let mut led_to = if leads { self.membership().members() } else { Vec::new() };
        led_to.retain(|member| *member != cx.me());
        // The leader of a group does not count whom it knows to be out of it; who has not heard of being in it yet follows.
        let out = self.was_member && !self.membership().contains(cx.me());
        let followed = self.leader.filter(|_| self.role == Role::Follower && !out);
        Contribution { term: self.hard.term, led_to, followed }
    }

    /// Whether the passing of time can change anything here.
    pub(crate) fn is_active(&self, cx: &Context) -> bool {
        match &self.leading {
            Some(leading) => leading.is_active(cx, &self.log),
            None => self.timer.is_some(),
        }
    }

    pub(crate) fn tick(&mut self, cx: &Context) {
        if self.leading.is_some() {
            self.tick_leader(cx);
        } else {
            self.tick_election(cx);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Messages

    pub(crate) fn step(&mut self, cx: &Context, message: Message<P>) {
        if let Some(leading) = &mut self.leading {
            leading.see_incarnation(message.from, message.from_incarnation);
        }
        match &message.body {
            // From a replica that was removed and does not know it. One that has just become a voter can do without this vote.
            MessageBody::Vote { .. }
                if !self.membership().is_voter(message.from) && self.has_live_leader(cx) => {}
            MessageBody::PreVote { .. } => self.on_pre_vote(cx, message),
            MessageBody::PreVoteAnswer { granted: true, .. } => self.on_pre_vote_granted(cx, &message),
            _ if message.term < self.hard.term && !planted("append-of-an-old-term") => {
                self.on_old_term(cx, &message);
            }
            _ => {
                let refused = matches!(message.body, MessageBody::PreVoteAnswer { .. });
                if message.term > self.hard.term {
                    let was_asking = self.role == Role::PreCandidate;
                    self.on_new_term(cx, &message);
                    if refused {
                        // Only the term was behind: asks again in the new one.
                        if was_asking && self.may_campaign(cx) {
                            self.pre_campaign_for(cx, self.election);
                        }
                        return;
                    }
                }
                self.step_in_term(cx, message);
            }
        }
    }

    fn on_new_term(&mut self, cx: &Context, message: &Message<P>) {
        let from_leader = matches!(
            message.body,
            MessageBody::Append(_)
                | MessageBody::Heartbeat { .. }
                | MessageBody::InstallStart { .. }
                | MessageBody::TimeoutNow
        );
        self.become_follower(cx, message.term, from_leader.then_some(message.from));
    }

    fn on_old_term(&mut self, cx: &Context, message: &Message<P>) {
        match message.body {
            MessageBody::Vote { .. } => {
                let recovering = self.recovering;
                self.send(cx, message.from, MessageBody::VoteAnswer { granted: false, recovering });
            }
            MessageBody::Append(_) | MessageBody::Heartbeat { .. } | MessageBody::InstallStart { .. } => {
                self.answer_old_term(cx, message.from);
            }
            _ => {}
        }
    }

    fn step_in_term(&mut self, cx: &Context, message: Message<P>) {
        let from = message.from;
        match message.body {
            MessageBody::Vote { last_index, last_term, unclean } => {
                self.on_vote(cx, from, Position::new(last_index, last_term), unclean);
            }
            MessageBody::VoteAnswer { granted, recovering } => {
                self.on_ballot(cx, Role::Candidate, from, Ballot { granted, recovering });
            }
            MessageBody::PreVoteAnswer { granted, recovering } => {
                self.on_ballot(cx, Role::PreCandidate, from, Ballot { granted, recovering });
            }
            MessageBody::Append(append) => self.on_append(cx, from, &append),
            MessageBody::Heartbeat { seq, commit } => self.on_heartbeat(cx, from, seq, commit),
            MessageBody::InstallStart { start } => self.on_install_start(cx, from, start),
            MessageBody::TimeoutNow => self.on_timeout_now(cx, from),
            MessageBody::AppendAnswer(answer) => self.on_append_answer(cx, from, &answer),
            MessageBody::InstallStartAnswer { index } => self.on_install_start_answer(from, index),
            MessageBody::PreVote { .. } => {}
        }
    }

    /// Sends a message of the current term, as soon as everything it depends on is persisted.
    fn send(&mut self, cx: &Context, to: ReplicaId, body: MessageBody<P>) {
        self.send_in_term(cx, to, self.hard.term, body);
    }

    fn send_in_term(&mut self, cx: &Context, to: ReplicaId, term: Term, body: MessageBody<P>) {
        let message = Message {
            group: self.id,
            from: cx.me(),
            to,
            from_incarnation: cx.config.incarnation,
            to_incarnation: cx.incarnation_of(to),
            term,
            body,
        };
        if self.hard_persisted.covers(&self.hard) {
            self.out.messages.push(message);
        } else {
            self.held.push_back((self.hard, message));
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Reports of the driver

    pub(crate) fn hard_state_persisted(&mut self, cx: &Context, persisted: HardState) {
        if !persisted.covers(&self.hard_persisted) {
            return;
        }
        self.hard_persisted = persisted;
        while self.held.front().is_some_and(|held| persisted.covers(&held.0)) {
            let Some((depends_on, message)) = self.held.pop_front() else { break };
            // What was said in a term that has passed meanwhile is of no use to anybody.
            if depends_on.term == self.hard.term {
                self.out.messages.push(message);
            }
        }
        if self.role == Role::Candidate && persisted.covers(&self.hard) {
            self.on_ballot(cx, Role::Candidate, cx.me(), self.own_ballot());
        }
    }

    pub(crate) fn appended(&mut self, cx: &Context, position: Position, durability: Durability) {
        let before = (self.log.stored(), self.log.synced());
        self.log.reported(position, durability);
        if (self.log.stored(), self.log.synced()) == before {
            return;
        }
        if self.leading.is_some() {
            self.check_own_soundness();
            self.try_commit(cx);
        } else {
            self.answer_stored(cx, before);
        }
    }

    pub(crate) fn append_failed(&mut self, cx: &Context) {
        if self.log.drop_unstored().is_some_and(|cut| self.roll_back_memberships(cut)) {
            self.membership_version += 1;
            self.rearm(cx);
        }
        self.following.verified = self.following.verified.min(self.log.last().index);
        // A candidate has claimed what it does not hold any more, and must not win by it.
        if self.role != Role::Follower {
            self.become_follower(cx, self.hard.term, None);
        }
    }

    pub(crate) fn committed_read(&mut self, through: Index) {
        self.log.committed_read(through);
        if let Some(start) = self.start_ahead.take() {
            self.log_start_moved(start);
        }
    }

    /// A driver that reads committed entries part by part has applied more than it has told: then a start among them waits.
    pub(crate) fn log_start_moved(&mut self, start: Position) {
        if self.log.move_start(start) {
            self.memberships.move_start(start.index);
        } else if start.index > self.log.applied() {
            self.start_ahead = Some(start);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Nodes come and go

    /// Whether the node of `replica` is heard of has changed.
    pub(crate) fn heard_changed(&mut self, cx: &Context, replica: ReplicaId) {
        if self.leading.is_some() {
            if cx.hears(replica) {
                self.greet(cx, replica);
            }
            return;
        }
        if self.leader == Some(replica) || (self.leader.is_none() && !cx.hears(replica)) {
            self.leader_doubted(cx);
        }
    }

    /// Whether the node of some replica answers has changed.
    pub(crate) fn round_trip_changed(&mut self, cx: &Context) {
        self.check_quorum_contact(cx);
    }

    /// The process of `replica` has started anew: it leads nothing any more, and what was under way to it is lost.
    pub(crate) fn restarted(&mut self, cx: &Context, replica: ReplicaId, incarnation: Incarnation) {
        if let Some(leading) = &mut self.leading {
            leading.see_incarnation(replica, incarnation);
        } else if self.leader == Some(replica) {
            self.leader = None;
            self.confirmed = false;
            self.leader_doubted(cx);
        }
    }

    /// This node and that of `replica` disagree about who leads what: makes sure of this group.
    pub(crate) fn wake(&mut self, cx: &Context, replica: ReplicaId) {
        if self.leading.is_some() {
            self.greet(cx, replica);
        } else if self.leader == Some(replica) {
            self.confirmed = false;
            self.rearm(cx);
            self.reconsider_pre_vote(cx);
        }
    }
}
