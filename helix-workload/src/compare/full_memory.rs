//! Fills the machine's memory with page cache before something is measured, as it is on a machine that has run for a while.
//!
//! What is free on a virtual machine belongs to its host as often as not: the first byte written to such a page costs ten times what
//! it costs later, for whoever happens to write it. With all memory in use every page comes from the oldest contents of the cache.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// That part of the memory may be free: what the kernel itself begins to reclaim at is a quarter of it.
const FREE_PARTS: u64 = 64;
const CHUNK_BYTES: usize = 16 << 20;
/// A file of nothing but holes: it takes page cache when it is read, and no disk.
const HOLES_BYTES: u64 = 4 << 40;

/// The file whose pages fill the memory. Removed when it is dropped.
#[derive(Debug)]
pub(super) struct FullMemory {
    holes: File,
    position: u64,
    chunk: Vec<u8>,
}

impl FullMemory {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join("holes");
        let holes = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        holes.set_len(HOLES_BYTES)?;
        // It lives as long as it is open.
        fs::remove_file(&path)?;
        Ok(Self { holes, position: 0, chunk: vec![0; CHUNK_BYTES] })
    }

    /// Reads holes until little memory is free, or as much as there is.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        let mut filled_kib = 0;
        loop {
            let info = fs::read_to_string("/proc/meminfo")?;
            let (free, total) = (kib(&info, "MemFree:")?, kib(&info, "MemTotal:")?);
            if free < total / FREE_PARTS || filled_kib > total {
                return Ok(());
            }
            self.holes.read_exact_at(&mut self.chunk, self.position)?;
            filled_kib += CHUNK_BYTES as u64 / 1024;
            self.position = (self.position + CHUNK_BYTES as u64) % HOLES_BYTES;
        }
    }
}

fn kib(meminfo: &str, name: &str) -> io::Result<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let number =
        value.and_then(|value| value.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc/meminfo has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_meminfo_are_found() {
        let text = "MemTotal:       24683520 kB\nMemFree:          198764 kB\n";
        assert_eq!((kib(text, "MemTotal:").unwrap(), kib(text, "MemFree:").unwrap()), (24_683_520, 198_764));
        assert!(kib(text, "Dirty:").unwrap_err().to_string().contains("Dirty:"));
    }

    #[test]
    fn a_file_of_holes_is_read_and_takes_no_disk() {
        let directory = tempfile::tempdir().unwrap();
        let memory = FullMemory::new(directory.path()).unwrap();
        let mut end = [1];
        memory.holes.read_exact_at(&mut end, HOLES_BYTES - 1).unwrap();
        assert_eq!((end, fs::read_dir(directory.path()).unwrap().count()), ([0], 0));
    }
}
