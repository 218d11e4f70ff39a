//! What a group wants done and what it tells about itself.

use crate::group::Group;
use crate::peers::Context;
use crate::progress::ProgressState;
use crate::ready::{BallotCount, Ready, ReplicaProgress, RoleChange, Status};
use crate::types::{Payload, Role};

impl<P: Payload> Group<P> {
    /// Everything there is to do now. Nothing of it is handed out twice.
    pub(crate) fn take_ready(&mut self, cx: &Context) -> Ready<P> {
        let mut ready = Ready::empty();
        self.hand_out_committed(&mut ready);
        self.check_leader_ready();
        self.advance_membership(cx);
        self.replicate(cx);
        self.advance_transfer(cx);
        ready.confirmed = self.advance_rounds(cx);
        if self.hard != self.hard_handed {
            self.hard_handed = self.hard;
            ready.hard_state = Some(self.hard);
        }
        self.hand_out_writes(&mut ready);
        ready.messages = std::mem::take(&mut self.out.messages);
        ready.reads = std::mem::take(&mut self.out.reads);
        ready.need_start = std::mem::take(&mut self.out.need_start);
        ready.leader_ready = std::mem::take(&mut self.out.leader_ready);
        ready.sound = std::mem::take(&mut self.out.sound);
        ready.membership = self.next_committed_membership();
        ready.unclean_recovery = std::mem::take(&mut self.out.unclean_recovery);
        ready.diverged = self.out.diverged.take();
        let now = RoleChange { role: self.role, term: self.hard.term, leader: self.leader };
        if now != self.announced {
            self.announced = now;
            ready.role_changed = Some(now);
        }
        ready
    }

    fn hand_out_committed(&mut self, ready: &mut Ready<P>) {
        if self.following.installing.is_some() {
            return;
        }
        ready.committed = self.log.next_committed();
        ready.committed_to_read = self.log.next_committed_to_read();
    }

    fn hand_out_writes(&mut self, ready: &mut Ready<P>) {
        ready.install = self.following.install.take();
        if self.following.installing.is_some() {
            return;
        }
        if let Some((entries, required)) = self.log.next_write() {
            ready.append = entries;
            ready.append_required = required;
        }
        ready.sync = self.log.next_sync();
    }

    pub(crate) fn status(&self, cx: &Context) -> Status {
        let leading = self.leading.as_ref();
        let progress = leading.map_or_else(Vec::new, |leading| {
            leading
                .progress()
                .filter(|(replica, _)| self.membership().contains(*replica))
                .map(|(replica, progress)| ReplicaProgress {
                    replica,
                    matched: progress.matched,
                    replicating: progress.state == ProgressState::Replicate,
                    lagging_ticks: progress.lagging_ticks,
                    heard: cx.hears(replica),
                    recovering: progress.recovering,
                })
                .collect()
        });
        Status {
            role: self.role,
            term: self.hard.term,
            leader: self.leader,
            commit: self.log.committed(),
            applied: self.log.applied(),
            start_index: self.log.start().index,
            last_index: self.log.last().index,
            stored_index: self.log.stored(),
            leader_ready: leading.is_some_and(|leading| leading.ready),
            quorum_contact: match self.role {
                Role::Leader => self.has_quorum_contact(cx),
                _ => self.has_live_leader(cx),
            },
            recovering: self.recovering,
            ballots: BallotCount {
                answered: self.votes.len(),
                sound: self.votes.values().filter(|ballot| !ballot.recovering).count(),
            },
            transferring_to: leading.and_then(|leading| leading.transferring_to()),
            progress,
            membership: self.membership().clone(),
            committed_membership: self.committed_membership(),
        }
    }
}
