//! How much can still be written, without asking the file system each time.

use crate::disk::Disk;
use crate::error::OutOfSpace;
use crate::options::SpaceClass;
use crate::stats::Counter;

/// Atomics that the writer and the housekeeper keep up to date.
#[derive(Default)]
pub(crate) struct Space {
    /// What the file system had left when last asked.
    pub(crate) free_bytes: Counter,
    /// Left in the active segment.
    pub(crate) active_bytes: Counter,
    /// Segments that are there but not in use: prepared and recycled ones.
    pub(crate) spare_segments: Counter,
    /// Asked to be appended and not written yet.
    pub(crate) queued_bytes: Counter,
}

impl Space {
    /// Asks the file system.
    pub(crate) fn refresh(&self, disk: &dyn Disk) {
        if let Ok(free_bytes) = disk.free_bytes() {
            self.free_bytes.set(free_bytes);
        }
    }

    pub(crate) fn check(
        &self,
        requested: u64,
        class: SpaceClass,
        segment_bytes: u64,
        reserve_bytes: u64,
    ) -> Result<(), OutOfSpace> {
        // The log grows by whole segments: less than one is of no use.
        let new_segments = self.free_bytes.get() / segment_bytes;
        let whole = new_segments.saturating_add(self.spare_segments.get()).saturating_mul(segment_bytes);
        let total = whole.saturating_add(self.active_bytes.get()).saturating_sub(self.queued_bytes.get());
        let reserve = match class {
            SpaceClass::Normal => reserve_bytes,
            SpaceClass::Critical => 0,
        };
        let available = total.saturating_sub(reserve);
        if requested <= available { Ok(()) } else { Err(OutOfSpace { requested, available, reserve }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FaultyDisk;

    #[test]
    fn spare_and_active_segments_count_and_the_reserve_is_kept_for_the_critical() {
        let disk = FaultyDisk::new(1);
        disk.set_capacity_bytes(250);
        let space = Space::default();
        space.refresh(&disk);
        space.spare_segments.set(1);
        space.active_bytes.set(50);
        space.queued_bytes.set(10);
        let check = |bytes, class| space.check(bytes, class, 100, 60);
        assert_eq!(check(280, SpaceClass::Normal), Ok(()));
        let refused = check(281, SpaceClass::Normal).unwrap_err();
        assert_eq!((refused.available, refused.reserve), (280, 60));
        assert_eq!(check(340, SpaceClass::Critical), Ok(()));
        assert!(check(341, SpaceClass::Critical).is_err());
    }

    #[test]
    fn only_whole_segments_can_be_had_of_what_is_free() {
        let disk = FaultyDisk::new(1);
        let space = Space::default();
        space.active_bytes.set(10);
        let check = |bytes| space.check(bytes, SpaceClass::Critical, 100, 0).is_ok();
        assert!(check(10) && !check(11), "nobody has asked the file system yet");
        disk.set_capacity_bytes(199);
        space.refresh(&disk);
        assert!(check(110) && !check(111));
        space.queued_bytes.set(1000);
        assert!(check(0) && !check(1), "more is queued than there is");
    }
}
