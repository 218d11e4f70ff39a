//! Groups that wait for a leader: what an operator is told about them, and elections that he forces.

use std::collections::BTreeSet;

use helix_raft::{GroupId, Index, ReplicaId, Role, Term};
use tokio::sync::oneshot;
use tracing::warn;

use super::owner::Owner;
use crate::ops::recovery::{Forced, ReplicaState};

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
    pub(crate) replica: ReplicaState,
    /// The end of the log here, if the replica is in service.
    pub(crate) last: (Term, Index),
    /// If an election was to be forced: whether it has begun, or why not.
    pub(crate) forced: Option<Forced>,
}

impl Owner {
    pub(super) fn on_standings(&mut self, request: StandingsRequest) {
        let StandingsRequest { groups, force, reply } = request;
        let meant = |group: &GroupId| groups.as_ref().is_none_or(|groups| groups.contains(group));
        let in_service: Vec<GroupId> = self.replicas.keys().copied().filter(meant).collect();
        let mut standings: Vec<Standing> =
            in_service.into_iter().filter_map(|group| self.standing(group, force)).collect();
        standings.extend(self.out_of_service(force).into_iter().filter(|standing| meant(&standing.group)));
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
        let forced = (force && leader.is_none()).then(|| self.force_election(group));
        let replica = if status.recovering { ReplicaState::Recovering } else { ReplicaState::Sound };
        Some(Standing {
            group,
            leader,
            voters: status.membership.all_voters().len(),
            answered: status.ballots.answered,
            sound: status.ballots.sound,
            replica,
            last: (last_term, status.last_index),
            forced,
        })
    }

    fn force_election(&mut self, group: GroupId) -> Forced {
        warn!(%group, "an operator forces an election: what only missing replicas hold is lost");
        match self.raft.force_recover(group) {
            Ok(()) => Forced::Begun,
            Err(refused) => Forced::Refused(refused.to_string()),
        }
    }

    /// Replicas that take no part in anything at present. Somebody else may lead their groups.
    fn out_of_service(&self, force: bool) -> Vec<Standing> {
        let damaged = self
            .unopened
            .iter()
            .map(|(group, unopened)| (*group, unopened.opening.desired().len(), ReplicaState::AwaitsRepair));
        let suspected = self
            .suspected
            .iter()
            .map(|(group, suspected)| (*group, suspected.desired.len(), ReplicaState::AwaitsRepair));
        let anew =
            self.anew.iter().map(|(group, anew)| (*group, anew.desired.len(), ReplicaState::BeginsAnew));
        let standing = |(group, voters, replica)| {
            let leader = self.context.leaders.get(group).and_then(|known| known.leader);
            let refused =
                || Forced::Refused("this replica is out of service: force again when it is back".to_owned());
            let forced = (force && leader.is_none()).then(refused);
            let last = (Term::ZERO, Index::ZERO);
            Standing { group, leader, voters, answered: 0, sound: 0, replica, last, forced }
        };
        damaged.chain(suspected).chain(anew).map(standing).collect()
    }
}
