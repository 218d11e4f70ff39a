//! The optimised `helix-server` that tests and measurements run.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Names a binary that is to be used instead of building one.
pub const BINARY_VARIABLE: &str = "HELIX_SERVER_BIN";

/// No binary could be had.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// The variable names something that is not there.
    #[error("{BINARY_VARIABLE} is {0:?}, but there is no such file")]
    Missing(PathBuf),
    /// Cargo could not be started.
    #[error("cargo can't be started: {0}")]
    Cargo(#[from] std::io::Error),
    /// Cargo reported an error, which stands above.
    #[error("`cargo {0}` failed; its messages stand above")]
    Build(String),
}

/// `$HELIX_SERVER_BIN`, or what `cargo build --release` makes of this checkout; cargo's progress shows on stderr.
pub fn server_binary() -> Result<PathBuf, BinaryError> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE).map(PathBuf::from) {
        let found = path.canonicalize().map_err(|_| BinaryError::Missing(path.clone()))?;
        return if found.is_file() { Ok(found) } else { Err(BinaryError::Missing(path)) };
    }
    let arguments = [
        "build",
        "--release",
        "--package",
        "helix-server",
        "--bin",
        "helix-server",
        "--message-format",
        "json-render-diagnostics",
    ];
    let failed = || BinaryError::Build(arguments.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut binary = None;
    if let Some(messages) = build.stdout.take() {
        for line in BufReader::new(messages).lines() {
            binary = executable_in(&line?).or(binary);
        }
    }
    if !build.wait()?.success() {
        return Err(failed());
    }
    binary.ok_or_else(failed)
}

fn executable_in(cargo_message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(cargo_message).ok()?;
    let of_server = message["target"]["name"].as_str() == Some("helix-server");
    message["executable"].as_str().filter(|_| of_server).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_taken_from_the_servers_own_message() {
        let message = |name: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}"}},"executable":{executable}}}"#
            )
        };
        assert_eq!(
            executable_in(&message("helix-server", "\"/t/helix-server\"")),
            Some("/t/helix-server".into())
        );
        assert_eq!(executable_in(&message("helix-server", "null")), None);
        assert_eq!(executable_in(&message("other", "\"/t/other\"")), None);
        assert_eq!(executable_in("not json"), None);
    }
}
