//! Which sealed segments stay in the page cache.
//!
//! Without a rule the log would fill all memory with its past: every byte written takes a page that was never touched before, which is
//! the dearest kind where the machine is virtual and the host has to find the page first, and what others keep in the cache goes. So
//! what is durable, older than the newest `keep_bytes`, and not being read, is given back, and the next bytes go to the same pages.
//!
//! "Being read" is measured by the log itself: read since the newest of the segments that are not kept was sealed. Whoever reads that far
//! behind is on its way forward, so all that follows stays too.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::segment::Segment;
use crate::types::SegmentId;

/// What a segment remembers of its readers.
#[derive(Default)]
pub(crate) struct Residence {
    /// It is in the list of those that may be in the page cache, or will be once it is sealed.
    listed: AtomicBool,
    /// The round in which it was read last.
    read_in: AtomicU64,
}

struct Resident {
    segment: Arc<Segment>,
    bytes: u64,
    /// The round in which it came here.
    since: u64,
}

/// The segments that may be in the page cache.
pub(crate) struct Residency {
    keep_bytes: u64,
    /// Counts the segments sealed.
    round: AtomicU64,
    residents: Mutex<BTreeMap<SegmentId, Resident>>,
}

impl Residency {
    pub(crate) fn new(keep_bytes: u64) -> Self {
        Self { keep_bytes, round: AtomicU64::new(1), residents: Mutex::default() }
    }

    /// A segment is being written: reading it needs not be noticed before it is sealed.
    pub(crate) fn expect(segment: &Segment) {
        segment.residence.listed.store(true, Ordering::Relaxed);
    }

    /// A segment is being read. Cheap unless it was not expected to be in the page cache.
    pub(crate) fn read(&self, segment: &Arc<Segment>) -> io::Result<()> {
        segment.residence.read_in.store(self.round.load(Ordering::Relaxed), Ordering::Relaxed);
        if !segment.residence.listed.swap(true, Ordering::Relaxed) {
            self.enter(segment, segment.file.len_bytes()?);
        }
        Ok(())
    }

    /// A segment was sealed: returns those whose pages can be given back now.
    pub(crate) fn sealed(&self, segment: &Arc<Segment>, bytes: u64) -> Vec<Arc<Segment>> {
        self.round.fetch_add(1, Ordering::Relaxed);
        Self::expect(segment);
        self.enter(segment, bytes);
        self.take_leaving()
    }

    /// A segment is gone.
    pub(crate) fn forget(&self, segment: SegmentId) {
        self.residents.lock().remove(&segment);
    }

    fn enter(&self, segment: &Arc<Segment>, bytes: u64) {
        let since = self.round.load(Ordering::Relaxed);
        let resident = Resident { segment: Arc::clone(segment), bytes, since };
        self.residents.lock().insert(segment.id, resident);
    }

    fn take_leaving(&self) -> Vec<Arc<Segment>> {
        let mut residents = self.residents.lock();
        let (mut kept_bytes, mut read_since) = (0, self.round.load(Ordering::Relaxed));
        let mut older: Vec<SegmentId> = Vec::new();
        for (id, resident) in residents.iter().rev() {
            if older.is_empty() && kept_bytes + resident.bytes <= self.keep_bytes {
                kept_bytes += resident.bytes;
                read_since = resident.since - 1;
            } else {
                older.push(*id);
            }
        }
        let is_read = |id: &SegmentId| {
            let read_in = residents.get(id).map(|it| it.segment.residence.read_in.load(Ordering::Relaxed));
            read_in.is_some_and(|round| round >= read_since)
        };
        // Oldest first: up to the first that somebody reads.
        let leaving: Vec<SegmentId> = older.into_iter().rev().take_while(|id| !is_read(id)).collect();
        let taken = leaving.iter().filter_map(|id| residents.remove(id));
        taken
            .map(|resident| {
                resident.segment.residence.listed.store(false, Ordering::Relaxed);
                resident.segment
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, FaultyDisk};

    fn segments(count: u64) -> Vec<Arc<Segment>> {
        let disk = FaultyDisk::new(1);
        (1..=count)
            .map(|id| Segment::new(SegmentId(id), disk.create(&id.to_string(), 100).unwrap()))
            .collect()
    }

    fn seal(residency: &Residency, segment: &Arc<Segment>) -> Vec<u64> {
        residency.sealed(segment, 100).iter().map(|segment| segment.id.0).collect()
    }

    #[test]
    fn the_newest_stay_and_the_others_leave_once() {
        let (residency, all) = (Residency::new(250), segments(5));
        let leaving: Vec<_> = all.iter().map(|segment| seal(&residency, segment)).collect();
        assert_eq!(leaving, [vec![], vec![], vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn what_is_read_and_what_follows_it_stays_as_long_as_it_is_read() {
        let (residency, all) = (Residency::new(200), segments(9));
        assert!(seal(&residency, &all[0]).is_empty() && seal(&residency, &all[1]).is_empty());
        residency.read(&all[0]).unwrap();
        assert_eq!(seal(&residency, &all[2]), [0; 0]);
        residency.read(&all[0]).unwrap();
        assert_eq!(seal(&residency, &all[3]), [0; 0], "2 is not read and follows what is");
        residency.read(&all[1]).unwrap();
        assert_eq!(seal(&residency, &all[4]), [0; 0], "1 was read a moment ago");
        assert_eq!(seal(&residency, &all[5]), [1], "the reader is beyond it");
        assert_eq!(seal(&residency, &all[6]), [2, 3, 4, 5]);
    }

    #[test]
    fn who_is_read_again_may_be_there_again_and_who_is_gone_is_not() {
        let (residency, all) = (Residency::new(100), segments(6));
        assert!(seal(&residency, &all[0]).is_empty());
        assert_eq!(seal(&residency, &all[1]), [1]);
        residency.read(&all[0]).unwrap();
        assert_eq!(seal(&residency, &all[2]), [0; 0]);
        residency.forget(SegmentId(2));
        assert_eq!(seal(&residency, &all[3]), [1, 3]);
    }

    #[test]
    fn with_nothing_to_keep_all_that_is_sealed_leaves() {
        let (residency, all) = (Residency::new(0), segments(2));
        assert_eq!((seal(&residency, &all[0]), seal(&residency, &all[1])), (vec![1], vec![2]));
    }
}
