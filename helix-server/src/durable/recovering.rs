//! Which groups of this node may have lost acknowledged entries in a machine crash.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::GroupId;

/// The groups whose log on this node is suspect. They stay so until a leader has shown them to be whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recovering {
    /// Every log is whole.
    #[default]
    Nothing,
    /// Every group is suspect, whether or not a trace of it is left here, but those found whole since.
    AllBut(BTreeSet<GroupId>),
    /// These groups are suspect.
    Groups(BTreeSet<GroupId>),
}

/// What is found out about the log of a group while the node runs.
pub enum Finding {
    /// A leader has shown it to be whole.
    Sound(GroupId),
    /// It is about to be given up.
    Suspect {
        /// The group.
        group: GroupId,
        /// Called once that is durable.
        recorded: Box<dyn FnOnce() + Send>,
    },
    /// Data of this node need not be synced any more before it counts: a crash of the machine may take some.
    Relaxed {
        /// Called once that is durable.
        recorded: Box<dyn FnOnce() + Send>,
    },
    /// These are all the groups that a replica here may have belonged to before the node started: whatever comes later is new.
    Hosted(BTreeSet<GroupId>),
}

impl std::fmt::Debug for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sound(group) => f.debug_tuple("Sound").field(group).finish(),
            Self::Suspect { group, .. } => f.debug_tuple("Suspect").field(group).finish(),
            Self::Relaxed { .. } => f.write_str("Relaxed"),
            Self::Hosted(groups) => f.debug_tuple("Hosted").field(groups).finish(),
        }
    }
}

impl Recovering {
    /// Takes findings into account, in their order. Returns whom to tell once the result is durable.
    pub fn note(&mut self, findings: Vec<Finding>) -> Vec<Box<dyn FnOnce() + Send>> {
        let mut waiting = Vec::new();
        for finding in findings {
            match finding {
                Finding::Sound(group) => self.mark_sound([group]),
                Finding::Suspect { group, recorded } => {
                    self.mark([group]);
                    waiting.push(recorded);
                }
                Finding::Relaxed { recorded } => waiting.push(recorded),
                Finding::Hosted(groups) => self.narrow_to(groups),
            }
        }
        waiting
    }

    /// Every group is suspect.
    #[must_use]
    pub const fn all() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    /// Whether this group is suspect.
    #[must_use]
    pub fn contains(&self, group: GroupId) -> bool {
        match self {
            Self::Nothing => false,
            Self::AllBut(sound) => !sound.contains(&group),
            Self::Groups(groups) => groups.contains(&group),
        }
    }

    /// Whether no group is suspect.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// These groups are suspect too.
    pub fn mark(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        match self {
            Self::AllBut(sound) => {
                for group in groups {
                    sound.remove(&group);
                }
            }
            Self::Groups(suspect) => suspect.extend(groups),
            Self::Nothing => {
                let suspect: BTreeSet<_> = groups.into_iter().collect();
                if !suspect.is_empty() {
                    *self = Self::Groups(suspect);
                }
            }
        }
    }

    /// These groups are whole: a leader has shown it, or they have just been created here.
    pub fn mark_sound(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        match self {
            Self::Nothing => {}
            Self::AllBut(sound) => sound.extend(groups),
            Self::Groups(suspect) => {
                for group in groups {
                    suspect.remove(&group);
                }
                self.shrink();
            }
        }
    }

    /// These are all the groups that this node hosts: from here on the suspect ones are counted, and when the last
    /// one has been found whole the node is no longer recovering.
    ///
    /// The list must come from a source that the crash can't have shortened (group 0 itself, once it is sound).
    pub fn narrow_to(&mut self, hosted: impl IntoIterator<Item = GroupId>) {
        let suspect = hosted.into_iter().filter(|&group| self.contains(group)).collect();
        *self = Self::Groups(suspect);
        self.shrink();
    }

    fn shrink(&mut self) {
        if matches!(self, Self::Groups(suspect) if suspect.is_empty()) {
            *self = Self::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GroupId = GroupId(1);
    const B: GroupId = GroupId(2);

    #[test]
    fn groups_are_marked_and_found_whole_one_by_one() {
        let mut recovering = Recovering::Nothing;
        recovering.mark([]);
        assert!(recovering.is_nothing());
        recovering.mark([A]);
        recovering.mark([B]);
        assert!(recovering.contains(A) && recovering.contains(B) && !recovering.contains(GroupId(3)));
        recovering.mark_sound([A]);
        assert!(!recovering.contains(A) && recovering.contains(B));
        recovering.mark_sound([B]);
        assert!(recovering.is_nothing());
    }

    #[test]
    fn all_groups_are_suspect_until_the_hosted_ones_are_known() {
        let mut recovering = Recovering::all();
        assert!(recovering.contains(A));
        recovering.mark_sound([A]);
        assert!(!recovering.contains(A) && recovering.contains(B) && !recovering.is_nothing());
        recovering.mark([A]);
        assert!(recovering.contains(A));
        recovering.mark_sound([A]);
        recovering.narrow_to([A, B]);
        assert_eq!(recovering, Recovering::Groups([B].into()));
        recovering.mark_sound([B]);
        assert!(recovering.is_nothing());
    }

    #[test]
    fn the_last_finding_about_a_group_counts() {
        let mut recovering = Recovering::Nothing;
        let suspect = |group| Finding::Suspect { group, recorded: Box::new(|| {}) };
        let findings = vec![Finding::Sound(A), suspect(A), suspect(B), Finding::Sound(B)];
        assert_eq!(recovering.note(findings).len(), 2);
        assert_eq!(recovering, Recovering::Groups([A].into()));
    }

    #[test]
    fn a_node_that_hosts_nothing_has_nothing_to_recover() {
        let mut recovering = Recovering::all();
        recovering.narrow_to([]);
        assert!(recovering.is_nothing());
    }
}
