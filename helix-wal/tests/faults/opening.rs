//! What a start finds, and what it makes of it.

use super::*;

#[test]
fn a_second_opening_is_refused() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    let second = Wal::open_stepped(Arc::new(disk.clone()), options());
    assert!(matches!(second, Err(OpenError::Locked)));
    wal.close().unwrap();
    open(&disk, true);
}

fn file_names(disk: &FaultyDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

#[test]
fn what_is_found_beside_segments_is_cleared_up() {
    let disk = FaultyDisk::new(1);
    for (name, bytes) in [
        ("0000000000000001.free", 4096),
        ("0000000000000002.free", 4097),
        ("0000000000000003.free", 100),
        ("0000000000000004.free", 4096),
        ("0000000000000005.free", 4096),
        ("0000000000000010.tmp", 7),
        ("notes.txt", 5),
    ] {
        disk.create(name, bytes).unwrap();
    }
    let opened = |recycled_segments| {
        let disk = disk.duplicate(2);
        let options = WalOptions { recycled_segments, ..options() };
        let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), options).unwrap();
        let stats = wal.stats();
        drop(wal);
        (file_names(&disk), stats.disk_bytes)
    };
    // The last of those that are kept has become the next segment, whose number is above all that there were.
    let next = "0000000000000011.wal";
    let (names, bytes) = opened(3);
    assert_eq!(names, ["0000000000000001.free", "0000000000000003.free", next, "notes.txt"]);
    assert_eq!(bytes, 4096 + 100 + 4096);
    assert_eq!(opened(0), (vec![next.to_owned(), "notes.txt".to_owned()], 4096));
}

#[test]
fn prepared_segments_that_were_not_used_are_used_again() {
    let disk = FaultyDisk::new(1);
    for name in ["0000000000000001.wal", "0000000000000002.wal", "0000000000000003.wal"] {
        disk.create(name, 4096).unwrap();
    }
    let options = WalOptions { recycled_segments: 2, ..options() };
    let (wal, recovered) = Wal::open_stepped(Arc::new(disk.clone()), options).unwrap();
    assert_eq!(recovered, Recovered::default());
    assert_eq!(file_names(&disk), ["0000000000000001.free", "0000000000000004.wal"]);
    drop(wal);
}

#[test]
fn a_block_of_a_file_that_is_used_again_is_written_as_a_whole() {
    const BLOCK: usize = 4096;
    let disk = FaultyDisk::new(1);
    let retired = disk.create("0000000000000001.free", 4 * BLOCK as u64).unwrap();
    retired.write_at(&[7; 4 * BLOCK], 0).unwrap();
    let options = WalOptions { segment_bytes: 4 * BLOCK as u64, recycled_segments: 1, ..options() };
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), options).unwrap();
    // What is behind the last frame: zeros up to the end of its block, and then what was there before.
    let behind = |index, bytes: usize| {
        append(&wal, vec![entry(GROUP, index, bytes)], Durability::PageCache).unwrap();
        let written = disk.contents("0000000000000002.wal").unwrap();
        let old = written.iter().rev().take_while(|byte| **byte == 7).count();
        let zeros = written.iter().rev().skip(old).take_while(|byte| **byte == 0).count();
        (old, zeros / 8 * 8)
    };
    let frame = 96 + 1000;
    assert_eq!(behind(1, 1000), (3 * BLOCK, BLOCK - 64 - frame));
    assert_eq!(behind(2, 1000), (3 * BLOCK, BLOCK - 64 - 2 * frame));
    assert_eq!(behind(3, 3000), (2 * BLOCK, 2 * BLOCK - 64 - 2 * frame - (96 + 3000)));
    drop(wal);
}

#[test]
fn a_log_of_another_version_is_left_alone() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    let name = segment(&disk);
    let mut header = disk.contents(&name).unwrap()[..64].to_vec();
    header[12] += 1;
    let checksum = crc32fast::hash(&header[12..]);
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
    disk.open(&name).unwrap().write_at(&header, 0).unwrap();
    let before = disk.contents(&name);
    let refused = Wal::open_stepped(Arc::new(disk.clone()), options()).err().unwrap();
    assert!(matches!(refused, OpenError::Version { found: 2, supported: 1, .. }), "{refused}");
    let problems = inspect::verify(&disk).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("format version 2")), "{problems:?}");
    assert_eq!(disk.contents(&name), before);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let open = |segment_bytes| {
        Wal::open_stepped(Arc::new(FaultyDisk::new(1)), WalOptions { segment_bytes, ..options() }).err()
    };
    assert!(matches!(open(4095), Some(OpenError::Options(_))));
    assert!(open(4096).is_none());
}

#[test]
fn a_log_is_opened_on_a_full_disk_and_read() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    for name in names(&disk, ".free").iter().chain(&names(&disk, ".wal")[1..]) {
        disk.remove(name).unwrap();
    }
    disk.set_capacity_bytes(disk.used_bytes());
    let (wal, _) = open(&disk, true);
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 1);
    let refused = append(&wal, vec![entry(GROUP, 2, 10)], Durability::PageCache);
    assert!(matches!(refused, Err(AppendError::DiskFull)), "{refused:?}");
    disk.set_capacity_bytes(1 << 20);
    append(&wal, vec![entry(GROUP, 2, 10)], Durability::PageCache).unwrap();
}

/// A file that was made and not written to any more says nothing, and nothing is wrong with that.
#[test]
fn a_segment_of_nothing_is_no_problem() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    disk.create("0000000000000009.wal", 4096).unwrap().write_at(&[7; 64], 0).unwrap();
    assert_eq!(inspect::verify(&disk).unwrap().problems, [""; 0]);
}

/// What a failed sync left in memory may be in a segment that holds nothing synced at all.
#[test]
fn all_of_a_segment_is_written_again_if_none_of_it_was_synced() {
    let disk = FaultyDisk::new(1);
    let open = |trust_unsynced| {
        let options = WalOptions { segment_bytes: 1 << 20, trust_unsynced, ..options() };
        Wal::open_stepped(Arc::new(disk.clone()), options).unwrap()
    };
    let (wal, _) = open(true);
    append(&wal, vec![entry(GROUP, 1, 900_000)], Durability::Synced).unwrap();
    disk.fail_syncs(true);
    append(&wal, vec![entry(GROUP, 2, 900_000)], Durability::Synced).unwrap_err();
    drop(wal);
    disk.crash(Crash::Process);
    let (wal, _) = open(true);
    assert_eq!(bounds(&wal, GROUP).last_index, Index(2));
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, _) = open(false);
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 2);
}

/// The next segment remembers where the one before it ends: else the end of that one could go without a trace.
#[test]
fn what_was_sealed_at_a_start_cannot_lose_its_end_silently() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    let records = vec![entry(GROUP, 1, 96), entry(OTHER, 1, 96), entry(GROUP, 2, 96), entry(OTHER, 2, 96)];
    append(&wal, records, Durability::PageCache).unwrap();
    drop(wal);
    disk.crash(Crash::Process);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 3, 96)], Durability::PageCache).unwrap();
    drop(wal);
    disk.crash(Crash::Process);
    let first = segment(&disk);
    let len = disk.contents(&first).unwrap().len() as u64;
    assert!(disk.flip_bit(&first, len - 40, 1), "the footer");
    assert!(disk.flip_bit(&first, 64 + 3 * 192 + 20, 1), "the header of the last frame");
    let (_, recovered) = open(&disk, true);
    assert_eq!(recovered.damage.len(), 1, "{recovered:?}");
    assert_eq!((recovered.damage[0].segment.0, recovered.damage[0].from_position), (1, 64 + 3 * 192));
    assert_eq!(recovered.doubtful, [OTHER], "of the other group there is something newer");
}
