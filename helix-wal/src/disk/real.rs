//! The real file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, FallocateFlags, FlockOperation};

use super::{Disk, DiskFile, DiskLock};

/// One call of `pwritev` takes this many slices at most.
const SLICES_PER_CALL: usize = 1024;

/// A directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    directory: File,
}

impl RealDisk {
    /// Uses `root`, which is made if it is not there. The new names are durable when this returns.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref().to_path_buf();
        std::fs::create_dir_all(&root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        let directory = File::open(&root)?;
        Ok(Self { root, directory })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let file = RealFile::new(file);
        if let Err(error) = file.allocate(len) {
            // Half-made files would only take up the space that is missing.
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.root.join(name))?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let numbers = rustix::fs::fstatvfs(&self.directory)?;
        Ok(numbers.f_bavail.saturating_mul(numbers.f_frsize))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let numbers = rustix::fs::fstatvfs(&self.directory)?;
        Ok(numbers.f_blocks.saturating_mul(numbers.f_frsize))
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join(name))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut position = position;
        for part in slices.chunks(SLICES_PER_CALL) {
            position = self.write_part(part, position)?;
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], position + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_new(&self, len: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let from = position + buffer.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut buffer), from) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The memory can be larger than asked for.
        buffer.truncate(len);
        Ok(buffer)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_writeback(&self, position: u64, len: u64) -> io::Result<()> {
        start_writeback(&self.file, position, len)
    }

    fn will_read(&self, position: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, position, NonZeroU64::new(len), Advice::WillNeed)?)
    }

    fn drop_cached(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let now = self.file.metadata()?.len();
                if now < len { self.file.set_len(len) } else { Ok(()) }
            }
            other => Ok(other?),
        }
    }
}

impl RealFile {
    /// The log is shared by all partitions, and whoever reads one of them has no use for what lies in between: the system reads no
    /// more than it is asked for. Measured: a third of what it read was for nobody.
    fn new(file: File) -> Self {
        // Only a hint.
        if let Err(error) = rustix::fs::fadvise(&file, 0, None, Advice::Random) {
            tracing::debug!(%error, "asking not to read ahead");
        }
        Self { file }
    }

    /// Writes at most [`SLICES_PER_CALL`] slices and returns the position after them.
    fn write_part(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<u64> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        while written < total {
            let outcome = if written == 0 {
                rustix::io::pwritev(&self.file, slices, position)
            } else {
                // A short write is rare (a signal, a full disk); the rest goes slice by slice.
                self.write_rest(slices, written, position)
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(position + total as u64)
    }

    fn write_rest(
        &self,
        slices: &[io::IoSlice<'_>],
        written: usize,
        position: u64,
    ) -> Result<usize, rustix::io::Errno> {
        let mut skip = written;
        for slice in slices {
            if skip < slice.len() {
                return rustix::io::pwrite(&self.file, &slice[skip..], position + written as u64);
            }
            skip -= slice.len();
        }
        Ok(0)
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // Neither std nor rustix has this call.
fn start_writeback(file: &File, position: u64, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let signed = |number: u64| i64::try_from(number).map_err(|_| io::ErrorKind::InvalidInput);
    // SAFETY: the descriptor belongs to `file`, which outlives the call; no memory is passed.
    let outcome = unsafe {
        libc::sync_file_range(file.as_raw_fd(), signed(position)?, signed(len)?, libc::SYNC_FILE_RANGE_WRITE)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(_file: &File, _position: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectored_writes_of_many_slices_arrive_whole() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path().join("log")).unwrap();
        let file = disk.create("a", 1 << 16).unwrap();
        assert_eq!(file.len_bytes().unwrap(), 1 << 16);
        let pieces: Vec<[u8; 3]> = (0..3000_u32).map(|n| [n as u8, (n >> 8) as u8, 7]).collect();
        let slices: Vec<_> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
        file.write_vectored_at(&slices, 5).unwrap();
        let mut back = vec![0; 9000];
        assert_eq!(file.read_at(&mut back, 5).unwrap(), 9000);
        assert_eq!(back, pieces.concat());
        file.start_writeback(0, 4096).unwrap();
        file.sync_data().unwrap();
        assert!(disk.free_bytes().unwrap() > 0);
        assert!(disk.total_bytes().unwrap() >= disk.free_bytes().unwrap());
    }

    #[test]
    fn a_name_is_taken_once_and_a_lock_is_held_once() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path()).unwrap();
        disk.create("a", 0).unwrap();
        assert_eq!(disk.create("a", 0).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        let lock = disk.lock("lock").unwrap();
        assert_eq!(disk.lock("lock").err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        disk.lock("lock").unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["b", "lock"]);
        disk.remove("b").unwrap();
        assert!(disk.open("b").is_err());
    }

    fn file() -> (tempfile::TempDir, RealFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        (directory, RealFile { file })
    }

    #[test]
    fn what_a_short_write_left_is_written_from_where_it_ended() {
        let slices = [io::IoSlice::new(b"abc"), io::IoSlice::new(b"defg"), io::IoSlice::new(b"hi")];
        for (written, now) in [(1, "bc"), (3, "defg"), (5, "fg"), (7, "hi"), (8, "i"), (9, "")] {
            let (_directory, file) = file();
            let count = file.write_rest(&slices, written, 10).unwrap();
            assert_eq!(count, now.len(), "after {written}");
            let mut back = vec![0; 100];
            let len = file.read_at(&mut back, 0).unwrap();
            assert_eq!(len, if now.is_empty() { 0 } else { 10 + written + count });
            assert!(back[..len].ends_with(now.as_bytes()), "after {written}: {back:?}");
        }
    }

    #[test]
    fn a_read_ends_with_the_file_or_the_buffer() {
        let (_directory, file) = file();
        file.write_at(b"0123456789", 0).unwrap();
        let mut buffer = [0; 4];
        assert_eq!((file.read_at(&mut buffer, 8).unwrap(), &buffer[..2]), (2, &b"89"[..]));
        assert_eq!((file.read_at(&mut buffer, 3).unwrap(), &buffer), (4, b"3456"));
        assert_eq!(file.read_at(&mut buffer, 10).unwrap(), 0);
        file.will_read(0, 10).unwrap();
        assert_eq!(file.read_new(4, 8).unwrap(), b"89");
        assert_eq!(file.read_new(4, 3).unwrap(), b"3456");
        assert_eq!((file.read_new(4, 10).unwrap(), file.read_new(0, 3).unwrap()), (vec![], vec![]));
        let (directory, _) = self::file();
        let directory = RealFile { file: File::open(directory.path()).unwrap() };
        assert!(directory.read_at(&mut buffer, 0).is_err(), "a directory cannot be read");
        assert!(directory.read_new(4, 0).is_err());
    }

    #[test]
    fn a_file_gets_the_length_that_it_is_told_to() {
        let (_directory, file) = file();
        file.allocate(0).unwrap();
        assert_eq!(file.len_bytes().unwrap(), 0);
        file.allocate(5000).unwrap();
        assert_eq!(file.len_bytes().unwrap(), 5000);
        file.allocate(100).unwrap();
        assert_eq!(file.len_bytes().unwrap(), 5000, "only ever more");
        file.set_len(70).unwrap();
        assert_eq!(file.len_bytes().unwrap(), 70);
        assert!(file.start_writeback(u64::MAX, 1).is_err(), "no file is so long");
    }

    #[test]
    fn free_space_is_that_of_the_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path()).unwrap();
        let blocks = rustix::fs::statvfs(directory.path()).unwrap().f_frsize;
        assert_eq!(disk.free_bytes().unwrap() % blocks, 0, "it is given in whole blocks");
    }

    /// A pipe cannot be synced: who asks the system is told so.
    #[test]
    fn syncing_is_asked_of_the_system() {
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        assert!(RealFile { file: pipe.try_clone().unwrap() }.sync_data().is_err());
        assert!(RealDisk { root: PathBuf::new(), directory: pipe }.sync_dir().is_err());
    }
}
