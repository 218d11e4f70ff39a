//! Holds the logs that the nodes have stored against each other: whatever two replicas have at one index of a group must be the
//! same entry, with the same bytes at the same offsets.
//!
//! The logs are read with `helix-server wal dump --json` while no node runs. What is live in them is worked out here, by the
//! two rules of the format (a record supersedes all earlier ones of its group from its index on; a start record begins the log
//! anew) and independently of the server's own recovery.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

const EXAMPLES: usize = 10;

/// A line of the dump.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Record {
    group: u64,
    kind: Kind,
    index: u64,
    term: u64,
    lsn: u64,
    floor_lsn: u64,
    base_offset: u64,
    offset_count: u64,
    tag: u8,
    crc: u32,
    whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Entry,
    Start,
    Checkpoint,
    Delete,
}

/// What must be the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    term: u64,
    base_offset: u64,
    offset_count: u32,
    crc: u32,
    tag: u8,
}

/// The live log of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ReplicaLog {
    /// The index before the first entry.
    start: u64,
    entries: Vec<Entry>,
    /// Entries that are missing in front of another one.
    holes: u64,
}

impl ReplicaLog {
    /// Plays all records of a group.
    fn replay(mut records: Vec<Record>) -> Option<Self> {
        records.sort_by_key(|record| record.lsn);
        if records.iter().any(|record| record.kind == Kind::Delete) {
            return None;
        }
        let starts = records.iter().filter(|record| record.kind == Kind::Start);
        let start = starts.max_by_key(|record| record.lsn).cloned();
        let (base, floor) = start.map_or((0, 0), |start| (start.index, start.floor_lsn));
        let mut log = Self { start: base, ..Self::default() };
        for record in records {
            if record.kind == Kind::Entry && record.index > base && record.lsn >= floor {
                log.append(&record);
            }
        }
        Some(log)
    }

    fn append(&mut self, record: &Record) {
        let at = usize::try_from(record.index - self.start - 1).unwrap_or(usize::MAX);
        if at > self.entries.len() {
            self.holes += (at - self.entries.len()) as u64;
            return;
        }
        self.entries.truncate(at);
        self.entries.push(Entry {
            term: record.term,
            base_offset: record.base_offset,
            offset_count: u32::try_from(record.offset_count).unwrap_or(u32::MAX),
            crc: record.crc,
            tag: record.tag,
        });
    }

    fn last(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.start + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

/// Everything that one node has stored, by group.
#[derive(Debug, Default)]
pub struct NodeLog {
    groups: BTreeMap<u64, ReplicaLog>,
    damaged: u64,
}

/// The logs can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tool can't be run, or its output not be read.
    #[error("{binary:?} wal dump --data-dir {directory:?}: {source}; what it said is in {said:?}")]
    Io {
        /// The program.
        binary: PathBuf,
        /// Whose data.
        directory: PathBuf,
        /// Where its complaints are.
        said: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl NodeLog {
    /// Reads what a node that does not run has stored in `directory`.
    pub fn dump(binary: &Path, directory: &Path, scratch: &Path) -> Result<Self, DumpError> {
        let said = scratch.join("dump.stderr");
        let failed = |source| DumpError::Io {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            said: said.clone(),
            source,
        };
        let stderr = File::create(&said).map_err(failed)?;
        let mut dump = Command::new(binary)
            .args(["wal", "dump", "--json", "--data-dir"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(failed)?;
        let mut node = Ok(Self::default());
        if let Some(lines) = dump.stdout.take() {
            node = Self::read(BufReader::new(lines));
        }
        let status = dump.wait().map_err(failed)?;
        if !status.success() {
            return Err(failed(std::io::Error::other(status.to_string())));
        }
        node.map_err(failed)
    }

    fn read(lines: impl BufRead) -> std::io::Result<Self> {
        let mut records: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        let mut node = Self::default();
        for line in lines.lines() {
            let record: Record = serde_json::from_str(&line?)?;
            if record.whole {
                records.entry(record.group).or_default().push(record);
            } else {
                // The last write of a process that was killed; whatever it held was not acknowledged.
                node.damaged += 1;
            }
        }
        for (group, records) in records {
            node.groups.extend(ReplicaLog::replay(records).map(|log| (group, log)));
        }
        Ok(node)
    }
}

/// What comparing all nodes showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Groups that several nodes have.
    pub groups: u64,
    /// Entries that several nodes have.
    pub entries: u64,
    /// Indexes at which two nodes have different entries.
    pub different: u64,
    /// Entries that are missing in front of others.
    pub holes: u64,
    /// Entries that some node has and another one does not have yet.
    pub behind: u64,
    /// Records whose bytes don't match their checksums: what was being written when a process was killed.
    pub damaged: u64,
    /// The first few differences, in words.
    pub examples: Vec<String>,
}

impl Comparison {
    /// Whether no two replicas differ.
    pub fn is_clean(&self) -> bool {
        self.different + self.holes == 0
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// Compares the logs of all nodes, each given with its number.
pub fn compare(nodes: &[(u32, NodeLog)]) -> Comparison {
    let mut found =
        Comparison { damaged: nodes.iter().map(|(_, node)| node.damaged).sum(), ..Comparison::default() };
    let mut groups: BTreeMap<u64, Vec<(u32, &ReplicaLog)>> = BTreeMap::new();
    for (id, node) in nodes {
        for (group, log) in &node.groups {
            groups.entry(*group).or_default().push((*id, log));
        }
    }
    for (group, replicas) in groups {
        compare_group(group, &replicas, &mut found);
    }
    found
}

fn compare_group(group: u64, replicas: &[(u32, &ReplicaLog)], found: &mut Comparison) {
    for (node, log) in replicas {
        if log.holes > 0 {
            found.holes += log.holes;
            found.example(|| format!("group {group}: {} entries are missing on node {node}", log.holes));
        }
    }
    found.groups += u64::from(replicas.len() > 1);
    let first = replicas.iter().map(|(_, log)| log.start + 1).min().unwrap_or(1);
    let last = replicas.iter().map(|(_, log)| log.last()).max().unwrap_or(0);
    found.behind += replicas.iter().map(|(_, log)| last - log.last()).sum::<u64>();
    for index in first..=last {
        let mut held = replicas.iter().filter_map(|(node, log)| log.at(index).map(|entry| (*node, entry)));
        let Some((node, entry)) = held.next() else { continue };
        let mut shared = false;
        for (other, others) in held {
            shared = true;
            if entry != others {
                found.different += 1;
                found.example(|| {
                    format!("group {group} index {index}: node {node} has {entry:?}, node {other} {others:?}")
                });
            }
        }
        found.entries += u64::from(shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, index: u64, term: u64, lsn: u64, crc: u32) -> String {
        format!(
            "{{\"group\":7,\"kind\":\"{kind}\",\"tag\":1,\"index\":{index},\"term\":{term},\"prev_term\":1,\"lsn\":{lsn},\
             \"floor_lsn\":0,\"base_offset\":{index},\"offset_count\":1,\"bytes\":10,\"crc\":{crc},\"whole\":true}}\n"
        )
    }

    fn entries(range: std::ops::RangeInclusive<u64>) -> String {
        range.map(|index| line("entry", index, 1, index, index as u32)).collect()
    }

    fn compared(logs: &[&str]) -> Comparison {
        let nodes: Vec<(u32, NodeLog)> =
            (1..).zip(logs.iter().map(|log| NodeLog::read(log.as_bytes()).unwrap())).collect();
        compare(&nodes)
    }

    #[test]
    fn equal_logs_are_equal_whatever_the_lsns_and_a_shorter_one_is_only_behind() {
        let other: String = (1..=4).map(|index| line("entry", index, 1, index + 90, index as u32)).collect();
        let found = compared(&[&entries(1..=5), &other, &entries(1..=5)]);
        assert!(found.is_clean());
        assert_eq!((found.groups, found.entries, found.behind), (1, 5, 1));
    }

    #[test]
    fn other_bytes_another_term_and_other_offsets_are_differences() {
        let good = entries(1..=5);
        let changed = [
            good.replace("\"crc\":3", "\"crc\":4"),
            good.replace("\"index\":3,\"term\":1", "\"index\":3,\"term\":2"),
            good.replace("\"base_offset\":3", "\"base_offset\":9"),
        ];
        for bad in changed {
            let found = compared(&[&good, &good, &bad]);
            assert_eq!((found.different, found.examples.len()), (1, 1), "{found:?}");
            assert!(found.examples[0].contains("group 7 index 3: node 1 has"), "{found:?}");
        }
    }

    #[test]
    fn what_was_superseded_does_not_count() {
        // Node 1 wrote 3..=5 in term 1 and was then overruled from 3 on.
        let overruled = entries(1..=5) + &line("entry", 3, 2, 50, 77);
        let others = entries(1..=2) + &line("entry", 3, 2, 10, 77);
        let found = compared(&[&overruled, &others, &others]);
        assert!(found.is_clean(), "{found:?}");
        assert_eq!((found.entries, found.behind), (3, 0));
    }

    #[test]
    fn a_log_may_begin_later_but_have_no_hole() {
        let later = line("start", 3, 1, 20, 0)
            + &(4..=5).map(|i| line("entry", i, 1, 20 + i, i as u32)).collect::<String>();
        let found = compared(&[&entries(1..=5), &later]);
        assert!(found.is_clean(), "{found:?}");
        assert_eq!((found.entries, found.behind), (2, 0));
        let hole = entries(1..=2) + &entries(4..=5);
        assert!(compared(&[&entries(1..=5), &hole]).holes > 0);
    }

    #[test]
    fn unfinished_writes_and_deleted_groups_are_left_out() {
        let torn = entries(1..=5) + &line("entry", 6, 1, 6, 9).replace("true", "false");
        let found = compared(&[&torn, &entries(1..=5)]);
        assert_eq!((found.is_clean(), found.damaged), (true, 1));
        let deleted = entries(1..=5).replace("\"crc\":3", "\"crc\":4") + &line("delete", 0, 0, 60, 0);
        assert_eq!(compared(&[&deleted, &entries(1..=5)]).groups, 0);
    }
}
