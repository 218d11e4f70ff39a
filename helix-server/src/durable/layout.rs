//! The data directory: the names in it, its lock, and what kind of file system it lies on.
//!
//! ```text
//! DIR/lock    held by the running node
//! DIR/state   who the node is, how it stopped, what is suspect
//! DIR/votes   term and vote of every group
//! DIR/wal/    the segments of the log
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helix_wal::disk::{Disk, DiskLock, RealDisk};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use super::state::BootId;

/// Name of the state file.
pub const STATE_FILE: &str = "state";
/// Name of the term and vote file.
pub const VOTES_FILE: &str = "votes";
/// Name of the directory of the WAL.
pub const WAL_DIRECTORY: &str = "wal";
const LOCK_FILE: &str = "lock";

/// A data directory that this process has to itself until the value is dropped.
pub struct DataDir {
    path: PathBuf,
    root: Arc<dyn Disk>,
    wal: Arc<dyn Disk>,
    page_cache_outlives_process: bool,
    /// Held while the value lives.
    _lock: DiskLock,
}

/// A data directory that can't be used. The node does not start then.
#[derive(Debug, Error)]
pub enum OpenDataDirError {
    /// Some step failed.
    #[error("can't {action} {path}: {source}; check --data-dir and its permissions")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another process{}: \
         stop that one, or give this node its own --data-dir",
        .owner.map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id that the owner left, if it can be read.
        owner: Option<u32>,
    },
    /// There is data, but nothing says whose.
    #[error(
        "the data directory {path} holds {found} but no state file, so it can't be told whose data it is: \
         put the state file back, or move the directory away to start with a blank disk"
    )]
    StateMissing {
        /// The directory.
        path: PathBuf,
        /// What there is.
        found: &'static str,
    },
}

impl DataDir {
    /// Opens the data directory, creates what is missing, and locks it.
    ///
    /// # Errors
    /// When it can't be created, written or locked, or when data lies there without a state file.
    pub fn open(path: &Path) -> Result<Self, OpenDataDirError> {
        let wal = path.join(WAL_DIRECTORY);
        create_directories(&wal)?;
        let lock = Box::new(lock(path)?);
        for created in [path, &wal] {
            sync_directory(created)?;
        }
        let outlives = file_system_type(path).is_ok_and(|magic| LOCAL_FILE_SYSTEMS.contains(&magic));
        let root = RealDisk::new(path).map_err(io_error("open the directory", path))?;
        let wal = RealDisk::new(&wal).map_err(io_error("open the directory", &wal))?;
        Self::on_disks(path, Arc::new(root), Arc::new(wal), outlives, lock)
    }

    /// A data directory whose parts lie on these disks. `lock` is held until the value is dropped.
    ///
    /// # Errors
    /// When data lies there without a state file, or the disks can't be read.
    pub fn on_disks(
        path: &Path,
        root: Arc<dyn Disk>,
        wal: Arc<dyn Disk>,
        page_cache_outlives_process: bool,
        lock: DiskLock,
    ) -> Result<Self, OpenDataDirError> {
        let directory = Self { path: path.to_owned(), root, wal, page_cache_outlives_process, _lock: lock };
        directory.check_state_is_there()?;
        Ok(directory)
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself: state and votes lie here.
    #[must_use]
    pub const fn root(&self) -> &Arc<dyn Disk> {
        &self.root
    }

    /// The directory of the WAL.
    #[must_use]
    pub const fn wal(&self) -> &Arc<dyn Disk> {
        &self.wal
    }

    /// Whether what a process wrote here is certainly still readable after that process was killed.
    ///
    /// True for local file systems that are known. A network file system, one in user space, or an unknown one may
    /// lose its cache without a reboot.
    #[must_use]
    pub const fn page_cache_outlives_process(&self) -> bool {
        self.page_cache_outlives_process
    }

    fn check_state_is_there(&self) -> Result<(), OpenDataDirError> {
        let names = self.root.list().map_err(io_error("list", &self.path))?;
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        if has(STATE_FILE) {
            return Ok(());
        }
        let segments = self.wal.list().map_err(io_error("list the log in", &self.path))?;
        let found = if has(VOTES_FILE) {
            "votes"
        } else if !segments.is_empty() {
            "a log"
        } else {
            return Ok(());
        };
        Err(OpenDataDirError::StateMissing { path: self.path.clone(), found })
    }
}

/// This boot of the machine, if the system tells.
#[must_use]
pub fn current_boot() -> Option<BootId> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = uuid::Uuid::try_parse(text.trim()).ok()?;
    (!id.is_nil()).then(|| BootId(*id.as_bytes()))
}

/// Magic numbers (`statfs(2)`) of file systems that write to a local device, or to memory that lives as long as the
/// boot: ext2/3/4, xfs, btrfs, f2fs, zfs, bcachefs, jfs, overlayfs (its layers are local), tmpfs.
const LOCAL_FILE_SYSTEMS: [u64; 9] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0xCA45_1A4E,
    0x3153_464A,
    0x794C_7630,
    0x0102_1994,
];

#[cfg(target_os = "linux")]
fn file_system_type(path: &Path) -> io::Result<u64> {
    // The type of the field differs between architectures; only 32 bits of it carry the number.
    Ok(rustix::fs::statfs(path)?.f_type as u64 & 0xFFFF_FFFF)
}

#[cfg(not(target_os = "linux"))]
fn file_system_type(_path: &Path) -> io::Result<u64> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenDataDirError + 'a {
    move |source| OpenDataDirError::Io { action, path: path.to_owned(), source }
}

/// Creates a directory and those above it, and makes the new names durable.
fn create_directories(path: &Path) -> Result<(), OpenDataDirError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
    for part in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o750).create(part) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("create the directory", part)(error)),
        }
        let parent = part.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), OpenDataDirError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error("sync the directory", path))
}

fn lock(directory: &Path) -> Result<File, OpenDataDirError> {
    let path = directory.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("create", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            // What the owner left is a hint for the reader of the message, nothing more.
            let _ = file.take(16).read_to_string(&mut owner);
            let owner = owner.trim().parse().ok();
            return Err(OpenDataDirError::InUse { path: directory.to_owned(), owner });
        }
        Err(error) => return Err(io_error("lock", &path)(error.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("write to", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_blank_directory_is_made_and_locked() {
        let parent = tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert!(path.join(WAL_DIRECTORY).is_dir());
        let error = DataDir::open(&path).err().unwrap().to_string();
        assert!(error.contains("in use by another process") && error.contains("--data-dir"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn data_without_a_state_file_is_refused() {
        let parent = tempdir().unwrap();
        drop(DataDir::open(parent.path()).unwrap());
        fs::write(parent.path().join("wal/segment"), b"x").unwrap();
        let error = DataDir::open(parent.path()).err().unwrap().to_string();
        assert!(error.contains("holds a log but no state file"), "{error}");
        fs::write(parent.path().join(STATE_FILE), b"x").unwrap();
        DataDir::open(parent.path()).unwrap();
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused() {
        let parent = tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, b"x").unwrap();
        let error = DataDir::open(&path).err().unwrap().to_string();
        assert!(error.contains("file") && error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn the_boot_is_the_same_as_long_as_the_machine_runs() {
        assert_eq!(current_boot(), current_boot());
    }
}
