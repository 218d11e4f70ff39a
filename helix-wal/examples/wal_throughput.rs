//! Measures how fast the log takes records: `cargo run --release -p helix-wal --example wal_throughput [DIRECTORY]`.
//!
//! Prints figures and asserts nothing. Each line appends records of one size with a bounded number of bytes in flight. The
//! first lines write a plain file in the same way, to compare with.
#![allow(clippy::unwrap_used)] // Whatever fails here ends the measurement.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use helix_wal::disk::{Disk, DiskFile, RealDisk};
use helix_wal::{Durability, GroupId, Index, Offset, Payload, Record, RecordKind, Term, Wal, WalOptions};

const IN_FLIGHT_BYTES: usize = 16 << 20;
const GROUPS: u64 = 16;

fn main() {
    let directory =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("wal_throughput"), PathBuf::from);
    println!(
        "{:<34} {:>9} {:>10} {:>9} {:>10} {:>9}",
        "", "MB/s", "records/s", "CPU ns/r", "writes", "syncs"
    );
    floor(&directory, 2 << 30);
    for (name, size, total_bytes, durability) in [
        ("64 KiB, page cache", 64 << 10, 2_u64 << 30, Durability::PageCache),
        ("1 KiB, page cache", 1 << 10, 1 << 30, Durability::PageCache),
        ("100 bytes, page cache", 100, 200 << 20, Durability::PageCache),
        ("64 KiB, synced", 64 << 10, 1 << 30, Durability::Synced),
        ("1 KiB, synced", 1 << 10, 256 << 20, Durability::Synced),
    ] {
        measure(&directory, name, size, total_bytes, durability);
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The same amount through bare vectored writes into preallocated files.
fn floor(directory: &PathBuf, total_bytes: u64) {
    let disk = RealDisk::new(directory).unwrap();
    let chunk = vec![7; 64 << 10];
    let slices: Vec<_> = (0..64).map(|_| IoSlice::new(&chunk)).collect();
    let segment_bytes = 128 << 20;
    let begun = Instant::now();
    let cpu = cpu_ns();
    for number in 0..total_bytes / segment_bytes {
        let file = disk.create(&format!("floor-{number}"), segment_bytes).unwrap();
        write_file(&*file, &slices, segment_bytes);
    }
    let records = total_bytes >> 16;
    print_line("bare pwritev, 64 slices of 64 KiB", total_bytes, records, begun, cpu, (total_bytes >> 22, 0));
}

fn write_file(file: &dyn DiskFile, slices: &[IoSlice<'_>], bytes: u64) {
    let step: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
    let mut position = 0;
    while position < bytes {
        file.write_vectored_at(slices, position).unwrap();
        position += step;
    }
}

fn measure(directory: &PathBuf, name: &str, size: usize, total_bytes: u64, durability: Durability) {
    let _ = std::fs::remove_dir_all(directory);
    let disk = Arc::new(RealDisk::new(directory).unwrap());
    let options = WalOptions { trust_unsynced: true, ..WalOptions::default() };
    let (wal, _) = Wal::open(disk, options).unwrap();
    let payload = Payload::from_chunks(vec![Bytes::from(vec![7; size])]);
    let records = total_bytes / size as u64;
    let window = (IN_FLIGHT_BYTES / size).clamp(1, 4096);
    let (done, acknowledged) = mpsc::channel();
    let begun = Instant::now();
    let cpu = cpu_ns();
    let mut in_flight = 0;
    for number in 0..records {
        if in_flight == window {
            acknowledged.recv().unwrap();
            in_flight -= 1;
        }
        let done = done.clone();
        wal.append(vec![entry(number, &payload)], durability, move |outcome| {
            outcome.unwrap();
            done.send(()).unwrap();
        });
        in_flight += 1;
    }
    (0..in_flight).for_each(|_| acknowledged.recv().unwrap());
    let stats = wal.stats();
    print_line(name, total_bytes, records, begun, cpu, (stats.writes, stats.syncs));
    wal.close().unwrap();
}

fn entry(number: u64, payload: &Payload) -> Record {
    let index = number / GROUPS + 1;
    Record {
        group: GroupId(number % GROUPS),
        kind: RecordKind::Entry { tag: 0 },
        index: Index(index),
        term: Term(1),
        prev_term: Term(u64::from(index > 1)),
        base_offset: Offset(index - 1),
        offset_count: 1,
        max_timestamp_ms: 0,
        payload: payload.clone(),
    }
}

/// Processor time of this process so far.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_threads =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    let sum: u64 = of_threads.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum();
    if sum > 0 { sum } else { stat.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0) }
}

fn print_line(name: &str, bytes: u64, records: u64, begun: Instant, cpu: u64, (writes, syncs): (u64, u64)) {
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_per_record = cpu_ns().saturating_sub(cpu) / records.max(1);
    println!(
        "{name:<34} {:>9.0} {:>10.0} {cpu_per_record:>9} {writes:>10} {syncs:>9}",
        bytes as f64 / 1e6 / seconds,
        records as f64 / seconds,
    );
}
