//! The only way to the file system: one directory of flat names.
//!
//! What the log assumes of an implementation is written down in `docs/wal-format.md`: a synced file keeps what was
//! written to it before the sync began, a synced directory keeps its names, an unsynced change of a name may be kept or lost,
//! and an unsynced page may be kept, lost or torn at a sector boundary.

mod faulty;
mod real;

use std::io;
use std::sync::Arc;

pub use faulty::{Crash, FaultyDisk};
pub use real::RealDisk;

/// Keeps a lock while it lives.
pub type DiskLock = Box<dyn Send + Sync>;

/// One directory.
pub trait Disk: Send + Sync + 'static {
    /// Makes a new file with `len` bytes of preallocated zeros. The name must be free.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames, replacing what had the new name. Open files follow.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Open files stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All names of files, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes all names as they are now durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes still to be had.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Bytes that there are in all, taken or not.
    fn total_bytes(&self) -> io::Result<u64>;

    /// Takes an exclusive lock on a file of that name, made if need be. Fails with [`io::ErrorKind::WouldBlock`] if
    /// somebody has it.
    fn lock(&self, name: &str) -> io::Result<DiskLock>;
}

/// One open file. All calls may run at the same time.
pub trait DiskFile: Send + Sync {
    /// Writes all slices, one after the other, from `position` on.
    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `position`.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_vectored_at(&[io::IoSlice::new(bytes)], position)
    }

    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Reads `len` bytes into new memory, which a real file does not have filled with zeros first; fewer only at the end of the file.
    fn read_new(&self, len: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        let count = self.read_at(&mut buffer, position)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Returns once everything written before the call is durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks for the range to be written soon; promises nothing.
    fn start_writeback(&self, position: u64, len: u64) -> io::Result<()>;

    /// The range will be read soon; promises nothing.
    fn will_read(&self, _position: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Lets the system forget what it holds of the file in memory and has written already; promises nothing.
    fn drop_cached(&self) -> io::Result<()>;

    /// The size of the file.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros, not preallocated).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes sure that the first `len` bytes have blocks, so that writing there cannot run out of space.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Whether the error says that there is no space left, as against a disk that is broken.
#[must_use]
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_disk_is_not_a_full_one() {
        let is_full = |kind: io::ErrorKind| is_out_of_space(&kind.into());
        assert!(is_full(io::ErrorKind::StorageFull) && is_full(io::ErrorKind::QuotaExceeded));
        assert!(!is_full(io::ErrorKind::Other) && !is_full(io::ErrorKind::PermissionDenied));
    }
}
