//! Handing things over, with nobody who drives the log.

use super::*;
use crate::disk::FaultyDisk;

type Told = Arc<Mutex<Vec<Part>>>;

/// A log that nobody drives, and what its stepper is told.
fn shared(background_sync_bytes: u64) -> (Shared, Told) {
    let told = Told::default();
    let mine = Arc::clone(&told);
    let on_work: crate::options::OnWork = Arc::new(move |part| mine.lock().push(part));
    let options = WalOptions {
        segment_bytes: 4096,
        prepared_segments: 2,
        background_sync_bytes,
        on_work: Some(on_work),
        ..WalOptions::default()
    };
    let foundation = Foundation {
        index: Index::default(),
        spares: vec![SpareFile { id: SegmentId(1), bytes: 3000 }],
        next_segment: SegmentId(5),
        last_lsn: Lsn(10),
        previous: (SegmentId(0), 0),
        lock: Box::new(()),
    };
    (Shared::new(Arc::new(FaultyDisk::new(1)), options, foundation), told)
}

fn segment(id: u64) -> Arc<Segment> {
    Segment::new(SegmentId(id), FaultyDisk::new(1).create("x", 0).unwrap())
}

type Outcomes = Arc<Mutex<Vec<bool>>>;

fn waiter(outcomes: &Outcomes) -> Done {
    let outcomes = Arc::clone(outcomes);
    Box::new(move |outcome| outcomes.lock().push(outcome.is_ok()))
}

fn unit(payload_bytes: u64) -> Command {
    Command::Append(Unit {
        records: Vec::new(),
        durability: Durability::PageCache,
        done: Box::new(|_| {}),
        payload_bytes,
    })
}

#[test]
fn a_sync_is_due_when_somebody_waits_or_there_is_much() {
    let (shared, _) = shared(100);
    let one = segment(5);
    assert!(shared.sync_round(true).is_none() && !shared.take_mark_due(), "there is nothing");
    shared.written(&one, Lsn(11), 99, Vec::new());
    assert!(shared.sync_round(false).is_none());
    assert!(shared.sync_round(true).is_some(), "after a while it is");
    shared.written(&one, Lsn(12), 1, Vec::new());
    assert!(shared.sync_round(false).is_some());
    let outcomes = Outcomes::default();
    let (few, _) = self::shared(100);
    few.written(&one, Lsn(11), 1, vec![waiter(&outcomes)]);
    assert!(few.sync_round(false).is_some());
}

#[test]
fn a_round_completes_what_was_written_before_it() {
    let (shared, _) = shared(1000);
    let outcomes = Outcomes::default();
    let (one, two) = (segment(5), segment(6));
    shared.written(&one, Lsn(11), 10, vec![waiter(&outcomes)]);
    shared.written(&one, Lsn(12), 20, Vec::new());
    shared.written(&two, Lsn(13), 40, vec![waiter(&outcomes)]);
    let round = shared.sync_round(false).unwrap();
    assert_eq!(round.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>(), [5, 6]);
    shared.written(&two, Lsn(14), 80, vec![waiter(&outcomes)]);
    shared.synced(&round);
    assert_eq!((outcomes.lock().len(), shared.synced_lsn()), (2, Lsn(13)));
    assert_eq!(shared.stats.unsynced_bytes.get(), 80);
    assert!(!shared.take_mark_due(), "not all is synced");
    let round = shared.sync_round(false).unwrap();
    assert_eq!(round.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>(), [6]);
    shared.synced(&round);
    assert_eq!((outcomes.lock().len(), shared.synced_lsn()), (3, Lsn(14)));
    assert!(shared.sync_round(true).is_none());
    assert!(shared.take_mark_due() && !shared.take_mark_due(), "once");
    shared.when_synced(waiter(&outcomes));
    let nothing_new = shared.sync_round(false).unwrap();
    assert!(nothing_new.segments.is_empty());
    shared.synced(&nothing_new);
    assert_eq!(*outcomes.lock(), [true; 4]);
    assert!(!shared.take_mark_due(), "nothing was written since");
}

#[test]
fn the_syncer_is_told_of_the_first_bytes_of_many_and_of_waiters() {
    let (shared, told) = shared(100);
    let one = segment(5);
    let is_told = |bytes, waiters| {
        told.lock().clear();
        shared.written(&one, Lsn(11), bytes, waiters);
        told.lock().contains(&Part::Syncer)
    };
    assert!(is_told(1, Vec::new()), "from now on time counts");
    assert!(!is_told(98, Vec::new()));
    assert!(is_told(1, Vec::new()), "it is much now");
    assert!(!is_told(500, Vec::new()), "it was much before");
    assert!(is_told(0, vec![waiter(&Outcomes::default())]));
}

#[test]
fn what_fails_fails_for_all_and_once() {
    let (shared, _) = shared(100);
    let outcomes = Outcomes::default();
    shared.written(&segment(5), Lsn(11), 1, vec![waiter(&outcomes)]);
    assert!(matches!(shared.stop_reason(), AppendError::Closed));
    let error = FatalError::new("a test", std::io::ErrorKind::Other.into());
    shared.fail(&error);
    shared.when_synced(waiter(&outcomes));
    assert_eq!(*outcomes.lock(), [false, false]);
    assert!(shared.sync_round(true).is_none() && shared.failure().is_some());
    assert!(matches!(shared.stop_reason(), AppendError::Failed(_)));
}

#[test]
fn what_is_queued_is_counted_and_nothing_follows_the_end() {
    let (shared, told) = shared(100);
    assert!(shared.enqueue(unit(30)).is_ok() && shared.enqueue(unit(4)).is_ok());
    assert_eq!((shared.stats.queue_units.get(), shared.stats.queue_bytes.get()), (2, 34));
    assert_eq!(shared.space.queued_bytes.get(), 34);
    assert_eq!(*told.lock(), [Part::Writer, Part::Writer]);
    assert!(shared.enqueue(Command::Close).is_ok());
    assert!(shared.enqueue(unit(1)).is_err());
    assert_eq!(shared.wait_commands().map(|commands| commands.len()), Some(3));
    assert!(shared.wait_commands().is_none());
}

#[test]
fn who_is_abandoned_ends() {
    let (shared, _) = shared(100);
    shared.abandon();
    assert!(shared.wait_commands().is_none() && shared.enqueue(unit(1)).is_err());
    assert!(shared.wait_for_sync(Duration::from_secs(60)).is_none());
    assert!(shared.wait_job(|_| true).is_none());
}

#[test]
fn the_syncer_waits_only_for_what_is_not_there() {
    let (shared, _) = shared(100);
    shared.written(&segment(5), Lsn(11), 1, Vec::new());
    assert_eq!(shared.wait_for_sync(Duration::ZERO), Some(true), "the time is up");
    shared.written(&segment(5), Lsn(12), 99, Vec::new());
    assert_eq!(shared.wait_for_sync(Duration::from_secs(60)), Some(false), "there is much");
    shared.synced(&shared.sync_round(false).unwrap());
    assert_eq!(shared.wait_for_sync(Duration::ZERO), Some(true), "that it is synced is to be written down");
    shared.when_synced(waiter(&Outcomes::default()));
    assert_eq!(shared.wait_for_sync(Duration::from_secs(60)), Some(false), "somebody waits");
}

#[test]
fn the_file_system_is_asked_for_space_once() {
    let (shared, told) = shared(100);
    shared.refresh_space_soon();
    shared.refresh_space_soon();
    assert_eq!(*told.lock(), [Part::Housekeeper]);
    assert!(matches!(shared.take_job(), Some(Job::RefreshSpace)));
    assert!(shared.take_job().is_none());
    shared.refresh_space_soon();
    assert!(matches!(shared.wait_job(|_| true), Some(Job::RefreshSpace)));
}

#[test]
fn jobs_are_taken_by_who_does_them() {
    let (shared, _) = shared(100);
    for job in [Job::RefreshSpace, Job::Prepare, Job::RefreshSpace] {
        shared.push_job(job);
    }
    let is_preparing = |job: &Job| matches!(job, Job::Prepare);
    assert!(matches!(shared.wait_job(is_preparing), Some(Job::Prepare)));
    assert!(matches!(shared.wait_job(|job| !is_preparing(job)), Some(Job::RefreshSpace)));
    assert!(matches!(shared.take_job(), Some(Job::RefreshSpace)));
}

#[test]
fn one_prepares_the_next_segments_and_spare_ones_are_counted() {
    let (shared, _) = shared(100);
    assert_eq!((shared.space.spare_segments.get(), shared.spare_bytes()), (1, 3000));
    assert!(shared.take_next().is_none());
    assert!(!shared.begin_preparing(), "who got none prepares one");
    shared.put_next(None);
    assert!(shared.begin_preparing() && !shared.begin_preparing(), "somebody does it");
    shared.put_next(Some(segment(5)));
    assert!(shared.begin_preparing(), "two are wanted");
    shared.put_next(Some(segment(6)));
    assert!(!shared.begin_preparing(), "there are two");
    assert_eq!((shared.space.spare_segments.get(), shared.spare_bytes()), (3, 3000 + 2 * 4096));
    let first = shared.take_next().unwrap();
    assert_eq!((first.id, shared.space.spare_segments.get()), (SegmentId(5), 3), "not counted anew yet");
    shared.return_next(first);
    let taken = [shared.take_next(), shared.take_next(), shared.take_next()];
    let ids = taken.map(|segment| segment.map(|segment| segment.id));
    assert_eq!(ids, [Some(SegmentId(5)), Some(SegmentId(6)), None]);
    shared.put_next(None);
    assert!(shared.begin_preparing());
    shared.put_next(None);
    assert!(shared.begin_preparing());
    assert_eq!((shared.allocate_segment_id(), shared.allocate_segment_id()), (SegmentId(5), SegmentId(6)));
    assert_eq!(shared.stats.roll_stalls.get(), 2);
}

#[test]
fn where_space_is_short_one_segment_is_prepared_or_as_many_as_there_are_files_for() {
    let (shared, _) = shared(100);
    shared.space.free_bytes.set(shared.options.reserve_bytes + 4095);
    shared.put_next(Some(segment(5)));
    assert!(shared.begin_preparing(), "there is a file that can be used again");
    shared.put_next(None);
    shared.spares.lock().clear();
    assert!(!shared.begin_preparing());
    shared.space.free_bytes.set(shared.options.reserve_bytes + 4096);
    assert!(shared.begin_preparing());
    shared.put_next(None);
    shared.space.free_bytes.set(0);
    shared.take_next().unwrap();
    assert!(shared.begin_preparing(), "one is always tried");
}

#[test]
fn who_needs_a_segment_that_is_being_prepared_waits_for_it_and_not_for_those_behind_it() {
    let (shared, _) = shared(100);
    assert!(shared.begin_preparing());
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| shared.take_next().map(|segment| segment.id));
        while shared.stats.roll_stalls.get() == 0 {
            std::thread::yield_now();
        }
        shared.put_next(Some(segment(5)));
        assert_eq!(taker.join().unwrap(), Some(SegmentId(5)));
    });
    shared.put_next(Some(segment(6)));
    assert!(shared.begin_preparing());
    assert_eq!(shared.take_next().map(|segment| segment.id), Some(SegmentId(6)), "7 is being prepared");
}
