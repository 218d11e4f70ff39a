//! One node, from its configuration to its end: opens the disk, finds its cluster, starts shards, serves clients, and hands
//! leadership over before it stops.

mod broker_parts;
mod engine;
mod events;
mod joining;
mod reclaim;
mod recovery;
mod sound;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::api::table::SERVED;
use crate::broker::Broker;
use crate::broker::leaders::LeaderTable;
use crate::broker::partitions::PartitionTable;
use crate::broker::producer_ids::ProducerIds;
use crate::cluster::NodeLiveness;
use crate::config::live::LiveConfig;
use crate::config::{ServerConfig, WriteDurability};
use crate::controller::SubmitError;
use crate::controller::commands::{BrokerRegistration, METADATA_GROUP, MetadataCommand};
use crate::controller::image::ClusterImage;
use crate::coordinator;
use crate::durable::state_file::WriteStateError;
use crate::durable::vote_writer::VoteWriter;
use crate::env::{Doors, Env, OpenDoorsError, PeerListener, watch};
use crate::ops::fatal::Fatal;
use crate::ops::http::{HttpState, Readiness};
use crate::ops::metrics::Metrics;
use crate::peers::board::DigestBoard;
use crate::shard::{Mailboxes, Shards};
use engine::Engine;
use events::Delivery;
use joining::Joined;

pub use storage::OpenStorageError;

/// How long a stopping node tries to hand its leadership over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// How long one try to register waits.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

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
            joined = joining::join(&parts, storage, peer_listener) => joined?,
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
    let started = engine::Started {
        state: storage.state,
        recovered: storage.recovered,
        damaged: storage.damaged,
        unusable: storage.unusable,
        loaded_votes: storage.loaded_votes,
        wal: wal.clone(),
        votes: Arc::clone(&votes),
        cluster: Arc::clone(&founded),
    };
    let engine = engine::start(parts, started, peers, mailboxes)?;
    let _delivery = Delivery::begin(&events, engine.running(&founded));
    let (producer_ids, producer_id_owner) = ProducerIds::start(&parts.env, engine.controller.clone());
    let broker =
        Arc::new(Broker { parts: broker_parts::gather(parts, &engine, producer_ids, &wal, founded.cluster) });
    broker_parts::watch_metrics(parts, &broker, &engine.cluster);
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
