//! Everything outside the node that it depends on: clocks, entropy, disks, the network, threads. One value, [`Env`], is handed
//! to whoever needs any of it; nobody else asks the system.
//!
//! [`Env::real`] is what runs in production: `real` asks the operating system, blocking work and the writers of WAL and votes
//! run on threads. A simulator passes its own [`Outside`] and a [`Stepper`]: then everything is a task of the one thread that
//! polls it, and all that happens is decided by the simulator. So that it can repeat what happened, nothing in the node may
//! depend on the order of a hash map, on chance other than `Env::random_u64`, or on time other than tokio's (which can be
//! paused) and `Env::unix_ms`; `select!` is `biased`, and [`watch`] stands in for tokio's, which wakes in random order.

mod doors;
mod observe;
mod real;
mod stepped;
mod transport;
pub mod watch;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle as ThreadHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use helix_raft::GroupId;
use helix_wal::disk::Disk;
use helix_wal::{OpenError, Recovered, Wal, WalOptions};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument;
use uuid::Uuid;

use crate::config::{HostPort, ServerConfig};
use crate::durable::layout::{DataDir, OpenDataDirError};
use crate::durable::state::BootId;
use crate::durable::vote_writer::VoteWriter;
use crate::durable::votes::VoteStore;
use crate::ids::ClusterId;

pub use doors::{Doors, OpenDoorsError};
pub use observe::{Event, Observer};
pub use real::RealOutside;
pub use transport::{PeerConnection, PeerListener, PeerStream, tcp_listener};

/// The outside world as one node sees it.
pub trait Outside: Send + Sync + 'static {
    /// Milliseconds since 1970, by a clock that may jump.
    fn unix_ms(&self) -> i64;

    /// 64 random bits.
    fn random_u64(&self) -> u64;

    /// This boot of the machine, if it can be told.
    fn boot(&self) -> Option<BootId>;

    /// Opens and locks the data directory.
    ///
    /// # Errors
    /// When it can't be used.
    fn open_data_dir(&self, path: &Path) -> Result<DataDir, OpenDataDirError>;

    /// Listens for other nodes.
    ///
    /// # Errors
    /// When the address is taken or does not exist.
    fn listen_for_peers(&self, address: &HostPort) -> io::Result<Box<dyn PeerListener>>;

    /// Connects to another node's listener.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>>;

    /// Opens the places where clients and operators come in.
    fn open_doors<'a>(
        &'a self,
        config: &'a ServerConfig,
    ) -> BoxFuture<'a, Result<Box<dyn Doors>, OpenDoorsError>>;
}

/// What a node does beside its tasks: on threads in production, as tasks of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Writing to the WAL.
    WalWrite,
    /// Syncing the WAL.
    WalSync,
    /// Preparing and sealing segments of the WAL.
    WalHousekeeping,
    /// Storing terms and votes.
    Votes,
    /// Anything else that waits for the disk.
    Blocking,
}

/// Owns and paces everything that a simulated node runs.
pub trait Stepper: Send + Sync + 'static {
    /// A task of the node: it has to end when the node's process does.
    fn adopt(&self, task: AbortHandle);

    /// How long to wait before the next step of such work.
    fn pause_before(&self, work: Work) -> Duration;
}

/// A handle to the outside world, for one node.
#[derive(Clone)]
pub struct Env {
    outside: Arc<dyn Outside>,
    stepper: Option<Arc<dyn Stepper>>,
    observer: Option<Arc<dyn Observer>>,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("simulated", &self.stepper.is_some()).finish_non_exhaustive()
    }
}

impl Env {
    /// The operating system.
    #[must_use]
    pub fn real() -> Self {
        Self { outside: Arc::new(RealOutside), stepper: None, observer: None }
    }

    /// A simulated world.
    #[must_use]
    pub fn simulated(
        outside: Arc<dyn Outside>,
        stepper: Arc<dyn Stepper>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { outside, stepper: Some(stepper), observer: Some(observer) }
    }

    pub(crate) fn outside(&self) -> &dyn Outside {
        &*self.outside
    }

    /// Milliseconds since 1970.
    pub(crate) fn unix_ms(&self) -> i64 {
        self.outside.unix_ms()
    }

    /// 64 random bits.
    pub(crate) fn random_u64(&self) -> u64 {
        self.outside.random_u64()
    }

    /// A random UUID (version 4).
    pub(crate) fn random_uuid(&self) -> Uuid {
        let (high, low) = (u128::from(self.random_u64()), u128::from(self.random_u64()));
        uuid::Builder::from_random_bytes((high << 64 | low).to_be_bytes()).into_uuid()
    }

    /// A random identity for a new cluster.
    pub(crate) fn random_cluster_id(&self) -> ClusterId {
        ClusterId::random(|| self.random_uuid())
    }

    /// Shows something to whoever looks on.
    pub(crate) fn show(&self, group: GroupId, event: &Event<'_>) {
        if let Some(observer) = &self.observer {
            observer.observe(group, event);
        }
    }

    /// Whether somebody looks on.
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Runs a task on the current runtime.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), task)
    }

    /// Runs a task on the given runtime.
    pub(crate) fn spawn_on<F>(&self, runtime: &Handle, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let Some(stepper) = &self.stepper else { return runtime.spawn(task) };
        // The span says whose task it is: there, the nodes share one thread.
        let handle = runtime.spawn(task.in_current_span());
        stepper.adopt(handle.abort_handle());
        handle
    }

    /// Runs work that waits for the disk where it holds nobody up.
    pub(crate) fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.stepper {
            None => tokio::task::spawn_blocking(work),
            Some(stepper) => {
                let pause = stepper.pause_before(Work::Blocking);
                self.spawn(async move {
                    tokio::time::sleep(pause).await;
                    work()
                })
            }
        }
    }

    /// Runs a task with a thread to itself, so that nothing on the other threads delays it.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub(crate) fn run_apart(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Apart> {
        if self.stepper.is_some() {
            return Ok(Apart::Task(self.spawn(task)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(task))?;
        Ok(Apart::Thread(thread))
    }

    /// Opens a WAL and starts what writes it.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) fn open_wal(
        &self,
        disk: Arc<dyn Disk>,
        options: WalOptions,
    ) -> Result<(Wal, Recovered), OpenError> {
        match &self.stepper {
            None => Wal::open(disk, options),
            Some(stepper) => stepped::open_wal(self, stepper, disk, options),
        }
    }

    /// Starts what writes terms and votes.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub(crate) fn start_votes(&self, store: VoteStore) -> io::Result<Arc<VoteWriter>> {
        match &self.stepper {
            None => VoteWriter::start(store).map(Arc::new),
            Some(stepper) => Ok(stepped::start_votes(self, stepper, store)),
        }
    }
}

/// What [`Env::run_apart`] started.
pub(crate) enum Apart {
    Thread(ThreadHandle<()>),
    Task(JoinHandle<()>),
}

impl Apart {
    /// Waits for its end, which must be near: the caller's thread is blocked. Whether it ended well.
    pub(crate) async fn join(self) -> bool {
        match self {
            Self::Thread(thread) => thread.join().is_ok(),
            Self::Task(task) => task.await.is_ok(),
        }
    }
}
