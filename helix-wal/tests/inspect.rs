//! What the offline tools print, word for word, of logs in which everything occurs that can occur. After a change that is meant,
//! `HELIX_REWRITE=1 cargo test -p helix-wal --test inspect` writes the files anew; look at the difference.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use helix_wal::disk::{Crash, Disk, FaultyDisk};
use helix_wal::{
    Durability, GroupId, Index, Offset, Part, Payload, Record, RecordKind, Term, Wal, WalOptions, inspect,
};

fn open(disk: &FaultyDisk) -> Wal {
    let options = WalOptions { segment_bytes: 4096, trust_unsynced: true, ..WalOptions::default() };
    Wal::open_stepped(Arc::new(disk.clone()), options).unwrap().0
}

fn record(group: u64, kind: RecordKind, index: u64, size: usize) -> Record {
    Record {
        group: GroupId(group),
        kind,
        index: Index(index),
        term: Term(1),
        prev_term: Term(u64::from(index > 1)),
        base_offset: Offset(10 * (index - 1)),
        offset_count: 10,
        max_timestamp_ms: 1000 + index as i64,
        payload: Payload::from_chunks(vec![Bytes::from(vec![index as u8; size])]),
    }
}

fn entry(group: u64, index: u64, size: usize) -> Record {
    record(group, RecordKind::Entry { tag: 1 }, index, size)
}

fn append(wal: &Wal, records: Vec<Record>) {
    wal.append(records, Durability::Synced, |outcome| outcome.unwrap());
    wal.step_until_idle();
}

/// Entries of two groups, the states of a third, and a mark; the last segment has no footer.
fn whole_log(disk: &FaultyDisk) {
    let wal = open(disk);
    append(&wal, (1..=4).map(|index| entry(1, index, 100)).collect());
    append(&wal, vec![entry(2, 1, 7), entry(3, 1, 50), entry(3, 2, 50)]);
    append(&wal, vec![record(3, RecordKind::Checkpoint, 2, 20), record(3, RecordKind::Start, 1, 0)]);
    append(&wal, vec![entry(4, 1, 30), record(4, RecordKind::Delete, 1, 0)]);
    wal.close().unwrap();
    let wal = open(disk);
    append(&wal, vec![entry(1, 5, 100), entry(2, 2, 7)]);
    assert!(wal.step(Part::BackgroundSync), "it notes how far it is synced");
    wal.step_until_idle();
    append(&wal, vec![entry(2, 3, 9)]);
    drop(wal);
    disk.crash(Crash::Process);
}

fn segments(disk: &FaultyDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
    names
}

/// All that the tools say.
fn said(disk: &FaultyDisk) -> String {
    let mut text = String::new();
    let mut dump = |title: &str, options| {
        let mut out = Vec::new();
        inspect::dump(disk, options, &mut out).unwrap();
        write!(text, "# {title}\n\n{}\n", String::from_utf8(out).unwrap()).unwrap();
    };
    dump("dump", inspect::DumpOptions::default());
    dump("dump --group 3", inspect::DumpOptions { group: Some(GroupId(3)), summary: false });
    dump("dump --group 1 --summary", inspect::DumpOptions { group: Some(GroupId(1)), summary: true });
    let mut json = Vec::new();
    inspect::dump_json(disk, &mut json).unwrap();
    write!(text, "# dump --json\n\n{}\n", String::from_utf8(json).unwrap()).unwrap();
    let report = inspect::verify(disk).unwrap();
    writeln!(
        text,
        "# verify\n\n{} segments, {} frames, {} bytes",
        report.segments, report.frames, report.bytes
    )
    .unwrap();
    report.problems.iter().for_each(|problem| writeln!(text, "problem: {problem}").unwrap());
    report.notes.iter().for_each(|note| writeln!(text, "note: {note}").unwrap());
    text
}

fn check(name: &str, disk: &FaultyDisk) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inspect").join(name);
    let said = said(disk);
    if std::env::var_os("HELIX_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &said).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(said == written, "{} says otherwise:\n{said}", path.display());
}

#[test]
fn a_whole_log() {
    let disk = FaultyDisk::new(1);
    whole_log(&disk);
    check("whole.txt", &disk);
}

/// A payload and a header in the sealed segment, a payload in the other one; then as the next start leaves it.
#[test]
fn a_damaged_log() {
    let disk = FaultyDisk::new(1);
    whole_log(&disk);
    let names = segments(&disk);
    assert!(disk.flip_bit(&names[0], 64 + 96 + 5, 1));
    assert!(disk.flip_bit(&names[0], 64 + 2 * 200 + 20, 1));
    assert!(disk.flip_bit(&names[1], 64 + 96 + 5, 1));
    check("damaged.txt", &disk);
    drop(open(&disk));
    disk.crash(Crash::Process);
    check("damaged_and_opened.txt", &disk);
}

/// The header of a segment, what the footer says of entries, and where the entries are.
#[test]
fn damaged_headers_and_footers() {
    let disk = FaultyDisk::new(1);
    whole_log(&disk);
    let names = segments(&disk);
    assert!(disk.flip_bit(&names[0], 30, 1), "the header");
    assert!(disk.flip_bit(&names[1], 30, 1), "the header");
    check("headers.txt", &disk);
    let disk = disk.duplicate(2);
    // Behind the frames.
    assert!(disk.flip_bit(&names[0], 1712 + 8, 1), "the first dense entry");
    check("footers.txt", &disk);
}

/// Survivors that were copied, files kept for use, and copies that were not completed.
#[test]
fn a_log_that_was_cleared_up() {
    let disk = FaultyDisk::new(1);
    let wal = open(&disk);
    for index in 1..=12 {
        let mut records = vec![entry(1, index, 1000)];
        if index % 4 == 1 {
            records.push(entry(2, index.div_ceil(4), 50));
        }
        append(&wal, records);
    }
    append(&wal, vec![record(1, RecordKind::Delete, 12, 0)]);
    append(&wal, vec![entry(2, 4, 3500)]);
    wal.reclaim(&|_| Index(100)).unwrap();
    wal.close().unwrap();
    disk.create("00000000000000ff.tmp", 0).unwrap();
    disk.create("notes", 0).unwrap();
    check("cleared_up.txt", &disk);
}
