//! One machine of a simulation with the node that runs on it: disks, clock, entropy, the doors that clients come through, and the
//! life and death of the process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use helix_server::broker::Broker;
use helix_server::config::{HostPort, ServerConfig};
use helix_server::durable::layout::{DataDir, OpenDataDirError, STATE_FILE};
use helix_server::durable::state::{BootId, NodeState};
use helix_server::env::{
    Doors, Env, OpenDoorsError, Outside, PeerListener, PeerStream, Stepper, Work, watch,
};
use helix_server::node::{self, NodeError};
use helix_server::ops::http::HttpState;
use helix_wal::disk::{Crash, Disk, FaultyDisk};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tracing::Instrument;

use super::clients::call::Door;
use super::network::{Network, Place};
use super::witness::{Witness, WitnessOf};

/// At the end of what is written, so much may not be known to be synced: what was written while one sync went on, which is slow at times.
/// No frame among it says that the sync was done.
const UNCERTAIN_BYTES: usize = 512 << 10;
/// 2027, or near it.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// What lasts as long as the machine: the node that runs on it sees it through [`Env`].
struct Hardware {
    place: Place,
    network: Network,
    random: Mutex<SmallRng>,
    begun: Instant,
    /// How far the clock is off, in ms.
    clock_off_ms: AtomicI64,
    boot: Mutex<BootId>,
    root: FaultyDisk,
    wal: FaultyDisk,
    /// Where clients come in, while they can.
    broker: Door,
}

impl Outside for Hardware {
    fn unix_ms(&self) -> i64 {
        let passed = self.begun.elapsed().as_millis() as i64;
        EPOCH_MS + passed + self.clock_off_ms.load(Ordering::Relaxed)
    }

    fn random_u64(&self) -> u64 {
        self.random.lock().next_u64()
    }

    fn boot(&self) -> Option<BootId> {
        Some(*self.boot.lock())
    }

    fn open_data_dir(&self, path: &Path) -> Result<DataDir, OpenDataDirError> {
        let failed = |source| OpenDataDirError::Io { action: "lock", path: path.to_owned(), source };
        let lock = self.root.lock("lock").map_err(failed)?;
        DataDir::on_disks(path, Arc::new(self.root.clone()), Arc::new(self.wal.clone()), true, lock)
    }

    fn listen_for_peers(&self, _address: &HostPort) -> io::Result<Box<dyn PeerListener>> {
        self.network.listen(self.place)
    }

    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
        Box::pin(self.network.dial(self.place, address))
    }

    fn open_doors<'a>(
        &'a self,
        _config: &'a ServerConfig,
    ) -> BoxFuture<'a, Result<Box<dyn Doors>, OpenDoorsError>> {
        let doors: Box<dyn Doors> = Box::new(SimDoors { broker: self.broker.clone() });
        Box::pin(std::future::ready(Ok(doors)))
    }
}

struct SimDoors {
    broker: Door,
}

impl Doors for SimDoors {
    fn kafka_port(&self) -> io::Result<u16> {
        Ok(9092)
    }

    fn serve_http(&mut self, state: HttpState, mut stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _told_or_gone = stop.wait_for(|stop| *stop).await;
            drop(state);
        })
    }

    fn serve_kafka(
        &mut self,
        broker: Arc<Broker>,
        mut stop: watch::Receiver<bool>,
    ) -> BoxFuture<'static, ()> {
        let door = self.broker.clone();
        Box::pin(async move {
            door.send_replace(Some(broker));
            let _told_or_gone = stop.wait_for(|stop| *stop).await;
            door.send_replace(None);
        })
    }
}

/// The tasks of one process, and the pace of what it does with its disk.
struct Process {
    tasks: Mutex<Vec<AbortHandle>>,
    random: Mutex<SmallRng>,
    slow_disk_ms: Arc<AtomicU64>,
    steps: Arc<AtomicU64>,
}

impl Stepper for Process {
    fn adopt(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        if tasks.len() >= 256 && tasks.len().is_power_of_two() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }

    fn pause_before(&self, work: Work) -> Duration {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let mut random = self.random.lock();
        let usual_ms = match work {
            Work::WalWrite | Work::Blocking => random.random_range(0..12_u64).saturating_sub(9),
            Work::WalSync | Work::Votes => random.random_range(0..8_u64).saturating_sub(3),
            Work::WalHousekeeping => random.random_range(0..5),
        };
        let slow_ms = self.slow_disk_ms.load(Ordering::Relaxed);
        let more_ms = if slow_ms == 0 { 0 } else { random.random_range(0..=slow_ms) };
        Duration::from_millis(usual_ms + more_ms)
    }
}

/// A process that runs.
struct Running {
    process: Arc<Process>,
    stop: watch::Sender<bool>,
    main: JoinHandle<Result<(), NodeError>>,
    expects_end: bool,
}

/// How a process ended by itself.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As it was told to.
    Cleanly,
    /// With an error.
    Failed(NodeError),
}

/// A machine and the node on it.
pub(crate) struct Machine {
    hardware: Arc<Hardware>,
    config: ServerConfig,
    witness: Arc<Witness>,
    running: Option<Running>,
    slow_disk_ms: Arc<AtomicU64>,
    steps: Arc<AtomicU64>,
    starts: u64,
    seed: u64,
    bad_disk: bool,
}

impl Machine {
    pub(crate) fn new(seed: u64, network: Network, config: ServerConfig, witness: Arc<Witness>) -> Self {
        let place = place_of(&config);
        let mut random = SmallRng::seed_from_u64(seed);
        let boot = BootId(random.random());
        let [root, wal] = [random.random(), random.random()].map(FaultyDisk::new);
        let hardware = Hardware {
            place,
            network,
            begun: Instant::now(),
            clock_off_ms: AtomicI64::new(0),
            boot: Mutex::new(boot),
            root,
            wal,
            broker: Door::new(None),
            random: Mutex::new(random),
        };
        Self {
            hardware: Arc::new(hardware),
            config,
            witness,
            running: None,
            slow_disk_ms: Arc::default(),
            steps: Arc::default(),
            starts: 0,
            seed,
            bad_disk: false,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.hardware.place
    }

    pub(crate) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Steps of work with the disk so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed) + self.hardware.wal.operations() + self.hardware.root.operations()
    }

    /// Where clients find the node while it serves.
    pub(crate) fn door(&self) -> Door {
        self.hardware.broker.clone()
    }

    /// What the state file says, if there is a readable one.
    pub(crate) fn state(&self) -> Option<NodeState> {
        NodeState::decode(&self.hardware.root.contents(STATE_FILE)?).ok()
    }

    fn disks(&self) -> [&FaultyDisk; 2] {
        [&self.hardware.wal, &self.hardware.root]
    }

    /// Whether its disk gave the process that runs a reason to give up.
    pub(crate) fn has_bad_disk(&self) -> bool {
        self.bad_disk
    }

    fn note_bad_disk(&mut self) {
        self.bad_disk = true;
        self.witness.let_fail(self.place());
    }

    /// Only so many bytes are left for the log.
    pub(crate) fn fill_disk(&mut self, left_bytes: u64) {
        self.note_bad_disk();
        let wal = &self.hardware.wal;
        wal.set_capacity_bytes(wal.used_bytes() + left_bytes);
    }

    /// Syncs fail: those of the log, and if need be those of the other files too.
    pub(crate) fn fail_syncs(&mut self, everywhere: bool) {
        self.note_bad_disk();
        self.hardware.wal.fail_syncs(true);
        self.hardware.root.fail_syncs(everywhere);
    }

    /// The disk of the log, or that of the other files, stops within one of its next operations, until the process is killed.
    pub(crate) fn tear_a_write(&mut self, of_the_log: bool, after: u64) {
        self.note_bad_disk();
        let disk = if of_the_log { &self.hardware.wal } else { &self.hardware.root };
        disk.stop_after(after);
    }

    /// Flips bits in an old file of the log, or, where everything is synced at once, in an old part of a newer one. Whether there was one.
    pub(crate) fn damage_log(&self, random: &mut SmallRng, synced: bool) -> bool {
        let wal = &self.hardware.wal;
        let Ok(mut names) = wal.list() else { return false };
        // A segment that is only prepared begins with zeros.
        let begun =
            |name: &str| wal.contents(name).is_some_and(|bytes| bytes.first().is_some_and(|byte| *byte != 0));
        names.retain(|name| name.ends_with(".wal") && begun(name));
        names.sort();
        let old = names.len().saturating_sub(2);
        if !synced {
            names.truncate(old);
        }
        if names.is_empty() {
            return false;
        }
        let chosen = random.random_range(0..names.len());
        let name = &names[chosen];
        let Some(bytes) = wal.contents(name) else { return false };
        let length = if chosen < old {
            bytes.len()
        } else {
            // What is not synced yet, or not known to be, is at the end of the newest ones: there, damage looks like a write that never came
            // to its end.
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            written.saturating_sub(UNCERTAIN_BYTES)
        };
        if length == 0 {
            return false;
        }
        let length = length as u64;
        let from = random.random_range(0..length.max(1));
        for _ in 0..random.random_range(1..4) {
            wal.flip_bit(name, from + random.random_range(0..64), random.random());
        }
        self.witness.disk_damaged(self.place());
        true
    }

    /// Ends all of that, but for a disk that has stopped.
    pub(crate) fn mend_disks(&self) {
        for disk in self.disks() {
            disk.fail_syncs(false);
            disk.set_capacity_bytes(u64::MAX);
            disk.run_on();
        }
    }

    /// Whether it takes a restart to use its disks again.
    pub(crate) fn is_stuck(&self) -> bool {
        self.disks().iter().any(|disk| disk.is_stopped())
    }

    pub(crate) fn set_slow_disk(&self, longest_ms: u64) {
        self.slow_disk_ms.store(longest_ms, Ordering::Relaxed);
    }

    pub(crate) fn turn_clock(&self, by_ms: i64) {
        self.hardware.clock_off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Starts the process, if it does not run.
    pub(crate) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        self.starts += 1;
        let process = Arc::new(Process {
            tasks: Mutex::default(),
            random: Mutex::new(SmallRng::seed_from_u64(self.seed ^ self.starts << 32)),
            slow_disk_ms: Arc::clone(&self.slow_disk_ms),
            steps: Arc::clone(&self.steps),
        });
        let (stop, stopped) = watch::channel(false);
        let observer = Arc::new(WitnessOf::new(Arc::clone(&self.witness), self.place()));
        let stepper: Arc<dyn Stepper> = Arc::clone(&process) as Arc<dyn Stepper>;
        let outside: Arc<dyn Outside> = Arc::clone(&self.hardware) as Arc<dyn Outside>;
        let env = Env::simulated(outside, stepper, observer);
        let span = tracing::info_span!("node", id = self.place() + 1);
        let main = tokio::spawn(node::run(env, self.config.clone(), stopped).instrument(span));
        self.running = Some(Running { process, stop, main, expects_end: false });
    }

    /// Asks the process to stop; it hands leadership over and ends by itself.
    pub(crate) fn ask_to_stop(&mut self) {
        if let Some(running) = &mut self.running {
            running.stop.send_replace(true);
            running.expects_end = true;
        }
    }

    /// kill -9: what it had written stays, in the page cache.
    pub(crate) fn kill_process(&mut self) {
        self.end(Crash::Process);
        self.hardware.network.process_gone(self.place());
    }

    /// The machine loses its power, and what was not synced.
    pub(crate) fn lose_power(&mut self) {
        // First, for nobody tells the other side that a connection is gone.
        self.hardware.network.machine_gone(self.place());
        self.end(Crash::Machine);
        let boot = BootId(self.hardware.random.lock().random());
        *self.hardware.boot.lock() = boot;
    }

    /// The machine is on again; its process can be started.
    pub(crate) fn power_up(&self) {
        self.hardware.network.machine_back(self.place());
    }

    /// The process ends and the disk is replaced by a blank one.
    pub(crate) fn lose_disk(&mut self) {
        self.kill_process();
        for disk in self.disks() {
            let names = disk.list().expect("nobody has stopped this disk");
            for name in names {
                disk.remove(&name).expect("it was listed");
            }
            disk.sync_dir().expect("nobody lets it fail");
        }
        self.witness.disk_lost(self.place());
    }

    fn end(&mut self, crash: Crash) {
        if let Some(running) = self.running.take() {
            running.main.abort();
            for task in running.process.tasks.lock().drain(..) {
                task.abort();
            }
        }
        self.hardware.broker.send_replace(None);
        self.witness.crashed(self.place(), crash);
        self.hardware.root.crash(crash);
        self.hardware.wal.crash(crash);
    }

    /// Notices that the process has ended by itself.
    pub(crate) async fn reap(&mut self) -> Option<Ended> {
        if !self.running.as_ref().is_some_and(|running| running.main.is_finished()) {
            return None;
        }
        let running = self.running.as_mut()?;
        let outcome = (&mut running.main).await;
        let expected = running.expects_end;
        self.kill_process();
        match outcome {
            Ok(Ok(())) if expected => Some(Ended::Cleanly),
            Ok(Ok(())) => panic!("node {} ended although nobody asked it to", self.place() + 1),
            Ok(Err(error)) => Some(Ended::Failed(error)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl Drop for Machine {
    /// The door leads to the broker, and the broker to all of this.
    fn drop(&mut self) {
        self.hardware.broker.send_replace(None);
    }
}

/// The place of the node with this configuration: its number, from 0.
fn place_of(config: &ServerConfig) -> Place {
    Place::try_from(config.node_id.get() - 1).expect("nodes are numbered from 1")
}
