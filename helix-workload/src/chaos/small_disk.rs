//! A file system of its own for one node, so that it can be filled: ext4 in a sparse file, mounted through a loop device.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::Unavailable;

/// A mounted file system. Dropping it unmounts it, and removes it unless it is to be kept.
#[derive(Debug)]
pub struct SmallDisk {
    image: PathBuf,
    mount: PathBuf,
    kept: bool,
}

impl SmallDisk {
    /// Makes and mounts a file system of at most `bytes` in `directory`.
    pub fn mount(directory: &Path, bytes: u64) -> Result<Self, Unavailable> {
        if !rustix::process::geteuid().is_root() {
            return Err(Unavailable("mounting a file system needs root".into()));
        }
        let (image, mount) = (directory.join("disk.img"), directory.join("disk"));
        let failed = |error: io::Error| Unavailable(format!("{}: {error}", directory.display()));
        fs::create_dir_all(&mount).map_err(failed)?;
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(failed)?;
        let disk = Self { image, mount, kept: false };
        // Without blocks reserved for root, so that full means full; with a small journal, so that little is left over.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-J", "size=16"]).arg(&disk.image))?;
        run(Command::new("mount").args(["-o", "loop,discard"]).args([&disk.image, &disk.mount]))?;
        Ok(disk)
    }

    /// The file that holds it is not removed.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// A directory on it.
    pub fn directory(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Takes all space that is left.
    pub fn fill(&self) -> io::Result<()> {
        let ballast = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        let space = statvfs(&self.mount)?;
        let mut piece = space.f_bavail.saturating_mul(space.f_frsize);
        let mut filled = ballast.metadata()?.len();
        while piece >= space.f_frsize {
            match fallocate(&ballast, FallocateFlags::empty(), filled, piece) {
                Ok(()) => filled += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives back what [`Self::fill`] took.
    pub fn empty(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that still has files there keeps them until it ends.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount));
        if !self.kept {
            let _ = fs::remove_file(&self.image);
        }
    }
}

fn run(command: &mut Command) -> Result<(), Unavailable> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Unavailable(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Unavailable(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::line;

    #[test]
    fn a_small_disk_is_full_until_it_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(directory.path(), 100 << 20) {
            Ok(disk) => disk,
            Err(reason) => return line(&format!("SKIPPED: {reason}")),
        };
        fs::create_dir(disk.directory()).unwrap();
        let file = disk.directory().join("file");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        disk.fill().unwrap();
        let error = fs::write(disk.directory().join("other"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&file).unwrap().len(), 1 << 20);
        disk.empty().unwrap();
        fs::write(disk.directory().join("other"), vec![1; 1 << 20]).unwrap();
    }
}
