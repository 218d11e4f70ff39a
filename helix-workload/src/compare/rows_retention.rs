//! The row about a topic that keeps only the newest of what is written to it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::results::Figures;
use super::rows::{DISK_BOUND_MB, KEPT_P99_MS, KEPT_P999_MS, MB_PER_S, PEAK_DISK_MB};
use super::rows_load::{PARTITIONS, flood_with, with_latency};
use super::subjects::{CompareError, Contender, Subject, Subjects};
use crate::client::TopicSpec;
use crate::cluster::Cluster;
use crate::flood::{FloodReport, Stream};

const NODES: u32 = 3;
/// Few, so that what is kept is far less than what is written.
const KEEPING_PARTITIONS: u32 = 2;
/// 82 MB/s.
const LOAD: Stream = Stream { connections: 4, in_flight: 16, messages: 100, bytes: 1024, rate: 800 };
const PROBE: Stream = Stream { connections: 4, in_flight: 64, messages: 1, bytes: 1024, rate: 5_000 };
/// So much of the time is spent on the same load that is kept, which is what else would fill the disk.
const KEPT_PARTS: u32 = 4;
const LOOK_INTERVAL_S: u64 = 1;
const BETWEEN_SAMPLES: Duration = Duration::from_millis(100);
/// What a node has besides what is kept: the segment being written, three prepared, four retired ones that wait for their next use, the
/// one at each end of what is kept, and one being rewritten.
const SPARE_SEGMENTS: u64 = 11;
/// Both looks: for what is past its retention, and for files in which nothing is kept; and as long again for the second to act.
const LOOKS: u64 = 3;
/// What is stored of a message beside its contents, and what stands between batches, generously.
const OVERHEAD: f64 = 1.1;

/// What one load came to.
struct Outcome {
    load: FloodReport,
    probe: FloodReport,
    peak_disk_bytes: u64,
}

pub(super) fn retention(subjects: &mut Subjects<'_>, _: Contender) -> Result<Figures, CompareError> {
    let scale = subjects.scale();
    let seconds = scale.retention_written_bytes / (LOAD.request_bytes() * u64::from(LOAD.rate));
    let time = Duration::from_secs(seconds.max(1));
    let kept = measure(subjects, "kept", (time / KEPT_PARTS).max(Duration::from_secs(1)), "-1")?;
    let removed = measure(subjects, "retention", time, &scale.retention_bytes.to_string())?;
    let figures = Figures::default()
        .with(MB_PER_S, removed.load.mb_per_s)
        .with("MB/s, nothing removed", kept.load.mb_per_s)
        .with(KEPT_P99_MS, kept.probe.streams[0].latency.p99_ms)
        .with(KEPT_P999_MS, kept.probe.streams[0].latency.p999_ms)
        .with(PEAK_DISK_MB, removed.peak_disk_bytes as f64 / 1e6)
        .with(DISK_BOUND_MB, disk_bound_bytes(scale.retention_bytes, &removed) / 1e6);
    Ok(with_latency(figures, &removed.probe.streams[0].latency))
}

/// Both streams on a cluster of their own.
fn measure(
    subjects: &mut Subjects<'_>,
    name: &str,
    time: Duration,
    retention_bytes: &str,
) -> Result<Outcome, CompareError> {
    let interval_ms = (LOOK_INTERVAL_S * 1000).to_string();
    let settings = [
        ("log.retention.check.interval.ms", interval_ms.clone()),
        ("helix.wal.reclaim.interval.ms", interval_ms),
        ("helix.wal.segment.bytes", segment_bytes(subjects.scale().retention_bytes).to_string()),
    ];
    let cluster = subjects.own_helix_with(name, NODES, &settings)?;
    let subject = Subject::of(&cluster);
    let keeping = subjects.topic(KEEPING_PARTITIONS, &[("retention.bytes", retention_bytes)]);
    let probed = subjects.topic(PARTITIONS, &[]);
    let over = AtomicBool::new(false);
    let (load, probe, peak) = std::thread::scope(|scope| {
        let peak = scope.spawn(|| peak_disk_bytes(&cluster, &over));
        let of = |topic: TopicSpec, stream: Stream| {
            let (subjects, subject) = (&*subjects, &subject);
            scope.spawn(move || flood_with(subjects, subject, topic, &[stream], time))
        };
        let (load, probe) = (of(keeping, LOAD), of(probed, PROBE));
        let (load, probe) = (load.join(), probe.join());
        over.store(true, Ordering::Relaxed);
        (load, probe, peak.join())
    });
    let ended = "threads do not panic";
    let (load, probe) = (load.expect(ended)?, probe.expect(ended)?);
    let peak_disk_bytes = peak.expect(ended).map_err(CompareError::io("looking at the disk"))?;
    Ok(Outcome { load, probe, peak_disk_bytes })
}

fn segment_bytes(retention_bytes: u64) -> u64 {
    (retention_bytes / 8).clamp(1 << 20, 128 << 20)
}

/// What is kept, what is written between two looks, and the files that a log has beside what it holds.
fn disk_bound_bytes(retention_bytes: u64, outcome: &Outcome) -> f64 {
    let kept = (retention_bytes * u64::from(KEEPING_PARTITIONS)) as f64;
    let probed = outcome.probe.mb_per_s * 1e6 * (outcome.probe.seconds + 3.0);
    let rate = (outcome.load.mb_per_s + outcome.probe.mb_per_s) * 1e6;
    let between_looks = rate * (LOOKS * LOOK_INTERVAL_S) as f64;
    let spare = (SPARE_SEGMENTS * segment_bytes(retention_bytes)) as f64;
    (kept + probed + between_looks) * OVERHEAD + spare
}

/// The most that any node's data took, until it is over.
fn peak_disk_bytes(cluster: &Cluster, over: &AtomicBool) -> io::Result<u64> {
    let directories: Vec<PathBuf> =
        cluster.ids().into_iter().map(|id| cluster.data_directory(id).to_owned()).collect();
    let mut peak = 0;
    while !over.load(Ordering::Relaxed) {
        for directory in &directories {
            peak = peak.max(disk_bytes(directory)?);
        }
        std::thread::sleep(BETWEEN_SAMPLES);
    }
    Ok(peak)
}

/// Blocks that a directory takes, with all that is in it. What is removed meanwhile takes none.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if gone(&error) => return Ok(0),
        other => other?,
    };
    let mut bytes = metadata.blocks() * BLOCK_BYTES;
    if metadata.is_dir() {
        match fs::read_dir(path) {
            Err(error) if gone(&error) => {}
            entries => {
                for entry in entries? {
                    bytes += disk_bytes(&entry?.path())?;
                }
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_space_is_that_of_all_files_in_all_directories() {
        let directory = tempfile::tempdir().unwrap();
        let within = directory.path().join("within");
        fs::create_dir(&within).unwrap();
        let before = disk_bytes(directory.path()).unwrap();
        fs::write(directory.path().join("a"), vec![1; 100_000]).unwrap();
        fs::write(within.join("b"), vec![1; 200_000]).unwrap();
        rustix::fs::sync();
        let grown = disk_bytes(directory.path()).unwrap() - before;
        assert!((300_000..600_000).contains(&grown), "{grown}");
        assert_eq!(disk_bytes(&directory.path().join("gone")).unwrap(), 0);
    }
}
