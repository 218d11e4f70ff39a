//! How entries are read: limits, calls, and what is not believed.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::disk::{DiskFile, FaultyDisk};
use crate::footer::StateKind;
use crate::types::Lsn;
use crate::{Durability, Wal, WalOptions};

fn meta(payload_len: u32) -> EntryMeta {
    EntryMeta {
        position: 0,
        term: Term(0),
        base_offset: Offset(0),
        max_timestamp_ms: 0,
        lsn: Lsn(0),
        offset_count: 0,
        payload_len,
    }
}

#[test]
fn a_limit_lets_the_first_one_through() {
    let entries = [meta(100), meta(10), meta(10)];
    let mut left = 50;
    assert_eq!(within(&entries, &mut left, true).len(), 1);
    let mut left = 110;
    assert_eq!(within(&entries, &mut left, false).len(), 2);
    let mut left = 50;
    assert_eq!(within(&entries, &mut left, false).len(), 0);
}

/// A file that can only be read, and knows how.
#[derive(Default)]
struct Watched {
    bytes: Vec<u8>,
    reads: Mutex<Vec<(u64, usize)>>,
    /// What was asked for beforehand, and after how many reads.
    announced: Mutex<Vec<(u64, u64, usize)>>,
    lengths_asked: AtomicU64,
}

impl DiskFile for Watched {
    fn write_vectored_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.reads.lock().push((position, buffer.len()));
        let rest = self.bytes.get(position as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn start_writeback(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn will_read(&self, position: u64, len: u64) -> io::Result<()> {
        self.announced.lock().push((position, len, self.reads.lock().len()));
        Err(io::ErrorKind::Unsupported.into())
    }

    fn drop_cached(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.lengths_asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.bytes.len() as u64)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

const GROUP: GroupId = GroupId(1);

/// Entries of the group from index 1 on, in the given places and with payloads of those sizes, all zeros.
fn entries_at(places: &[(u64, usize)]) -> (Arc<Watched>, Arc<Segment>, Vec<EntryMeta>) {
    let seed = Segment::new(SegmentId(1), Arc::new(Watched::default()));
    let mut file = Watched::default();
    let mut metas = Vec::new();
    for ((position, size), index) in places.iter().copied().zip(1..) {
        let record = Record {
            group: GROUP,
            kind: RecordKind::Entry { tag: 0 },
            index: Index(index),
            term: Term(1),
            prev_term: Term(1),
            base_offset: Offset(0),
            offset_count: 0,
            max_timestamp_ms: 0,
            payload: Payload::from_chunks(vec![Bytes::from(vec![0; size])]),
        };
        let header = FrameHeader::of(&record, Lsn(index), Lsn(0), Lsn(0));
        let (from, to) = (position as usize, (position + header.frame_bytes()) as usize);
        file.bytes.resize(file.bytes.len().max(to), 0);
        file.bytes[from..from + FRAME_HEADER_BYTES].copy_from_slice(&header.encode(&seed.seed, position));
        metas.push(EntryMeta::of(&header, position));
    }
    let file = Arc::new(file);
    (Arc::clone(&file), Segment::new(SegmentId(1), file), metas)
}

/// The calls that reading them takes.
fn calls(places: &[(u64, usize)]) -> Vec<(u64, usize)> {
    let (file, segment, metas) = entries_at(places);
    let mut records = Vec::new();
    read_entries(&segment, GROUP, Index(1), &metas, &mut records).unwrap();
    assert!(records.iter().map(|stored| stored.record.index.0).eq(1..=places.len() as u64));
    file.reads.lock().clone()
}

#[test]
fn neighbours_are_read_with_one_call() {
    assert_eq!(calls(&[(64, 0), (160, 0), (256, 0)]), [(64, 288)]);
    let near = 160 + MAX_GAP_BYTES;
    assert_eq!(calls(&[(64, 0), (near, 0)]), [(64, 96 + MAX_GAP_BYTES as usize + 96)]);
    assert_eq!(calls(&[(64, 0), (near + 8, 0)]), [(64, 96), (near + 8, 96)]);
    assert_eq!(calls(&[(256, 0), (160, 0)]), [(256, 96), (160, 96)], "what was copied may lie before");
    let half = (MAX_CALL_BYTES / 2) as usize;
    let large = |number: u64| (number * MAX_CALL_BYTES / 2, half - FRAME_HEADER_BYTES);
    let three = [large(0), large(1), large(2)];
    assert_eq!(calls(&three), [(0, 2 * half), (MAX_CALL_BYTES, half)]);
}

#[test]
fn all_calls_but_the_first_are_announced_before_it() {
    let far = |number: u64| (number << 20, 104);
    let (file, segment, metas) = entries_at(&[far(0), far(1), (far(1).0 + 200, 0), far(2)]);
    let read = |metas| read_entries(&segment, GROUP, Index(1), metas, &mut Vec::new()).unwrap();
    read(&metas[..1]);
    assert_eq!(*file.announced.lock(), [], "there is nothing else");
    file.reads.lock().clear();
    read(&metas);
    assert_eq!(*file.announced.lock(), [(1 << 20, 296, 0), (2 << 20, 200, 0)]);
    assert_eq!(*file.reads.lock(), [(0, 200), (1 << 20, 296), (2 << 20, 200)]);
}

#[test]
fn another_frame_than_the_index_says_is_damage() {
    let (_, segment, metas) = entries_at(&[(64, 0), (160, 0)]);
    let read =
        |group, first, meta| read_entries(&segment, GroupId(group), Index(first), &[meta], &mut Vec::new());
    read(1, 2, metas[1]).unwrap();
    let wrong_lsn = EntryMeta { lsn: Lsn(9), ..metas[1] };
    for outcome in [read(2, 2, metas[1]), read(1, 1, metas[1]), read(1, 2, wrong_lsn)] {
        assert!(matches!(outcome, Err(ReadError::Damaged { .. })), "{outcome:?}");
    }
}

#[test]
fn memory_is_taken_for_a_large_frame_only_if_the_file_is_so_long() {
    let large = MAX_CALL_BYTES as usize;
    let (file, segment, metas) = entries_at(&[(64, 0), (160, large)]);
    let read = |position, len| read_bytes(&segment, position, len).unwrap().map(|bytes| bytes.len());
    assert_eq!(read(64, 96), Some(96));
    assert_eq!(read(160, MAX_CALL_BYTES), Some(large));
    assert_eq!(file.lengths_asked.load(Ordering::Relaxed), 0, "for what is not large nobody asks");
    let whole = metas[1].frame_bytes();
    assert_eq!(read(160, whole), Some(large + FRAME_HEADER_BYTES), "up to the end of the file");
    file.reads.lock().clear();
    assert_eq!(read(168, whole), None);
    assert_eq!(*file.reads.lock(), []);
}

#[test]
fn another_state_than_the_index_says_is_damage() {
    let seed = Segment::new(SegmentId(1), Arc::new(Watched::default()));
    let record = Record {
        group: GROUP,
        kind: RecordKind::Start,
        index: Index(3),
        term: Term(1),
        prev_term: Term(1),
        base_offset: Offset(3),
        offset_count: 0,
        max_timestamp_ms: 0,
        payload: Payload::empty(),
    };
    let header = FrameHeader::of(&record, Lsn(7), Lsn(0), Lsn(0));
    let mut file = Watched { bytes: vec![0; 160], ..Watched::default() };
    file.bytes[64..].copy_from_slice(&header.encode(&seed.seed, 64));
    let segment = Segment::new(SegmentId(1), Arc::new(file));
    let meta = StateMeta::of(&header, StateKind::Start, 64);
    assert_eq!(read_state(&segment, &meta).unwrap().unwrap().record, record);
    for wrong in [StateMeta { lsn: Lsn(8), ..meta }, StateMeta { group: GroupId(2), ..meta }] {
        assert_eq!(read_state(&segment, &wrong).unwrap(), None);
    }
}

fn stepped(disk: &FaultyDisk, records: Vec<Record>) -> Wal {
    let options = WalOptions {
        segment_bytes: 4096,
        prepared_segments: 1,
        reserve_bytes: 4096,
        ..WalOptions::default()
    };
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), options).unwrap();
    append(&wal, records);
    wal
}

fn append(wal: &Wal, records: Vec<Record>) {
    wal.append(records, Durability::PageCache, |outcome| outcome.unwrap());
    wal.step_until_idle();
}

fn record(kind: RecordKind, index: u64) -> Record {
    Record {
        group: GROUP,
        kind,
        index: Index(index),
        term: Term(1),
        prev_term: Term(u64::from(index > 1)),
        base_offset: Offset(if kind == RecordKind::Start { index } else { index - 1 }),
        offset_count: u32::from(kind != RecordKind::Start),
        max_timestamp_ms: 0,
        payload: Payload::empty(),
    }
}

/// A log of two ranges, the entries 1 to 3 and 4 to 8.
fn of_two_ranges() -> Wal {
    let disk = FaultyDisk::new(1);
    let entries = |indexes: std::ops::RangeInclusive<u64>| {
        indexes.map(|index| record(RecordKind::Entry { tag: 1 }, index)).collect()
    };
    stepped(&disk, entries(1..=3)).close().unwrap();
    stepped(&disk, entries(4..=8))
}

/// Looks for the last entry, and lets something happen while the first range is looked into. Also says into how many pieces it looked.
fn found_while(wal: &Wal, happens: impl Fn()) -> (Option<Index>, u64) {
    let looks = AtomicU64::new(0);
    let find_in = |entries: &[EntryMeta]| {
        if looks.fetch_add(1, Ordering::Relaxed) == 0 {
            happens();
        }
        entries.iter().position(|entry| entry.base_offset == Offset(7))
    };
    let found = find(wal.shared(), GROUP, Index(0), |_| true, find_in, |_| false).unwrap();
    (found, looks.into_inner())
}

#[test]
fn what_is_left_of_a_range_that_is_cut_while_a_log_is_looked_through_counts() {
    let wal = of_two_ranges();
    let cut = || append(&wal, vec![record(RecordKind::Start, 5)]);
    assert_eq!(
        found_while(&wal, cut),
        (Some(Index(8)), 2),
        "in the first range, and in what was left after that"
    );
}

#[test]
fn all_pieces_of_a_range_that_is_split_while_a_log_is_looked_through_count() {
    let wal = of_two_ranges();
    // As a repair does it.
    let split = || {
        let mut index = wal.shared().index.write();
        let log = index.groups.get_mut(&GROUP).unwrap();
        let whole = *log.ranges.back().unwrap();
        log.patch(&Range { first: Index(6), last: Index(6), ..whole }, &|_| false, &|_, _, _| true);
        assert_eq!(log.ranges.len(), 4);
    };
    assert_eq!(found_while(&wal, split), (Some(Index(8)), 4), "in the first range, and in three pieces");
}
