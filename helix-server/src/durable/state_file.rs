//! The state file: every change is durable before the call that makes it returns.

use std::io;
use std::sync::Arc;

use helix_wal::disk::Disk;
use thiserror::Error;

use super::founded::{FoundedCluster, Founding};
use super::layout::STATE_FILE;
use super::recovering::{Finding, Recovering};
use super::start::{StartDecision, Surroundings, WrongNode, decide};
use super::state::{DecodeStateError, NodeState, WriteMode};
use crate::ids::GroupId;

const TEMPORARY_FILE: &str = "state.tmp";

/// Why the state could not be read or renewed at start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The disk failed.
    #[error("can't read the state file: {0}; check the disk and the permissions of the data directory")]
    Read(#[source] io::Error),
    /// The file makes no sense.
    #[error(
        "can't use the state file: {0}; if the file can't be restored, move the data directory away: \
         the node then starts with a blank disk, as a new replica"
    )]
    Decode(#[from] DecodeStateError),
    /// It is another node's.
    #[error(transparent)]
    WrongNode(#[from] WrongNode),
    /// The new state could not be stored.
    #[error(transparent)]
    Write(#[from] WriteStateError),
}

/// A state that could not be stored. The node must stop: what it does next may rest on it.
#[derive(Debug, Error)]
pub enum WriteStateError {
    /// The disk failed.
    #[error("can't write the state file: {0}; the node stops, check the disk")]
    Io(#[from] io::Error),
    /// The node has already marked its data as clean.
    #[error("the state file was closed by a clean stop")]
    Stopped,
    /// The node belongs to another cluster or has accepted another founding record.
    #[error("this disk is already bound to cluster {bound}, it can't join {asked}")]
    BoundElsewhere {
        /// The cluster that it belongs to.
        bound: crate::ids::ClusterId,
        /// The other one.
        asked: crate::ids::ClusterId,
    },
}

/// A sync that had to come first has failed, or the state could not be stored.
#[derive(Debug, Error)]
pub enum SyncedChangeError<E: std::error::Error + 'static> {
    /// The sync of the WAL failed; the state is unchanged.
    #[error("can't sync the log: {0}")]
    Sync(#[source] E),
    /// The state could not be stored.
    #[error(transparent)]
    Write(#[from] WriteStateError),
}

/// Reads the state, draws the conclusions of [`decide`] and stores the result, before anything else is written.
///
/// # Errors
/// When the state can't be read, belongs to another node, or can't be stored. The node must not start then.
pub fn start(disk: Arc<dyn Disk>, around: &Surroundings) -> Result<Starting, StartError> {
    let previous = read(&*disk).map_err(StartError::Read)?;
    let previous = previous.as_deref().map(NodeState::decode).transpose()?;
    let decision = decide(previous, around)?;
    write(&*disk, &decision.state).map_err(WriteStateError::Io)?;
    Ok(Starting { disk, decision })
}

/// A node that knows its state and must not write data yet: the mode in which it will do so is not settled.
#[must_use]
pub struct Starting {
    disk: Arc<dyn Disk>,
    decision: StartDecision,
}

impl Starting {
    /// What the start concluded.
    #[must_use]
    pub const fn decision(&self) -> &StartDecision {
        &self.decision
    }

    /// Settles the mode in which data is written from here on. If it is another one than before, the data that is
    /// there is synced first with `sync_wal`: the new mode's promises will be made for it too.
    ///
    /// # Errors
    /// When the sync fails, or the state can't be stored.
    pub fn begin_writing<E: std::error::Error + 'static>(
        self,
        mode: WriteMode,
        sync_wal: impl FnOnce() -> Result<(), E>,
    ) -> Result<StateFile, SyncedChangeError<E>> {
        let Self { disk, decision: StartDecision { mut state, .. } } = self;
        if state.written_in != mode {
            sync_wal().map_err(SyncedChangeError::Sync)?;
            state.written_in = mode;
            write(&*disk, &state).map_err(WriteStateError::Io)?;
        }
        Ok(StateFile { disk, state, stopped: false })
    }
}

/// The state of a running node. Has one owner; every method that changes it blocks for the disk.
pub struct StateFile {
    disk: Arc<dyn Disk>,
    state: NodeState,
    stopped: bool,
}

impl StateFile {
    /// The state as it is on disk.
    #[must_use]
    pub const fn state(&self) -> &NodeState {
        &self.state
    }

    /// Binds this disk to a founding record that not every node may have accepted yet.
    ///
    /// # Errors
    /// When it is bound to another one, or the state can't be stored.
    pub fn accept_founding(&mut self, record: &FoundedCluster) -> Result<(), WriteStateError> {
        self.bind(Founding::Accepted(record.clone()))
    }

    /// Every founding node has accepted the record: the node now belongs to the cluster.
    ///
    /// # Errors
    /// When it is bound to another one, or the state can't be stored.
    pub fn complete_founding(&mut self, record: &FoundedCluster) -> Result<(), WriteStateError> {
        self.bind(Founding::Founded(record.clone()))
    }

    fn bind(&mut self, founding: Founding) -> Result<(), WriteStateError> {
        self.change(|state| {
            if let (Some(bound), Some(asked)) = (state.founding.record(), founding.record())
                && bound != asked
            {
                let (bound, asked) = (bound.cluster, asked.cluster);
                return Err(WriteStateError::BoundElsewhere { bound, asked });
            }
            if state.founding.founded().is_none() {
                state.founding = founding;
            }
            Ok(())
        })
    }

    /// These groups have lost something.
    ///
    /// # Errors
    /// When the state can't be stored.
    pub fn mark_recovering(&mut self, groups: &[GroupId]) -> Result<(), WriteStateError> {
        self.change_recovering(|recovering| recovering.mark(groups.iter().copied()))
    }

    /// These groups are whole again, or have been created just now. Forgetting this in a crash does no harm, so
    /// many groups may be collected for one call.
    ///
    /// # Errors
    /// When the state can't be stored.
    pub fn mark_sound(&mut self, groups: &[GroupId]) -> Result<(), WriteStateError> {
        self.change_recovering(|recovering| recovering.mark_sound(groups.iter().copied()))
    }

    /// Takes findings into account, in their order, and then tells whoever waits for theirs to be durable.
    ///
    /// # Errors
    /// When the state can't be stored; nobody is told then.
    pub fn note(&mut self, findings: Vec<Finding>) -> Result<(), WriteStateError> {
        let mut waiting = Vec::new();
        let relaxed = findings.iter().any(|finding| matches!(finding, Finding::Relaxed { .. }));
        self.change(|state| {
            waiting = state.recovering.note(findings);
            if relaxed {
                state.written_in = WriteMode::ReplicationOnly;
            }
            Ok(())
        })?;
        waiting.into_iter().for_each(|recorded| recorded());
        Ok(())
    }

    fn change_recovering(&mut self, change: impl FnOnce(&mut Recovering)) -> Result<(), WriteStateError> {
        self.change(|state| {
            change(&mut state.recovering);
            Ok(())
        })
    }

    /// Sets the clean mark after `close_wal` has synced and closed the WAL. Nothing can be changed afterwards.
    ///
    /// # Errors
    /// When the WAL can't be synced (the mark is not set then), or the state can't be stored.
    pub fn stop_cleanly<E: std::error::Error + 'static>(
        &mut self,
        close_wal: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), SyncedChangeError<E>> {
        close_wal().map_err(SyncedChangeError::Sync)?;
        self.change(|state| {
            state.clean = true;
            Ok(())
        })?;
        self.stopped = true;
        Ok(())
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut NodeState) -> Result<(), WriteStateError>,
    ) -> Result<(), WriteStateError> {
        if self.stopped {
            return Err(WriteStateError::Stopped);
        }
        let mut state = self.state.clone();
        change(&mut state)?;
        if state != self.state {
            write(&*self.disk, &state)?;
            self.state = state;
        }
        Ok(())
    }
}

fn read(disk: &dyn Disk) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(STATE_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.len_bytes()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Replaces the file: a crash leaves the old one or the new one.
fn write(disk: &dyn Disk, state: &NodeState) -> io::Result<()> {
    let bytes = state.encode();
    // A crash may have left one; it was never renamed, so nothing rests on it.
    match disk.remove(TEMPORARY_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(TEMPORARY_FILE, bytes.len() as u64)?;
    file.write_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(TEMPORARY_FILE, STATE_FILE)?;
    disk.sync_dir()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};

    use helix_wal::disk::{Crash, FaultyDisk};

    use super::*;
    use crate::durable::state::BootId;
    use crate::durable::state::tests::example;
    use crate::ids::{ClusterId, Incarnation, NodeId, ReplicaId};

    fn around(boot: u8) -> Surroundings {
        Surroundings {
            node: NodeId(2),
            mode: WriteMode::ReplicationOnly,
            boot: Some(BootId([boot; 16])),
            page_cache_outlives_process: true,
            fresh_replica: ReplicaId(u64::from(boot)),
        }
    }

    fn start_on(disk: &FaultyDisk, boot: u8) -> Result<Starting, StartError> {
        start(Arc::new(disk.clone()), &around(boot))
    }

    fn no_sync_needed() -> Result<(), Infallible> {
        panic!("the mode does not change")
    }

    fn run(disk: &FaultyDisk, boot: u8) -> StateFile {
        start_on(disk, boot).unwrap().begin_writing(WriteMode::ReplicationOnly, no_sync_needed).unwrap()
    }

    fn record() -> FoundedCluster {
        example().founding.record().unwrap().clone()
    }

    /// Runs `scenario`, killing process or machine at each operation in turn, and hands every disk that is left to
    /// `check`, with whether the scenario had succeeded.
    fn crash_everywhere(
        prepare: impl Fn(&FaultyDisk),
        scenario: impl Fn(&FaultyDisk) -> bool,
        check: impl Fn(&FaultyDisk, bool),
    ) {
        for crash in [Crash::Process, Crash::Machine] {
            for seed in 0..20 {
                for operation in 0.. {
                    let disk = FaultyDisk::new(seed);
                    prepare(&disk);
                    disk.stop_after(operation);
                    let succeeded = scenario(&disk);
                    let reached = disk.is_stopped();
                    disk.crash(crash);
                    check(&disk, succeeded);
                    if !reached {
                        assert!(succeeded);
                        break;
                    }
                }
            }
        }
    }

    fn blank(_disk: &FaultyDisk) {}

    fn unclean(disk: &FaultyDisk) {
        drop(run(disk, 3));
    }

    fn power_loss(disk: &FaultyDisk) -> &FaultyDisk {
        disk.crash(Crash::Machine);
        disk
    }

    #[test]
    fn the_identity_and_the_incarnation_are_kept() {
        let disk = FaultyDisk::new(1);
        assert!(start_on(&disk, 3).unwrap().decision().blank);
        let again = start_on(power_loss(&disk), 3).unwrap();
        let state = &again.decision().state;
        assert_eq!((state.replica, state.incarnation), (ReplicaId(3), Incarnation(2)));
        assert_eq!(again.decision().suspect, None);
    }

    #[test]
    fn a_crash_during_the_first_start_leaves_a_blank_or_a_complete_disk() {
        crash_everywhere(
            blank,
            |disk| start_on(disk, 3).is_ok(),
            |disk, succeeded| {
                let after = start_on(disk, 4).unwrap();
                assert!(!succeeded || !after.decision().blank);
            },
        );
    }

    #[test]
    fn a_crash_at_any_point_of_a_start_never_forgets_that_the_node_is_recovering() {
        crash_everywhere(
            unclean,
            |disk| start_on(disk, 4).is_ok(),
            |disk, _| {
                // The process is started again in the same boot.
                let state = start_on(disk, 4).unwrap().decision().state.clone();
                assert!(state.recovering.contains(GroupId(1)));
                assert!(state.incarnation.get() >= 2);
            },
        );
    }

    #[test]
    fn incarnations_never_repeat_once_used() {
        crash_everywhere(
            unclean,
            |disk| start_on(disk, 3).is_ok(),
            |disk, succeeded| {
                let next = start_on(disk, 3).unwrap().decision().state.incarnation;
                assert!(next >= Incarnation(if succeeded { 3 } else { 2 }));
            },
        );
    }

    #[test]
    fn the_clean_mark_follows_the_sync_of_the_log() {
        let disk = FaultyDisk::new(1);
        let mut state = run(&disk, 3);
        let failed = state.stop_cleanly(|| Err(io::Error::other("log")));
        assert!(matches!(failed, Err(SyncedChangeError::Sync(_))));
        assert!(!state.state().clean);
        state.stop_cleanly(|| Ok::<_, Infallible>(())).unwrap();
        assert!(matches!(state.mark_recovering(&[GroupId(1)]), Err(WriteStateError::Stopped)));

        let started = start_on(power_loss(&disk), 4).unwrap();
        assert_eq!(started.decision().suspect, None);
        // The mark is gone while the node runs.
        assert!(start_on(&disk, 5).unwrap().decision().suspect.is_some());
    }

    #[test]
    fn a_change_of_mode_syncs_first() {
        let disk = FaultyDisk::new(1);
        drop(run(&disk, 3));
        let starting = start_on(&disk, 3).unwrap();
        let failed = starting.begin_writing(WriteMode::Fsync, || Err(io::Error::other("log")));
        assert!(matches!(failed, Err(SyncedChangeError::Sync(_))));
        // The data was written in the old mode, and a crash of the machine makes it suspect.
        assert!(start_on(&disk, 4).unwrap().decision().suspect.is_some());

        let state =
            start_on(&disk, 4).unwrap().begin_writing(WriteMode::Fsync, || Ok::<_, Infallible>(())).unwrap();
        assert_eq!(state.state().written_in, WriteMode::Fsync);
        assert_eq!(start_on(&disk, 5).unwrap().decision().suspect, None);
    }

    #[test]
    fn data_that_is_not_synced_makes_a_node_that_syncs_suspect() {
        let disk = FaultyDisk::new(1);
        let mut state =
            start_on(&disk, 3).unwrap().begin_writing(WriteMode::Fsync, || Ok::<_, Infallible>(())).unwrap();
        state.note(vec![Finding::Sound(GroupId(1))]).unwrap();
        assert_eq!(start_on(&disk, 4).unwrap().decision().suspect, None);
        let told = Arc::new(AtomicBool::new(false));
        let teller = Arc::clone(&told);
        let recorded = Box::new(move || teller.store(true, Ordering::Relaxed));
        state.note(vec![Finding::Relaxed { recorded }]).unwrap();
        assert!(told.load(Ordering::Relaxed), "only now may anything be acknowledged that is not synced");
        assert!(start_on(power_loss(&disk), 4).unwrap().decision().suspect.is_some());
    }

    #[test]
    fn a_disk_is_bound_to_one_record_for_good() {
        let disk = FaultyDisk::new(1);
        let mut state = run(&disk, 3);
        state.accept_founding(&record()).unwrap();
        let mut other = record();
        other.cluster = ClusterId::from_bytes([8; 16]);
        let error = state.accept_founding(&other).unwrap_err();
        assert!(matches!(error, WriteStateError::BoundElsewhere { .. }), "{error}");
        state.complete_founding(&record()).unwrap();
        // A late message changes nothing.
        state.accept_founding(&record()).unwrap();
        let state = start_on(power_loss(&disk), 3).unwrap().decision().state.clone();
        assert_eq!(state.founding, Founding::Founded(record()));
    }

    #[test]
    fn an_accepted_record_survives_every_crash() {
        crash_everywhere(
            |disk| drop(start_on(disk, 3).unwrap()),
            |disk| {
                let Ok(starting) = start_on(disk, 3) else { return false };
                let begun = starting.begin_writing(WriteMode::ReplicationOnly, no_sync_needed);
                begun.is_ok_and(|mut state| state.accept_founding(&record()).is_ok())
            },
            |disk, succeeded| {
                let state = start_on(disk, 3).unwrap().decision().state.clone();
                assert!(!succeeded || state.founding == Founding::Accepted(record()));
            },
        );
    }

    #[test]
    fn groups_are_marked_durably() {
        let disk = FaultyDisk::new(1);
        let mut state = run(&disk, 3);
        state.mark_recovering(&[GroupId(1), GroupId(2)]).unwrap();
        state.mark_sound(&[GroupId(1)]).unwrap();
        state.note(vec![Finding::Hosted([1, 2, 3].map(GroupId).into())]).unwrap();
        let state = start_on(power_loss(&disk), 3).unwrap().decision().state.clone();
        assert_eq!(state.recovering, Recovering::Groups([GroupId(2)].into()));
    }

    #[test]
    fn a_damaged_state_stops_the_node() {
        let disk = FaultyDisk::new(1);
        drop(run(&disk, 3));
        assert!(disk.flip_bit(STATE_FILE, 30, 1));
        let error = start_on(&disk, 3).err().unwrap().to_string();
        assert!(error.contains("damaged") && error.contains("move the data directory away"), "{error}");
    }
}
