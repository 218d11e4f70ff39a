//! What clients and other nodes ask about single groups.

use helix_raft::{GroupId, ReplicaId};

use super::owner::{Owner, TICK};
use super::replica::Replica;
use crate::broker::questions::{MemberStanding, QuorumStanding};
use crate::partition::producers::ProducerBatch;

impl Owner {
    /// Begins to hand leadership of a group to another replica.
    ///
    /// # Errors
    /// When this replica does not lead, or the other one could not. What is wrong, in words.
    pub(super) fn hand_over_one(&mut self, group: GroupId, to: ReplicaId) -> Result<(), String> {
        let led = self.replicas.get(&group).is_some_and(|replica| replica.announced.is_some());
        let status = self.raft.status(group).filter(|_| led);
        let status = status.ok_or("another replica leads by now: ask again")?;
        if status.leader == Some(to) || status.transferring_to == Some(to) {
            return Ok(());
        }
        let fit = self.in_sync(&status).contains(&to);
        if !fit {
            return Err("it is not in sync with the leader".to_owned());
        }
        self.raft.transfer_leadership(group, to).map_err(|refused| refused.to_string())
    }

    /// How a group stands; `None` if another replica leads it.
    pub(super) fn quorum(&self, group: GroupId) -> Option<QuorumStanding> {
        let status = self.raft.status(group).filter(|status| status.leader_ready)?;
        let (me, now_ms) = (self.context.me, self.context.env.unix_ms());
        let ago = |ticks: u32| now_ms - i64::from(ticks) * TICK.as_millis() as i64;
        let mut members = vec![MemberStanding {
            replica: me,
            is_voter: status.membership.is_voter(me),
            matched: status.last_index,
            heard_at_ms: Some(now_ms),
            caught_up_at_ms: Some(now_ms),
        }];
        members.extend(status.progress.iter().map(|progress| MemberStanding {
            replica: progress.replica,
            is_voter: status.membership.is_voter(progress.replica),
            matched: progress.matched,
            heard_at_ms: progress.heard.then_some(now_ms),
            caught_up_at_ms: progress.heard.then(|| ago(progress.lagging_ticks)),
        }));
        Some(QuorumStanding { leader: me, term: status.term, commit: status.commit, members })
    }

    /// The last batch of every producer that is remembered in a partition.
    pub(super) fn producers(&mut self, group: GroupId) -> Option<Vec<ProducerBatch>> {
        let partition = self.replicas.get_mut(&group).and_then(Replica::partition)?;
        Some(partition.last_batches())
    }
}
