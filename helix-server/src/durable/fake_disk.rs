//! A disk in memory for the tests of this module: it loses what was not synced and dies at a chosen operation.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use helix_wal::disk::{Disk, DiskFile, DiskLock};
use parking_lot::Mutex;

/// What of a file's unsynced writes a crash leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// None of them.
    LoseUnsynced,
    /// All of them.
    KeepUnsynced,
    /// Half of the last one, all of the others.
    TearLast,
}

#[derive(Clone, Default)]
struct FileContents {
    synced: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(u64, Vec<u8>)>,
}

impl FileContents {
    fn apply(bytes: &mut Vec<u8>, position: u64, written: &[u8]) {
        let (start, end) = (position as usize, position as usize + written.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(written);
    }

    fn visible(&self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (position, written) in &self.pending {
            Self::apply(&mut bytes, *position, written);
        }
        bytes
    }

    fn after(&self, crash: Crash) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let last = self.pending.len().wrapping_sub(1);
        for (number, (position, written)) in self.pending.iter().enumerate() {
            match crash {
                Crash::LoseUnsynced => {}
                Crash::TearLast if number == last => {
                    Self::apply(&mut bytes, *position, &written[..written.len() / 2]);
                }
                Crash::KeepUnsynced | Crash::TearLast => Self::apply(&mut bytes, *position, written),
            }
        }
        bytes
    }
}

#[derive(Default)]
struct Inner {
    files: Vec<FileContents>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    operations: u64,
    dies_at: Option<u64>,
}

/// The disk.
#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<Inner>>);

impl FakeDisk {
    /// Every operation from number `operation` on (counted from now, 0 is the next) fails without effect.
    pub(super) fn die_at(&self, operation: u64) {
        let mut inner = self.0.lock();
        inner.dies_at = Some(inner.operations + operation);
    }

    /// Whether the chosen operation was reached.
    pub(super) fn is_dead(&self) -> bool {
        let inner = self.0.lock();
        inner.dies_at.is_some_and(|at| inner.operations > at)
    }

    /// The disk as found after a power loss.
    pub(super) fn after(&self, crash: Crash) -> Self {
        let inner = self.0.lock();
        let names = match crash {
            Crash::KeepUnsynced => inner.names.clone(),
            Crash::LoseUnsynced | Crash::TearLast => inner.synced_names.clone(),
        };
        let files =
            inner.files.iter().map(|file| FileContents { synced: file.after(crash), pending: vec![] });
        let files = files.collect();
        let inner = Inner { files, synced_names: names.clone(), names, operations: 0, dies_at: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Changes the synced bytes of a file, as a failing medium would.
    pub(super) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.lock();
        let file = inner.names[name];
        change(&mut inner.files[file].synced);
    }

    fn operate<T>(&self, operation: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.0.lock();
        let number = inner.operations;
        inner.operations += 1;
        if inner.dies_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("the disk is gone"));
        }
        operation(&mut inner)
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for FakeDisk {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.operate(|inner| {
            if inner.names.contains_key(name) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            let file = inner.files.len();
            inner.files.push(FileContents { synced: vec![0; len as usize], pending: vec![] });
            inner.names.insert(name.to_owned(), file);
            Ok(Arc::new(FakeFile { disk: self.clone(), file }) as Arc<dyn DiskFile>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.operate(|inner| {
            let file = *inner.names.get(name).ok_or_else(not_found)?;
            Ok(Arc::new(FakeFile { disk: self.clone(), file }) as Arc<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate(|inner| {
            let file = inner.names.remove(from).ok_or_else(not_found)?;
            inner.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(|inner| inner.names.remove(name).map(|_| ()).ok_or_else(not_found))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.operate(|inner| Ok(inner.names.keys().cloned().collect()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.operate(|inner| {
            inner.synced_names = inner.names.clone();
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self, _name: &str) -> io::Result<DiskLock> {
        Ok(Box::new(()))
    }
}

struct FakeFile {
    disk: FakeDisk,
    file: usize,
}

impl DiskFile for FakeFile {
    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<()> {
        self.disk.operate(|inner| {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            inner.files[self.file].pending.push((position, bytes));
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.operate(|inner| {
            let contents = inner.files[self.file].visible();
            let found = contents.get(position as usize..).unwrap_or_default();
            let count = found.len().min(buffer.len());
            buffer[..count].copy_from_slice(&found[..count]);
            Ok(count)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operate(|inner| {
            let file = &mut inner.files[self.file];
            file.synced = file.visible();
            file.pending.clear();
            Ok(())
        })
    }

    fn start_writeback(&self, _position: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.disk.operate(|inner| Ok(inner.files[self.file].visible().len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate(|inner| {
            inner.files[self.file].synced.resize(len as usize, 0);
            Ok(())
        })
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
