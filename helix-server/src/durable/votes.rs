//! Term and vote of every group, in a file of their own.
//!
//! A vote must be durable before its answer leaves the node, in every write mode, and an election of thousands of
//! groups must not wait for thousands of syncs, nor for the data that streams into the WAL. So this file is small
//! and preallocated, all that is queued is written as one batch, and a batch costs one sync.

use helix_raft::planted;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use helix_raft::HardState;
use helix_wal::disk::{Disk, DiskFile};
use thiserror::Error;

use super::layout::VOTES_FILE;
use super::vote_slot::{
    BLOCK_BYTES, Half, HeaderError, PAGE_BYTES, PAIRS_PER_BLOCK, PairContent, SLOT_BYTES, SlotValue, Torn,
    check_header, decode_slot, encode_header, encode_slot, join, slot_position,
};
use crate::ids::GroupId;

const TEMPORARY_FILE: &str = "votes.tmp";

/// The file grows by at least this many blocks: 256 KiB, room for 256 groups.
const BLOCKS_PER_GROWTH: u32 = 32;

/// A term and vote file that can't be used. The node must not start.
#[derive(Debug, Error)]
pub enum OpenVotesError {
    /// The disk failed.
    #[error("can't {action} the file of terms and votes: {source}; check the disk and the data directory")]
    Io {
        /// What was tried.
        action: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("can't use the file of terms and votes: {0}")]
    Header(#[from] HeaderError),
}

/// A vote that could not be stored. The node must stop: what is on disk is unknown from here on, and a sync that
/// failed must not be tried again.
#[derive(Clone, Debug, Error)]
#[error("can't store a vote: {0}; the node stops, check the disk")]
pub struct VoteError(Arc<io::Error>);

impl VoteError {
    pub(super) fn new(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

/// What one replica is known to have promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteFound {
    /// This, and no more.
    Promised(HardState),
    /// Nothing: it has never stored a term.
    Nothing,
    /// It can't be told: what it stored may be among what was lost. The replica must not act under its old id.
    Unknown,
}

/// What the file held when it was opened.
#[derive(Debug, Default)]
pub struct LoadedVotes {
    states: HashMap<GroupId, HardState>,
    lost_pairs: u32,
    torn_writes: u32,
}

impl LoadedVotes {
    /// What the replica of this group has promised.
    #[must_use]
    pub fn of(&self, group: GroupId) -> VoteFound {
        match self.states.get(&group) {
            Some(state) => VoteFound::Promised(*state),
            // Whose pair was lost can't be told, so it may be that of any group that is missing.
            None if self.lost_pairs > 0 => VoteFound::Unknown,
            None => VoteFound::Nothing,
        }
    }

    /// Every group of which something is stored.
    #[must_use]
    pub const fn states(&self) -> &HashMap<GroupId, HardState> {
        &self.states
    }

    /// How many groups' terms and votes can't be read.
    #[must_use]
    pub const fn lost_pairs(&self) -> u32 {
        self.lost_pairs
    }

    /// How many writes a crash has torn before they were acknowledged.
    #[must_use]
    pub const fn torn_writes(&self) -> u32 {
        self.torn_writes
    }
}

/// A change to be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteChange {
    /// The group's replica now promises this.
    Persist(GroupId, HardState),
    /// The group is gone from this node; its place may be used again.
    Remove(GroupId),
}

impl VoteChange {
    const fn group(self) -> GroupId {
        match self {
            Self::Persist(group, _) | Self::Remove(group) => group,
        }
    }
}

/// Where a group's value lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    pair: u32,
    /// Of the newest value there, durable or being written.
    sequence: u64,
}

/// The file. Has one owner, blocks for the disk, and can be driven without any thread.
pub struct VoteStore {
    file: Arc<dyn DiskFile>,
    places: HashMap<GroupId, Place>,
    /// Pairs that hold nothing.
    free: Vec<Place>,
    /// The pairs that the file has room for.
    pairs: u32,
    failed: Option<VoteError>,
}

impl VoteStore {
    /// Opens the file, or creates it in a blank data directory, and reads what every group has promised.
    ///
    /// # Errors
    /// When it can't be read, written or understood.
    pub fn open(disk: &dyn Disk) -> Result<(Self, LoadedVotes), OpenVotesError> {
        let file = match disk.open(VOTES_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(disk).map_err(|source| OpenVotesError::Io { action: "create", source })?
            }
            Err(source) => return Err(OpenVotesError::Io { action: "open", source }),
        };
        let read_error = |source| OpenVotesError::Io { action: "read", source };
        let write_error = |source| OpenVotesError::Io { action: "write", source };
        let length = file.len_bytes().map_err(read_error)?;
        let mut header = vec![0; PAGE_BYTES as usize];
        read_exact(&*file, &mut header, 0).map_err(read_error)?;
        check_header(&header)?;
        // A crash while the file grew may have left a part of a block: nothing was stored there.
        let blocks = (length.saturating_sub(PAGE_BYTES) / BLOCK_BYTES) as u32;
        let pairs = blocks * PAIRS_PER_BLOCK;
        let mut store = Self { file, places: HashMap::new(), free: Vec::new(), pairs, failed: None };
        let mut loaded = LoadedVotes::default();
        let mut block_bytes = vec![0; BLOCK_BYTES as usize];
        for block in 0..blocks {
            let position = PAGE_BYTES + u64::from(block) * BLOCK_BYTES;
            read_exact(&*store.file, &mut block_bytes, position).map_err(read_error)?;
            store.load_block(block, &block_bytes, &mut loaded);
            // The last process may have ended because a sync had failed: then what its cache still shows is not on the disk, and no
            // later sync would put it there unless it is written again.
            store.file.write_at(&block_bytes, position).map_err(write_error)?;
        }
        store.file.sync_data().map_err(write_error)?;
        // Low pairs first, so that the file stays dense.
        store.free.reverse();
        Ok((store, loaded))
    }

    fn load_block(&mut self, block: u32, bytes: &[u8], loaded: &mut LoadedVotes) {
        let (slots, _) = bytes.as_chunks::<SLOT_BYTES>();
        let (firsts, seconds) = slots.split_at(PAIRS_PER_BLOCK as usize);
        for (pair, (first, second)) in (block * PAIRS_PER_BLOCK..).zip(firsts.iter().zip(seconds)) {
            match join(decode_slot(first, pair, Half::First), decode_slot(second, pair, Half::Second)) {
                PairContent::Empty => self.free.push(Place { pair, sequence: 0 }),
                // Not used again: the operator may want to look at it.
                PairContent::Lost => loaded.lost_pairs += 1,
                PairContent::Value(value, torn) => {
                    loaded.torn_writes += u32::from(torn == Torn::Yes);
                    self.load_value(pair, &value, loaded);
                }
            }
        }
    }

    fn load_value(&mut self, pair: u32, value: &SlotValue, loaded: &mut LoadedVotes) {
        let place = Place { pair, sequence: value.sequence };
        let Some(state) = value.state else {
            self.free.push(place);
            return;
        };
        // A group never has two pairs; if damage made it so, the higher promise binds.
        let known = loaded.states.entry(value.group).or_insert(state);
        if state.covers(known) {
            *known = state;
            self.places.insert(value.group, place);
        }
    }

    /// Makes these changes durable with one sync. Of several changes to one group the last one is stored.
    ///
    /// # Errors
    /// When the disk fails; every later call fails too.
    pub fn persist(&mut self, changes: &[VoteChange]) -> Result<(), VoteError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.try_persist(changes).map_err(|error| {
            let error = VoteError::new(error);
            self.failed = Some(error.clone());
            error
        })
    }

    fn try_persist(&mut self, changes: &[VoteChange]) -> io::Result<()> {
        // A pair must not be written twice before a sync: both of its slots could be torn then.
        let last: BTreeMap<GroupId, VoteChange> =
            changes.iter().map(|change| (change.group(), *change)).collect();
        let fresh = last
            .values()
            .filter(|change| {
                matches!(change, VoteChange::Persist(..)) && !self.places.contains_key(&change.group())
            })
            .count();
        if self.free.len() < fresh {
            self.grow(fresh - self.free.len())?;
        }
        let mut writes = Vec::with_capacity(last.len());
        let mut freed = Vec::new();
        for (group, change) in last {
            let (mut place, state) = match change {
                VoteChange::Persist(_, state) => (self.place_of(group)?, Some(state)),
                VoteChange::Remove(_) => match self.places.remove(&group) {
                    Some(place) => (place, None),
                    None => continue,
                },
            };
            place.sequence += 1;
            let value = SlotValue { sequence: place.sequence, group, state };
            let position = slot_position(place.pair, Half::of(place.sequence));
            writes.push((position, encode_slot(&value, place.pair)));
            if state.is_some() {
                self.places.insert(group, place);
            } else {
                freed.push(place);
            }
        }
        self.write(writes)?;
        self.free.extend(freed);
        Ok(())
    }

    fn place_of(&mut self, group: GroupId) -> io::Result<Place> {
        if let Some(place) = self.places.get(&group) {
            return Ok(*place);
        }
        self.free.pop().ok_or_else(|| io::Error::other("the file has no free place although it has grown"))
    }

    /// Writes in order of position, neighbours together, and syncs.
    fn write(&self, mut writes: Vec<(u64, [u8; SLOT_BYTES])>) -> io::Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        writes.sort_unstable_by_key(|(position, _)| *position);
        let mut run: Vec<u8> = Vec::new();
        let mut run_position = 0;
        for (position, slot) in &writes {
            if !run.is_empty() && run_position + run.len() as u64 != *position {
                self.file.write_at(&run, run_position)?;
                run.clear();
            }
            if run.is_empty() {
                run_position = *position;
            }
            run.extend_from_slice(slot);
        }
        self.file.write_at(&run, run_position)?;
        if planted("vote-not-synced") {
            return Ok(());
        }
        self.file.sync_data()
    }

    /// Makes room. The new blocks are written, not only reserved, so that storing a vote later changes no metadata
    /// of the file system.
    fn grow(&mut self, missing_pairs: usize) -> io::Result<()> {
        let blocks =
            u32::try_from(missing_pairs.div_ceil(PAIRS_PER_BLOCK as usize)).map_err(io::Error::other)?;
        let blocks = blocks.max(BLOCKS_PER_GROWTH);
        let position = PAGE_BYTES + u64::from(self.pairs / PAIRS_PER_BLOCK) * BLOCK_BYTES;
        self.file.write_at(&vec![0; blocks as usize * BLOCK_BYTES as usize], position)?;
        self.file.sync_data()?;
        let before = self.pairs;
        self.pairs += blocks * PAIRS_PER_BLOCK;
        self.free.extend((before..self.pairs).rev().map(|pair| Place { pair, sequence: 0 }));
        Ok(())
    }
}

fn read_exact(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<()> {
    let read = file.read_at(buffer, position)?;
    if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Creates the file under another name first: a crash leaves none, or one with a whole header.
fn create(disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(TEMPORARY_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bytes = PAGE_BYTES + u64::from(BLOCKS_PER_GROWTH) * BLOCK_BYTES;
    let file = disk.create(TEMPORARY_FILE, bytes)?;
    let mut contents = encode_header();
    contents.resize(bytes as usize, 0);
    file.write_at(&contents, 0)?;
    file.sync_data()?;
    disk.rename(TEMPORARY_FILE, VOTES_FILE)?;
    disk.sync_dir()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use proptest::{collection, prop_oneof, strategy::Just, strategy::Strategy};

    use helix_wal::disk::{Crash, FaultyDisk};

    use super::*;
    use crate::ids::{ReplicaId, Term};

    fn after_power_loss(disk: &FaultyDisk) -> (VoteStore, LoadedVotes) {
        disk.crash(Crash::Machine);
        open(disk)
    }

    fn state(term: u64) -> HardState {
        HardState { term: Term(term), vote: Some(ReplicaId(term * 10)) }
    }

    fn persist(group: u64, term: u64) -> VoteChange {
        VoteChange::Persist(GroupId(group), state(term))
    }

    fn open(disk: &FaultyDisk) -> (VoteStore, LoadedVotes) {
        VoteStore::open(disk).unwrap()
    }

    #[test]
    fn what_is_persisted_is_found_again() {
        let disk = FaultyDisk::new(1);
        let (mut store, loaded) = open(&disk);
        assert!(loaded.states().is_empty());
        store.persist(&[persist(1, 1), persist(2, 5), persist(1, 2)]).unwrap();
        store.persist(&[persist(1, 3)]).unwrap();
        let (_, loaded) = after_power_loss(&disk);
        assert_eq!(loaded.of(GroupId(1)), VoteFound::Promised(state(3)));
        assert_eq!(loaded.of(GroupId(2)), VoteFound::Promised(state(5)));
        assert_eq!(loaded.of(GroupId(3)), VoteFound::Nothing);
        assert_eq!((loaded.lost_pairs(), loaded.torn_writes()), (0, 0));
    }

    #[test]
    fn thousands_of_groups_fit_and_places_are_used_again() {
        let disk = FaultyDisk::new(1);
        let (mut store, _) = open(&disk);
        let all: Vec<_> = (0..3000).map(|group| persist(group, group + 1)).collect();
        store.persist(&all).unwrap();
        let pairs = store.pairs;
        assert!(pairs >= 3000);

        let removed: Vec<_> = (0..2999).map(|group| VoteChange::Remove(GroupId(group))).collect();
        store.persist(&removed).unwrap();
        let (mut store, loaded) = after_power_loss(&disk);
        assert_eq!(loaded.states().len(), 1);
        let others: Vec<_> = (5000..7999).map(|group| persist(group, 9)).collect();
        store.persist(&others).unwrap();
        assert_eq!(store.pairs, pairs);
        let (_, loaded) = after_power_loss(&disk);
        assert_eq!(loaded.states().len(), 3000);
        assert_eq!(loaded.of(GroupId(2999)), VoteFound::Promised(state(3000)));
        assert_eq!(loaded.of(GroupId(0)), VoteFound::Nothing);
    }

    #[test]
    fn a_batch_costs_one_sync_and_few_writes() {
        let disk = FaultyDisk::new(1);
        let (mut store, _) = open(&disk);
        let batch: Vec<_> = (0..64).map(|group| persist(group, 1)).collect();
        let before = disk.operations();
        store.persist(&batch).unwrap();
        // One write for each of the eight blocks, and one sync.
        assert_eq!(disk.operations() - before, 9);
    }

    #[test]
    fn after_a_failure_nothing_is_stored_any_more() {
        let disk = FaultyDisk::new(1);
        let (mut store, _) = open(&disk);
        disk.fail_syncs(true);
        assert!(store.persist(&[persist(1, 1)]).is_err());
        disk.fail_syncs(false);
        let error = store.persist(&[persist(1, 2)]).unwrap_err().to_string();
        assert!(error.contains("the node stops"), "{error}");
    }

    #[test]
    fn an_unreadable_pair_makes_every_missing_group_unknown() {
        let disk = FaultyDisk::new(1);
        let (mut store, _) = open(&disk);
        store.persist(&[persist(1, 1)]).unwrap();
        store.persist(&[persist(1, 2)]).unwrap();
        store.persist(&[persist(2, 7)]).unwrap();
        assert!(disk.flip_bit(VOTES_FILE, slot_position(0, Half::First) + 9, 0));
        let (_, loaded) = open(&disk);
        assert_eq!(loaded.of(GroupId(1)), VoteFound::Promised(state(2)));
        assert_eq!(loaded.torn_writes(), 1);
        assert!(disk.flip_bit(VOTES_FILE, slot_position(0, Half::Second) + 9, 0));
        let (mut store, loaded) = open(&disk);
        assert_eq!(loaded.lost_pairs(), 1);
        assert_eq!(loaded.of(GroupId(1)), VoteFound::Unknown);
        assert_eq!(loaded.of(GroupId(2)), VoteFound::Promised(state(7)));
        store.persist(&[persist(3, 1)]).unwrap();
        assert_eq!(open(&disk).1.lost_pairs(), 1);
    }

    fn changes() -> impl Strategy<Value = VoteChange> {
        prop_oneof![
            4 => (0_u64..12, 1_u64..50).prop_map(|(group, term)| persist(group, term)),
            1 => (0_u64..12).prop_map(|group| VoteChange::Remove(GroupId(group))),
        ]
    }

    proptest! {
        /// Whatever the crash, every group is found as of its last completed batch, or as of the batch that was
        /// being written.
        #[test]
        fn a_completed_batch_is_never_lost(
            batches in collection::vec(collection::vec(changes(), 1..6), 1..12),
            stops_after in 0_u64..40,
            seed in any::<u64>(),
            crash in prop_oneof![Just(Crash::Process), Just(Crash::Machine)],
            removed_first in any::<bool>(),
        ) {
            let disk = FaultyDisk::new(seed);
            let (mut store, _) = open(&disk);
            if removed_first {
                store.persist(&[persist(0, 1), persist(1, 1)]).unwrap();
                store.persist(&[VoteChange::Remove(GroupId(0)), VoteChange::Remove(GroupId(1))]).unwrap();
            }
            disk.stop_after(stops_after);
            let apply = |model: &mut HashMap<GroupId, HardState>, batch: &[VoteChange]| {
                for change in batch {
                    match *change {
                        VoteChange::Persist(group, state) => { model.insert(group, state); }
                        VoteChange::Remove(group) => { model.remove(&group); }
                    }
                }
            };
            let mut completed = HashMap::new();
            let mut attempted = HashMap::new();
            for batch in &batches {
                apply(&mut attempted, batch);
                if store.persist(batch).is_err() {
                    break;
                }
                completed = attempted.clone();
            }
            disk.crash(crash);
            let (_, loaded) = open(&disk);
            prop_assert_eq!(loaded.lost_pairs(), 0);
            for group in (0..12).map(GroupId) {
                let found = loaded.states().get(&group);
                assert!(
                    found == completed.get(&group) || found == attempted.get(&group),
                    "{group}: found {found:?}, completed {:?}", completed.get(&group)
                );
            }
        }
    }
}
