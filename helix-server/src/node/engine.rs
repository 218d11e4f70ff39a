//! The shards of a node, and what works beside them on their groups: started together, from what the disk held.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use helix_raft::{Durability, GroupId, Index, MultiRaft, MultiRaftConfig};
use helix_wal::RecoveredGroup;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::events::Running;
use super::{NodeError, Parts, joining, reclaim, sound};
use crate::broker::questions::Questions;
use crate::cluster::ClusterLink;
use crate::config::{ServerConfig, WriteDurability};
use crate::controller::Controller;
use crate::controller::commands::METADATA_GROUP;
use crate::controller::reconcile::{self, Reconciler};
use crate::durable::founded::FoundedCluster;
use crate::durable::state_file::StateFile;
use crate::durable::vote_writer::VoteWriter;
use crate::durable::votes::LoadedVotes;
use crate::env::watch;
use crate::peers::PeersHandle;
use crate::peers::board::ShardDigests;
use crate::peers::hello::Identity;
use crate::repair::{RepairParts, Repairs};
use crate::shard::{Mailbox, Mailboxes, Owner, ShardContext, Shards, TICK};

/// The running shards and what they share with the rest.
pub(super) struct Engine {
    pub(super) me: Identity,
    pub(super) cluster: ClusterLink,
    pub(super) controller: Controller,
    pub(super) metadata_applied: watch::Receiver<Index>,
    pub(super) shards: Vec<JoinHandle<()>>,
    pub(super) reconciler: JoinHandle<()>,
    pub(super) reclaimer: JoinHandle<()>,
    pub(super) sound: JoinHandle<StateFile>,
    pub(super) repairs: Repairs,
    pub(super) repairer: JoinHandle<()>,
    pub(super) questions: Questions,
}

impl Engine {
    /// What other nodes may speak to.
    pub(super) fn running(&self, founded: &Arc<FoundedCluster>) -> Running {
        Running {
            me: self.me,
            founded: Arc::clone(founded),
            cluster: self.cluster.clone(),
            controller: self.controller.clone(),
            repairs: self.repairs.clone(),
            questions: self.questions.clone(),
        }
    }
}

/// What shards take over from the disk.
pub(super) struct Started {
    pub(super) state: StateFile,
    pub(super) recovered: HashMap<GroupId, RecoveredGroup>,
    pub(super) damaged: Vec<(GroupId, Index)>,
    pub(super) unusable: BTreeSet<GroupId>,
    pub(super) loaded_votes: Arc<LoadedVotes>,
    pub(super) wal: helix_wal::Wal,
    pub(super) votes: Arc<VoteWriter>,
    pub(super) cluster: Arc<FoundedCluster>,
}

/// Starts the shards with all that they have on this disk, and what works beside them.
pub(super) fn start(
    parts: &Parts,
    started: Started,
    peers: Option<Arc<PeersHandle>>,
    mailboxes: Mailboxes,
) -> Result<Engine, NodeError> {
    let Started { ref wal, ref votes, cluster: ref founded, .. } = started;
    let state = started.state.state();
    let me = joining::identity(state, Some(founded.cluster));
    let recovering = Arc::new(state.recovering.clone());
    let cluster = ClusterLink::new(peers);
    let (applied, metadata_applied) = watch::channel(Index::ZERO);
    let controller = Controller::new(
        parts.env.clone(),
        me.replica,
        Arc::clone(&parts.leaders),
        parts.shards.clone(),
        cluster.clone(),
        metadata_applied.clone(),
    );
    let repairs = start_repairs(parts, wal, &cluster, &started.damaged);
    let unusable = Arc::new(started.unusable);
    let (findings, found) = mpsc::unbounded_channel();
    let context = |number| ShardContext {
        me: me.replica,
        incarnation: me.incarnation,
        env: parts.env.clone(),
        number,
        config: Arc::clone(&parts.live),
        required: required(&parts.config),
        shards: parts.shards.clone(),
        wal: wal.clone(),
        votes: Arc::clone(votes),
        loaded_votes: Arc::clone(&started.loaded_votes),
        cluster: cluster.clone(),
        digests: ShardDigests::new(Arc::clone(&parts.board)),
        leaders: Arc::clone(&parts.leaders),
        partitions: Arc::clone(&parts.partitions),
        image: Arc::clone(&parts.image),
        applied: applied.clone(),
        recovering: Arc::clone(&recovering),
        findings: findings.clone(),
        unusable: Arc::clone(&unusable),
        repairs: repairs.clone(),
        metrics: Arc::clone(&parts.metrics),
        fatal: parts.fatal.clone(),
    };
    let stored: Vec<GroupId> = started.recovered.keys().copied().collect();
    let recovered = split(started.recovered, &parts.shards);
    let shards = start_shards(parts, &me, founded, mailboxes.into_iter().zip(recovered), context)?;
    let reconciler = Reconciler {
        me: me.replica,
        incarnation: me.incarnation,
        findings,
        founded: Arc::clone(founded),
        image: Arc::clone(&parts.image),
        shards: parts.shards.clone(),
        cluster: cluster.clone(),
        config: Arc::clone(&parts.live),
        node: me.node,
    };
    let reconciler = parts.env.spawn(reconcile::run(reconciler, metadata_applied.clone(), stored));
    let sound = parts.env.spawn(sound::keep(started.state, found, parts.env.clone(), parts.fatal.clone()));
    Ok(Engine {
        me,
        questions: Questions::new(parts.env.clone(), me.node, parts.shards.clone(), cluster.clone()),
        cluster,
        controller,
        shards,
        reconciler,
        reclaimer: start_reclaimer(parts, wal, metadata_applied.clone()),
        sound,
        repairer: parts.env.spawn(repairs.clone().run()),
        repairs,
        metadata_applied,
    })
}

fn start_shards(
    parts: &Parts,
    me: &Identity,
    founded: &FoundedCluster,
    shards: impl Iterator<Item = (Mailbox, HashMap<GroupId, RecoveredGroup>)>,
    context: impl Fn(usize) -> ShardContext,
) -> Result<Vec<JoinHandle<()>>, NodeError> {
    let founders: Vec<_> = founded.members.iter().map(|member| member.replica).collect();
    let mut running = Vec::new();
    for (number, (mailbox, recovered)) in shards.enumerate() {
        let raft = MultiRaft::new(raft_config(parts, me));
        let mut owner = Owner::new(context(number), raft, recovered);
        if number == parts.shards.shard_of(METADATA_GROUP) {
            owner.open_metadata(founders.clone()).map_err(NodeError::Metadata)?;
        }
        running.push(parts.env.spawn(owner.run(mailbox)));
    }
    Ok(running)
}

fn start_reclaimer(
    parts: &Parts,
    wal: &helix_wal::Wal,
    metadata_applied: watch::Receiver<Index>,
) -> JoinHandle<()> {
    let (env, partitions, fatal) = (parts.env.clone(), Arc::clone(&parts.partitions), parts.fatal.clone());
    let interval = parts.config.broker.wal_reclaim_interval();
    let segment_bytes = parts.config.broker.wal_segment_bytes;
    parts.env.spawn(reclaim::run(
        env,
        interval,
        segment_bytes,
        wal.clone(),
        partitions,
        metadata_applied,
        fatal,
    ))
}

fn start_repairs(
    parts: &Parts,
    wal: &helix_wal::Wal,
    cluster: &ClusterLink,
    damaged: &[(GroupId, Index)],
) -> Repairs {
    let repairs = Repairs::new(RepairParts {
        env: parts.env.clone(),
        wal: wal.clone(),
        cluster: cluster.clone(),
        leaders: Arc::clone(&parts.leaders),
        shards: parts.shards.clone(),
        metrics: Arc::clone(&parts.metrics),
    });
    for (group, index) in damaged {
        repairs.report(*group, *index);
    }
    repairs
}

fn split(
    recovered: HashMap<GroupId, RecoveredGroup>,
    shards: &Shards,
) -> Vec<HashMap<GroupId, RecoveredGroup>> {
    let mut parts: Vec<HashMap<GroupId, RecoveredGroup>> = vec![HashMap::new(); shards.count()];
    for (group, found) in recovered {
        parts[shards.shard_of(group)].insert(group, found);
    }
    parts
}

fn required(config: &ServerConfig) -> Durability {
    match config.write_durability {
        WriteDurability::ReplicationOnly => Durability::PageCache,
        WriteDurability::Fsync => Durability::Synced,
    }
}

fn raft_config(parts: &Parts, me: &Identity) -> MultiRaftConfig {
    let broker = &parts.config.broker;
    let ticks = broker.election_timeout_ms.div_ceil(TICK.as_millis() as u64);
    MultiRaftConfig {
        election_timeout_ticks: (ticks as u32).max(2),
        max_tail_bytes: broker.tail_max_bytes / parts.shards.count(),
        max_append_bytes: broker.batch_max_bytes,
        ..MultiRaftConfig::new(me.replica, me.incarnation, parts.env.random_u64())
    }
}
