//! Opening a log: which files there are, what is in them, what of it is live, and a footer for every segment without one.
//!
//! Sealed segments are not read beyond their header and directory. After recovery no segment is open: the log goes on in a
//! fresh one, so nothing is ever written behind a torn record.

use crate::planted::planted;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use crate::classify::{Classified, SegmentEvidence, classify};
use crate::disk::{Disk, DiskFile, DiskLock, is_out_of_space};
use crate::error::OpenError;
use crate::footer::{DamageOf, Directory, EntryMeta, RunSummary, load_entries};
use crate::index::{Contents, GroupLog, Index, SealedContents, SegmentEntry, StateRef};
use crate::options::WalOptions;
use crate::reader::read_state;
use crate::record::StoredRecord;
use crate::recovered::{Damage, DamageScope, DamagedRange, Recovered, RecoveredGroup};
use crate::resolve::{Evidence, Resolved, SegmentView, resolve};
use crate::scan::{Scan, read_header, scan};
use crate::segment::{
    FORMAT_VERSION, FileName, HeaderFound, LOCK_NAME, SEGMENT_HEADER_BYTES, Segment, SegmentHeader,
};
use crate::shared::{Foundation, SpareFile};
use crate::types::{GroupId, Index as EntryIndex, Lsn, SegmentId};

/// What is read and written at a time where bytes are written again.
const REWRITE_BYTES: usize = 1 << 20;

/// Opens what is in `disk`.
pub(crate) fn recover(disk: &dyn Disk, options: &WalOptions) -> Result<(Foundation, Recovered), OpenError> {
    let lock = take_lock(disk)?;
    let mut files = Files::list(disk)?;
    let mut loaded = files.load(disk, options.trust_unsynced)?;
    let synced_lsn = loaded.values().map(Loaded::claimed_lsn).max().unwrap_or_default();
    let mut recovered = Recovered::default();
    if options.trust_unsynced && !planted("failed-sync-forgotten") {
        write_unsynced_again(&loaded, synced_lsn)?;
    }
    let unknown_damage = classify_all(&mut loaded, synced_lsn, options.trust_unsynced, &mut recovered);
    let evidence = Evidence { synced_lsn, trust_unsynced: options.trust_unsynced, unknown_damage };
    let max_lsn = loaded.values().map(Loaded::max_lsn).max().unwrap_or_default();
    let resolved = resolve_all(&mut loaded, evidence, &mut recovered);
    recovered.doubtful = doubtful(&loaded, &resolved);
    let last_lsn = max_lsn.max(synced_lsn);
    let previous = last_written(&loaded);
    let mut index = Index { groups: resolved.groups, deleted: resolved.deleted, ..Index::default() };
    // Empty segments go first: a footer behind them would vouch for what is not there any more.
    for id in take_empty(&mut loaded) {
        files.retire(disk, options, id)?;
    }
    files.keep_spares(disk, options)?;
    disk.sync_dir().map_err(|error| failed("syncing the directory", error))?;
    seal_all(loaded, &mut index)?;
    recovered.missing = resolved.missing;
    recovered.contradictory = resolved.contradictory;
    let concerns_nobody = |damage: &Damage| match &damage.scope {
        DamageScope::Entries(ranges) => ranges.iter().all(|range| !index.needs(damage.segment, range)),
        _ => false,
    };
    recovered.damage.retain(|damage| !concerns_nobody(damage));
    collect_groups(&index, &mut recovered)?;
    let next_segment = SegmentId(files.highest.0 + 1);
    let foundation = Foundation { index, spares: files.spares, next_segment, last_lsn, previous, lock };
    Ok((foundation, recovered))
}

fn failed(operation: impl Into<String>, source: io::Error) -> OpenError {
    OpenError::Io { operation: operation.into(), source }
}

fn take_lock(disk: &dyn Disk) -> Result<DiskLock, OpenError> {
    disk.lock(LOCK_NAME).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => failed("locking the directory", error),
    })
}

/// The files of the log.
struct Files {
    segments: Vec<SegmentId>,
    spares: Vec<SpareFile>,
    highest: SegmentId,
}

impl Files {
    fn list(disk: &dyn Disk) -> Result<Self, OpenError> {
        let names = disk.list().map_err(|error| failed("listing the directory", error))?;
        let mut files = Self { segments: Vec::new(), spares: Vec::new(), highest: SegmentId(0) };
        for name in names.iter().filter_map(|name| FileName::parse(name)) {
            files.highest = files.highest.max(name.segment());
            match name {
                FileName::Segment(id) => files.segments.push(id),
                FileName::Free(id) => files.spares.push(SpareFile { id, bytes: 0 }),
                FileName::Temporary(_) => {
                    let name = name.to_string();
                    disk.remove(&name).map_err(|error| failed(format!("removing {name}"), error))?;
                }
            }
        }
        files.segments.sort_unstable();
        files.spares.sort_unstable_by_key(|spare| spare.id);
        Ok(files)
    }

    /// Reads the directories of sealed segments and all of the others.
    fn load(&self, disk: &dyn Disk, trust_unsynced: bool) -> Result<BTreeMap<SegmentId, Loaded>, OpenError> {
        let mut loaded = BTreeMap::new();
        for id in &self.segments {
            let name = FileName::Segment(*id).to_string();
            let reading = |error| failed(format!("reading {name}"), error);
            let file = disk.open(&name).map_err(reading)?;
            let one = load(Segment::new(*id, file), trust_unsynced).map_err(reading)?;
            if let HeaderFound::OtherVersion(found) = one.header {
                return Err(OpenError::Version { segment: *id, found, supported: FORMAT_VERSION });
            }
            loaded.insert(*id, one);
        }
        Ok(loaded)
    }

    /// Takes a segment without any record out of use.
    fn retire(&mut self, disk: &dyn Disk, options: &WalOptions, id: SegmentId) -> Result<(), OpenError> {
        let name = FileName::Segment(id).to_string();
        let outcome = if self.spares.len() < options.recycled_segments.max(1) {
            self.spares.push(SpareFile { id, bytes: 0 });
            disk.rename(&name, &FileName::Free(id).to_string())
        } else {
            disk.remove(&name)
        };
        outcome.map_err(|error| failed(format!("retiring {name}"), error))
    }

    /// Keeps as many spare files as wanted, and learns their sizes.
    fn keep_spares(&mut self, disk: &dyn Disk, options: &WalOptions) -> Result<(), OpenError> {
        let mut kept = Vec::new();
        for spare in self.spares.drain(..) {
            let name = FileName::Free(spare.id).to_string();
            let looking = |error| failed(format!("looking at {name}"), error);
            let bytes = disk.open(&name).and_then(|file| file.len_bytes()).map_err(looking)?;
            if kept.len() < options.recycled_segments.max(1) && bytes <= options.segment_bytes {
                kept.push(SpareFile { bytes, ..spare });
            } else {
                disk.remove(&name).map_err(|error| failed(format!("removing {name}"), error))?;
            }
        }
        self.spares = kept;
        Ok(())
    }
}

/// A segment that was found.
struct Loaded {
    segment: Arc<Segment>,
    header: HeaderFound,
    file_bytes: u64,
    contents: LoadedContents,
}

enum LoadedContents {
    Sealed(Directory),
    Scanned(Scan),
    Classified(Classified),
}

fn load(segment: Arc<Segment>, trust_unsynced: bool) -> io::Result<Loaded> {
    let header = read_header(&segment)?;
    let file_bytes = segment.file.len_bytes()?;
    let contents = match Directory::load(&*segment.file, segment.id, file_bytes)? {
        Some(directory) => LoadedContents::Sealed(directory),
        None if header == HeaderFound::Unused && trust_unsynced => {
            // Prepared and not written to. In a page cache that is whole there can be no frames behind zeros.
            LoadedContents::Scanned(Scan::nothing(file_bytes))
        }
        None => LoadedContents::Scanned(scan(&segment)?),
    };
    Ok(Loaded { segment, header, file_bytes, contents })
}

impl Loaded {
    /// Everything up to this LSN is known to have been durable.
    fn claimed_lsn(&self) -> Lsn {
        match &self.contents {
            LoadedContents::Sealed(directory) => directory.max_lsn,
            LoadedContents::Scanned(scan) => {
                scan.frames().map(|frame| frame.header.synced_lsn).max().unwrap_or_default()
            }
            LoadedContents::Classified(_) => Lsn(0),
        }
    }

    fn max_lsn(&self) -> Lsn {
        match &self.contents {
            LoadedContents::Sealed(directory) => directory.max_lsn,
            LoadedContents::Scanned(scan) => {
                scan.frames().map(|frame| frame.header.lsn).max().unwrap_or_default()
            }
            LoadedContents::Classified(classified) => classified.max_lsn,
        }
    }

    fn is_repair(&self) -> bool {
        self.valid_header().is_some_and(|header| header.repair)
    }

    /// The lowest LSN, if there is a frame.
    fn min_lsn(&self) -> Option<Lsn> {
        let lsn = match &self.contents {
            LoadedContents::Sealed(directory) => directory.min_lsn,
            LoadedContents::Classified(classified) => classified.index.min_lsn,
            LoadedContents::Scanned(_) => Lsn(0),
        };
        (lsn > Lsn(0)).then_some(lsn)
    }

    /// It cannot be told whose records are damaged.
    fn has_unknown_damage(&self) -> bool {
        let damage = match &self.contents {
            LoadedContents::Sealed(directory) => &directory.damage,
            LoadedContents::Classified(classified) => &classified.index.damage,
            LoadedContents::Scanned(_) => return false,
        };
        damage.iter().any(|damage| damage.of == DamageOf::Unknown)
    }

    fn valid_header(&self) -> Option<SegmentHeader> {
        match self.header {
            HeaderFound::Valid(header) => Some(header),
            _ => None,
        }
    }
}

/// Makes everything that may not be durable dirty again.
///
/// The last process may have ended because a sync had failed. Then the system has given up pages that still look fine in its cache, takes
/// them for written, and would answer the next sync with a success that means nothing.
fn write_unsynced_again(loaded: &BTreeMap<SegmentId, Loaded>, synced_lsn: Lsn) -> Result<(), OpenError> {
    for (id, one) in loaded {
        let LoadedContents::Scanned(scan) = &one.contents else { continue };
        let Some(first) = scan.frames().find(|frame| frame.header.lsn > synced_lsn) else { continue };
        let writing = |error| failed(format!("writing segment {id} again"), error);
        let file = &*one.segment.file;
        // The header may be as new as the first frame.
        write_again(file, 0, SEGMENT_HEADER_BYTES).map_err(writing)?;
        write_again(file, first.position, scan.end).map_err(writing)?;
    }
    Ok(())
}

fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut position = from;
    while position < to {
        let wanted = usize::try_from(to - position).unwrap_or(REWRITE_BYTES).min(REWRITE_BYTES);
        let count = file.read_at(&mut buffer[..wanted], position)?;
        if count == 0 {
            break;
        }
        file.write_at(&buffer[..count], position)?;
        position += count as u64;
    }
    Ok(())
}

/// Decides about everything that does not match its checksum. Returns the earliest LSN after which records of unknown groups
/// are damaged.
fn classify_all(
    loaded: &mut BTreeMap<SegmentId, Loaded>,
    synced_lsn: Lsn,
    trust_unsynced: bool,
    recovered: &mut Recovered,
) -> Option<Lsn> {
    let ends: BTreeMap<SegmentId, u64> = loaded
        .values()
        .filter_map(Loaded::valid_header)
        .filter(|header| !header.rewritten)
        .map(|header| (header.previous, header.previous_end))
        .collect();
    let mut lsn_before = Lsn(0);
    let mut unknown_damage: Option<Lsn> = None;
    for (id, one) in loaded.iter_mut() {
        let max_lsn = one.max_lsn();
        if let LoadedContents::Scanned(scan) = &one.contents {
            let evidence = SegmentEvidence {
                synced_lsn,
                trust_unsynced,
                expected_end: ends.get(id).copied(),
                lsn_before,
            };
            let classified = classify(scan, evidence);
            recovered.truncated_bytes += classified.truncated_bytes;
            if let Some(lsn) = classified.unknown_damage {
                unknown_damage = Some(unknown_damage.map_or(lsn, |other| other.min(lsn)));
            }
            one.contents = LoadedContents::Classified(classified);
        }
        report_damage(*id, one, recovered);
        lsn_before = lsn_before.max(max_lsn);
    }
    unknown_damage
}

fn report_damage(id: SegmentId, one: &Loaded, recovered: &mut Recovered) {
    let (damage, seen) = match &one.contents {
        LoadedContents::Sealed(directory) => (&directory.damage, directory.groups()),
        LoadedContents::Classified(classified) => {
            (&classified.index.damage, classified.index.groups.keys().copied().collect())
        }
        LoadedContents::Scanned(_) => return,
    };
    for stretch in damage {
        let scope = match stretch.of {
            DamageOf::Unknown => DamageScope::Unknown { seen: seen.clone() },
            DamageOf::Entry(group, index) => {
                DamageScope::Entries(vec![DamagedRange { group, first: index, last: index }])
            }
            // States that are still needed are read, and reported then.
            DamageOf::State(_) => continue,
        };
        recovered.damage.push(Damage {
            segment: id,
            from_position: stretch.from,
            to_position: stretch.to,
            scope,
        });
    }
}

fn views(loaded: &BTreeMap<SegmentId, Loaded>) -> Vec<SegmentView> {
    let view = |(id, one): (&SegmentId, &Loaded)| match &one.contents {
        LoadedContents::Sealed(directory) => SegmentView {
            id: *id,
            scanned: false,
            repair: one.is_repair(),
            runs: directory.runs.clone(),
            states: directory.states.clone(),
        },
        LoadedContents::Classified(classified) => {
            let groups = &classified.index.groups;
            let runs = groups
                .iter()
                .flat_map(|(group, contents)| contents.runs.iter().map(|run| run.summary(*group)));
            let states = groups.values().flat_map(|contents| contents.states.iter().copied());
            let (runs, states) = (runs.collect(), states.collect());
            SegmentView { id: *id, scanned: true, repair: one.is_repair(), runs, states }
        }
        LoadedContents::Scanned(_) => {
            SegmentView { id: *id, scanned: true, repair: false, runs: Vec::new(), states: Vec::new() }
        }
    };
    loaded.iter().map(view).collect()
}

fn meta_at(loaded: &Loaded, run: &RunSummary, index: EntryIndex) -> Option<EntryMeta> {
    match &loaded.contents {
        LoadedContents::Classified(classified) => {
            classified.index.run_of(run.group, index)?.get(index).copied()
        }
        LoadedContents::Sealed(_) => {
            let file = &*loaded.segment.file;
            // What cannot be read is treated as unknown; reads of it will say that it is damaged.
            let entries = load_entries(file, run.entries_position, run.count, run.entries_crc).ok()??;
            entries.get(usize::try_from(index.0 - run.first.0).ok()?).copied()
        }
        LoadedContents::Scanned(_) => None,
    }
}

/// Finds out what is live. Records that follow something that was lost are left out as if they had never been written: they
/// supersede nothing, and they do not get into the footers, so that the next start does not see them.
fn resolve_all(
    loaded: &mut BTreeMap<SegmentId, Loaded>,
    evidence: Evidence,
    recovered: &mut Recovered,
) -> Resolved {
    let mut cut = BTreeSet::new();
    loop {
        let resolved = resolve(&views(loaded), evidence, &|segment, run, index| {
            meta_at(loaded.get(&segment)?, run, index)
        });
        if resolved.rejected.is_empty() {
            recovered.cut = cut.into_iter().collect();
            return resolved;
        }
        let mut rejected: BTreeMap<SegmentId, HashSet<Lsn>> = BTreeMap::new();
        for (segment, group, first) in &resolved.rejected {
            cut.insert(*group);
            let Some(LoadedContents::Classified(classified)) = loaded.get(segment).map(|one| &one.contents)
            else {
                continue;
            };
            if let Some(run) = classified.index.run_of(*group, *first) {
                recovered.truncated_bytes += run.bytes;
                rejected.entry(*segment).or_default().extend(run.entries.iter().map(|entry| entry.lsn));
            }
        }
        for (segment, rejected) in &rejected {
            if let Some(LoadedContents::Classified(classified)) =
                loaded.get_mut(segment).map(|one| &mut one.contents)
            {
                classified.leave_out(rejected);
            }
        }
    }
}

/// Groups that may have lost the end of their log to a damage of which it is not known whom it concerns: nothing of them is
/// newer than it. A hole in the middle of a log would show.
fn doubtful(loaded: &BTreeMap<SegmentId, Loaded>, resolved: &Resolved) -> Vec<GroupId> {
    let Some(damaged) = loaded.iter().rev().find(|(_, one)| one.has_unknown_damage()).map(|(id, _)| *id)
    else {
        return Vec::new();
    };
    let later = loaded
        .iter()
        .filter(|(id, one)| **id > damaged && one.valid_header().is_none_or(|header| !header.rewritten));
    // What was lost is older than anything in a later segment.
    let lost_before = later.filter_map(|(_, one)| one.min_lsn()).min().unwrap_or(Lsn(u64::MAX));
    let newest = |log: &GroupLog| {
        let of_entries = log.ranges.back().map(|range| range.run.last_lsn);
        of_entries.max(log.start_state.map(|start| start.meta.lsn)).unwrap_or_default()
    };
    let groups = resolved.groups.iter().filter(|(_, log)| newest(log) < lost_before);
    let mut groups: Vec<GroupId> = groups.map(|(group, _)| *group).collect();
    groups.sort_unstable();
    groups
}

/// The segment that was written to last and where its frames end, for the header of the next one.
fn last_written(loaded: &BTreeMap<SegmentId, Loaded>) -> (SegmentId, u64) {
    let written = loaded.iter().rev().filter(|(_, one)| one.valid_header().is_none_or(|h| !h.rewritten));
    let mut ends = written.filter_map(|(id, one)| match &one.contents {
        LoadedContents::Sealed(directory) => Some((*id, directory.data_end)),
        LoadedContents::Classified(classified) if !classified.is_empty() => Some((*id, classified.data_end)),
        _ => None,
    });
    ends.next().unwrap_or_default()
}

/// Takes out the segments that hold nothing.
fn take_empty(loaded: &mut BTreeMap<SegmentId, Loaded>) -> Vec<SegmentId> {
    let is_empty = |one: &Loaded| match &one.contents {
        LoadedContents::Sealed(_) => false,
        LoadedContents::Classified(classified) => classified.is_empty(),
        LoadedContents::Scanned(_) => true,
    };
    let empty: Vec<_> = loaded.iter().filter(|(_, one)| is_empty(one)).map(|(id, _)| *id).collect();
    loaded.retain(|_, one| !is_empty(one));
    empty
}

/// Writes the missing footers.
fn seal_all(loaded: BTreeMap<SegmentId, Loaded>, index: &mut Index) -> Result<(), OpenError> {
    let sealing = |id: SegmentId| move |error| failed(format!("sealing segment {id}"), error);
    // Whatever a footer says must be durable before it, in this segment and in those before it. Footers that are there may
    // not be durable either, if it was the process that died; syncing a file that is clean costs next to nothing.
    for (id, one) in &loaded {
        one.segment.file.sync_data().map_err(sealing(*id))?;
    }
    for (id, one) in loaded {
        let (mut file_bytes, repair) = (one.file_bytes, one.is_repair());
        let contents = match one.contents {
            LoadedContents::Sealed(directory) => Contents::Sealed(SealedContents::of(&directory, repair)),
            LoadedContents::Classified(classified) => {
                let footer = classified.index.encode(id, classified.data_end);
                match footer.write(&*one.segment.file) {
                    Ok(()) => {
                        file_bytes = footer.end();
                        index.set_stored_runs(id, &footer.directory);
                        Contents::Sealed(SealedContents::of(&footer.directory, repair))
                    }
                    Err(error) if is_out_of_space(&error) => Contents::Closing(Arc::new(classified.index)),
                    Err(error) => return Err(sealing(id)(error)),
                }
            }
            LoadedContents::Scanned(_) => continue,
        };
        index.segments.insert(id, SegmentEntry { segment: one.segment, contents, file_bytes });
    }
    Ok(())
}

/// Reads the start and checkpoint records.
fn collect_groups(index: &Index, recovered: &mut Recovered) -> Result<(), OpenError> {
    for (group, log) in &index.groups {
        let start = read_one(index, log.start_state.as_ref(), recovered)?;
        let checkpoint = read_one(index, log.checkpoint.as_ref(), recovered)?;
        let group_found =
            RecoveredGroup { bounds: log.bounds(), checkpoint: checkpoint.or_else(|| start.clone()), start };
        recovered.groups.insert(*group, group_found);
    }
    recovered.damage.sort_by_key(|damage| (damage.segment, damage.from_position));
    recovered.damage.dedup();
    Ok(())
}

fn read_one(
    index: &Index,
    state: Option<&StateRef>,
    recovered: &mut Recovered,
) -> Result<Option<StoredRecord>, OpenError> {
    let Some(state) = state else { return Ok(None) };
    let Some(entry) = index.segments.get(&state.segment) else { return Ok(None) };
    let record = read_state(&entry.segment, &state.meta).map_err(|error| {
        failed(format!("reading the state of group {}", state.meta.group), io::Error::other(error))
    })?;
    if record.is_none() {
        recovered.damage.push(Damage {
            segment: state.segment,
            from_position: state.meta.position,
            to_position: state.meta.position + state.meta.frame_bytes(),
            scope: DamageScope::State(state.meta.group),
        });
    }
    Ok(record)
}
