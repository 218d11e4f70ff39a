//! Torn, lost or damaged: what to think of bytes that do not match their checksums.
//!
//! A write that was never promised to anybody may be incomplete. Anything else is damage, is reported, and nothing behind it
//! is given up. What tells them apart: the synced position that later frames carry; whether the page cache survived, in
//! which case only the very last write can be incomplete; and where the next segment says that this one ended.

use crate::planted::planted;
use std::collections::HashSet;

use crate::contents::SegmentIndex;
use crate::footer::{DamageMeta, DamageOf};
use crate::frame::{FrameHeader, FrameKind};
use crate::record::RecordKind;
use crate::scan::{Item, Scan, ScannedFrame};
use crate::types::Lsn;

/// What is known about a segment without looking into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentEvidence {
    /// Everything up to here was durable.
    pub(crate) synced_lsn: Lsn,
    /// The page cache is the one that was written to.
    pub(crate) trust_unsynced: bool,
    /// Where the frames end, if the segment after this one says so.
    pub(crate) expected_end: Option<u64>,
    /// The highest LSN in the segments before.
    pub(crate) lsn_before: Lsn,
}

/// What a scanned segment holds.
#[derive(Debug)]
pub(crate) struct Classified {
    pub(crate) index: SegmentIndex,
    /// What the index was built from.
    frames: Vec<(u64, FrameHeader)>,
    /// Where the footer goes.
    pub(crate) data_end: u64,
    pub(crate) truncated_bytes: u64,
    /// The earliest LSN after which records of unknown groups are damaged.
    pub(crate) unknown_damage: Option<Lsn>,
    /// The highest LSN seen, of whatever frame.
    pub(crate) max_lsn: Lsn,
}

impl Classified {
    /// Nothing in it will ever be needed.
    pub(crate) fn is_empty(&self) -> bool {
        let contents =
            |group: &crate::contents::GroupContents| group.runs.is_empty() && group.states.is_empty();
        self.index.damage.is_empty() && self.index.groups.values().all(contents)
    }

    /// Builds the index anew as if the frames with these LSNs had never been written.
    pub(crate) fn leave_out(&mut self, rejected: &HashSet<Lsn>) {
        let damage = std::mem::take(&mut self.index.damage);
        self.index = SegmentIndex { damage, ..SegmentIndex::default() };
        let index = &mut self.index;
        self.frames.retain(|(_, header)| !rejected.contains(&header.lsn));
        self.frames.iter().for_each(|(position, header)| index.add(header, *position));
    }
}

/// Sorts the frames and the stretches between them.
pub(crate) fn classify(scan: &Scan, evidence: SegmentEvidence) -> Classified {
    let header = scan.valid_header();
    let mut sorter = Sorter {
        evidence,
        rewritten: header.is_some_and(|header| header.rewritten),
        last_valid: scan.frames().rfind(|frame| frame.payload_valid).map_or(0, |frame| frame.position),
        last_lsn: header.map_or(evidence.lsn_before, |header| header.first_lsn.previous()),
        out: Classified {
            index: SegmentIndex::default(),
            frames: Vec::new(),
            data_end: crate::segment::SEGMENT_HEADER_BYTES,
            truncated_bytes: 0,
            unknown_damage: None,
            max_lsn: Lsn(0),
        },
    };
    for item in &scan.items {
        match item {
            Item::Frame(frame) => sorter.frame(frame),
            Item::Gap { from, to } => sorter.gap(*from, *to),
        }
    }
    sorter.tail(scan);
    sorter.out
}

struct Sorter {
    evidence: SegmentEvidence,
    rewritten: bool,
    /// Where the last whole frame is.
    last_valid: u64,
    /// Of the last header seen.
    last_lsn: Lsn,
    out: Classified,
}

impl Sorter {
    /// Whether something that begins at `position` was complete once, `lsn` being the first that is concerned.
    fn was_complete(&self, position: u64, lsn: Lsn) -> bool {
        let written_behind =
            self.last_valid > position || self.evidence.expected_end.is_some_and(|end| end > position);
        if planted("cut-at-damage") {
            return false;
        }
        self.rewritten || lsn <= self.evidence.synced_lsn || (self.evidence.trust_unsynced && written_behind)
    }

    fn frame(&mut self, frame: &ScannedFrame) {
        let header = &frame.header;
        self.last_lsn = header.lsn;
        self.out.max_lsn = self.out.max_lsn.max(header.lsn);
        if !frame.payload_valid {
            if !self.was_complete(frame.position, header.lsn) {
                self.out.truncated_bytes += header.frame_bytes();
                return;
            }
            let of = match header.kind {
                FrameKind::Record(RecordKind::Entry { .. }) => DamageOf::Entry(header.group, header.index),
                FrameKind::Record(_) | FrameKind::Mark => DamageOf::State(header.group),
            };
            self.out.index.damage.push(DamageMeta { from: frame.position, to: frame.end(), of });
        }
        self.out.index.add(header, frame.position);
        self.out.frames.push((frame.position, *header));
        self.out.data_end = frame.end();
    }

    fn gap(&mut self, from: u64, to: u64) {
        if self.was_complete(from, self.last_lsn.next()) {
            self.damage(from, to);
        } else {
            self.out.truncated_bytes += to - from;
        }
    }

    fn damage(&mut self, from: u64, to: u64) {
        self.out.index.damage.push(DamageMeta { from, to, of: DamageOf::Unknown });
        self.out.unknown_damage = self.out.unknown_damage.or(Some(self.last_lsn));
        self.out.data_end = self.out.data_end.max(to);
    }

    /// What is behind the last frame.
    fn tail(&mut self, scan: &Scan) {
        let file_end = scan.file_bytes.max(scan.end).next_multiple_of(crate::frame::FRAME_ALIGNMENT);
        match self.evidence.expected_end {
            Some(end) if end > scan.end => self.gap(scan.end, end.min(file_end)),
            Some(_) => {}
            None => {
                let unused = scan.header == crate::segment::HeaderFound::Unused && scan.items.is_empty();
                let lost = !unused && self.last_lsn.next() <= self.evidence.synced_lsn;
                if self.rewritten || lost {
                    // Where it ended is not known: the footer goes behind everything that is there.
                    self.damage(scan.end, file_end);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use crate::record::Record;
    use crate::segment::{HeaderFound, SegmentHeader};
    use crate::types::{GroupId, Index, Offset, SegmentId, Term};

    const FRAME: u64 = 96;

    fn frame(place: u64, payload_valid: bool) -> Item {
        let record = Record {
            group: GroupId(1),
            kind: RecordKind::Entry { tag: 0 },
            index: Index(place),
            term: Term(1),
            prev_term: Term(1),
            base_offset: Offset(0),
            offset_count: 0,
            max_timestamp_ms: 0,
            payload: Payload::empty(),
        };
        let header = FrameHeader::of(&record, Lsn(100 + place), Lsn(0), Lsn(0));
        Item::Frame(ScannedFrame { position: 64 + (place - 1) * FRAME, header, payload_valid })
    }

    fn gap(place: u64) -> Item {
        Item::Gap { from: 64 + (place - 1) * FRAME, to: 64 + place * FRAME }
    }

    fn scan(items: Vec<Item>) -> Scan {
        let header = SegmentHeader {
            segment: SegmentId(3),
            rewritten: false,
            repair: false,
            first_lsn: Lsn(101),
            previous: SegmentId(0),
            previous_end: 0,
        };
        let end = 64 + items.len() as u64 * FRAME;
        Scan { header: HeaderFound::Valid(header), items, end, file_bytes: 4096 }
    }

    fn evidence(synced: u64, trust_unsynced: bool) -> SegmentEvidence {
        SegmentEvidence { synced_lsn: Lsn(synced), trust_unsynced, expected_end: None, lsn_before: Lsn(100) }
    }

    #[test]
    fn a_torn_tail_is_dropped() {
        let torn = scan(vec![frame(1, true), frame(2, false)]);
        for trusted in [true, false] {
            let classified = classify(&torn, evidence(101, trusted));
            assert_eq!(classified.index.damage, []);
            assert_eq!(classified.data_end, 64 + FRAME);
            assert_eq!(classified.truncated_bytes, FRAME);
        }
    }

    #[test]
    fn bad_then_good_is_damage_if_the_page_cache_is_whole() {
        let items = vec![frame(1, true), gap(2), frame(3, true)];
        let classified = classify(&scan(items.clone()), evidence(0, true));
        assert_eq!(classified.index.damage.len(), 1);
        assert_eq!(classified.unknown_damage, Some(Lsn(101)));
        let classified = classify(&scan(items), evidence(0, false));
        assert_eq!(classified.index.damage, []);
        assert_eq!(classified.index.groups[&GroupId(1)].runs.len(), 2);
    }

    #[test]
    fn what_was_synced_is_damage_wherever_it_is() {
        let classified = classify(&scan(vec![frame(1, true), frame(2, false)]), evidence(102, false));
        assert_eq!(classified.index.damage[0].of, DamageOf::Entry(GroupId(1), Index(2)));
        assert_eq!(classified.unknown_damage, None);
        let classified = classify(&scan(vec![frame(1, true)]), evidence(102, false));
        assert_eq!(classified.index.damage[0].of, DamageOf::Unknown);
        assert_eq!(classified.data_end, 4096);
    }

    #[test]
    fn the_next_segment_says_where_this_one_ended() {
        let ended = |end, trusted| SegmentEvidence { expected_end: Some(end), ..evidence(0, trusted) };
        let whole = scan(vec![frame(1, true)]);
        assert_eq!(classify(&whole, ended(64 + FRAME, true)).index.damage, []);
        assert_eq!(classify(&whole, ended(64 + 2 * FRAME, true)).index.damage.len(), 1);
        assert_eq!(classify(&whole, ended(64 + 2 * FRAME, false)).index.damage, []);
    }

    #[test]
    fn what_begins_where_the_segment_ended_was_never_part_of_it() {
        let ended = SegmentEvidence { expected_end: Some(64 + FRAME), ..evidence(0, true) };
        let classified = classify(&scan(vec![frame(1, true), frame(2, false)]), ended);
        assert_eq!((classified.index.damage.len(), classified.truncated_bytes), (0, FRAME));
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let items = vec![frame(1, true), gap(2), frame(3, true), frame(4, false)];
        assert_eq!(classify(&scan(items), evidence(0, false)).truncated_bytes, 2 * FRAME);
    }

    #[test]
    fn a_segment_was_never_used_if_neither_header_nor_frames_say_so() {
        let found = |header, items| Scan { header, ..scan(items) };
        let damage = |scan: &Scan| classify(scan, evidence(200, false)).index.damage.len();
        assert_eq!(damage(&found(HeaderFound::Unused, vec![])), 0);
        assert_eq!(
            damage(&found(HeaderFound::Unused, vec![frame(1, true)])),
            1,
            "it goes on behind the frame"
        );
        assert_eq!(damage(&found(HeaderFound::Invalid, vec![])), 1, "all of it");
    }

    #[test]
    fn damage_stays_when_frames_are_left_out() {
        let items = vec![frame(1, true), gap(2), frame(3, true)];
        let mut classified = classify(&scan(items), evidence(0, true));
        classified.leave_out(&HashSet::from([Lsn(103)]));
        assert_eq!(classified.index.damage.len(), 1);
        let runs = &classified.index.groups[&GroupId(1)].runs;
        assert_eq!(runs.iter().map(|run| run.first).collect::<Vec<_>>(), [Index(1)]);
    }
}
