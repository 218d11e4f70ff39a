//! Changing the members of a group: the leader's side of it, and what every replica keeps of it.

use crate::group::Group;
use crate::membership::{self, ChangeError, Fitness, MAX_PROMOTION_LAG};
use crate::peers::Context;
use crate::progress::ProgressState;
use crate::ready::CommittedMembership;
use crate::types::{Body, Entry, Index, Membership, Payload, ReplicaId};

impl<P: Payload> Group<P> {
    // ------------------------------------------------------------------------------------------------------------
    // As a leader

    pub(crate) fn change_membership(
        &mut self,
        cx: &Context,
        target: &Membership,
    ) -> Result<Index, ChangeError> {
        let Some(leading) = &self.leading else {
            return Err(ChangeError::NotLeader { leader: self.leader });
        };
        if !leading.ready {
            return Err(ChangeError::NotReady);
        }
        if let Some(to) = leading.transferring_to() {
            return Err(ChangeError::Transferring { to });
        }
        let index = self.memberships.current_index();
        if self.membership().is_joint() || index > self.log.committed() {
            return Err(ChangeError::UnderWay { index });
        }
        let next = membership::plan(self.membership(), target, |learner| self.fitness(cx, learner))?;
        Ok(self.append_membership(cx, next))
    }

    /// Whether the learner could vote without holding up the group.
    fn fitness(&self, cx: &Context, learner: ReplicaId) -> Fitness {
        let last = self.log.last().index.get();
        let Some(progress) = self.leading.as_ref().and_then(|leading| leading.progress.get(&learner)) else {
            return Fitness::Behind(last);
        };
        let behind = last.saturating_sub(progress.matched.get());
        let streaming = progress.state == ProgressState::Replicate && cx.hears(learner);
        // It knows that it is a member: only who does not may think that its log can be deleted.
        let informed = progress.matched >= self.memberships.current_index();
        if progress.recovering {
            Fitness::Recovering
        } else if streaming && informed && behind <= MAX_PROMOTION_LAG {
            Fitness::Fit
        } else {
            Fitness::Behind(behind)
        }
    }

    fn append_membership(&mut self, cx: &Context, membership: Membership) -> Index {
        let index = self.log.last().index.next();
        self.memberships.push(index, membership.clone());
        self.push_own(Body::Membership(membership));
        self.membership_changed(cx);
        index
    }

    /// Goes on with what follows once the configuration in force is committed: leaves a joint one, steps down if this leader
    /// is not in it, and lets go of replicas that have learned that they are not.
    pub(super) fn advance_membership(&mut self, cx: &Context) {
        let index = self.memberships.current_index();
        if index > self.log.committed() {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        if leading.let_go(index) {
            self.membership_version += 1;
        }
        let Some(leading) = &self.leading else { return };
        if leading.transferring_to().is_some() {
            return;
        }
        if self.membership().is_joint() {
            if leading.ready {
                self.append_membership(cx, self.membership().left());
            }
        } else if !self.membership().is_voter(cx.me()) {
            self.retire(cx);
        }
    }

    /// This leader is no voter any more: hands over to the voter that holds the most, or just steps down.
    fn retire(&mut self, cx: &Context) {
        let Some(leading) = &mut self.leading else { return };
        let mut successor: Option<(Index, ReplicaId)> = None;
        for voter in &self.memberships.current().voters {
            let Some(progress) = leading.progress.get(voter) else { continue };
            let fit = cx.hears(*voter) && !progress.recovering;
            if fit && successor.is_none_or(|(matched, _)| progress.matched > matched) {
                successor = Some((progress.matched, *voter));
            }
        }
        match successor {
            Some((_, to)) => leading.begin_transfer(cx, to),
            None => self.become_follower(cx, self.hard.term, None),
        }
    }

    /// Whether a committed configuration says that this replica has no vote.
    pub(super) fn is_retired(&self, cx: &Context) -> bool {
        !self.membership().is_voter(cx.me()) && self.memberships.current_index() <= self.log.committed()
    }

    /// `replica` asks for votes while this leader is here: it has missed that, or that it was removed.
    pub(super) fn answer_stray(&mut self, cx: &Context, replica: ReplicaId) {
        let next = self.log.last().index.next();
        if !self.membership().contains(replica)
            && let Some(leading) = &mut self.leading
        {
            leading.tell_removed(cx, replica, next);
            self.membership_version += 1;
        }
        self.greet(cx, replica);
    }

    // ------------------------------------------------------------------------------------------------------------
    // As any replica

    /// The configuration as of `index`, if the log reaches from there to here.
    pub(crate) fn membership_at(&self, index: Index) -> Option<&Membership> {
        self.log.term_at(index).map(|_| &self.memberships.at(index).1)
    }

    /// Whether nothing that is known here makes this replica a member, and that is committed.
    pub(crate) fn is_removed(&self, cx: &Context) -> bool {
        !self.membership().contains(cx.me()) && self.memberships.current_index() <= self.log.committed()
    }

    pub(super) fn committed_membership(&self) -> CommittedMembership {
        let (index, membership) = self.memberships.at(self.log.committed().min(self.log.stored()));
        CommittedMembership { index: *index, membership: membership.clone() }
    }

    /// The committed configuration, if it was not handed out yet.
    pub(super) fn next_committed_membership(&mut self) -> Option<CommittedMembership> {
        let index = self.memberships.at(self.log.committed().min(self.log.stored())).0;
        if index <= self.membership_told {
            return None;
        }
        self.membership_told = index;
        Some(self.committed_membership())
    }

    /// Everybody whose node matters to this group: its members, the leader even if it is on its way out, and who is
    /// being told that it is out.
    pub(crate) fn audience(&self, cx: &Context) -> Vec<ReplicaId> {
        let mut audience = self.membership().members();
        let others = self.leading.iter().flat_map(|leading| leading.progress.keys());
        for other in others.chain(&self.leader) {
            if !audience.contains(other) {
                audience.push(*other);
            }
        }
        audience.retain(|member| *member != cx.me());
        audience
    }

    pub(super) fn membership_changed(&mut self, cx: &Context) {
        self.membership_version += 1;
        self.was_member |= self.membership().contains(cx.me());
        let members = self.membership().members();
        let next = self.log.last().index.next();
        if let Some(leading) = &mut self.leading {
            leading.set_members(cx, &members, next);
            self.check_quorum_contact(cx);
        } else {
            self.rearm(cx);
        }
    }

    /// Takes back the configurations from `from` on; tells whether there were any.
    pub(super) fn roll_back_memberships(&mut self, from: Index) -> bool {
        self.memberships.truncate_from(from)
    }

    pub(super) fn note_memberships(&mut self, entries: &[Entry<P>]) -> bool {
        let mut changed = false;
        for entry in entries {
            if let Body::Membership(membership) = &entry.body {
                self.memberships.push(entry.index, membership.clone());
                self.log.want_sync(entry.index);
                changed = true;
            }
        }
        changed
    }
}
