//! Who leads: what the shard tells clients and the rest of the cluster about it, and handing it over.

use helix_raft::{GroupId, ReplicaId, Role, RoleChange, Status, Term};
use tokio::sync::oneshot;
use tracing::{debug, info};

use super::owner::{Owner, TICK};
use super::replica::{Machine, Replica};
use crate::broker::leaders::LeaderInfo;
use crate::env::Event;
use crate::partition::view::Leadership;
use crate::peers::control::ControlMessage;

/// News of so many groups fit well into one control message.
const GROUPS_PER_MESSAGE: usize = 2000;

impl Owner {
    /// A replica's role changed: what it served as leader ends at once.
    pub(super) fn on_role_changed(&mut self, group: GroupId, change: RoleChange) {
        debug!(%group, role = ?change.role, term = %change.term, leader = ?change.leader, "role changed");
        self.context.env.show(group, &Event::Role { role: change.role, term: change.term });
        if change.role == Role::Candidate {
            self.context.metrics.election_started();
        }
        let follows = self.raft.follows(group);
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        // They asked about the leadership that has ended.
        replica.confirming.clear();
        if let Some(partition) = replica.partition() {
            partition.view().set_following(follows);
        }
        if change.role == Role::Leader {
            return;
        }
        replica.stop_serving(change.term);
        if let Some(term) = replica.announced.take() {
            self.context.metrics.leadership_lost();
            let info = LeaderInfo { leader: None, term, in_sync: Vec::new() };
            self.announce(vec![(group, info)]);
        }
    }

    /// A replica leads and has applied an entry of its own term: it may answer clients, and the cluster is told.
    pub(super) fn on_leader_ready(&mut self, group: GroupId) {
        let Some(status) = self.raft.status(group) else { return };
        let in_sync = self.in_sync(&status);
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        if replica.announced.is_none() {
            self.context.metrics.leadership_won();
        }
        replica.announced = Some(status.term);
        self.context.env.show(group, &Event::Serving { term: status.term });
        self.unsettled.insert(group);
        if let Machine::Partition(partition) = &mut replica.machine {
            partition.view().set_contact(status.quorum_contact, in_sync.len() as u32);
            partition.start_serving(status.term);
        } else {
            info!(term = %status.term, "this node leads the cluster's metadata");
        }
        let info = LeaderInfo { leader: Some(self.context.me), term: status.term, in_sync };
        self.announce(vec![(group, info)]);
    }

    /// Looks again at who is in sync with the groups led here, and tells the cluster what changed.
    pub(super) fn publish_contacts(&mut self) {
        let mut news = Vec::new();
        let led: Vec<(GroupId, Term)> =
            self.replicas.iter().filter_map(|(group, replica)| Some((*group, replica.announced?))).collect();
        for (group, term) in led {
            let Some(status) = self.raft.status(group) else { continue };
            let in_sync = self.in_sync(&status);
            if let Some(partition) = self.replicas.get_mut(&group).and_then(Replica::partition) {
                partition.view().set_contact(status.quorum_contact, in_sync.len() as u32);
            }
            let info = LeaderInfo { leader: Some(self.context.me), term, in_sync };
            if self.context.leaders.get(group).as_ref() != Some(&info) {
                news.push((group, info));
            }
        }
        self.announce(news);
        self.publish_following();
    }

    /// Publishes which leaders of others are heard.
    fn publish_following(&mut self) {
        for (group, replica) in &mut self.replicas {
            let follows = self.raft.follows(*group);
            if let Some(partition) = replica.partition() {
                partition.view().set_following(follows);
            }
        }
    }

    fn announce(&self, news: Vec<(GroupId, LeaderInfo)>) {
        for part in news.chunks(GROUPS_PER_MESSAGE) {
            let deltas = part.iter().map(|(group, info)| info.delta(*group)).collect();
            self.context.cluster.broadcast(&ControlMessage::Leaders(deltas));
        }
        for (group, info) in news {
            self.context.leaders.learn(group, info);
        }
    }

    /// Tells everything that is led here once more.
    pub(super) fn announce_all(&self) {
        let led = |(group, replica): (&GroupId, &Replica)| {
            replica.announced?;
            let info = self.context.leaders.get(*group)?;
            (info.leader == Some(self.context.me)).then_some((*group, info))
        };
        self.announce(self.replicas.iter().filter_map(led).collect());
    }

    /// Replicas that keep up, this one first: as clients know them, the ISR.
    pub(super) fn in_sync(&self, status: &Status) -> Vec<ReplicaId> {
        let limit = u128::from(self.context.config.get().replica_lag_time_max_ms) / TICK.as_millis();
        let followers = status
            .progress
            .iter()
            .filter(|p| p.heard && !p.recovering && u128::from(p.lagging_ticks) <= limit)
            .filter(|p| status.membership.is_voter(p.replica))
            .map(|p| p.replica);
        std::iter::once(self.context.me).chain(followers).collect()
    }

    /// Publishes what this shard leads and follows, for the heartbeats.
    pub(super) fn publish_digests(&mut self) {
        self.context.digests.publish(&self.raft, self.context.cluster.others());
    }

    /// Has it confirmed that this replica still leads, if it serves in that epoch. Dropping `reply` says that it does not.
    pub(super) fn confirm(&mut self, group: GroupId, epoch: i32, reply: oneshot::Sender<()>) {
        self.guarded(group, |owner| {
            let Some(replica) = owner.replicas.get_mut(&group) else { return };
            let asked = Leadership { epoch, serving: true };
            if replica.partition().is_some_and(|partition| partition.view().leadership() == asked)
                && let Ok(round) = owner.raft.confirm_leadership(group)
            {
                replica.confirming.push_back((round, reply));
            }
        });
    }

    /// A majority has shown that this replica led when `round` began.
    pub(super) fn on_confirmed(&mut self, group: GroupId, round: u64) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        while replica.confirming.front().is_some_and(|(asked, _)| *asked <= round)
            && let Some((_, reply)) = replica.confirming.pop_front()
        {
            // Whoever asked may have given up.
            let _told = reply.send(());
        }
    }

    /// Starts to hand over everything that another replica could lead.
    pub(super) fn hand_over(&mut self, done: oneshot::Sender<()>) {
        self.handing_over = Some(done);
        self.continue_hand_over();
    }

    /// Goes on handing over; answers when nothing is left.
    pub(super) fn continue_hand_over(&mut self) {
        if self.handing_over.is_none() {
            return;
        }
        let mut left = 0;
        let led: Vec<GroupId> =
            self.replicas.iter().filter(|(_, r)| r.announced.is_some()).map(|(group, _)| *group).collect();
        for group in led {
            let Some(status) = self.raft.status(group) else { continue };
            let best = status
                .progress
                .iter()
                .filter(|p| {
                    p.heard && p.replicating && !p.recovering && status.membership.is_voter(p.replica)
                })
                .max_by_key(|p| p.matched);
            let Some(best) = best else { continue };
            left += 1;
            if status.transferring_to.is_none()
                && let Err(refused) = self.raft.transfer_leadership(group, best.replica)
            {
                debug!(%group, %refused, "leadership is not handed over now");
            }
        }
        if left == 0
            && let Some(done) = self.handing_over.take()
        {
            // The node may have given up waiting.
            let _told = done.send(());
        }
    }
}
