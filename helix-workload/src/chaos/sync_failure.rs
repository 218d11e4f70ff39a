//! Disks whose syncs fail: a small library, compiled here and loaded into the nodes in front of the C library.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Unavailable;

const SOURCE: &str = include_str!("sync_failure.c");
/// Names the file that makes syncs fail; the library reads it.
const VARIABLE: &str = "HELIX_CHAOS_SYNC_FAILS";
const TRIGGER: &str = "sync-fails";

/// The library, and what a node needs to have it.
#[derive(Debug)]
pub struct SyncFailure {
    library: PathBuf,
}

impl SyncFailure {
    /// Compiles the library in `directory`.
    pub fn prepare(directory: &Path) -> Result<Self, Unavailable> {
        let (source, library) = (directory.join("sync_failure.c"), directory.join("sync_failure.so"));
        fs::write(&source, SOURCE).map_err(|error| Unavailable(format!("{}: {error}", source.display())))?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let compiled = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .output()
            .map_err(|error| Unavailable(format!("no C compiler: {}: {error}", compiler.display())))?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
            return Err(Unavailable(format!("the C compiler failed: {said}")));
        }
        Ok(Self { library })
    }

    /// What has to stand in the environment of a node whose directory this is.
    pub fn environment(&self, node_directory: &Path) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library.clone()), (VARIABLE, node_directory.join(TRIGGER))]
    }

    /// From now on every sync of that node fails.
    pub fn begin(&self, node_directory: &Path) -> io::Result<()> {
        fs::write(node_directory.join(TRIGGER), "")
    }

    /// From now on none does.
    pub fn end(&self, node_directory: &Path) -> io::Result<()> {
        fs::remove_file(node_directory.join(TRIGGER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_fail_while_they_are_told_to_and_not_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let failure =
            SyncFailure::prepare(directory.path()).expect("a C compiler is needed by other crates too");
        let sync = || {
            let file = directory.path().join("synced");
            let mut command = Command::new("sync");
            command.arg("--data").arg(&file).envs(failure.environment(directory.path()));
            fs::write(&file, "data").unwrap();
            command.output().unwrap().status.success()
        };
        assert!(sync());
        failure.begin(directory.path()).unwrap();
        assert!(!sync());
        failure.end(directory.path()).unwrap();
        assert!(sync());
    }
}
