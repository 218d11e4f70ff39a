//! Offline tools: what is in a log, and is it whole? They only read, and take no lock.

use std::collections::BTreeMap;
use std::io;

use crate::disk::Disk;
use crate::footer::{Directory, EntryMeta, load_entries};
use crate::frame::{FrameHeader, FrameKind};
use crate::record::RecordKind;
use crate::scan::{Item, Scan, ScannedFrame, scan};
use crate::segment::{FileName, HeaderFound, Segment};
use crate::types::{GroupId, Lsn, SegmentId};

/// What to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Only records of this group.
    pub group: Option<GroupId>,
    /// Leave out the lines of single frames.
    pub summary: bool,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segments looked at.
    pub segments: u64,
    /// Frames that match their checksums.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// One line for each thing that is wrong. Empty if the log is whole.
    pub problems: Vec<String>,
    /// One line for each thing worth knowing that is normal after a crash (a torn tail, a missing footer).
    pub notes: Vec<String>,
}

/// One segment, read in full.
struct Inspected {
    id: SegmentId,
    segment: std::sync::Arc<Segment>,
    scan: Scan,
    directory: Option<Directory>,
}

impl Inspected {
    /// Frames and gaps in front of the footer.
    fn items(&self) -> impl Iterator<Item = &Item> {
        let end = self.directory.as_ref().map_or(u64::MAX, |directory| directory.data_end);
        self.scan.items.iter().filter(move |item| match item {
            Item::Frame(frame) => frame.position < end,
            Item::Gap { from, .. } => *from < end,
        })
    }
}

fn inspect_all(disk: &dyn Disk) -> io::Result<(Vec<Inspected>, Vec<FileName>)> {
    let mut names: Vec<FileName> = disk.list()?.iter().filter_map(|name| FileName::parse(name)).collect();
    names.sort_by_key(|name| name.segment());
    let mut inspected = Vec::new();
    let mut others = Vec::new();
    for name in names {
        let FileName::Segment(id) = name else {
            others.push(name);
            continue;
        };
        let segment = Segment::new(id, disk.open(&name.to_string())?);
        let scan = scan(&segment)?;
        let directory = Directory::load(&*segment.file, id, scan.file_bytes)?;
        inspected.push(Inspected { id, segment, scan, directory });
    }
    Ok((inspected, others))
}

/// Prints every segment and frame. Reads only; the log should not be in use.
pub fn dump(disk: &dyn Disk, options: DumpOptions, out: &mut dyn io::Write) -> io::Result<()> {
    let (inspected, others) = inspect_all(disk)?;
    for one in &inspected {
        dump_segment(one, options, out)?;
    }
    for name in others {
        let what = if matches!(name, FileName::Free(_)) { "kept for reuse" } else { "incomplete copy" };
        writeln!(out, "file {name}: {what}")?;
    }
    Ok(())
}

/// Prints every record as a line of JSON, for programs that compare logs. `crc` is the CRC-32 of the payload; `whole` says
/// whether the payload matches it. The highest `lsn` wins wherever several records have one index of a group.
/// Reads only; the log should not be in use.
pub fn dump_json(disk: &dyn Disk, out: &mut dyn io::Write) -> io::Result<()> {
    let (inspected, _) = inspect_all(disk)?;
    for one in &inspected {
        for item in one.items() {
            if let Item::Frame(frame) = item
                && let FrameKind::Record(kind) = frame.header.kind
            {
                writeln!(out, "{}", json_line(frame, kind))?;
            }
        }
    }
    Ok(())
}

fn json_line(frame: &ScannedFrame, kind: RecordKind) -> String {
    let FrameHeader { group, index, term, prev_term, lsn, floor_lsn, .. } = frame.header;
    let FrameHeader { base_offset, offset_count, payload_len, payload_crc, .. } = frame.header;
    let (kind, tag) = match kind {
        RecordKind::Entry { tag } => ("entry", tag),
        RecordKind::Start => ("start", 0),
        RecordKind::Checkpoint => ("checkpoint", 0),
        RecordKind::Delete => ("delete", 0),
    };
    format!(
        "{{\"group\":{group},\"kind\":\"{kind}\",\"tag\":{tag},\"index\":{index},\"term\":{term},\
         \"prev_term\":{prev_term},\"lsn\":{lsn},\"floor_lsn\":{floor_lsn},\"base_offset\":{base_offset},\
         \"offset_count\":{offset_count},\"bytes\":{payload_len},\"crc\":{payload_crc},\"whole\":{}}}",
        frame.payload_valid
    )
}

fn dump_segment(one: &Inspected, options: DumpOptions, out: &mut dyn io::Write) -> io::Result<()> {
    let sealed = if one.directory.is_some() { "sealed" } else { "no footer" };
    let header = match one.scan.header {
        HeaderFound::Valid(header) => format!(
            "first lsn {}, after segment {} ending at {}{}",
            header.first_lsn,
            header.previous,
            header.previous_end,
            match (header.repair, header.rewritten) {
                (true, _) => ", stands in for damaged records",
                (false, true) => ", rewritten",
                (false, false) => "",
            },
        ),
        HeaderFound::Unused => "unused".to_owned(),
        HeaderFound::OtherVersion(version) => format!("format version {version}"),
        HeaderFound::Invalid => "header damaged".to_owned(),
    };
    writeln!(out, "segment {} ({} bytes, {sealed}): {header}", one.id, one.scan.file_bytes)?;
    if !options.summary {
        for item in one.items() {
            match item {
                Item::Gap { from, to } => writeln!(out, "  {from:>10}  unreadable up to {to}")?,
                Item::Frame(frame) if options.group.is_none_or(|group| group == frame.header.group) => {
                    writeln!(out, "  {}", frame_line(frame))?;
                }
                Item::Frame(_) => {}
            }
        }
    }
    let Some(directory) = &one.directory else { return Ok(()) };
    for run in &directory.runs {
        if options.group.is_none_or(|group| group == run.group) {
            writeln!(
                out,
                "  footer: group {} entries {}..={} lsn {}..={} offsets {}..{} ({} bytes)",
                run.group,
                run.first,
                run.last(),
                run.first_lsn,
                run.last_lsn,
                run.base_offset,
                run.next_offset,
                run.bytes,
            )?;
        }
    }
    for state in &directory.states {
        if options.group.is_none_or(|group| group == state.group) {
            let kind = format!("{:?}", state.kind).to_lowercase();
            writeln!(
                out,
                "  footer: group {} {kind} at index {} lsn {} position {}",
                state.group, state.index, state.lsn, state.position
            )?;
        }
    }
    for damage in &directory.damage {
        writeln!(out, "  footer: damaged from {} to {} ({:?})", damage.from, damage.to, damage.of)?;
    }
    Ok(())
}

fn frame_line(frame: &ScannedFrame) -> String {
    let FrameHeader { group, index, term, prev_term, lsn, payload_len, synced_lsn, .. } = frame.header;
    let at = frame.position;
    let broken = if frame.payload_valid { "" } else { "  PAYLOAD DAMAGED" };
    match frame.header.kind {
        FrameKind::Mark => format!("{at:>10}  lsn {lsn} mark, synced through lsn {synced_lsn}{broken}"),
        FrameKind::Record(kind) => {
            let kind = match kind {
                RecordKind::Entry { tag } => format!("entry/{tag}"),
                RecordKind::Start => format!("start (dead below lsn {})", frame.header.floor_lsn),
                RecordKind::Checkpoint => "checkpoint".to_owned(),
                RecordKind::Delete => "delete".to_owned(),
            };
            let copy = if frame.header.rewritten { " copy" } else { "" };
            format!(
                "{at:>10}  lsn {lsn} group {group} {kind}{copy} index {index} term {term} after term {prev_term} \
                 offsets {}+{} timestamp {} payload {payload_len} bytes{broken}",
                frame.header.base_offset, frame.header.offset_count, frame.header.max_timestamp_ms,
            )
        }
    }
}

/// Reads everything and checks it. Reads only; the log should not be in use.
pub fn verify(disk: &dyn Disk) -> io::Result<VerifyReport> {
    let (inspected, others) = inspect_all(disk)?;
    let mut report = VerifyReport::default();
    for name in others.iter().filter(|name| matches!(name, FileName::Temporary(_))) {
        report.notes.push(format!("file {name} is an incomplete copy; the next start removes it"));
    }
    let synced_lsn = inspected.iter().map(synced_lsn).max().unwrap_or_default();
    for one in &inspected {
        report.segments += 1;
        let whole = one.scan.frames().filter(|frame| frame.payload_valid);
        for frame in whole {
            report.frames += 1;
            report.bytes += frame.header.frame_bytes();
        }
        check_frames(one, synced_lsn, &mut report);
        match &one.directory {
            Some(directory) => check_footer(one, directory, &mut report)?,
            None if one.scan.items.is_empty() => {}
            None => {
                report
                    .notes
                    .push(format!("segment {} has no index footer; the next start writes it", one.id));
            }
        }
    }
    Ok(report)
}

fn synced_lsn(one: &Inspected) -> Lsn {
    match &one.directory {
        Some(directory) => directory.max_lsn,
        None => one.scan.frames().map(|frame| frame.header.synced_lsn).max().unwrap_or_default(),
    }
}

fn check_frames(one: &Inspected, synced_lsn: Lsn, report: &mut VerifyReport) {
    let id = one.id;
    match one.scan.header {
        HeaderFound::OtherVersion(version) => {
            report.problems.push(format!("segment {id} has format version {version}, which is not known"));
        }
        HeaderFound::Invalid if !one.scan.items.is_empty() => {
            report.problems.push(format!("the header of segment {id} is damaged"));
        }
        _ => {}
    }
    if let Some(directory) = &one.directory {
        for damage in &directory.damage {
            report.problems.push(format!(
                "segment {id} position {}: found damaged up to {} by an earlier start ({:?})",
                damage.from, damage.to, damage.of
            ));
        }
    }
    let mut last_lsn = one.scan.valid_header().map_or(Lsn(0), |header| header.first_lsn.previous());
    for item in one.items() {
        let (what, lsn) = match item {
            Item::Frame(frame) => {
                last_lsn = frame.header.lsn;
                if frame.payload_valid {
                    continue;
                }
                (format!("segment {id}: the payload of {} is damaged", name_of(frame)), last_lsn)
            }
            Item::Gap { from, to } => {
                (format!("segment {id} position {from}: unreadable up to {to}"), last_lsn.next())
            }
        };
        if one.directory.is_some() {
            // What the index needs of it is checked with the index.
            report.notes.push(format!("{what}; it may never have been complete"));
        } else if lsn <= synced_lsn {
            report.problems.push(what);
        } else {
            report.notes.push(format!("{what}; it had not been synced"));
        }
    }
}

fn name_of(frame: &ScannedFrame) -> String {
    let FrameHeader { group, index, .. } = frame.header;
    format!("group {group} index {index} at position {}", frame.position)
}

/// Whether the footer says what is in the frames.
fn check_footer(one: &Inspected, directory: &Directory, report: &mut VerifyReport) -> io::Result<()> {
    let id = one.id;
    let whole = one.scan.frames().filter(|frame| frame.payload_valid);
    let positions: BTreeMap<u64, &FrameHeader> = whole.map(|frame| (frame.position, &frame.header)).collect();
    for run in &directory.runs {
        let entries = load_entries(&*one.segment.file, run.entries_position, run.count, run.entries_crc)?;
        let Some(entries) = entries else {
            report.problems.push(format!(
                "segment {id}: the index entries of group {} from {} on are damaged",
                run.group, run.first
            ));
            continue;
        };
        for (at, entry) in entries.iter().enumerate() {
            let index = run.first.0 + at as u64;
            let fits = positions.get(&entry.position).is_some_and(|header| {
                header.group == run.group
                    && header.index.0 == index
                    && EntryMeta::of(header, entry.position) == *entry
            });
            if !fits {
                report.problems.push(format!(
                    "segment {id}: the index says that group {} index {index} is at {}, and no whole frame of it is there",
                    run.group, entry.position
                ));
            }
        }
    }
    for state in &directory.states {
        if positions.get(&state.position).is_none_or(|header| header.lsn != state.lsn) {
            report.problems.push(format!(
                "segment {id}: the index says that a state of group {} is at {}, and no whole frame of it is there",
                state.group, state.position
            ));
        }
    }
    Ok(())
}
