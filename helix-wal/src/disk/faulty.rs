//! A disk in memory that does what real ones do on a bad day.
//!
//! It keeps, for each file, what programs see (the page cache) beside what would be left after a power loss (the durable
//! bytes). Everything is decided by the seed: the same calls give the same faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock};

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// What goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process: the page cache and all names stay.
    Process,
    /// The machine: each unsynced page is kept, lost or torn at a sector boundary, and each unsynced change of a name is
    /// kept or lost.
    Machine,
}

/// An in-memory [`Disk`]. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last directory sync, oldest first.
    pending_names: Vec<NameChange>,
    random: u64,
    /// Goes up at each crash; handles of before are dead.
    epoch: u64,
    capacity_bytes: u64,
    operations: u64,
    stop_after: Option<u64>,
    stopped: bool,
    fail_syncs: bool,
    fail_dir_syncs: bool,
    ignore_dir_syncs: bool,
    locked: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty_pages: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

impl FaultyDisk {
    /// An empty disk without faults and with no end of space.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                inodes: Vec::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                random: seed.wrapping_mul(2).wrapping_add(1),
                epoch: 0,
                capacity_bytes: u64::MAX,
                operations: 0,
                stop_after: None,
                stopped: false,
                fail_syncs: false,
                fail_dir_syncs: false,
                ignore_dir_syncs: false,
                locked: BTreeSet::new(),
            })),
        }
    }

    /// How many operations that change something (writes, syncs, names, sizes) were done so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets `count` more changing operations happen. A write that comes after is done in part, and from then on
    /// everything fails until [`FaultyDisk::crash`].
    pub fn stop_after(&self, count: u64) {
        let mut state = self.state.lock();
        state.stop_after = Some(state.operations + count);
    }

    /// Takes [`FaultyDisk::stop_after`] back, unless its limit has been hit.
    pub fn run_on(&self) {
        self.state.lock().stop_after = None;
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Whether the limit of [`FaultyDisk::stop_after`] has been hit.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// How many bytes all files together may have.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// From now on syncs of files fail with an input/output error; the dirty pages are forgotten as Linux does.
    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().fail_syncs = fail;
    }

    /// From now on syncs of the directory fail.
    pub fn fail_dir_syncs(&self, fail: bool) {
        self.state.lock().fail_dir_syncs = fail;
    }

    /// From now on syncs of the directory succeed and do nothing: a lying disk, to check that tests notice.
    pub fn ignore_dir_syncs(&self, ignore: bool) {
        self.state.lock().ignore_dir_syncs = ignore;
    }

    /// Everything that had the disk open is gone; what is left depends on `crash`. Faults end, the capacity stays.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state.lock();
        if crash == Crash::Machine {
            state.lose_unsynced();
        }
        state.epoch += 1;
        state.stop_after = None;
        state.stopped = false;
        state.fail_syncs = false;
        state.fail_dir_syncs = false;
        state.ignore_dir_syncs = false;
        state.locked.clear();
    }

    /// Flips one bit, in the page cache and on the disk alike. False if the file does not reach there.
    pub fn flip_bit(&self, name: &str, position: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(&inode) = state.names.get(name) else { return false };
        let Ok(at) = usize::try_from(position) else { return false };
        let mask = 1 << (bit % 8);
        let file = &mut state.inodes[inode];
        let Some(byte) = file.cached.get_mut(at) else { return false };
        *byte ^= mask;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= mask;
        }
        true
    }

    /// The bytes of a file as programs see them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(name).map(|&inode| state.inodes[inode].cached.clone())
    }

    /// A copy with the same files (all durable) and no faults.
    #[must_use]
    pub fn duplicate(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let state = self.state.lock();
            let mut other = copy.state.lock();
            for (name, &inode) in &state.names {
                let bytes = state.inodes[inode].cached.clone();
                let file = Inode { cached: bytes.clone(), durable: bytes, dirty_pages: BTreeSet::new() };
                let number = other.inodes.len();
                other.inodes.push(file);
                other.names.insert(name.clone(), number);
            }
            other.durable_names = other.names.clone();
        }
        copy
    }

    fn change<T>(
        &self,
        epoch: Option<u64>,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check(epoch)?;
        if state.stop_now() {
            return Err(stopped());
        }
        state.operations += 1;
        change(&mut state)
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let (inode, epoch) = self.change(None, |state| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.reserve(len)?;
            let inode = state.inodes.len();
            state.inodes.push(Inode::default());
            state.inodes[inode].resize(to_usize(len)?);
            state.names.insert(name.to_owned(), inode);
            state.pending_names.push(NameChange::Set(name.to_owned(), inode));
            Ok((inode, state.epoch))
        })?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), inode, epoch }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        state.check(None)?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), inode, epoch: state.epoch }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(None, |state| {
            let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), inode);
            state.pending_names.push(NameChange::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(None, |state| {
            state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            state.pending_names.push(NameChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.check(None)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(None, |state| {
            if state.fail_dir_syncs {
                return Err(io::Error::other("injected failure of a directory sync"));
            }
            if !state.ignore_dir_syncs {
                state.durable_names = state.names.clone();
                state.pending_names.clear();
            }
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().capacity_bytes)
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        let mut state = self.state.lock();
        state.check(None)?;
        if !state.locked.insert(name.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(FaultyLock { disk: self.clone(), name: name.to_owned(), epoch: state.epoch }))
    }
}

struct FaultyLock {
    disk: FaultyDisk,
    name: String,
    epoch: u64,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.epoch == self.epoch {
            state.locked.remove(&self.name);
        }
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
    epoch: u64,
}

impl DiskFile for FaultyFile {
    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(Some(self.epoch))?;
        let mut bytes = slices.iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
        let stop = state.stop_now();
        if stop {
            // A process killed within a write leaves the beginning of it.
            let keep = state.below(bytes.len() as u64 + 1);
            bytes.truncate(to_usize(keep)?);
        }
        state.operations += 1;
        let at = to_usize(position)?;
        let end = at + bytes.len();
        let grows = end.saturating_sub(state.inodes[self.inode].cached.len());
        state.reserve(grows as u64)?;
        let file = &mut state.inodes[self.inode];
        if end > file.cached.len() {
            file.cached.resize(end, 0);
        }
        file.cached[at..end].copy_from_slice(&bytes);
        file.touch(at, end);
        if stop { Err(stopped()) } else { Ok(()) }
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        state.check(Some(self.epoch))?;
        let file = &state.inodes[self.inode].cached;
        let at = to_usize(position)?.min(file.len());
        let count = buffer.len().min(file.len() - at);
        buffer[..count].copy_from_slice(&file[at..at + count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change(Some(self.epoch), |state| {
            let fail = state.fail_syncs;
            let file = &mut state.inodes[self.inode];
            if fail {
                file.dirty_pages.clear();
                return Err(io::Error::other("injected failure of a sync"));
            }
            file.sync();
            Ok(())
        })
    }

    fn start_writeback(&self, _position: u64, _len: u64) -> io::Result<()> {
        self.disk.state.lock().check(Some(self.epoch))
    }

    fn drop_cached(&self) -> io::Result<()> {
        self.disk.state.lock().check(Some(self.epoch))
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.check(Some(self.epoch))?;
        Ok(state.inodes[self.inode].cached.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change(Some(self.epoch), |state| {
            let now = state.inodes[self.inode].cached.len() as u64;
            state.reserve(len.saturating_sub(now))?;
            state.inodes[self.inode].resize(to_usize(len)?);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let now = self.len_bytes()?;
        if len > now { self.set_len(len) } else { Ok(()) }
    }
}

impl Inode {
    /// Only what is dirty is written: a page whose sync failed is not, and stays as it was on the disk.
    fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for page in std::mem::take(&mut self.dirty_pages) {
            let from = (page * PAGE_BYTES).min(self.cached.len());
            let to = (from + PAGE_BYTES).min(self.cached.len());
            self.durable[from..to].copy_from_slice(&self.cached[from..to]);
        }
    }

    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.dirty_pages.extend(from / PAGE_BYTES..=(to - 1) / PAGE_BYTES);
        }
    }

    fn resize(&mut self, len: usize) {
        let before = self.cached.len();
        self.cached.resize(len, 0);
        self.touch(before.min(len), before.max(len));
    }
}

impl State {
    fn check(&self, epoch: Option<u64>) -> io::Result<()> {
        if self.stopped || epoch.is_some_and(|epoch| epoch != self.epoch) { Err(stopped()) } else { Ok(()) }
    }

    fn stop_now(&mut self) -> bool {
        if self.stop_after.is_some_and(|limit| self.operations >= limit) {
            self.stopped = true;
        }
        self.stopped
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|&inode| self.inodes[inode].cached.len() as u64).sum()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        if bytes > 0 && self.used_bytes().saturating_add(bytes) > self.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// A number below `bound` (splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn lose_unsynced(&mut self) {
        for change in std::mem::take(&mut self.pending_names) {
            if self.below(2) == 0 {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        for number in 0..self.inodes.len() {
            let mut file = std::mem::take(&mut self.inodes[number]);
            self.lose_pages(&mut file);
            self.inodes[number] = file;
        }
    }

    fn lose_pages(&mut self, file: &mut Inode) {
        if file.durable.len() != file.cached.len() && self.below(2) == 0 {
            file.durable.resize(file.cached.len(), 0);
        }
        for page in std::mem::take(&mut file.dirty_pages) {
            let from = page * PAGE_BYTES;
            let to = (from + PAGE_BYTES).min(file.durable.len()).min(file.cached.len());
            if from >= to {
                continue;
            }
            let kept_sectors = match self.below(3) {
                0 => 0..0,
                1 => 0..PAGE_BYTES / SECTOR_BYTES,
                _ => {
                    let cut = to_usize_saturating(self.below((PAGE_BYTES / SECTOR_BYTES) as u64 + 1));
                    if self.below(2) == 0 { 0..cut } else { cut..PAGE_BYTES / SECTOR_BYTES }
                }
            };
            let kept_from = (from + kept_sectors.start * SECTOR_BYTES).min(to);
            let kept_to = (from + kept_sectors.end * SECTOR_BYTES).min(to);
            file.durable[kept_from..kept_to].copy_from_slice(&file.cached[kept_from..kept_to]);
        }
        file.cached.clone_from(&file.durable);
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, inode) => {
                names.insert(name, inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the simulated machine is down")
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn to_usize_saturating(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_crash_keeps_everything_and_kills_the_handles() {
        let disk = FaultyDisk::new(1);
        let file = disk.create("a", 100).unwrap();
        file.write_at(b"hello", 10).unwrap();
        disk.crash(Crash::Process);
        assert!(file.write_at(b"x", 0).is_err());
        let mut back = [0; 5];
        disk.open("a").unwrap().read_at(&mut back, 10).unwrap();
        assert_eq!(&back, b"hello");
    }

    #[test]
    fn a_machine_crash_keeps_what_was_synced() {
        let mut lost_a_name = false;
        let mut lost_a_page = false;
        for seed in 0..40 {
            let disk = FaultyDisk::new(seed);
            let file = disk.create("a", 0).unwrap();
            file.write_at(&[1; 9000], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(&[2; 4096], 4096).unwrap();
            disk.create("b", 10).unwrap();
            disk.crash(Crash::Machine);
            let bytes = disk.contents("a").unwrap();
            assert_eq!(bytes[..4096], [1; 4096]);
            assert_eq!(bytes[8192..], [1; 808]);
            assert!(bytes[4096..8192].chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
            lost_a_page |= bytes[4096..8192] == [1; 4096];
            lost_a_name |= disk.contents("b").is_none();
        }
        assert!(lost_a_name && lost_a_page);
    }

    #[test]
    fn it_stops_after_the_given_operation_and_tears_the_write() {
        let disk = FaultyDisk::new(3);
        let file = disk.create("a", 10).unwrap();
        disk.stop_after(1);
        file.write_at(b"one", 0).unwrap();
        assert!(file.write_at(b"two", 3).is_err());
        assert!(disk.is_stopped());
        assert!(disk.list().is_err());
        disk.crash(Crash::Process);
        let bytes = disk.contents("a").unwrap();
        assert_eq!(&bytes[..3], b"one");
        assert!(b"two".starts_with(bytes[3..6].split(|byte| *byte == 0).next().unwrap()));
    }

    #[test]
    fn it_runs_full_and_fails_syncs_on_request() {
        let disk = FaultyDisk::new(4);
        disk.set_capacity_bytes(100);
        let file = disk.create("a", 60).unwrap();
        assert!(super::super::is_out_of_space(&disk.create("b", 60).err().unwrap()));
        assert_eq!(disk.free_bytes().unwrap(), 40);
        assert_eq!(disk.total_bytes().unwrap(), 100);
        disk.fail_syncs(true);
        assert!(file.sync_data().is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_crash() {
        let run = |seed| {
            let disk = FaultyDisk::new(seed);
            let file = disk.create("a", 40_000).unwrap();
            disk.sync_dir().unwrap();
            file.sync_data().unwrap();
            file.write_at(&[7; 40_000], 0).unwrap();
            disk.crash(Crash::Machine);
            disk.contents("a").unwrap()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}
