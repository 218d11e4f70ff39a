//! Opening what the node keeps on disk, in the order that recovery rests on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use helix_raft::{GroupId, Index, ReplicaId};
use helix_wal::{DamageScope, RecoveredGroup, Wal, WalOptions};
use thiserror::Error;
use tracing::{info, warn};

use crate::config::{ServerConfig, WriteDurability};
use crate::durable::layout::{DataDir, OpenDataDirError};
use crate::durable::start::Surroundings;
use crate::durable::state::WriteMode;
use crate::durable::state_file::{self, StartError, StateFile, SyncedChangeError};
use crate::durable::vote_writer::VoteWriter;
use crate::durable::votes::{LoadedVotes, OpenVotesError, VoteStore};
use crate::env::Env;
use crate::ops::fatal::Fatal;
use crate::shard::Shards;

/// Why the node's data cannot be used. The node does not start then: nothing is ever kept in memory instead.
#[derive(Debug, Error)]
pub enum OpenStorageError {
    /// The directory itself.
    #[error(transparent)]
    Directory(#[from] OpenDataDirError),
    /// A file system call.
    #[error("can't open {what} in the data directory: {source}")]
    Io {
        /// What was to be opened.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state file.
    #[error(transparent)]
    State(#[from] StartError),
    /// The votes file.
    #[error(transparent)]
    Votes(#[from] OpenVotesError),
    /// The WAL.
    #[error("can't open the write-ahead log: {0}")]
    Wal(#[from] helix_wal::OpenError),
    /// The change of the durability mode.
    #[error(transparent)]
    Mode(#[from] SyncedChangeError<helix_wal::AppendError>),
}

/// Everything on disk, open.
pub(super) struct Storage {
    /// Holds the lock of the directory.
    pub(super) directory: DataDir,
    pub(super) state: StateFile,
    pub(super) wal: Wal,
    pub(super) recovered: HashMap<GroupId, RecoveredGroup>,
    /// Entries that are known to be damaged.
    pub(super) damaged: Vec<(GroupId, Index)>,
    /// Groups of whose log nothing can be made.
    pub(super) unusable: BTreeSet<GroupId>,
    pub(super) votes: Arc<VoteWriter>,
    pub(super) loaded_votes: Arc<LoadedVotes>,
}

/// Opens the data directory: first who this node is and what a crash may have taken, then votes and WAL.
pub(super) fn open(
    env: &Env,
    config: &ServerConfig,
    shards: &Shards,
    fatal: &Fatal,
) -> Result<Storage, OpenStorageError> {
    let io = |what| move |source| OpenStorageError::Io { what, source };
    let directory = env.outside().open_data_dir(&config.data_dir)?;
    let disk = directory.root();
    let mode = match config.write_durability {
        WriteDurability::ReplicationOnly => WriteMode::ReplicationOnly,
        WriteDurability::Fsync => WriteMode::Fsync,
    };
    let around = Surroundings {
        node: config.node_id,
        mode,
        boot: env.outside().boot(),
        page_cache_outlives_process: directory.page_cache_outlives_process(),
        fresh_replica: ReplicaId(env.random_u64().max(1)),
    };
    let starting = state_file::start(Arc::clone(disk), &around)?;
    let decision = starting.decision();
    info!(
        node = %decision.state.node,
        replica = %decision.state.replica,
        incarnation = decision.state.incarnation.get(),
        blank = decision.blank,
        "data directory {} opened", directory.path().display()
    );
    if let Some(reason) = decision.suspect {
        warn!(
            ?reason,
            "acknowledged records may be missing on this disk: its replicas are recovering and give no votes until their leaders have confirmed them"
        );
    }
    let writes_intact = decision.writes_intact;
    let (store, loaded_votes) = VoteStore::open(&**disk)?;
    if loaded_votes.torn_writes() > 0 || loaded_votes.lost_pairs() > 0 {
        warn!(
            torn = loaded_votes.torn_writes(),
            lost = loaded_votes.lost_pairs(),
            "parts of the votes file cannot be read: a torn write is normal after a crash, a lost pair is damage"
        );
    }
    let votes = env.start_votes(store).map_err(io("the votes file"))?;
    let options = wal_options(config, writes_intact, shards, fatal);
    let (wal, recovered) = env.open_wal(Arc::clone(directory.wal()), options)?;
    report_damage(&recovered);
    let doubtful: Vec<GroupId> = recovered.doubtful.iter().map(|group| GroupId(group.0)).collect();
    let (damaged, unusable) = (damaged_entries(&recovered), unusable(&recovered));
    let groups = recovered.groups.into_iter().map(|(group, found)| (GroupId(group.0), found)).collect();
    let mut state = starting.begin_writing(mode, || wal.sync_now())?;
    if !doubtful.is_empty() {
        state.mark_recovering(&doubtful).map_err(StartError::from)?;
    }
    let loaded_votes = Arc::new(loaded_votes);
    Ok(Storage { directory, state, wal, recovered: groups, damaged, unusable, votes, loaded_votes })
}

fn wal_options(config: &ServerConfig, writes_intact: bool, shards: &Shards, fatal: &Fatal) -> WalOptions {
    let (fatal, shards) = (fatal.clone(), shards.clone());
    WalOptions {
        segment_bytes: config.broker.wal_segment_bytes,
        background_sync_ms: config.broker.wal_background_sync_ms,
        background_sync_bytes: config.broker.wal_background_sync_bytes,
        page_cache_bytes: config.broker.wal_page_cache_bytes.unwrap_or_else(quarter_of_memory),
        reserve_bytes: config.broker.disk_reserve_bytes,
        trust_unsynced: writes_intact,
        on_fatal: Arc::new(move |error| fatal.report(error.to_string())),
        on_seal: Arc::new(move |sealed| {
            shards.sealed(sealed.groups.iter().map(|(group, _)| GroupId(group.0)));
        }),
        ..WalOptions::default()
    }
}

/// The rest is for what runs beside the log, and for what readers bring back from the disk.
fn quarter_of_memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram.saturating_mul(u64::from(system.mem_unit)) / 4
}

/// Says what is damaged.
fn report_damage(recovered: &helix_wal::Recovered) {
    if recovered.truncated_bytes > 0 {
        info!(bytes = recovered.truncated_bytes, "the unfinished end of the write-ahead log was cut off");
    }
    for damage in &recovered.damage {
        warn!(?damage, "damage in the write-ahead log: this range is not served from this disk");
    }
    if !recovered.doubtful.is_empty() {
        let groups = recovered.doubtful.len();
        warn!(
            groups,
            "it cannot be told whose records are damaged: replicas that may have lost the end of their log to it are recovering"
        );
    }
}

/// The entries that are known to be damaged.
fn damaged_entries(recovered: &helix_wal::Recovered) -> Vec<(GroupId, Index)> {
    let of_damage = recovered.damage.iter().flat_map(|damage| match &damage.scope {
        DamageScope::Entries(ranges) => &ranges[..],
        DamageScope::State(_) | DamageScope::Unknown { .. } => &[],
    });
    let ranges = of_damage.chain(&recovered.missing);
    ranges.map(|range| (GroupId(range.group.0), Index(range.first.0))).collect()
}

/// The groups of whose log nothing can be made: some entry contradicts the one before it, or the state with which the log begins is gone.
fn unusable(recovered: &helix_wal::Recovered) -> BTreeSet<GroupId> {
    let stateless = recovered
        .groups
        .iter()
        .filter(|(_, found)| found.bounds.start_index > helix_wal::Index(0) && found.checkpoint.is_none());
    let contradictory = recovered.contradictory.iter();
    contradictory.chain(stateless.map(|(group, _)| group)).map(|group| GroupId(group.0)).collect()
}
