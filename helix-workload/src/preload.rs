//! Machines that fail as real ones can't be made to: a small library, compiled here and loaded into nodes in front of the C library.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// It can't be had on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoPreload(pub String);

const SOURCE: &str = include_str!("preload.c");
/// Names the directory that is looked at; the library reads it.
const VARIABLE: &str = "HELIX_MACHINE";
const SYNC_FAILS: &str = "sync-fails";
const BOOT_ID: &str = "boot-id";

/// The library, and what a node needs to have it.
#[derive(Debug)]
pub struct Preload {
    library: PathBuf,
}

impl Preload {
    /// Compiles the library in `directory`.
    ///
    /// # Errors
    /// When there is no C compiler, or it fails.
    pub fn prepare(directory: &Path) -> Result<Self, NoPreload> {
        let (source, library) = (directory.join("preload.c"), directory.join("preload.so"));
        fs::write(&source, SOURCE).map_err(|error| NoPreload(format!("{}: {error}", source.display())))?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let compiled = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o"])
            .args([&library, &source])
            .output()
            .map_err(|error| NoPreload(format!("no C compiler: {}: {error}", compiler.display())))?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
            return Err(NoPreload(format!("the C compiler failed: {said}")));
        }
        Ok(Self { library })
    }

    /// What has to stand in the environment of a node whose directory this is.
    pub fn environment(&self, node_directory: &Path) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library.clone()), (VARIABLE, node_directory.to_owned())]
    }

    /// From now on every sync of that node fails.
    ///
    /// # Errors
    /// When its directory can't be written to.
    pub fn fail_syncs(&self, node_directory: &Path) -> io::Result<()> {
        fs::write(node_directory.join(SYNC_FAILS), "")
    }

    /// From now on none does.
    ///
    /// # Errors
    /// When its directory can't be written to, or none failed.
    pub fn mend_syncs(&self, node_directory: &Path) -> io::Result<()> {
        fs::remove_file(node_directory.join(SYNC_FAILS))
    }

    /// At its next start the node finds that its machine has been started again since: whatever it did not sync may be missing.
    ///
    /// # Errors
    /// When its directory can't be written to.
    pub fn restart_machine(&self, node_directory: &Path) -> io::Result<()> {
        let id: u128 = rand::random();
        fs::write(node_directory.join(BOOT_ID), format!("{id:032x}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeeds(preload: &Preload, directory: &Path, program: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory).envs(preload.environment(directory));
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    #[test]
    fn syncs_fail_while_they_are_told_to_and_not_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let preload = Preload::prepare(directory.path()).expect("a C compiler is needed by other crates too");
        fs::write(directory.path().join("synced"), "data").unwrap();
        let sync = || succeeds(&preload, directory.path(), "sync", &["--data", "synced"]).0;
        assert!(sync());
        preload.fail_syncs(directory.path()).unwrap();
        assert!(!sync());
        preload.mend_syncs(directory.path()).unwrap();
        assert!(sync());
    }

    #[test]
    fn a_machine_that_was_started_again_has_another_boot_id_and_all_files() {
        let directory = tempfile::tempdir().unwrap();
        let preload = Preload::prepare(directory.path()).expect("a C compiler is needed by other crates too");
        let kernel = "/proc/sys/kernel/random/boot_id";
        fs::write(directory.path().join("data"), "all").unwrap();
        let read = |path: &str| succeeds(&preload, directory.path(), "cat", &[path]).1;
        let mut seen = vec![read(kernel)];
        assert_eq!(seen[0], fs::read_to_string(kernel).unwrap().trim());
        for _ in 0..2 {
            preload.restart_machine(directory.path()).unwrap();
            let boot_id = read(kernel);
            assert!(!seen.contains(&boot_id), "{boot_id}");
            assert_eq!(read("data"), "all");
            seen.push(boot_id);
        }
    }
}
