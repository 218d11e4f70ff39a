//! What groups were told, and whether they may be told it. Pure, but for the times of looks.
//!
//! Committed offsets never go back and never vanish. Why that may be asked for although members change: a member commits only what
//! follows from what was committed when it was given the partition, whoever had it before is refused as soon as the next
//! generation has begun, and the members of that generation ask for offsets afterwards.
//!
//! One exception is librdkafka's own: when a coordinator moves, it repeats an automatic commit after a later one has gone through
//! (`retry.backoff.ms`), and its callbacks tell it in that order. Where it does so, a committed offset may be as low as that.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Serialize;

use super::delivered::Delivered;
use crate::groups::outside::Described;

/// More would say no more.
const EXAMPLES: usize = 10;

/// Counts of everything, and examples of what must not be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Offsets that a coordinator acknowledged, by partition.
    pub commits: u64,
    /// Times that the offsets of a group were asked for.
    pub looks: u64,
    /// Times that a member was given an assignment or had to give one back.
    pub rebalances: u64,
    /// Assignments of our own members, whose generations are known.
    pub assignments: u64,
    /// Times that a stable group was described.
    pub described: u64,
    /// Records delivered.
    pub delivered: u64,
    /// Of them, those that the group was shown before.
    pub repeated: u64,
    /// Automatic commits that librdkafka repeated after later ones.
    pub overtaken: u64,
    /// Committed offsets that were lower than before.
    pub went_back: u64,
    /// Committed offsets that were gone.
    pub vanished: u64,
    /// Partitions that two members owned in one generation.
    pub owned_twice: u64,
    /// Members that their library gave up for good while faults struck.
    pub given_up: u64,
    /// Answers to members that Kafka does not give.
    pub refused: u64,
    /// In words, what of the last four happened first.
    pub examples: Vec<String>,
}

impl Tally {
    /// In words; empty if all is well.
    pub fn violations(&self) -> Vec<String> {
        let counts = [
            (self.went_back, "committed offsets went back"),
            (self.vanished, "committed offsets vanished"),
            (self.owned_twice, "partitions were owned twice in one generation"),
            (self.refused, "answers to members that no broker may give"),
        ];
        let found: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if found.is_empty() {
            return Vec::new();
        }
        vec![format!("consumer groups: {}:\n{}", found.join(", "), self.examples.join("\n"))]
    }
}

/// Committed offsets by partition, as far as they are known.
pub type Known = BTreeMap<i32, i64>;

/// A committed offset that was lower than one that was known before.
#[derive(Debug)]
struct StepBack {
    partition: i32,
    to: i64,
    text: String,
}

#[derive(Debug, Default)]
struct Group {
    name: String,
    /// The highest offset that is known to be committed.
    committed: Known,
    /// By partition, the lowest offset that the library committed after a higher one.
    overtaken: Known,
    steps_back: Vec<StepBack>,
    /// Who owned a partition in a generation.
    owners: HashMap<(i32, i32), String>,
    delivered: BTreeMap<i32, Delivered>,
    /// As it was last described, and when it was asked.
    described: Option<(Instant, Described)>,
}

/// Everything that is known of all groups.
#[derive(Debug)]
pub struct Ledger {
    groups: Vec<Group>,
    partitions: i32,
    tally: Tally,
}

impl Ledger {
    /// Nothing is known yet.
    pub fn new(names: &[&str], partitions: i32) -> Self {
        let group = |name: &&str| Group { name: (*name).to_owned(), ..Group::default() };
        Self { groups: names.iter().map(group).collect(), partitions, tally: Tally::default() }
    }

    /// What was counted so far.
    ///
    /// Whether the library is to blame for a lower offset may turn out later than it is seen, so this is for the end.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        for group in &self.groups {
            let own =
                |step: &&StepBack| group.overtaken.get(&step.partition).is_none_or(|low| step.to < *low);
            for step in group.steps_back.iter().filter(own) {
                tally.went_back += 1;
                if tally.examples.len() < EXAMPLES {
                    tally.examples.push(format!("group {}: {}", group.name, step.text));
                }
            }
        }
        tally
    }

    /// What is known to be committed now, for [`Ledger::seen`]: to be asked for before the coordinator is.
    pub fn committed(&self, group: usize) -> Known {
        self.groups[group].committed.clone()
    }

    /// A commit is acknowledged.
    pub fn acknowledged(&mut self, group: usize, partition: i32, offset: i64) {
        self.tally.commits += 1;
        let known = self.groups[group].committed.entry(partition).or_insert(offset);
        *known = (*known).max(offset);
    }

    /// The same, of a commit that librdkafka makes by itself: it may come after a later one.
    pub fn acknowledged_to_library(&mut self, group: usize, partition: i32, offset: i64) {
        let known = &mut self.groups[group];
        if known.committed.get(&partition).is_some_and(|known| *known > offset) {
            self.tally.overtaken += 1;
            let lowest = known.overtaken.entry(partition).or_insert(offset);
            *lowest = offset.min(*lowest);
            known.committed.insert(partition, offset);
        }
        self.acknowledged(group, partition, offset);
    }

    /// A coordinator was asked when `before` was known, and says this. `who` asked.
    pub fn seen(&mut self, group: usize, who: &str, before: &Known, now: &Known) {
        self.tally.looks += 1;
        for (partition, known) in before {
            match now.get(partition) {
                Some(offset) if offset >= known => {}
                Some(offset) if *offset >= 0 => {
                    let text = format!("{who} sees {offset} for partition {partition} after {known}");
                    let step = StepBack { partition: *partition, to: *offset, text };
                    self.groups[group].steps_back.push(step);
                }
                _ => {
                    self.tally.vanished += 1;
                    self.example(
                        group,
                        &format!("{who} sees nothing for partition {partition} after {known}"),
                    );
                }
            }
        }
        for (partition, offset) in now.iter().filter(|(_, offset)| **offset >= 0) {
            let known = self.groups[group].committed.entry(*partition).or_insert(*offset);
            *known = (*known).max(*offset);
        }
    }

    /// A member was given an assignment, or had to give one back.
    pub fn rebalanced(&mut self) {
        self.tally.rebalances += 1;
    }

    /// A member owns partitions in a generation.
    pub fn owns(&mut self, group: usize, generation: i32, member: &str, partitions: &[i32]) {
        self.tally.assignments += 1;
        for partition in partitions {
            let owner = self.groups[group].owners.entry((generation, *partition));
            let owner = owner.or_insert_with(|| member.to_owned()).clone();
            if owner != member {
                self.tally.owned_twice += 1;
                self.example(
                    group,
                    &format!("{owner} and {member} own partition {partition} in generation {generation}"),
                );
            }
        }
    }

    /// A group was described; it was asked at that time.
    pub(crate) fn described(&mut self, group: usize, asked: Instant, described: Described) {
        if described.is_stable() {
            self.tally.described += 1;
            let mut owners: BTreeMap<i32, &str> = BTreeMap::new();
            let mut twice = Vec::new();
            for (member, partitions) in &described.members {
                for partition in partitions {
                    if let Some(other) = owners.insert(*partition, member) {
                        twice.push(format!(
                            "{other} and {member} own partition {partition} of a stable group"
                        ));
                    }
                }
            }
            self.tally.owned_twice += twice.len() as u64;
            for text in twice {
                self.example(group, &text);
            }
        }
        self.groups[group].described = Some((asked, described));
    }

    /// A broker answered a member as Kafka does not.
    pub fn refused(&mut self, group: usize, text: &str) {
        self.tally.refused += 1;
        self.example(group, text);
    }

    /// A member's library does nothing any more while faults strike. A request of an earlier member of the same name may have been held up
    /// somewhere, and have taken its place since, as it would in Kafka.
    pub fn given_up(&mut self) {
        self.tally.given_up += 1;
    }

    /// A record is shown to a member.
    pub fn delivered(&mut self, group: usize, partition: i32, offset: u64) {
        self.tally.delivered += 1;
        if !self.groups[group].delivered.entry(partition).or_default().add(offset) {
            self.tally.repeated += 1;
        }
    }

    /// The first offset below `end` that no member was shown.
    pub fn first_missing(&self, group: usize, partition: i32, end: u64) -> Option<u64> {
        match self.groups[group].delivered.get(&partition) {
            Some(delivered) => delivered.first_missing(end),
            None => Delivered::default().first_missing(end),
        }
    }

    /// Why the group is not stable with so many members, who own every partition, by a look later than `since`.
    pub fn unstable(&self, group: usize, members: usize, since: Instant) -> Option<String> {
        let Some((_, described)) = self.groups[group].described.as_ref().filter(|(asked, _)| *asked > since)
        else {
            return Some("its coordinator has not answered".into());
        };
        let owned: usize = described.members.iter().map(|(_, partitions)| partitions.len()).sum();
        let is_whole = described.is_stable()
            && described.members.len() == members
            && i32::try_from(owned) == Ok(self.partitions);
        (!is_whole).then(|| {
            let (state, there) = (&described.state, described.members.len());
            format!("{state} with {there} members of {members}, who own {owned} partitions")
        })
    }

    fn example(&mut self, group: usize, text: &str) {
        if self.tally.examples.len() < EXAMPLES {
            self.tally.examples.push(format!("group {}: {text}", self.groups[group].name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(&["a", "b"], 2)
    }

    fn offsets(offset: i64) -> Known {
        Known::from([(0, offset)])
    }

    #[test]
    fn offsets_that_go_on_are_fine_and_remembered() {
        let mut ledger = ledger();
        let before = ledger.committed(0);
        ledger.seen(0, "x", &before, &offsets(5));
        ledger.acknowledged(0, 0, 7);
        ledger.acknowledged(0, 0, 6);
        let before = ledger.committed(0);
        assert_eq!(before, offsets(7));
        ledger.seen(0, "x", &before, &offsets(7));
        assert!(ledger.tally().violations().is_empty());
    }

    #[test]
    fn an_offset_that_goes_back_or_vanishes_is_found() {
        let mut ledger = ledger();
        ledger.acknowledged(0, 0, 7);
        let before = ledger.committed(0);
        ledger.seen(0, "x", &before, &offsets(6));
        ledger.seen(0, "x", &before, &offsets(-1));
        ledger.seen(0, "x", &before, &Known::new());
        let tally = ledger.tally();
        assert_eq!((tally.went_back, tally.vanished), (1, 2));
        assert!(tally.violations()[0].contains("group a: x sees 6 for partition 0 after 7"));
    }

    #[test]
    fn an_automatic_commit_that_was_overtaken_explains_what_is_seen_before_or_after() {
        let mut ledger = ledger();
        ledger.acknowledged_to_library(0, 0, 7);
        let before = ledger.committed(0);
        ledger.seen(0, "x", &before, &offsets(5));
        assert_eq!(ledger.tally().went_back, 1, "nobody said so yet");
        ledger.acknowledged_to_library(0, 0, 5);
        assert_eq!((ledger.tally().went_back, ledger.tally().overtaken), (0, 1));
        assert_eq!(ledger.committed(0), offsets(5));
        ledger.seen(0, "x", &before, &offsets(4));
        assert_eq!(ledger.tally().went_back, 1, "lower than any commit");
    }

    #[test]
    fn what_was_acknowledged_after_the_question_need_not_be_in_the_answer() {
        let mut ledger = ledger();
        ledger.acknowledged(0, 0, 7);
        let before = ledger.committed(0);
        ledger.acknowledged(0, 0, 8);
        ledger.seen(0, "x", &before, &offsets(7));
        assert!(ledger.tally().violations().is_empty());
        assert_eq!(ledger.committed(0), offsets(8));
    }

    #[test]
    fn a_partition_has_one_owner_in_a_generation() {
        let mut ledger = ledger();
        ledger.owns(0, 1, "m", &[0, 1]);
        ledger.owns(0, 1, "m", &[0]);
        ledger.owns(0, 2, "n", &[0]);
        ledger.owns(1, 1, "n", &[0]);
        assert_eq!(ledger.tally().owned_twice, 0);
        ledger.owns(0, 2, "m", &[0, 1]);
        assert_eq!(ledger.tally().owned_twice, 1);
    }

    fn described(state: &str, shares: &[&[i32]]) -> Described {
        let member = |(at, share): (usize, &&[i32])| (format!("m{at}"), share.to_vec());
        Described { state: state.into(), members: shares.iter().enumerate().map(member).collect() }
    }

    #[test]
    fn a_stable_group_owns_every_partition_once() {
        let mut ledger = ledger();
        let since = Instant::now();
        let later = since + std::time::Duration::from_secs(1);
        assert!(ledger.unstable(0, 2, since).is_some());
        ledger.described(0, later, described("Stable", &[&[0], &[1]]));
        assert_eq!(ledger.unstable(0, 2, since), None);
        assert!(ledger.unstable(0, 3, since).is_some(), "one is missing");
        assert!(ledger.unstable(0, 2, later).is_some(), "an old look");
        ledger.described(0, later, described("PreparingRebalance", &[&[0], &[0]]));
        assert_eq!(ledger.tally().owned_twice, 0, "nobody owns anything now");
        ledger.described(0, later, described("Stable", &[&[0], &[0]]));
        assert_eq!(ledger.tally().owned_twice, 1);
    }

    #[test]
    fn what_was_shown_to_nobody_is_missing() {
        let mut ledger = ledger();
        assert_eq!(ledger.first_missing(0, 1, 1), Some(0));
        ledger.delivered(0, 1, 0);
        ledger.delivered(0, 1, 0);
        assert_eq!(ledger.first_missing(0, 1, 1), None);
        assert_eq!(ledger.first_missing(1, 1, 1), Some(0), "another group");
        assert_eq!((ledger.tally().delivered, ledger.tally().repeated), (2, 1));
    }
}
