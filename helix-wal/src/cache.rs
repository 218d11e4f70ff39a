//! Index entries of sealed segments, kept in memory up to a limit.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::footer::EntryMeta;
use crate::types::{GroupId, Index, SegmentId};

/// Dense entries of sealed segments, the least recently used forgotten first.
pub(crate) struct FooterCache {
    max_bytes: u64,
    runs: Mutex<CachedRuns>,
}

/// Segment, group and first index of a run.
pub(crate) type RunKey = (SegmentId, GroupId, Index);

#[derive(Default)]
struct CachedRuns {
    runs: HashMap<RunKey, (Arc<[EntryMeta]>, u64)>,
    bytes: u64,
    clock: u64,
}

impl FooterCache {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, runs: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &RunKey) -> Option<Arc<[EntryMeta]>> {
        let mut cached = self.runs.lock();
        cached.clock += 1;
        let now = cached.clock;
        let (entries, used) = cached.runs.get_mut(key)?;
        *used = now;
        Some(Arc::clone(entries))
    }

    pub(crate) fn put(&self, key: RunKey, entries: &Arc<[EntryMeta]>) {
        let mut cached = self.runs.lock();
        cached.clock += 1;
        let now = cached.clock;
        if let Some((replaced, _)) = cached.runs.insert(key, (Arc::clone(entries), now)) {
            cached.bytes -= cost_bytes(&replaced);
        }
        cached.bytes += cost_bytes(entries);
        if cached.bytes > self.max_bytes {
            cached.forget_oldest(self.max_bytes / 4 * 3);
        }
    }

    pub(crate) fn forget(&self, segment: SegmentId) {
        let mut cached = self.runs.lock();
        let CachedRuns { runs, bytes, .. } = &mut *cached;
        runs.retain(|key, (entries, _)| {
            let keep = key.0 != segment;
            if !keep {
                *bytes -= cost_bytes(entries);
            }
            keep
        });
    }
}

impl CachedRuns {
    fn forget_oldest(&mut self, max_bytes: u64) {
        let mut by_age: Vec<(u64, RunKey)> = self.runs.iter().map(|(key, (_, used))| (*used, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if self.bytes <= max_bytes {
                break;
            }
            if let Some((entries, _)) = self.runs.remove(&key) {
                self.bytes -= cost_bytes(&entries);
            }
        }
    }
}

fn cost_bytes(entries: &[EntryMeta]) -> u64 {
    (size_of_val(entries) + 96) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Lsn, Offset, Term};

    #[test]
    fn the_cache_forgets_what_was_not_used() {
        let cache = FooterCache::new(600);
        let run = |count| -> Arc<[EntryMeta]> { vec![META; count].into() };
        let key = |first| (SegmentId(1), GroupId(1), Index(first));
        for first in 0..4 {
            cache.put(key(first), &run(1));
        }
        assert!(cache.get(&key(0)).is_some());
        // Room for less than half of it: the four of 144 bytes have to make way for 288.
        cache.put(key(9), &run(4));
        assert!([1, 2, 3].iter().all(|first| cache.get(&key(*first)).is_none()));
        assert!(cache.get(&key(0)).is_some(), "it was used last");
        cache.put(key(9), &run(1));
        assert_eq!(cache.runs.lock().bytes, 288);
        let other = (SegmentId(2), GroupId(1), Index(0));
        cache.put(other, &run(1));
        cache.forget(SegmentId(1));
        assert!(cache.get(&key(0)).is_none() && cache.get(&key(9)).is_none());
        assert!(cache.get(&other).is_some());
        assert_eq!(cache.runs.lock().bytes, 144);
    }

    #[test]
    fn a_full_cache_is_not_too_full_and_what_came_first_goes_first() {
        let run: Arc<[EntryMeta]> = vec![META].into();
        let key = |first| (SegmentId(1), GroupId(1), Index(first));
        let cache = FooterCache::new(576);
        for first in [3, 2, 1, 0] {
            cache.put(key(first), &run);
        }
        assert_eq!(cache.runs.lock().bytes, 576);
        cache.put(key(9), &run);
        let left: Vec<u64> = (0..10).filter(|first| cache.get(&key(*first)).is_some()).collect();
        assert_eq!(left, [0, 1, 9]);
    }

    const META: EntryMeta = EntryMeta {
        position: 0,
        term: Term(0),
        base_offset: Offset(0),
        max_timestamp_ms: 0,
        lsn: Lsn(0),
        offset_count: 0,
        payload_len: 0,
    };
}
