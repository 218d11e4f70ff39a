//! How much load: built-in profiles and custom ones from TOML files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::HEADER_BYTES;

/// How much load, of what shape, for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What reports call it.
    pub name: String,
    /// The shape of the load.
    #[serde(default)]
    pub producer: ProducerShape,
    /// How long.
    #[serde(default)]
    pub execution: Execution,
}

/// The `[producer]` table of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerShape {
    /// Producers, one thread and one set of connections each.
    pub threads: u32,
    /// Messages that each producer keeps unacknowledged.
    pub inflight: u32,
    /// Bytes of each message's value.
    pub message_size: usize,
    /// How long the client waits for more messages before it sends a batch.
    pub linger_ms: u32,
}

/// The `[execution]` table of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Execution {
    /// Load that is applied, and verified, before measuring begins.
    pub warmup_secs: u64,
    /// Measured load.
    pub duration_secs: u64,
}

impl Default for ProducerShape {
    fn default() -> Self {
        Self { threads: 1, inflight: 100, message_size: 1024, linger_ms: 5 }
    }
}

impl Default for Execution {
    fn default() -> Self {
        Self { warmup_secs: 1, duration_secs: 5 }
    }
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Neither a built-in name nor a readable file.
    #[error(
        "{path:?} is neither a built-in profile ({}) nor a readable file: {source}",
        BUILT_IN_NAMES.join(", ")
    )]
    Unreadable {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a profile.
    #[error(
        "{path:?} is not a profile: {source}\n\
         expected: name, [producer] threads, inflight, message_size, linger_ms, \
         [execution] warmup_secs, duration_secs"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: Box<toml::de::Error>,
    },
    /// A value that can't be run.
    #[error("profile {name:?}: {key} is {value}, but must be {allowed}")]
    OutOfRange {
        /// The profile.
        name: String,
        /// The offending key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed instead.
        allowed: String,
    },
}

/// The names that [`Profile::load`] knows without a file.
pub const BUILT_IN_NAMES: [&str; 5] = ["baseline", "throughput", "latency", "stress", "sustained"];

const LARGEST_MESSAGE_BYTES: usize = 900_000;

impl Profile {
    /// A built-in profile by name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (threads, inflight, linger_ms, warmup_secs, duration_secs) = match name {
            "baseline" => (1, 100, 5, 1, 5),
            "throughput" => (6, 2000, 5, 2, 10),
            "latency" => (4, 100, 0, 1, 10),
            "stress" => (12, 4000, 5, 2, 30),
            "sustained" => (6, 1000, 5, 2, 60),
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            producer: ProducerShape { threads, inflight, linger_ms, ..ProducerShape::default() },
            execution: Execution { warmup_secs, duration_secs },
        })
    }

    /// A built-in profile by name, or a custom one by the path of its TOML file.
    pub fn load(name_or_path: &str) -> Result<Self, ProfileError> {
        if let Some(profile) = Self::built_in(name_or_path) {
            return Ok(profile);
        }
        let path = Path::new(name_or_path);
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        let profile: Self = toml::from_str(&text)
            .map_err(|source| ProfileError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        profile.validate()?;
        Ok(profile)
    }

    /// Refuses what can't be run.
    pub fn validate(&self) -> Result<(), ProfileError> {
        let shape = &self.producer;
        self.within("threads", u64::from(shape.threads), 1, 1_000)?;
        self.within("inflight", u64::from(shape.inflight), 1, 1_000_000)?;
        let size = shape.message_size as u64;
        self.within("message_size", size, HEADER_BYTES as u64, LARGEST_MESSAGE_BYTES as u64)?;
        self.within("linger_ms", u64::from(shape.linger_ms), 0, 900_000)?;
        self.within("duration_secs", self.execution.duration_secs, 1, 30 * 86_400)?;
        self.within("warmup_secs", self.execution.warmup_secs, 0, 86_400)
    }

    /// How long the whole load lasts, warm-up included.
    pub fn load_duration(&self) -> Duration {
        Duration::from_secs(self.execution.warmup_secs + self.execution.duration_secs)
    }

    fn within(&self, key: &'static str, value: u64, least: u64, most: u64) -> Result<(), ProfileError> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(ProfileError::OutOfRange {
            name: self.name.clone(),
            key,
            value: value.to_string(),
            allowed: format!("{least} to {most}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load_text(text: &str) -> Result<Profile, ProfileError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Profile::load(file.path().to_str().unwrap())
    }

    #[test]
    fn built_in_profiles_have_the_documented_shape() {
        let shapes: Vec<_> = BUILT_IN_NAMES
            .iter()
            .map(|name| {
                let profile = Profile::built_in(name).unwrap();
                profile.validate().unwrap();
                (profile.producer.threads, profile.producer.inflight, profile.execution.duration_secs)
            })
            .collect();
        assert_eq!(shapes, [(1, 100, 5), (6, 2000, 10), (4, 100, 10), (12, 4000, 30), (6, 1000, 60)]);
    }

    #[test]
    fn a_custom_profile_is_read_from_a_file() {
        let profile = load_text(
            "name = 'tiny'\n[producer]\nthreads = 2\ninflight = 10\nmessage_size = 100\nlinger_ms = 0\n\
             [execution]\nwarmup_secs = 0\nduration_secs = 1\n",
        )
        .unwrap();
        assert_eq!(profile.name, "tiny");
        assert_eq!(
            profile.producer,
            ProducerShape { threads: 2, inflight: 10, message_size: 100, linger_ms: 0 }
        );
        assert_eq!(profile.execution, Execution { warmup_secs: 0, duration_secs: 1 });
    }

    #[test]
    fn unknown_keys_are_errors() {
        for text in ["name = 'x'\nthreads = 1", "name = 'x'\n[producer]\nthread = 1", "name = 'x'\n[run]\n"] {
            let error = load_text(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn impossible_values_name_key_and_range() {
        let error = load_text("name = 'x'\n[producer]\nmessage_size = 3").unwrap_err().to_string();
        assert!(error.contains("message_size is 3") && error.contains("32 to 900000"), "{error}");
        assert!(load_text("name = 'x'\n[producer]\nthreads = 0").is_err());
        assert!(load_text("name = 'x'\n[execution]\nduration_secs = 0").is_err());
    }

    #[test]
    fn an_unknown_name_lists_the_built_in_ones() {
        let error = Profile::load("thruput").unwrap_err().to_string();
        assert!(error.contains("baseline, throughput, latency, stress, sustained"), "{error}");
    }
}
