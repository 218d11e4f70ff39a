//! Rows about reading, and about what it does to those who write.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use super::Scale;
use super::results::Figures;
use super::rows::{
    ALONE_P99_MS, COLD_CPU_PER_GB, COLD_MB_PER_S, CPU_PER_GB, HOT_CPU_PER_GB, HOT_MB_PER_S, MB_PER_S,
};
use super::rows_load::{FEW_SMALL, PARTITIONS, flood_with, with_latency};
use super::subjects::{CompareError, Contender, Subject, Subjects};
use crate::client::{ClusterClient, TopicSpec};
use crate::flood::{self, FloodReport};
use crate::process::usage_of_all;
use crate::reader::{self, Range, ReadCounters};
use crate::wire;

const READERS: usize = 2;
const CONSUMERS: usize = 50;
/// Each of many consumers reads that part of what one reads.
const CONSUMED_PARTS: u64 = 30;
/// On each broker.
const SLOW_CONSUMERS: usize = 5;
/// Requests that each of them has sent, and whose answers it does not take.
const UNREAD_ANSWERS: i32 = 20;

pub(super) fn fetch(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let topic = subjects.topic(PARTITIONS, &[]);
    let stored = subjects.scale().fetch_bytes;
    let client = ClusterClient::new(&subject.bootstrap)?;
    flood::fill(&subject.bootstrap, &topic, stored, subjects.progress)?;
    let (hot_mb_per_s, hot_cpu) = read_all(&client, &subject, &topic.name, stored)?;
    // Not earlier: what is not written yet can't be taken out.
    forget_files(&subjects.directory(), File::sync_data)?;
    let (cold_mb_per_s, cold_cpu) = read_all(&client, &subject, &topic.name, stored)?;
    client.delete_topic(&topic.name)?;
    Ok(Figures::default()
        .with(HOT_CPU_PER_GB, hot_cpu)
        .with(HOT_MB_PER_S, hot_mb_per_s)
        .with(COLD_CPU_PER_GB, cold_cpu)
        .with(COLD_MB_PER_S, cold_mb_per_s))
}

/// A topic with contents.
struct Filled {
    client: ClusterClient,
    topic: TopicSpec,
    ranges: Vec<Range>,
}

fn filled(subjects: &mut Subjects<'_>, subject: &Subject, bytes: u64) -> Result<Filled, CompareError> {
    let topic = subjects.topic(PARTITIONS, &[]);
    let client = ClusterClient::new(&subject.bootstrap)?;
    flood::fill(&subject.bootstrap, &topic, bytes, subjects.progress)?;
    let ranges = reader::whole_topic(&client, &topic.name)?;
    Ok(Filled { client, topic, ranges })
}

/// Latencies of writing alone, and beside reading that is done over and over.
pub(super) fn catching_up(
    subjects: &mut Subjects<'_>,
    contender: Contender,
) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let stored = subjects.scale().fetch_bytes;
    let Filled { client, topic, ranges } = filled(subjects, &subject, stored)?;
    let directory = subjects.directory();
    forget_files(&directory, File::sync_data)?;
    let alone = few_small(subjects, &subject)?;
    let counters = ReadCounters::default();
    let (beside, seconds) = beside(subjects, &subject, || {
        forget_files(&directory, |_| Ok(()))?;
        reader::read_in_parallel(&subject.bootstrap, &topic.name, &ranges, READERS, &counters, || {})?;
        Ok(())
    })?;
    client.delete_topic(&topic.name)?;
    let mb = counters.bytes.into_inner() as f64 / 1e6;
    Ok(both_latencies(&alone, &beside).with(COLD_MB_PER_S, mb / seconds))
}

pub(super) fn consumers(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let Scale { fetch_bytes, measured, .. } = subjects.scale();
    let Filled { client, topic, ranges } = filled(subjects, &subject, fetch_bytes / CONSUMED_PARTS)?;
    let (counters, begun) = (ReadCounters::default(), Instant::now());
    let cpu = usage_of_all(&subject.pids)?.cpu;
    let consume = || {
        while begun.elapsed() < measured {
            reader::read(&subject.bootstrap, &topic.name, &ranges, &counters, |_, _, _| {})?;
        }
        Ok::<_, CompareError>(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(consume)).collect();
        all.into_iter().try_for_each(|one| match one.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = usage_of_all(&subject.pids)?.cpu - cpu;
    client.delete_topic(&topic.name)?;
    let gb = counters.bytes.into_inner() as f64 / 1e9;
    Ok(Figures::default().with(MB_PER_S, gb * 1e3 / seconds).with(CPU_PER_GB, cpu.as_secs_f64() / gb))
}

pub(super) fn slow_consumers(
    subjects: &mut Subjects<'_>,
    contender: Contender,
) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let stored = subjects.scale().fetch_bytes / CONSUMED_PARTS;
    let Filled { client, topic, ranges } = filled(subjects, &subject, stored)?;
    let alone = few_small(subjects, &subject)?;
    let asking = |source| CompareError::Io { doing: "asking without listening".into(), source };
    let slow = ask_without_listening(&subject, &topic.name, &ranges).map_err(asking)?;
    let beside = few_small(subjects, &subject)?;
    // Whoever listens gets everything all the same.
    let (counters, begun) = (ReadCounters::default(), Instant::now());
    reader::read_in_parallel(&subject.bootstrap, &topic.name, &ranges, READERS, &counters, || {})?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(slow);
    client.delete_topic(&topic.name)?;
    let mb = counters.bytes.into_inner() as f64 / 1e6;
    Ok(both_latencies(&alone, &beside).with("MB/s of others", mb / seconds))
}

fn few_small(subjects: &mut Subjects<'_>, subject: &Subject) -> Result<FloodReport, CompareError> {
    let topic = subjects.topic(PARTITIONS, &[]);
    flood_with(subjects, subject, topic, &[FEW_SMALL], subjects.scale().measured)
}

fn both_latencies(alone: &FloodReport, beside: &FloodReport) -> Figures {
    let figures = Figures::default().with(ALONE_P99_MS, alone.streams[0].latency.p99_ms);
    with_latency(figures, &beside.streams[0].latency)
}

/// Does `work` over and over while a few small messages are written. Also returns how many seconds the work took.
fn beside(
    subjects: &mut Subjects<'_>,
    subject: &Subject,
    work: impl Fn() -> Result<(), CompareError> + Sync,
) -> Result<(FloodReport, f64), CompareError> {
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| -> Result<f64, CompareError> {
            let begun = Instant::now();
            while !written.load(Ordering::Relaxed) {
                work()?;
            }
            Ok(begun.elapsed().as_secs_f64())
        });
        let report = few_small(subjects, subject);
        written.store(true, Ordering::Relaxed);
        let seconds = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((report?, seconds?))
    })
}

/// Connections on which much was asked for, and whose answers pile up for as long as they are open.
fn ask_without_listening(subject: &Subject, topic: &str, ranges: &[Range]) -> io::Result<Vec<TcpStream>> {
    let partitions: Vec<i32> = ranges.iter().map(|range| range.partition).collect();
    let mut open = Vec::new();
    for broker in subject.bootstrap.split(',') {
        for _ in 0..SLOW_CONSUMERS {
            let mut socket = TcpStream::connect(broker)?;
            for number in 0..UNREAD_ANSWERS {
                socket.write_all(&wire::fetch_request(topic, &partitions, number)?)?;
            }
            open.push(socket);
        }
    }
    Ok(open)
}

/// MB/s, and CPU seconds of the brokers per GB.
fn read_all(
    client: &ClusterClient,
    subject: &Subject,
    topic: &str,
    at_least_bytes: u64,
) -> Result<(f64, f64), CompareError> {
    let ranges = reader::whole_topic(client, topic)?;
    let cpu = usage_of_all(&subject.pids)?.cpu;
    let begun = Instant::now();
    let counters = ReadCounters::default();
    reader::read_in_parallel(&subject.bootstrap, topic, &ranges, READERS, &counters, || {})?;
    let bytes = counters.bytes.into_inner();
    let gb = bytes as f64 / 1e9;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = usage_of_all(&subject.pids)?.cpu - cpu;
    if bytes < at_least_bytes {
        return Err(CompareError::Wrong(format!("{at_least_bytes} bytes were stored, {bytes} read")));
    }
    Ok((gb * 1e3 / seconds, cpu.as_secs_f64() / gb))
}

/// Takes every file below `directory` out of the page cache, after `before` was done with it: what is not written can't be taken out.
pub(super) fn forget_files(
    directory: &Path,
    before: impl Fn(&File) -> io::Result<()> + Copy,
) -> Result<(), CompareError> {
    let reading =
        |source| CompareError::Io { doing: format!("looking into {}", directory.display()), source };
    for entry in std::fs::read_dir(directory).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        if path.is_dir() {
            forget_files(&path, before)?;
        } else {
            let doing = format!("taking {} out of the page cache", path.display());
            // A running node removes and renames files all the time; what is gone needs no forgetting.
            match File::open(&path) {
                Ok(file) => before(&file)
                    .and_then(|()| fadvise(&file, 0, None, Advice::DontNeed).map_err(Into::into))
                    .map_err(CompareError::io(doing))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CompareError::io(doing)(error)),
            }
        }
    }
    Ok(())
}
