//! One node, from its configuration to its end: opens the disk, finds its cluster, starts shards, serves clients, and hands
//! leadership over before it stops.

mod events;
mod reclaim;
mod recovery;
mod sound;
mod storage;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use helix_raft::{Durability, GroupId, Index, MultiRaft, MultiRaftConfig};
use helix_wal::RecoveredGroup;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::api::MAX_ANSWERS_BYTES;
use crate::api::table::SERVED;
use crate::broker::budget::Budget;
use crate::broker::fetch_sessions::FetchSessions;
use crate::broker::leaders::LeaderTable;
use crate::broker::lookup::MAX_SEARCHES;
use crate::broker::partitions::PartitionTable;
use crate::broker::producer_ids::ProducerIds;
use crate::broker::questions::Questions;
use crate::broker::{Broker, BrokerParts, Budgets};
use crate::cluster::{ClusterLink, NodeLiveness};
use crate::config::live::LiveConfig;
use crate::config::{ServerConfig, WriteDurability};
use crate::controller::commands::{BrokerRegistration, METADATA_GROUP, MetadataCommand};
use crate::controller::image::ClusterImage;
use crate::controller::reconcile::{self, Reconciler};
use crate::controller::{Controller, SubmitError};
use crate::coordinator::{self, Coordinators};
use crate::durable::founded::{FoundedCluster, FoundingMember};
use crate::durable::state::NodeState;
use crate::durable::state_file::{StateFile, WriteStateError};
use crate::durable::vote_writer::VoteWriter;
use crate::durable::votes::LoadedVotes;
use crate::env::{Doors, Env, OpenDoorsError, PeerListener, watch};
use crate::founding::{self};
use crate::ids::{ClusterId, NodeId};
use crate::ops::fatal::Fatal;
use crate::ops::http::{HttpState, Readiness};
use crate::ops::metrics::{BudgetSample, Metrics, NodeSample};
use crate::peers::board::{DigestBoard, ShardDigests};
use crate::peers::hello::Identity;
use crate::peers::{HeartbeatTiming, PeerLimits, Peers, PeersHandle, PeersOptions};
use crate::repair::{RepairParts, Repairs};
use crate::shard::{Mailboxes, Owner, ShardContext, Shards, TICK};
use events::{Delivery, NodeEvents, Running};
use storage::Storage;

pub use storage::OpenStorageError;

/// How long a stopping node tries to hand its leadership over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// How long one try to register waits.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Founding events that may wait; more are dropped, since statuses are repeated.
const FOUNDING_QUEUE: usize = 256;

/// Why a node does not start, or stopped by itself.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A port is taken or an address does not exist.
    #[error(transparent)]
    Listen(#[from] OpenDoorsError),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] OpenStorageError),
    /// Peers.
    #[error(transparent)]
    Peers(#[from] crate::peers::StartPeersError),
    /// The state file.
    #[error(transparent)]
    State(#[from] WriteStateError),
    /// The metadata group.
    #[error("the cluster's metadata on this disk cannot be used: {0}")]
    Metadata(String),
    /// The cluster refused this node.
    #[error("the cluster refused this node: {0}")]
    Refused(crate::controller::commands::CommandError),
    /// Something failed while running.
    #[error("stopped: {0}")]
    Fatal(String),
}

/// What is shared by everything on the node.
struct Parts {
    env: Env,
    config: Arc<ServerConfig>,
    live: Arc<LiveConfig>,
    fatal: Fatal,
    metrics: Arc<Metrics>,
    leaders: Arc<LeaderTable>,
    partitions: Arc<PartitionTable>,
    liveness: Arc<NodeLiveness>,
    image: Arc<ArcSwap<ClusterImage>>,
    board: Arc<DigestBoard>,
    shards: Shards,
}

/// Where clients and nodes come in, opened before anything else so that a port that is taken is an error of the start.
struct Sockets {
    doors: Box<dyn Doors>,
    peers: Option<Box<dyn PeerListener>>,
}

/// The running shards and what they share with the rest.
struct Engine {
    me: Identity,
    cluster: ClusterLink,
    controller: Controller,
    metadata_applied: watch::Receiver<Index>,
    shards: Vec<JoinHandle<()>>,
    reconciler: JoinHandle<()>,
    reclaimer: JoinHandle<()>,
    sound: JoinHandle<StateFile>,
    repairs: Repairs,
    repairer: JoinHandle<()>,
    questions: Questions,
}

impl Engine {
    /// What other nodes may speak to.
    fn running(&self, founded: &Arc<FoundedCluster>) -> Running {
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

/// Runs a node until `stop` is told, or until it cannot go on.
///
/// # Errors
/// When it cannot start, or something failed after which it must not go on.
pub async fn run(env: Env, config: ServerConfig, mut stop: watch::Receiver<bool>) -> Result<(), NodeError> {
    let sockets = bind(&env, &config).await?;
    let config = with_bound_port(config, &sockets)?;
    let (shards, mailboxes) = Shards::new(shard_count(&config));
    let config = Arc::new(config);
    let parts = Parts {
        live: Arc::new(LiveConfig::new(Arc::clone(&config))),
        fatal: Fatal::new(),
        metrics: Arc::new(Metrics::new(SERVED.iter().map(|api| api.key))),
        leaders: Arc::default(),
        partitions: Arc::default(),
        liveness: Arc::default(),
        image: Arc::new(ArcSwap::from_pointee(ClusterImage::empty())),
        board: Arc::default(),
        shards,
        config,
        env,
    };
    announce_durability(&parts.config);
    let storage = storage::open(&parts.env, &parts.config, &parts.shards, &parts.fatal)?;
    let Sockets { mut doors, peers: peer_listener } = sockets;
    let phase = watch::Sender::new(Phase::Joining);
    let (health, stop_health) = serve_health(&parts, &mut *doors, phase.subscribe());
    let result = async {
        let joined = tokio::select! {
            biased;
            joined = join_cluster(&parts, storage, peer_listener) => joined?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        serve(&parts, joined, mailboxes, &mut *doors, &phase, &mut stop).await
    }
    .await;
    drop(stop_health);
    if let Err(error) = health.await {
        warn!(%error, "the HTTP server ended badly");
    }
    result
}

/// How far the node is, for `/health/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Looks for the other nodes of its cluster.
    Joining,
    /// Opens its replicas and registers.
    Registering,
    /// Takes requests.
    Serving,
    /// Hands over and stops.
    Stopping,
}

/// The disk, the way to the other nodes, and the cluster that both belong to.
struct Joined {
    storage: Storage,
    events: Arc<NodeEvents>,
    peers: Option<Arc<PeersHandle>>,
    founded: Arc<FoundedCluster>,
}

async fn bind(env: &Env, config: &ServerConfig) -> Result<Sockets, NodeError> {
    let peers = match &config.peer_listen {
        Some(address) if !config.peers.is_empty() => {
            let refused =
                |source| OpenDoorsError { address: address.to_string(), what: "--peer-listen", source };
            Some(env.outside().listen_for_peers(address).map_err(refused)?)
        }
        _ => None,
    };
    Ok(Sockets { doors: env.outside().open_doors(config).await?, peers })
}

/// Clients are told the port that was bound when any was asked for.
fn with_bound_port(mut config: ServerConfig, sockets: &Sockets) -> Result<ServerConfig, NodeError> {
    if config.advertise.port == 0 {
        let address = config.listen.to_string();
        let unknown = |source| OpenDoorsError { address, what: "--listen", source };
        config.advertise.port = sockets.doors.kafka_port().map_err(unknown)?;
    }
    Ok(config)
}

fn shard_count(config: &ServerConfig) -> usize {
    match config.broker.shards {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        given => given,
    }
}

fn announce_durability(config: &ServerConfig) {
    if config.write_durability == WriteDurability::ReplicationOnly && config.peers.len() <= 1 {
        warn!(
            "--write-durability replication-only on a single node: acknowledged records survive a crash of the process, but not \
             a power loss or a crash of the machine; use --write-durability fsync or more nodes"
        );
    }
}

fn serve_health(
    parts: &Parts,
    doors: &mut dyn Doors,
    phase: watch::Receiver<Phase>,
) -> (JoinHandle<()>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let (leaders, fatal) = (Arc::clone(&parts.leaders), parts.fatal.clone());
    let readiness = move || {
        let mut reasons = Vec::new();
        match phase.get() {
            Phase::Joining => reasons.push("waiting for the other nodes of --peers".to_owned()),
            Phase::Registering => reasons.push("registering with the cluster".to_owned()),
            Phase::Stopping => reasons.push("stopping".to_owned()),
            Phase::Serving => {}
        }
        if leaders.get(METADATA_GROUP).is_none_or(|info| info.leader.is_none()) {
            reasons.push("no leader of the cluster's metadata is known".to_owned());
        }
        reasons.extend(fatal.reason());
        Readiness { reasons }
    };
    let recovery = recovery::Recovery { image: Arc::clone(&parts.image), shards: parts.shards.clone() };
    let state = HttpState {
        metrics: Arc::clone(&parts.metrics),
        readiness: Arc::new(readiness),
        recovery: Arc::new(move |request| Box::pin(recovery.clone().answer(request))),
    };
    let serving = parts.env.spawn(doors.serve_http(state, stopped));
    (serving, stop)
}

/// Connects to the other nodes and finds, or founds, the cluster.
async fn join_cluster(
    parts: &Parts,
    mut storage: Storage,
    listener: Option<Box<dyn PeerListener>>,
) -> Result<Joined, NodeError> {
    let (founding, mut founding_events) = mpsc::channel(FOUNDING_QUEUE);
    let listed: Vec<NodeId> = parts.config.peers.iter().map(|peer| peer.node).collect();
    let events = Arc::new(NodeEvents {
        shards: parts.shards.clone(),
        leaders: Arc::clone(&parts.leaders),
        liveness: Arc::clone(&parts.liveness),
        founding,
        listed: listed.clone(),
        running: ArcSwapOption::empty(),
    });
    let Some(listener) = listener else {
        let founded = Arc::new(found_alone(&parts.env, &mut storage.state)?);
        return Ok(Joined { storage, events, peers: None, founded });
    };
    let peers = Arc::new(Peers::start(peer_options(parts, &storage, listener), events.clone())?);
    let founded =
        founding::run(&parts.env, &peers, &listed, &mut storage.state, &mut founding_events).await?;
    peers.join(&founded);
    Ok(Joined { storage, events, peers: Some(peers), founded: Arc::new(founded) })
}

fn peer_options(parts: &Parts, storage: &Storage, listener: Box<dyn PeerListener>) -> PeersOptions {
    let broker = &parts.config.broker;
    let state = storage.state.state();
    PeersOptions {
        me: identity(state, state.founding.founded().map(|record| record.cluster)),
        env: parts.env.clone(),
        listener,
        peers: parts.config.peers.iter().map(|peer| (peer.node, peer.address.to_string())).collect(),
        limits: PeerLimits {
            bulk_bytes: broker.peer_bulk_bytes,
            receive_budget_bytes: broker.peer_max_pending_bytes,
            // An entry is at most a full batch and one request more.
            max_data_frame_bytes: (broker.batch_max_bytes + broker.socket_request_max_bytes + (1 << 20))
                .max(PeerLimits::default().max_data_frame_bytes),
            ..PeerLimits::default()
        },
        heartbeats: HeartbeatTiming {
            interval: Duration::from_millis(broker.heartbeat_interval_ms),
            timeout: Duration::from_millis(broker.election_timeout_ms),
        },
        board: Arc::clone(&parts.board),
        data_runtime: tokio::runtime::Handle::current(),
    }
}

fn identity(state: &NodeState, cluster: Option<ClusterId>) -> Identity {
    Identity { node: state.node, replica: state.replica, incarnation: state.incarnation, cluster }
}

/// A single node is a cluster of its own.
fn found_alone(env: &Env, state: &mut StateFile) -> Result<FoundedCluster, WriteStateError> {
    if let Some(record) = state.state().founding.record() {
        return Ok(record.clone());
    }
    let me = FoundingMember { node: state.state().node, replica: state.state().replica };
    let record = FoundedCluster { cluster: env.random_cluster_id(), members: vec![me] };
    state.complete_founding(&record)?;
    info!(cluster = %record.cluster, "a cluster of one node is founded");
    Ok(record)
}

/// Runs everything until the end.
async fn serve(
    parts: &Parts,
    joined: Joined,
    mailboxes: Mailboxes,
    doors: &mut dyn Doors,
    phase: &watch::Sender<Phase>,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), NodeError> {
    phase.send_replace(Phase::Registering);
    let Joined { storage, events, peers, founded } = joined;
    let directory = storage.directory;
    let (wal, votes) = (storage.wal, storage.votes);
    let started = Started {
        state: storage.state,
        recovered: storage.recovered,
        damaged: storage.damaged,
        unusable: storage.unusable,
        loaded_votes: storage.loaded_votes,
        wal: wal.clone(),
        votes: Arc::clone(&votes),
        cluster: Arc::clone(&founded),
    };
    let engine = start_engine(parts, started, peers, mailboxes)?;
    let _delivery = Delivery::begin(&events, engine.running(&founded));
    let (producer_ids, producer_id_owner) = ProducerIds::start(&parts.env, engine.controller.clone());
    let broker =
        Arc::new(Broker { parts: broker_parts(parts, &engine, producer_ids, &wal, founded.cluster) });
    watch_metrics(parts, &broker, &engine.cluster);
    let (stop_coordinators, coordinators_stop) = watch::channel(false);
    let coordinators =
        parts.env.spawn(coordinator::follow_leadership(Arc::clone(&broker), coordinators_stop));
    let outcome = async {
        tokio::select! {
            biased;
            registered = register(parts, &engine) => registered?,
            reason = parts.fatal.reported() => return Err(NodeError::Fatal(reason)),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        let (stop_clients, clients_stop) = watch::channel(false);
        let clients = parts.env.spawn(doors.serve_kafka(Arc::clone(&broker), clients_stop));
        phase.send_replace(Phase::Serving);
        info!(
            "ready: Kafka on {}, HTTP on {}, cluster {}",
            parts.config.advertise, parts.config.http_listen, founded.cluster
        );
        let outcome = tokio::select! {
            biased;
            reason = parts.fatal.reported() => Err(NodeError::Fatal(reason)),
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        };
        phase.send_replace(Phase::Stopping);
        if outcome.is_ok() {
            hand_over(parts).await;
            // Members of groups may wait for each other far longer than the node for its connections.
            stop_coordinators.send_replace(true);
            stop_clients.send_replace(true);
            if let Err(error) = clients.await {
                warn!(%error, "the listener ended badly");
            }
        } else {
            // What waits for the log is never answered, and the other nodes replace this one only once it is gone.
            clients.abort();
        }
        outcome
    }
    .await;
    phase.send_replace(Phase::Stopping);
    stop_coordinators.send_replace(true);
    if let Err(error) = coordinators.await {
        error!(%error, "the coordinators ended badly");
    }
    drop(broker);
    producer_id_owner.abort();
    let outcome = outcome.and(shut_down(parts, engine, &wal, &votes).await);
    drop(directory);
    outcome
}

async fn hand_over(parts: &Parts) {
    info!("handing leadership over");
    if tokio::time::timeout(HAND_OVER_LIMIT, parts.shards.hand_over()).await.is_err() {
        warn!("not all leadership was handed over in time; the other nodes will notice");
    }
}

/// What shards take over from the disk.
struct Started {
    state: StateFile,
    recovered: HashMap<GroupId, RecoveredGroup>,
    damaged: Vec<(GroupId, Index)>,
    unusable: BTreeSet<GroupId>,
    loaded_votes: Arc<LoadedVotes>,
    wal: helix_wal::Wal,
    votes: Arc<VoteWriter>,
    cluster: Arc<FoundedCluster>,
}

fn start_engine(
    parts: &Parts,
    started: Started,
    peers: Option<Arc<PeersHandle>>,
    mailboxes: Mailboxes,
) -> Result<Engine, NodeError> {
    let Started { ref wal, ref votes, cluster: ref founded, .. } = started;
    let state = started.state.state();
    let me = identity(state, Some(founded.cluster));
    let recovering = Arc::new(state.recovering.clone());
    let cluster = ClusterLink::new(peers);
    let (applied, applied_watch) = watch::channel(Index::ZERO);
    let controller = Controller::new(
        parts.env.clone(),
        me.replica,
        Arc::clone(&parts.leaders),
        parts.shards.clone(),
        cluster.clone(),
        applied_watch.clone(),
    );
    let repairs = start_repairs(parts, wal, &cluster, &started.damaged);
    let unusable = Arc::new(started.unusable);
    let metadata_applied = applied_watch.clone();
    let stored: Vec<GroupId> = started.recovered.keys().copied().collect();
    let (findings, found) = mpsc::unbounded_channel();
    let mut recovered = split(started.recovered, &parts.shards);
    let founders: Vec<_> = founded.members.iter().map(|member| member.replica).collect();
    let mut shards = Vec::with_capacity(mailboxes.len());
    for (number, mailbox) in mailboxes.into_iter().enumerate() {
        let context = ShardContext {
            me: me.replica,
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
        let raft = MultiRaft::new(raft_config(parts, &me));
        let mut owner = Owner::new(context, raft, std::mem::take(&mut recovered[number]));
        if number == parts.shards.shard_of(METADATA_GROUP) {
            owner.open_metadata(founders.clone()).map_err(NodeError::Metadata)?;
        }
        shards.push(parts.env.spawn(owner.run(mailbox)));
    }
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
    let reconciler = parts.env.spawn(reconcile::run(reconciler, applied_watch, stored));
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

fn broker_parts(
    parts: &Parts,
    engine: &Engine,
    producer_ids: ProducerIds,
    wal: &helix_wal::Wal,
    cluster_id: ClusterId,
) -> BrokerParts {
    let broker = &parts.config.broker;
    BrokerParts {
        env: parts.env.clone(),
        node: parts.config.node_id,
        started: Instant::now(),
        cluster_id,
        config: Arc::clone(&parts.live),
        image: Arc::clone(&parts.image),
        leaders: Arc::clone(&parts.leaders),
        partitions: Arc::clone(&parts.partitions),
        liveness: Arc::clone(&parts.liveness),
        cluster: engine.cluster.clone(),
        shards: parts.shards.clone(),
        controller: engine.controller.clone(),
        producer_ids,
        coordinators: Coordinators::default(),
        metadata_applied: engine.metadata_applied.clone(),
        cluster_size: parts.config.peers.len().max(1),
        wal: wal.clone(),
        repairs: engine.repairs.clone(),
        questions: engine.questions.clone(),
        budgets: Budgets {
            produce_bytes: Budget::new(broker.produce_max_pending_bytes),
            produce_requests: Budget::new(broker.produce_max_pending_requests),
            other_requests: Budget::new(broker.request_max_pending_bytes),
            fetch: Budget::new(broker.fetch_max_pending_bytes),
            searches: Budget::new(MAX_SEARCHES),
            answers: Budget::new(MAX_ANSWERS_BYTES),
        },
        fetch_sessions: Arc::new(FetchSessions::new(broker.max_incremental_fetch_session_cache_slots)),
        metrics: Arc::clone(&parts.metrics),
    }
}

fn watch_metrics(parts: &Parts, broker: &Arc<Broker>, cluster: &ClusterLink) {
    let wal = broker.wal().clone();
    parts.metrics.watch_wal(move || wal.stats());
    let budgets = broker.budgets().clone();
    let sessions = Arc::clone(broker.fetch_sessions());
    let (partitions, cluster) = (Arc::clone(&parts.partitions), cluster.clone());
    let peer_limit = parts.config.broker.peer_max_pending_bytes;
    parts.metrics.watch_node(move || {
        let budget = |name, budget: &Budget| BudgetSample {
            name,
            used: budget.used() as u64,
            limit: budget.limit() as u64,
        };
        NodeSample {
            groups: partitions.len() as u64 + 1,
            budgets: vec![
                budget("produce", &budgets.produce_bytes),
                budget("produce_requests", &budgets.produce_requests),
                BudgetSample {
                    name: "fetch_sessions",
                    used: sessions.len() as u64,
                    limit: sessions.slots() as u64,
                },
                budget("requests", &budgets.other_requests),
                budget("fetch", &budgets.fetch),
                budget("answers", &budgets.answers),
                BudgetSample {
                    name: "peers",
                    used: cluster.receive_bytes_held() as u64,
                    limit: peer_limit as u64,
                },
            ],
        }
    });
}

/// Tells the cluster who this node is and where clients reach it; goes on until the cluster has taken it.
async fn register(parts: &Parts, engine: &Engine) -> Result<(), NodeError> {
    let running = parts.config.as_ref();
    let registration = BrokerRegistration {
        node: running.node_id,
        replica: engine.me.replica,
        incarnation: engine.me.incarnation,
        host: running.advertise.host.clone(),
        port: running.advertise.port,
        rack: running.rack.clone(),
    };
    loop {
        let command = MetadataCommand::RegisterBroker(registration.clone());
        match engine.controller.submit(command, REGISTER_TIMEOUT).await {
            Ok(_) => return Ok(()),
            Err(SubmitError::Refused(refused)) => return Err(NodeError::Refused(refused)),
            Err(error) => info!(%error, "not registered with the cluster yet"),
        }
    }
}

/// Ends shards, WAL and connections, in this order, and sets the clean mark last.
async fn shut_down(
    parts: &Parts,
    engine: Engine,
    wal: &helix_wal::Wal,
    votes: &Arc<VoteWriter>,
) -> Result<(), NodeError> {
    parts.shards.stop().await;
    engine.reconciler.abort();
    engine.reclaimer.abort();
    engine.repairer.abort();
    for shard in engine.shards {
        if let Err(error) = shard.await {
            error!(%error, "a shard ended badly");
        }
    }
    engine.cluster.shutdown().await;
    votes.close();
    let mut state = engine.sound.await.map_err(|error| NodeError::Fatal(error.to_string()))?;
    let wal = wal.clone();
    let closed = parts.env.spawn_blocking(move || state.stop_cleanly(|| wal.close())).await;
    match closed {
        Ok(Ok(())) => {
            info!("stopped cleanly");
            Ok(())
        }
        Ok(Err(error)) => Err(NodeError::Fatal(error.to_string())),
        Err(error) => Err(NodeError::Fatal(error.to_string())),
    }
}
