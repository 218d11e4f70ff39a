//! The log against a plain vector.

use proptest::prelude::*;

use super::*;
use crate::types::{Body, Membership};

fn entry(index: u64, term: u64, prev_term: u64) -> Entry<Vec<u8>> {
    Entry {
        index: Index(index),
        term: Term(term),
        prev_term: Term(prev_term),
        body: Body::Data(vec![term as u8; 10]),
    }
}

fn entries(after: u64, prev_term: u64, terms: &[u64]) -> Vec<Entry<Vec<u8>>> {
    let before = std::iter::once(&prev_term).chain(terms);
    (after + 1..).zip(terms).zip(before).map(|((index, term), prev)| entry(index, *term, *prev)).collect()
}

fn empty() -> RaftLog<Vec<u8>> {
    let options = GroupOptions::new(Membership::default(), Durability::PageCache);
    RaftLog::open(&options).unwrap()
}

fn position(index: u64, term: u64) -> Position {
    Position::new(Index(index), Term(term))
}

#[derive(Clone, Debug)]
enum Step {
    Offer { at: usize, count: usize },
    Leader,
    Write,
    Report,
    Commit,
    Apply,
    Trim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..30, 0usize..6).prop_map(|(at, count)| Step::Offer { at, count }),
        1 => Just(Step::Leader),
        3 => Just(Step::Write),
        3 => Just(Step::Report),
        1 => Just(Step::Commit),
        1 => Just(Step::Apply),
        1 => Just(Step::Trim),
    ];
    prop::collection::vec(step, 0..80)
}

/// A leader's log, the disk that the writes go to, and the writes on their way there.
struct Model {
    leader: Vec<u64>,
    term: u64,
    disk: Vec<u64>,
    under_way: VecDeque<Vec<Entry<Vec<u8>>>>,
}

impl Model {
    fn term_at(&self, index: usize) -> u64 {
        if index == 0 { 0 } else { self.leader[index - 1] }
    }

    /// A new leader: keeps what is committed, may lack the rest, and appends entries of its own.
    fn change_leader(&mut self, committed: usize) {
        self.term += 1;
        self.leader.truncate(committed.max(self.leader.len() / 2));
        self.leader.extend([self.term; 4]);
    }

    fn write(&mut self) -> Option<Position> {
        let written = self.under_way.pop_front()?;
        self.disk.truncate(written[0].index.get() as usize - 1);
        self.disk.extend(written.iter().map(|entry| entry.term.get()));
        written.last().map(Entry::position)
    }
}

proptest! {
    #[test]
    fn what_counts_as_stored_is_on_the_disk(steps in steps()) {
        let mut log = empty();
        let mut model = Model { leader: vec![1; 6], term: 1, disk: Vec::new(), under_way: VecDeque::new() };
        let mut applied = 0;
        for step in steps {
            match step {
                Step::Offer { at, count } => {
                    let at = at.min(model.leader.len());
                    let through = (at + count).min(model.leader.len());
                    let offered = entries(at as u64, model.term_at(at), &model.leader[at..through]);
                    let prev = position(at as u64, model.term_at(at));
                    match log.offer(prev, &offered) {
                        Offer::Matched { .. } => for index in 0..=through {
                            prop_assert_eq!(log.term_at(Index(index as u64)), Some(Term(model.term_at(index))));
                        },
                        Offer::Mismatch(hint) => prop_assert!(hint.index <= prev.index && hint != prev),
                        Offer::Diverged(at) => prop_assert!(false, "no leader lacks what is committed: {at}"),
                    }
                }
                Step::Leader => model.change_leader(log.committed().get() as usize),
                Step::Write => model.under_way.extend(log.next_write().map(|(entries, _)| entries)),
                Step::Report => if let Some(written) = model.write() {
                    log.reported(written, Durability::PageCache);
                },
                Step::Commit => {
                    let same = (0..=model.leader.len())
                        .take_while(|index| log.term_at(Index(*index as u64)) == Some(Term(model.term_at(*index))))
                        .count();
                    log.commit_to(Index(same as u64 - 1).min(log.stored()));
                }
                Step::Apply => for entry in log.next_committed() {
                    applied += 1;
                    prop_assert_eq!(entry.index, Index(applied));
                },
                Step::Trim => { log.trim(200); }
            }
            let stored = log.stored().get() as usize;
            prop_assert!(model.disk.len() >= stored);
            for index in 1..=stored {
                prop_assert_eq!(log.term_at(Index(index as u64)), Some(Term(model.disk[index - 1])));
            }
            prop_assert!(log.tail_first() <= log.applied.min(log.stored).next());
            let in_memory = log.slice(log.tail_first(), log.last().index, usize::MAX);
            prop_assert_eq!(in_memory.iter().map(Entry::len_bytes).sum::<usize>(), log.tail_bytes());
        }
        while let Some(written) = model.write() {
            log.reported(written, Durability::PageCache);
        }
        model.under_way.extend(log.next_write().map(|(entries, _)| entries));
        if let Some(written) = model.write() {
            log.reported(written, Durability::PageCache);
        }
        prop_assert_eq!(log.stored(), log.last().index);
    }
}

#[test]
fn a_report_about_a_replaced_entry_does_not_count_for_its_double() {
    let mut log = empty();
    log.offer(position(0, 0), &entries(0, 0, &[1, 1]));
    assert!(log.next_write().is_some());
    log.offer(position(1, 1), &entries(1, 1, &[2]));
    assert!(log.next_write().is_none(), "the first write is still under way");
    log.offer(position(1, 1), &entries(1, 1, &[3]));
    log.reported(position(2, 1), Durability::PageCache);
    assert_eq!(log.stored(), Index(1));
    let (again, _) = log.next_write().unwrap();
    assert_eq!(again[0].position(), position(2, 3));
}

#[test]
fn a_sync_is_asked_for_once_and_covers_what_was_written() {
    let mut log = empty();
    log.offer(position(0, 0), &entries(0, 0, &[1, 1]));
    let (_, durability) = log.next_write().unwrap();
    assert_eq!(durability, Durability::PageCache);
    log.want_sync(Index(2));
    assert_eq!(log.next_sync(), Some(position(2, 1)));
    assert_eq!(log.next_sync(), None);
    log.reported(position(2, 1), Durability::PageCache);
    assert_eq!((log.stored(), log.synced()), (Index(2), Index(0)));
    log.reported(position(2, 1), Durability::Synced);
    assert_eq!((log.stored(), log.synced()), (Index(2), Index(2)));
}

#[test]
fn a_committed_entry_is_never_replaced() {
    let mut log = empty();
    log.offer(position(0, 0), &entries(0, 0, &[1, 1]));
    log.commit_to(Index(2));
    let diverged = Offer::Diverged(position(2, 1));
    assert_eq!(log.offer(position(1, 1), &entries(1, 1, &[3])), diverged);
    assert_eq!(log.offer(position(2, 2), &entries(2, 2, &[3])), diverged, "by the entry before");
    assert_eq!(log.last(), position(2, 1));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let options = || GroupOptions::<Vec<u8>>::new(Membership::default(), Durability::PageCache);
    let refused = |options: &GroupOptions<Vec<u8>>| RaftLog::open(options).err().unwrap();
    let mut unknown_terms = options();
    (unknown_terms.last_index, unknown_terms.last_term) = (Index(5), Term(2));
    assert!(refused(&unknown_terms).contains("first entries"));
    unknown_terms.terms = vec![(Index(2), Term(2))];
    assert!(refused(&unknown_terms).contains("first entries"));
    let mut gap = options();
    (gap.last_index, gap.last_term) = (Index(2), Term(1));
    gap.tail = vec![entry(1, 1, 0), entry(3, 1, 1)];
    assert!(refused(&gap).contains("gap"));
    let mut committed = options();
    committed.committed = Index(3);
    assert!(refused(&committed).contains("commit"));
    let mut falling = options();
    (falling.last_index, falling.last_term) = (Index(4), Term(1));
    falling.terms = vec![(Index(1), Term(2)), (Index(3), Term(1))];
    assert!(refused(&falling).contains("falls"));
}

#[test]
fn the_terms_before_the_tail_may_begin_before_the_log_and_go_on_from_its_start() {
    let mut options = GroupOptions::<Vec<u8>>::new(Membership::default(), Durability::PageCache);
    (options.start_index, options.start_term, options.committed) = (Index(3), Term(2), Index(3));
    (options.last_index, options.last_term) = (Index(7), Term(5));
    options.tail = entries(5, 4, &[4, 5]);
    for terms in
        [vec![(Index(1), Term(2)), (Index(5), Term(4))], vec![(Index(4), Term(2)), (Index(5), Term(4))]]
    {
        options.terms = terms;
        let log = RaftLog::open(&options).unwrap();
        let terms: Vec<u64> = (3..=7).filter_map(|index| log.term_at(Index(index))).map(Term::get).collect();
        assert_eq!(terms, [2, 2, 4, 4, 5]);
    }
}

/// A log with three entries that are stored, committed and applied.
fn applied() -> RaftLog<Vec<u8>> {
    let mut log = empty();
    log.offer(position(0, 0), &entries(0, 0, &[1, 1, 2]));
    assert!(log.next_write().is_some());
    log.reported(position(3, 2), Durability::PageCache);
    log.commit_to(Index(9));
    log.commit_to(Index(2));
    assert_eq!(log.committed(), Index(3), "as far as the log goes, and never back");
    assert_eq!(log.next_committed().len(), 3);
    log
}

#[test]
fn what_is_asked_of_memory_is_given_as_long_as_it_fits() {
    let mut log = applied();
    let each = log.tail_bytes() / 3;
    let through = |log: &RaftLog<Vec<u8>>, bytes| log.slice(Index(1), Index(3), bytes).len();
    assert_eq!([1, each, 2 * each - 1, 2 * each].map(|bytes| through(&log, bytes)), [1, 1, 1, 2]);
    assert_eq!(log.trim(each), each, "no more than was asked for");
    assert_eq!((log.tail_first(), log.tail_bytes()), (Index(2), 2 * each));
}

#[test]
fn the_log_begins_later_at_an_applied_entry_of_it_alone() {
    let mut log = applied();
    log.push(entry(4, 2, 2));
    let each = log.tail_bytes() / 4;
    assert!(!log.move_start(position(0, 0)), "it begins there");
    assert!(!log.move_start(position(4, 2)), "that is not applied");
    assert!(!log.move_start(position(2, 2)), "that entry is another one");
    assert_eq!((log.start(), log.tail_first()), (position(0, 0), Index(1)));
    assert!(log.move_start(position(2, 1)));
    assert_eq!((log.start(), log.last()), (position(2, 1), position(4, 2)));
    assert_eq!((log.tail_first(), log.tail_bytes()), (Index(3), 2 * each));
}

#[test]
fn a_report_that_was_not_asked_for_counts_if_it_is_about_this_log() {
    let mut log = applied();
    log.push(entry(4, 2, 2));
    log.reported(position(3, 1), Durability::Synced);
    log.reported(position(4, 2), Durability::Synced);
    assert_eq!(log.synced(), Index(0), "of another entry, and of one that nobody was given to write");
    log.reported(position(3, 2), Durability::Synced);
    assert_eq!(log.synced(), Index(3));
}

#[test]
fn a_report_ends_the_waiting_for_what_was_asked_before_it_and_no_safer() {
    let mut log = empty();
    log.offer(position(0, 0), &entries(0, 0, &[1, 1]));
    assert!(log.next_write().is_some());
    log.offer(position(2, 1), &entries(2, 1, &[1]));
    assert!(log.next_write().is_some());
    log.reported(position(2, 1), Durability::PageCache);
    log.offer(position(2, 1), &entries(2, 1, &[2]));
    assert!(log.next_write().is_none(), "the second write is still under way");
    log.reported(position(3, 1), Durability::PageCache);
    assert!(log.next_write().is_some());

    log.want_sync(Index(3));
    assert_eq!(log.next_sync(), Some(position(3, 2)));
    log.reported(position(3, 2), Durability::PageCache);
    log.offer(position(2, 1), &entries(2, 1, &[3]));
    assert!(log.next_write().is_none(), "the sync is still under way");
    log.reported(position(3, 2), Durability::Synced);
    assert!(log.next_write().is_some());

    log.want_sync(Index(3));
    assert_eq!(log.next_sync(), Some(position(3, 3)));
    log.reported(position(3, 3), Durability::Synced);
    log.offer(position(2, 1), &entries(2, 1, &[4]));
    assert!(log.next_write().is_some(), "what is synced is written");
}
