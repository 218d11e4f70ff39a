//! Leading: proposals, contact with the followers, handing over.

use std::collections::BTreeMap;

use crate::config::{ProposeError, TransferError};
use crate::group::Group;
use crate::group::confirm::Rounds;
use crate::inflights::Inflights;
use crate::log::RaftLog;
use crate::message::MessageBody;
use crate::peers::Context;
use crate::progress::{Progress, ProgressState};
use crate::quorum;
use crate::types::{Body, Durability, Entry, Incarnation, Index, Payload, Position, ReplicaId, Role};

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
    pub(super) progress: BTreeMap<ReplicaId, Progress>,
    /// Replicas that are members no more and are yet to learn of it, and for how many ticks they are told.
    departing: BTreeMap<ReplicaId, u32>,
    /// Highest number of a message to any replica that was let go: who comes back counts on from there.
    last_seq: u64,
    /// The first entry of this term.
    first_index: Index,
    /// Elected without a majority of sound replicas, with a log that ended here: everybody else's log is sound, by
    /// definition, once it matches through here. As long as nothing of this term is committed, that is.
    unclean_last: Option<Index>,
    /// Ticks for which nothing of this term could be committed, since too few voters are sound.
    stuck_ticks: u32,
    /// That entry is committed and handed out for apply.
    pub(super) ready: bool,
    transfer: Option<Transfer>,
    /// Ticks left until this leader steps down, while no majority answers.
    contact_ticks_left: Option<u32>,
    pub(super) rounds: Rounds,
}

impl Leading {
    pub(super) fn set_members(&mut self, cx: &Context, members: &[ReplicaId], next: Index) {
        for replica in self.progress.keys().filter(|replica| !members.contains(replica)) {
            self.departing.entry(*replica).or_insert(2 * cx.config.election_timeout_ticks);
        }
        for member in members {
            if self.departing.remove(member).is_some() {
                // It may have deleted its log meanwhile.
                self.forget(*member);
            }
        }
        for member in members.iter().filter(|member| **member != cx.me()) {
            self.admit(cx, *member, next);
        }
    }

    /// `replica` was removed and does not know: tells it for a while.
    pub(super) fn tell_removed(&mut self, cx: &Context, replica: ReplicaId, next: Index) {
        self.departing.entry(replica).or_insert(2 * cx.config.election_timeout_ticks);
        self.admit(cx, replica, next);
    }

    fn admit(&mut self, cx: &Context, replica: ReplicaId, next: Index) {
        self.progress.entry(replica).or_insert_with(|| {
            let inflights = Inflights::new(cx.config.max_inflight_appends, cx.config.max_inflight_bytes);
            Progress::new(next, cx.incarnation_of(replica), inflights).numbered_after(self.last_seq)
        });
    }

    fn forget(&mut self, replica: ReplicaId) {
        if let Some(progress) = self.progress.remove(&replica) {
            self.last_seq = self.last_seq.max(progress.seq);
        }
    }

    /// Lets go of who knows, or had the time to learn, that the configuration appended at `index` is without it.
    pub(super) fn let_go(&mut self, index: Index) -> bool {
        let informed = |replica: &ReplicaId| {
            self.progress.get(replica).is_none_or(|progress| progress.commit_known >= index)
        };
        let gone: Vec<ReplicaId> = self
            .departing
            .iter()
            .filter(|(replica, ticks)| **ticks == 0 || informed(replica))
            .map(|(replica, _)| *replica)
            .collect();
        for replica in &gone {
            self.departing.remove(replica);
            self.forget(*replica);
        }
        !gone.is_empty()
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
            || self.rounds.is_under_way()
            || !self.departing.is_empty()
            || self
                .progress
                .iter()
                .any(|(replica, progress)| cx.hears(*replica) && !progress.is_up_to_date(last, committed))
    }

    pub(super) fn progress(&self) -> impl Iterator<Item = (ReplicaId, &Progress)> {
        self.progress.iter().map(|(replica, progress)| (*replica, progress))
    }

    /// Through where the log of a recovering replica has to match, from now on, in order to be sound.
    pub(super) fn soundness_point(&self, committed: Index) -> Option<Index> {
        if committed >= self.first_index { Some(committed) } else { self.unclean_last }
    }

    pub(super) fn transferring_to(&self) -> Option<ReplicaId> {
        self.transfer.map(|transfer| transfer.to)
    }

    pub(super) fn begin_transfer(&mut self, cx: &Context, to: ReplicaId) {
        let ticks_left = cx.config.election_timeout_ticks.max(1);
        self.transfer = Some(Transfer { to, ticks_left, told: None });
    }
}

impl<P: Payload> Group<P> {
    /// This replica is elected, `clean` by a majority of sound ones.
    pub(super) fn become_leader(&mut self, cx: &Context, clean: bool) {
        self.out.unclean_recovery |= !clean;
        self.role = Role::Leader;
        self.leader = Some(cx.me());
        self.confirmed = true;
        self.timer = None;
        self.votes.clear();
        self.deferred_pre_vote = None;
        let first_index = self.log.last().index.next();
        let mut leading = Leading {
            progress: BTreeMap::new(),
            departing: BTreeMap::new(),
            last_seq: 0,
            first_index,
            unclean_last: (!clean).then(|| first_index.prev()),
            stuck_ticks: 0,
            ready: false,
            transfer: None,
            contact_ticks_left: None,
            rounds: Rounds::default(),
        };
        leading.set_members(cx, &self.membership().members(), first_index);
        self.leading = Some(leading);
        self.check_own_soundness();
        self.push_own(Body::NoOp);
        self.check_quorum_contact(cx);
    }

    /// A leader's log is sound by definition, once what it was elected with is stored: as long as that is in memory alone, a crash of
    /// the process may take it, and must not find the replica's mark gone.
    pub(super) fn check_own_soundness(&mut self) {
        let Some(leading) = &self.leading else { return };
        if self.recovering && self.log.durable(self.required) >= leading.first_index.prev() {
            self.recovering = false;
            self.out.sound = true;
        }
    }

    pub(super) fn push_own(&mut self, body: Body<P>) -> Position {
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
    pub(super) fn requires_sync_through(&self, index: Index) -> bool {
        self.required == Durability::Synced || self.memberships.changes_within(self.log.committed(), index)
    }

    /// How safely entries must be stored before they count. Returns whether that is news.
    pub(crate) fn set_required(&mut self, cx: &Context, required: Durability) -> bool {
        if self.required == required {
            return false;
        }
        self.required = required;
        if self.leading.is_some() {
            // Followers were asked to store what is under way less safely than it counts now; the next entry asks for all of it.
            if required == Durability::Synced {
                self.push_own(Body::NoOp);
            } else {
                self.try_commit(cx);
            }
        }
        true
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
        // What was under way while the node was away is lost more often than not. A start is too large to guess.
        if progress.state != ProgressState::Start {
            progress.give_up_waiting();
        }
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
                }
            }
        }
        for ticks in leading.departing.values_mut() {
            *ticks = ticks.saturating_sub(1);
        }
        self.tick_transfer(cx);
        self.tick_rounds(cx);
        self.tick_contact(cx);
        self.tick_stuck(cx);
    }

    /// Too few voters are sound to commit anything, and before something is committed none becomes sound: only an election by every
    /// voter leads out of that.
    fn tick_stuck(&mut self, cx: &Context) {
        let committed = self.log.committed();
        let Some(leading) = &mut self.leading else { return };
        let sound = |voter| leading.progress.get(&voter).is_none_or(|progress| !progress.recovering);
        if leading.soundness_point(committed).is_some()
            || quorum::has_majority(self.memberships.current(), sound)
        {
            leading.stuck_ticks = 0;
            return;
        }
        leading.stuck_ticks += 1;
        if leading.stuck_ticks >= cx.config.election_timeout_ticks {
            self.become_follower(cx, self.hard.term, None);
            self.pre_campaign(cx);
        }
    }

    fn tick_transfer(&mut self, cx: &Context) {
        let retired = self.is_retired(cx);
        let Some(leading) = &mut self.leading else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        transfer.ticks_left = transfer.ticks_left.saturating_sub(1);
        transfer.told = transfer.told.map(|ticks| ticks.saturating_sub(1));
        if transfer.ticks_left == 0 {
            leading.transfer = None;
            if retired {
                self.become_follower(cx, self.hard.term, None);
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
        let voter = self.membership().voters.contains(&to);
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
        leading.begin_transfer(cx, to);
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
