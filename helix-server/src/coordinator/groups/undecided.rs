//! What of a group is on its way to the log. It lives and ends with the coordinator: the next one reads how it was decided.

use std::collections::BTreeMap;

use helix_raft::GroupId;

use super::group::Group;
use super::offsets::{CommittedOffset, OffsetKey};
use super::records::{self, StoredGroup};
use super::{Then, What};
use crate::coordinator::{Effects, LogRecord};

/// Records of one group that are written together.
#[derive(Debug, Default)]
pub(super) struct Change {
    records: Vec<LogRecord>,
    /// The group, if it is among them; `None` in there if it is deleted.
    group: Option<Option<StoredGroup>>,
    /// The offsets among them, with the partition that each is of; `None` for one that is deleted.
    offsets: Vec<(OffsetKey, Option<GroupId>)>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The group is as this, or there is none any more.
    pub(super) fn group(mut self, id: &str, stored: Option<&StoredGroup>) -> Self {
        self.records.push(records::group_record(id, stored));
        self.group = Some(stored.cloned());
        self
    }

    pub(super) fn set_offset(&mut self, group: &str, key: OffsetKey, committed: &CommittedOffset) {
        self.records.push(records::offset_record(group, &key, Some(committed)));
        self.offsets.push((key, committed.incarnation));
    }

    pub(super) fn delete_offset(&mut self, group: &str, key: OffsetKey) {
        self.records.push(records::offset_record(group, &key, None));
        self.offsets.push((key, None));
    }
}

/// The writes of one group that are not decided.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    writes: usize,
    /// The last one of the group itself, and how many there are.
    group: Option<StoredGroup>,
    groups: usize,
    offsets: BTreeMap<OffsetKey, OffsetWrites>,
}

/// Those of one offset.
#[derive(Debug, Default)]
struct OffsetWrites {
    count: usize,
    /// The partition of the last one.
    last: Option<GroupId>,
}

impl Undecided {
    pub(super) const fn is_none(&self) -> bool {
        self.writes == 0
    }

    /// Whether a write of this offset is on its way: what comes of it is not known.
    pub(super) fn holds(&self, key: &OffsetKey) -> bool {
        self.offsets.contains_key(key)
    }

    /// The offsets that are on their way, with the partition that the last write of each is of.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (&OffsetKey, Option<GroupId>)> {
        self.offsets.iter().map(|(key, writes)| (key, writes.last))
    }

    fn begin(&mut self, group: Option<Option<StoredGroup>>, offsets: &[(OffsetKey, Option<GroupId>)]) {
        self.writes += 1;
        if let Some(group) = group {
            self.group = group;
            self.groups += 1;
        }
        for (key, partition) in offsets {
            let writes = self.offsets.entry(key.clone()).or_default();
            writes.count += 1;
            writes.last = *partition;
        }
    }

    /// A write is decided, one way or the other.
    pub(super) fn end(&mut self, of_group: bool, offsets: &[OffsetKey]) {
        self.writes = self.writes.saturating_sub(1);
        self.groups = self.groups.saturating_sub(usize::from(of_group));
        if self.groups == 0 {
            self.group = None;
        }
        for key in offsets {
            let Some(writes) = self.offsets.get_mut(key) else { continue };
            writes.count = writes.count.saturating_sub(1);
            if writes.count == 0 {
                self.offsets.remove(key);
            }
        }
    }
}

impl Group {
    /// Has records of this group written. Until that is decided the group stays, so that what comes then finds the same one.
    pub(super) fn write(&mut self, change: Change, what: What, effects: &mut Effects<Then>) {
        let Change { records, group, offsets } = change;
        let of_group = group.is_some();
        self.undecided.begin(group, &offsets);
        let offsets = offsets.into_iter().map(|(key, _)| key).collect();
        effects.write(records, Then { group: self.id.clone(), of_group, offsets, what });
    }

    /// The group as the last record of it has it, decided or not.
    pub(super) fn written(&self) -> Option<&StoredGroup> {
        if self.undecided.groups > 0 { self.undecided.group.as_ref() } else { self.stored.as_ref() }
    }

    /// Has the group stored as it is now, without assignments.
    pub(super) fn note(&mut self, effects: &mut Effects<Then>) {
        let stored = self.to_store(&BTreeMap::new());
        let change = Change::default().group(&self.id, Some(&stored));
        self.write(change, What::Noted, effects);
    }

    /// Every offset that there is, or may be when what is on its way is decided; with the partition that it will be of.
    pub(super) fn offsets_to_come(&self) -> BTreeMap<&OffsetKey, Option<GroupId>> {
        let committed = self.offsets.iter().map(|(key, committed)| (key, committed.incarnation));
        committed.chain(self.undecided.offsets()).collect()
    }
}
