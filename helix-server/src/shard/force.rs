//! Groups that wait for a leader: what an operator is told about them, and elections that he forces.

use std::collections::BTreeSet;

use helix_raft::{GroupId, ReplicaId, Role, Term};
use tokio::sync::oneshot;
use tracing::warn;

use super::owner::Owner;

/// What a shard is asked.
#[derive(Debug)]
pub(crate) struct StandingsRequest {
    /// About these groups; about all if `None`.
    pub(crate) groups: Option<BTreeSet<GroupId>>,
    /// Whether elections are to be forced.
    pub(crate) force: bool,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Vec<Standing>>,
}

/// How a group stands, as its replica on this node sees it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) group: GroupId,
    /// Who leads it and answers clients.
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) voters: usize,
    /// Voters that have said in the present election whether they are sound, and those that are.
    pub(crate) answered: usize,
    pub(crate) sound: usize,
    pub(crate) recovering: bool,
    /// The end of the log here.
    pub(crate) last: (Term, helix_raft::Index),
    /// If an election was to be forced: whether it has begun, or why not.
    pub(crate) forced: Option<Result<(), String>>,
}

impl Owner {
    pub(super) fn on_standings(&mut self, request: StandingsRequest) {
        let StandingsRequest { groups, force, reply } = request;
        let meant = |group: &GroupId| groups.as_ref().is_none_or(|groups| groups.contains(group));
        let here: Vec<GroupId> = self.replicas.keys().copied().filter(meant).collect();
        let standings = here.into_iter().filter_map(|group| self.standing(group, force)).collect();
        // Whoever asked may have given up.
        let _told = reply.send(standings);
    }

    fn standing(&mut self, group: GroupId, force: bool) -> Option<Standing> {
        let status = self.raft.status(group)?;
        // A leader tells of itself once it can answer clients.
        let known = self.context.leaders.get(group).filter(|known| known.term == status.term);
        let serving = match status.role {
            Role::Leader => status.leader_ready,
            _ => known.is_some_and(|known| known.leader == status.leader),
        };
        let leader = status.leader.filter(|_| serving && status.quorum_contact);
        let last_term = self.raft.term_at(group, status.last_index).unwrap_or_default();
        let forced = (force && leader.is_none()).then(|| {
            warn!(%group, "an operator forces an election: what only missing replicas hold is lost");
            self.raft.force_recover(group).map_err(|refused| refused.to_string())
        });
        Some(Standing {
            group,
            leader,
            voters: status.membership.all_voters().len(),
            answered: status.ballots.answered,
            sound: status.ballots.sound,
            recovering: status.recovering,
            last: (last_term, status.last_index),
            forced,
        })
    }
}
