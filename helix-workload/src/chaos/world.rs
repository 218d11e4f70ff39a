//! The cluster that suffers: its nodes, the network between them, their disks, and what is done to them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::fault::{Fault, Victims};
use super::network::{Network, Weather};
use super::replicas::{self, Comparison, NodeLog};
use super::schedule::Strike;
use super::small_disk::SmallDisk;
use super::{ChaosError, ChaosOptions, Unavailable};
use crate::client::ClusterView;
use crate::cluster::{Cluster, ClusterError, ClusterOptions, free_ports};
use crate::metrics::Samples;
use crate::preload::{NoPreload, Preload};
use crate::two_loads::TwoLoads;
use crate::wait;

/// Between two looks whether all nodes are still there.
const LOOK: Duration = Duration::from_millis(50);
/// What is stored of a message beside its contents, generously.
const OVERHEAD_BYTES: u64 = 200;
/// Room for what does not grow with the load.
const SPARE_BYTES: u64 = 3 << 30;
/// What a node says when it ends because of an error that it must not survive.
const LAST_WORDS: &str = "the node cannot go on";

/// Counts what a node refuses because its disk is full.
const REFUSED: &str = "helix_request_errors_total{api=\"Produce\",error=\"KafkaStorageError\"}";
/// Longer than it takes to fill the segments that a log has prepared, at any rate that makes sense.
const PREPARED_LASTS: Duration = Duration::from_secs(20);
/// Among so many lines it must be the reason of the end.
const LAST_LINES: usize = 50;

/// The library that some faults need, if one of them is wanted.
fn prepare_preload(
    options: &ChaosOptions,
    directory: &Path,
    skipped: &mut Vec<(Fault, Unavailable)>,
) -> Option<Preload> {
    let need = [Fault::SyncFails, Fault::MachineRestarted, Fault::AllMachinesRestarted];
    let wanted: Vec<Fault> = need.into_iter().filter(|fault| options.faults.contains(fault)).collect();
    if wanted.is_empty() {
        return None;
    }
    let skip = |reason: NoPreload| {
        skipped.extend(wanted.iter().map(|fault| (*fault, Unavailable(reason.to_string()))));
    };
    Preload::prepare(directory).map_err(skip).ok()
}

/// A running cluster and all that can be done to it.
pub struct World {
    /// First, so that it is unmounted before the cluster's directory is removed.
    small_disk: Option<(u32, SmallDisk)>,
    preload: Option<Preload>,
    network: Network,
    cluster: Cluster,
    /// Faults that can't be injected here, and why.
    skipped: Vec<(Fault, Unavailable)>,
}

impl World {
    /// Starts a cluster that has all that the faults need.
    pub fn start(options: &ChaosOptions) -> Result<Self, ChaosError> {
        let mut cluster = Cluster::prepare(cluster_options(options))?;
        let network = connect(&mut cluster)?;
        let mut skipped = Vec::new();
        let wanted = |fault: Fault| options.faults.contains(&fault).then_some(fault);
        let small_disk = wanted(Fault::DiskFull).and_then(|fault| {
            let id = options.nodes;
            match SmallDisk::mount(cluster.node_directory(id), small_disk_bytes(options)) {
                Ok(disk) => Some((id, disk)),
                Err(reason) => {
                    skipped.push((fault, reason));
                    None
                }
            }
        });
        let preload = prepare_preload(options, cluster.directory(), &mut skipped);
        if let Some((id, disk)) = &small_disk {
            cluster.place_data(*id, disk.directory());
        }
        if let Some(preload) = &preload {
            for id in cluster.ids() {
                for (name, value) in preload.environment(cluster.node_directory(id)) {
                    cluster.set_environment(id, name, value);
                }
            }
        }
        cluster.run_all()?;
        Ok(Self { small_disk, preload, network, cluster, skipped })
    }

    /// Faults that can't be injected here, and why.
    pub fn skipped(&self) -> &[(Fault, Unavailable)] {
        &self.skipped
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Logs and data are not removed at the end.
    pub fn keep(&mut self) {
        self.cluster.keep();
        if let Some((_, disk)) = &mut self.small_disk {
            disk.keep();
        }
    }

    /// Fails if a node has ended that should not.
    pub fn check_alive(&mut self) -> Result<(), ChaosError> {
        Ok(self.cluster.check_alive()?)
    }

    /// Whom a strike hits, given who leads what.
    pub fn victims(&self, strike: &Strike, views: &[ClusterView]) -> Vec<u32> {
        let mut order = strike.order.clone();
        let leads = |id: &u32| {
            let partitions = views.iter().flat_map(|view| &view.partitions);
            partitions.filter(|one| u32::try_from(one.leader) == Ok(*id)).count()
        };
        match strike.fault.victims() {
            Victims::Leaders => order.sort_by_key(|id| std::cmp::Reverse(leads(id))),
            Victims::Followers => order.sort_by_key(leads),
            Victims::SmallDisk => order = self.small_disk.iter().map(|(id, _)| *id).collect(),
            Victims::Any | Victims::All => {}
        }
        order.truncate(strike.victims as usize);
        order
    }

    /// The fault begins.
    pub fn begin(&mut self, strike: &Strike, victims: &[u32]) -> Result<(), ChaosError> {
        match strike.fault {
            Fault::LeaderKilled | Fault::FollowerKilled | Fault::AllKilled => {
                self.cluster.kill_all(victims)?;
            }
            Fault::NodePaused => victims.iter().try_for_each(|id| self.cluster.pause(*id))?,
            Fault::NodeCutOff => self.weather_around(victims, Weather::CUT),
            Fault::SlowLinks => self.weather_around(victims, strike.slowness),
            Fault::OneWayCut => self.cut_one_way(victims, strike.outward),
            Fault::DiskFull => {
                if let Some((_, disk)) = &self.small_disk {
                    disk.fill()?;
                }
            }
            Fault::SyncFails => {
                self.for_each_machine(victims, Preload::fail_syncs)?;
            }
            Fault::MachineRestarted | Fault::AllMachinesRestarted => {
                self.cluster.kill_all(victims)?;
                self.for_each_machine(victims, Preload::restart_machine)?;
            }
            Fault::DiskWiped => victims.iter().try_for_each(|id| self.cluster.lose_disk(*id))?,
            Fault::FlappingLinks | Fault::RollingRestart => {}
        }
        Ok(())
    }

    /// The fault lasts.
    pub fn last(&mut self, strike: &Strike, victims: &[u32], loads: &TwoLoads) -> Result<(), ChaosError> {
        let until = Instant::now() + strike.lasts;
        match strike.fault {
            Fault::FlappingLinks => {
                for (at, flap) in strike.flaps.iter().enumerate() {
                    self.weather_around(victims, if at % 2 == 0 { Weather::CUT } else { Weather::default() });
                    self.wait(Instant::now() + *flap)?;
                }
            }
            Fault::SyncFails => {
                victims.iter().try_for_each(|id| self.await_last_words(*id))?;
                self.wait(until)?;
            }
            Fault::RollingRestart => {
                for id in victims {
                    self.cluster.stop(*id)?;
                    self.cluster.run(*id)?;
                    self.cluster.await_node(*id, self.cluster.ids().len())?;
                    loads.await_in_sync()?;
                }
            }
            Fault::DiskFull => {
                victims.iter().for_each(|id| self.await_refusal(*id));
                self.wait(Instant::now() + strike.lasts)?;
            }
            // Nothing is there that could suffer any longer.
            Fault::AllKilled | Fault::AllMachinesRestarted => {}
            _ => self.wait(until)?,
        }
        Ok(())
    }

    /// Everything is as it should be again, whatever was wrong; nodes that do not run are started in this order.
    pub fn heal(&mut self, order: &[u32]) -> Result<(), ChaosError> {
        self.network.heal();
        if let Some((_, disk)) = &self.small_disk {
            if_there(disk.empty())?;
        }
        for id in order {
            if let Some(preload) = &self.preload {
                if_there(preload.mend_syncs(self.cluster.node_directory(*id)))?;
            }
            self.cluster.resume(*id)?;
            self.cluster.run(*id)?;
        }
        Ok(())
    }

    /// Waits until all nodes are ready, every replica is in sync, and every group has the members that it should have.
    pub fn await_whole(&mut self, loads: &TwoLoads) -> Result<[ClusterView; 2], ChaosError> {
        self.cluster.await_ready()?;
        let views = loads.await_in_sync()?;
        self.cluster.await_members()?;
        Ok(views)
    }

    /// Waits, and fails as soon as a node ends that should not.
    pub fn wait(&mut self, until: Instant) -> Result<(), ChaosError> {
        loop {
            self.cluster.check_alive()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Kills all nodes and holds what they have stored against each other.
    pub fn compare_replicas(&mut self, binary: &Path) -> Result<Comparison, ChaosError> {
        let ids = self.cluster.ids();
        self.cluster.kill_all(&ids)?;
        let dump = |id: u32| {
            NodeLog::dump(binary, self.cluster.data_directory(id), self.cluster.directory())
                .map(|log| (id, log))
        };
        let logs = ids.into_iter().map(dump).collect::<Result<Vec<_>, _>>()?;
        Ok(replicas::compare(&logs))
    }

    fn weather_around(&self, victims: &[u32], weather: Weather) {
        for id in victims {
            self.network.set_around(*id, weather);
        }
    }

    fn for_each_machine(
        &self,
        victims: &[u32],
        fault: impl Fn(&Preload, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(preload) = &self.preload else { return Ok(()) };
        victims.iter().try_for_each(|id| fault(preload, self.cluster.node_directory(*id)))
    }

    fn cut_one_way(&self, victims: &[u32], outward: bool) {
        for id in victims {
            for other in self.cluster.ids() {
                let (from, to) = if outward { (*id, other) } else { (other, *id) };
                self.network.set(from, to, Weather::CUT);
            }
        }
    }

    /// What a node had prepared for its log lasts for a while. Then it refuses what it is to store as a leader, if it leads anything.
    fn await_refusal(&self, id: u32) {
        let refused = || {
            let samples =
                Samples::fetch(&self.cluster.http_address(id)).map_err(|error| error.to_string())?;
            Ok::<_, String>(samples.value(REFUSED).unwrap_or(0.0))
        };
        let before = refused().unwrap_or(0.0);
        // It is the same whether nothing was refused because nothing was asked.
        let _ = wait::until("a refusal", PREPARED_LASTS, || match refused()? {
            now if now > before => Ok(()),
            _ => Err("none yet".into()),
        });
    }

    /// A node whose syncs fail must end by itself and say why.
    fn await_last_words(&mut self, id: u32) -> Result<(), ChaosError> {
        self.cluster.await_end(id)?;
        let said = self.cluster.log(id).lines().rev().take(LAST_LINES).any(|line| line.contains(LAST_WORDS));
        if said { Ok(()) } else { Err(ChaosError::SilentEnd { node: id }) }
    }
}

/// What has not been begun need not be ended.
fn if_there(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn cluster_options(options: &ChaosOptions) -> ClusterOptions {
    // Small segments, so that many are sealed and deleted in a run, and a small reserve, so that a small disk is enough.
    let settings = [
        ("default.replication.factor", options.nodes.to_string()),
        ("helix.wal.segment.bytes", (16 << 20).to_string()),
        ("helix.disk.reserve.bytes", (64 << 20).to_string()),
    ];
    ClusterOptions {
        binary: options.binary.clone(),
        directory: options.directory.clone(),
        nodes: options.nodes,
        write_durability: Some(options.write_durability.clone()),
        settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(),
    }
}

fn small_disk_bytes(options: &ChaosOptions) -> u64 {
    let per_second = u64::from(options.messages_per_second) * (options.message_size as u64 + OVERHEAD_BYTES);
    per_second * options.duration.as_secs() * 2 + SPARE_BYTES
}

/// Puts the network between the nodes.
fn connect(cluster: &mut Cluster) -> Result<Network, ChaosError> {
    let ids = cluster.ids();
    let address = |id: u32| -> Result<(u32, SocketAddr), ChaosError> {
        let address = cluster.peer_address(id).parse().map_err(io::Error::other)?;
        Ok((id, address))
    };
    let nodes = ids.iter().map(|id| address(*id)).collect::<Result<Vec<_>, _>>()?;
    let network = Network::start(&nodes, &free_ports(ids.len() * (ids.len() - 1))?)?;
    for from in &ids {
        for to in &ids {
            if let Some(address) = network.address(*from, *to) {
                cluster.route(*from, *to, address.to_string());
            }
        }
    }
    Ok(network)
}

/// Whether an error says that a node ended by itself.
pub fn says_died(error: &ChaosError) -> bool {
    matches!(error, ChaosError::Cluster(ClusterError::Died { .. }))
}
