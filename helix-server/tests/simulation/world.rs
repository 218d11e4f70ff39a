//! A whole simulation: machines, network, clients, and the course of events from the founding of the cluster to the last judgement.

use std::sync::Arc;
use std::time::Duration;

use helix_raft::ReplicaId;
use helix_server::cli::{self, Command};
use helix_server::config::ServerConfig;
use helix_server::controller::commands::METADATA_GROUP;
use helix_server::env::watch;
use rand::RngCore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clients::admin;
use crate::clients::call::Nodes;
use crate::clients::ledger::{Ledger, Partition};
use crate::clients::member::Member;
use crate::clients::offsets::Offsets;
use crate::clients::producer::Lane;
use crate::clients::reader::Reader;
use crate::faults::Faults;
use crate::machine::Machine;
use crate::network::{Network, Place};
use crate::plan::Plan;
use crate::witness::{Seen, Witness};

/// The topic that is there all the time.
const TOPIC: &str = "main";
/// Partitions of the topic that holds consumer groups.
const GROUPS_PARTITIONS: i32 = 2;
/// With all faults healed everything has to be well again after this time.
const HEALING: Duration = Duration::from_secs(120);
/// Lanes of topics that come and go are numbered from here on.
const PASSING_LANES: u32 = 1000;

/// Everything there is.
pub(crate) struct World {
    pub(crate) machines: Vec<Machine>,
    pub(crate) network: Network,
    pub(crate) witness: Arc<Witness>,
    pub(crate) nodes: Nodes,
}

/// How a schedule went.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) verdict: Option<String>,
    pub(crate) steps: u64,
    pub(crate) acknowledged: u64,
    pub(crate) simulated: Duration,
    pub(crate) seen: Seen,
    /// A number that two runs of one seed share.
    pub(crate) fingerprint: u64,
}

impl World {
    fn new(plan: &mut Plan) -> Self {
        let mut seed = || plan.random.next_u64();
        let network = Network::new(seed(), plan.nodes);
        network.set_weather(plan.weather);
        let witness = Witness::new(Plan::promises(plan));
        let configs: Vec<ServerConfig> = (0..plan.nodes).map(|place| config(place, plan)).collect();
        let mut seed = || plan.random.next_u64();
        let machines: Vec<Machine> = configs
            .into_iter()
            .map(|config| Machine::new(seed(), network.clone(), config, Arc::clone(&witness)))
            .collect();
        let nodes = Nodes::new(seed(), machines.iter().map(Machine::door).collect());
        Self { machines, network, witness, nodes }
    }

    pub(crate) fn steps(&self) -> u64 {
        let disks: u64 = self.machines.iter().map(Machine::steps).sum();
        self.network.delivered() + disks + self.witness.events() + self.nodes.calls()
    }

    /// Whether every node belongs to the cluster.
    pub(crate) fn is_founded(&self) -> bool {
        let founded =
            |machine: &Machine| machine.state().is_some_and(|state| state.founding.founded().is_some());
        self.machines.iter().all(founded)
    }

    /// Whether a node may have lost something that it does not know to be whole again.
    pub(crate) fn is_suspect(&self, place: Place) -> bool {
        let recovering =
            |machine: &Machine| machine.state().is_some_and(|state| !state.recovering.is_nothing());
        self.witness.has_crashed(place) || recovering(&self.machines[place])
    }

    /// Whether a disk that was lost is a member of nothing any more.
    pub(crate) fn is_replaced(&self, replica: ReplicaId) -> bool {
        let Some(broker) = self.nodes.brokers().into_iter().next() else { return false };
        let image = broker.image();
        let left = |topic: &str| {
            let Some(topic) = image.topic_named(topic) else { return true };
            topic
                .partitions
                .iter()
                .all(|partition| !self.witness.is_member(partition.group, replica, &partition.founders))
        };
        !self.witness.is_member(METADATA_GROUP, replica, &[replica])
            && image.topics().all(|topic| left(&topic.name))
    }
}

impl World {
    fn note_deleted_groups(&self) {
        let Some(broker) = self.nodes.brokers().into_iter().next() else { return };
        let image = broker.image();
        let exists = |group| {
            image.topics().any(|topic| topic.partitions.iter().any(|partition| partition.group == group))
        };
        self.witness
            .note_deleted(|group| group != METADATA_GROUP && image.was_allocated(group) && !exists(group));
    }
}

/// A node's configuration: as in production, with files and memory small enough that everything that depends on them happens.
fn config(place: Place, plan: &Plan) -> ServerConfig {
    let peers: Vec<String> =
        (0..plan.nodes).map(|other| format!("{}@{}", other + 1, Network::address(other))).collect();
    let (id, peers) = ((place + 1).to_string(), peers.join(","));
    let listen = format!("node{place}:9092");
    let retention = plan.retention_bytes.map_or(-1, u64::cast_signed);
    let retention = format!("log.retention.bytes={retention}");
    let groups_partitions = format!("offsets.topic.num.partitions={GROUPS_PARTITIONS}");
    let mut words = vec![
        "helix-server",
        "--node-id",
        &id,
        "--peers",
        &peers,
        "--listen",
        &listen,
        "--write-durability",
        if plan.synced { "fsync" } else { "replication-only" },
    ];
    for setting in [
        "helix.shards=2",
        "helix.wal.segment.bytes=1048576",
        "helix.wal.page.cache.bytes=2097152",
        "helix.tail.max.bytes=1048576",
        "helix.disk.reserve.bytes=1048576",
        "helix.commit.timeout.ms=8000",
        "default.replication.factor=3",
        "helix.batch.max.bytes=65536",
        // Some messages are longer, most are not.
        "helix.peer.bulk.bytes=15000",
        "message.max.bytes=100000",
        "helix.wal.reclaim.interval.ms=1500",
        "log.retention.check.interval.ms=700",
        "group.initial.rebalance.delay.ms=300",
        "group.min.session.timeout.ms=1000",
        "helix.coordinator.log.bytes=3000",
        &groups_partitions,
        &retention,
    ] {
        words.extend(["--set", setting]);
    }
    match cli::parse(words.into_iter().map(Into::into)) {
        Ok(Command::Run(config)) => *config,
        other => panic!("the configuration of a simulated node is refused: {other:?}"),
    }
}

/// Runs one schedule, from the founding of a cluster to the end.
pub(crate) async fn run(mut plan: Plan) -> Outcome {
    let begun = Instant::now();
    let mut world = World::new(&mut plan);
    let ledger = Ledger::new(Arc::clone(&world.witness));
    for machine in &mut world.machines {
        machine.start();
    }
    let mut faults = Faults::new(&plan);
    let verdict = course(&mut world, &mut faults, &plan, &ledger).await;
    if let Err(text) = verdict {
        world.witness.accuse(text);
    }
    Outcome {
        verdict: world.witness.verdict(),
        steps: world.steps(),
        acknowledged: ledger.count(),
        simulated: begun.elapsed(),
        seen: world.witness.seen(),
        fingerprint: world.witness.fingerprint(),
    }
}

async fn course(
    world: &mut World,
    faults: &mut Faults,
    plan: &Plan,
    ledger: &Arc<Ledger>,
) -> Result<(), String> {
    found(world, plan, ledger).await?;
    let mut clients = Clients::start(world, plan, ledger);
    while world.steps() < plan.steps && world.witness.verdict().is_none() {
        faults.next(world).await;
    }
    faults.heal(world).await;
    clients.stop.send_replace(true);
    settle(world, faults, ledger, &mut clients).await?;
    ledger.judge();
    Ok(())
}

/// Waits until the cluster is founded and has its topic. Nothing goes wrong before that but what the weather does.
async fn found(world: &World, plan: &Plan, ledger: &Ledger) -> Result<(), String> {
    let founding = admin::create(&world.nodes, ledger, TOPIC, plan.partitions);
    tokio::time::timeout(HEALING, founding).await.map_err(|_| "the cluster is not founded in time".to_owned())
}

struct Clients {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    readers: Vec<(Partition, watch::Receiver<i64>)>,
    /// Dropped with the simulation.
    _reading: JoinSet<()>,
}

impl Clients {
    fn start(world: &World, plan: &Plan, ledger: &Arc<Ledger>) -> Self {
        let stop = watch::Sender::new(false);
        let (mut tasks, mut reading) = (JoinSet::new(), JoinSet::new());
        let mut readers = Vec::new();
        let mut lane = 0;
        for number in 0..plan.partitions {
            let partition = Partition { topic: TOPIC.to_owned(), number };
            for habits in &plan.producers {
                let (nodes, ledger) = (world.nodes.clone(), Arc::clone(ledger));
                let producer = Lane::new(nodes, ledger, partition.clone(), *habits, lane);
                tasks.spawn(producer.run(stop.subscribe()));
                lane += 1;
            }
            let (nodes, retention) = (world.nodes.clone(), plan.retention_bytes.is_some());
            let reader = Reader::new(nodes, Arc::clone(ledger), partition.clone(), retention);
            readers.push((partition, reader.position()));
            reading.spawn(reader.run());
        }
        let offsets = Offsets::new(Arc::clone(ledger), GROUPS_PARTITIONS);
        for (number, members) in plan.consumer_groups.iter().enumerate() {
            for _ in 0..*members {
                let (nodes, offsets) = (world.nodes.clone(), Arc::clone(&offsets));
                let member = Member::new(nodes, offsets, &format!("group-{number}"), TOPIC, plan.partitions);
                tasks.spawn(member.run(stop.subscribe()));
            }
        }
        if let Some(pause_ms) = plan.elections_pause_ms {
            tasks.spawn(admin::elect(world.nodes.clone(), pause_ms, stop.subscribe()));
        }
        if plan.topics_come_and_go {
            let (nodes, ledger) = (world.nodes.clone(), Arc::clone(ledger));
            tasks.spawn(admin::come_and_go(nodes, ledger, PASSING_LANES, stop.subscribe()));
        }
        Self { tasks, stop, readers, _reading: reading }
    }

    /// Who has not come to an end yet.
    fn unfinished(&mut self, ledger: &Ledger) -> Result<(), String> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.map_err(|error| format!("a client ended badly: {error}"))?;
        }
        if !self.tasks.is_empty() {
            return Err(format!("clients that wait for answers: {}", self.tasks.len()));
        }
        for (partition, position) in &self.readers {
            let (position, end) = (position.get(), ledger.end(partition));
            if position < end {
                return Err(format!("{partition:?} is read to {position} of {end}"));
            }
        }
        Ok(())
    }
}

/// Waits until everything that was sent is acknowledged, everything acknowledged is read, all replicas agree, and lost disks are
/// replaced.
async fn settle(
    world: &mut World,
    faults: &mut Faults,
    ledger: &Arc<Ledger>,
    clients: &mut Clients,
) -> Result<(), String> {
    let deadline = Instant::now() + HEALING;
    loop {
        faults.reap(world).await;
        for machine in &mut world.machines {
            machine.start();
        }
        if world.witness.verdict().is_some() {
            return Ok(());
        }
        world.note_deleted_groups();
        let waits_for = clients
            .unfinished(ledger)
            .and_then(|()| world.witness.agreement())
            .and_then(|()| faults.is_whole(world));
        match waits_for {
            Ok(()) => return Ok(()),
            Err(reason) if Instant::now() >= deadline => {
                return Err(format!("{HEALING:?} after all faults were healed: {reason}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
