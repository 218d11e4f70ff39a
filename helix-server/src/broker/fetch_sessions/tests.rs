//! The rules of KIP-227, as Kafka's `FetchSession` has them.

use super::*;
use kafka_protocol::protocol::StrBytes;

const NOTHING: Answered =
    Answered { high_watermark: 10, log_start: 0, has_records: false, failed: false, redirected: false };
const RECORDS: Answered = Answered { has_records: true, ..NOTHING };
const FAILED: Answered = Answered { failed: true, ..NOTHING };

fn key(partition: i32) -> PartitionKey {
    PartitionKey { topic: TopicKey::Name(TopicName(StrBytes::from_static_str("t"))), partition }
}

fn asked(partition: i32, fetch_offset: i64) -> Asked {
    Asked { key: key(partition), known_as: None, current_leader_epoch: -1, fetch_offset, max_bytes: 100 }
}

/// Partitions of a topic named by id.
fn asked_by_id(topic: u128, partition: i32) -> Asked {
    Asked { key: PartitionKey { topic: TopicKey::Id(Uuid::from_u128(topic)), partition }, ..asked(0, 0) }
}

fn claim(session_id: i32, epoch: i32) -> SessionClaim {
    SessionClaim { session_id, epoch, by_id: false }
}

/// A cache, and a clock.
struct Bench {
    sessions: FetchSessions,
    now: Instant,
    random: u64,
}

impl Bench {
    fn new(slots: usize) -> Self {
        Self { sessions: FetchSessions::new(slots), now: Instant::now(), random: 0 }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn begin(
        &self,
        claim: SessionClaim,
        asked: Vec<Asked>,
        forgotten: &[PartitionKey],
    ) -> Result<FetchContext, ResponseError> {
        self.sessions.begin(claim, asked, forgotten, &|_| None, self.now)
    }

    fn finish(
        &mut self,
        context: FetchContext,
        answered: &[Answered],
    ) -> Result<SessionAnswer, ResponseError> {
        let random = &mut self.random;
        self.sessions.finish(
            context,
            answered,
            &|_| None,
            || {
                *random += 1;
                *random
            },
            self.now,
        )
    }

    /// A new session of this many partitions, or 0.
    fn open(&mut self, partitions: i32) -> i32 {
        let asked = (0..partitions).map(|partition| asked(partition, 0)).collect();
        let context = self.begin(claim(0, 0), asked, &[]).unwrap();
        self.finish(context, &vec![NOTHING; partitions as usize]).unwrap().session_id
    }

    /// An incremental request that changes nothing; which partitions are answered.
    fn go_on(
        &mut self,
        session_id: i32,
        epoch: i32,
        answered: &[Answered],
    ) -> Result<Vec<i32>, ResponseError> {
        let context = self.begin(claim(session_id, epoch), vec![], &[])?;
        let order: Vec<i32> = context.partitions.iter().map(|asked| asked.key.partition).collect();
        let included = self.finish(context, answered)?.included;
        Ok(order.into_iter().zip(included).filter(|(_, included)| *included).map(|(p, _)| p).collect())
    }
}

fn order(context: &FetchContext) -> Vec<(i32, i64)> {
    context.partitions.iter().map(|asked| (asked.key.partition, asked.fetch_offset)).collect()
}

#[test]
fn a_session_lives_through_its_epochs() {
    let mut bench = Bench::new(10);
    let id = bench.open(2);
    assert_ne!(id, 0);
    assert_eq!(bench.go_on(id, 1, &[NOTHING; 2]), Ok(vec![]));
    assert_eq!(bench.go_on(id, 1, &[NOTHING; 2]), Err(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(bench.go_on(id, 3, &[NOTHING; 2]), Err(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(bench.go_on(id, 2, &[NOTHING; 2]), Ok(vec![]), "an error changes nothing");
    assert_eq!(bench.go_on(id + 1, 3, &[NOTHING; 2]), Err(ResponseError::FetchSessionIdNotFound));
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!(epoch_after(0), 1);
    assert_eq!(epoch_after(i32::MAX), 1);
}

#[test]
fn a_full_request_ends_the_session_that_it_names() {
    let mut bench = Bench::new(10);
    let id = bench.open(1);
    // With epoch 0 another one begins, with -1 none does.
    let context = bench.begin(claim(id, 0), vec![asked(0, 5)], &[]).unwrap();
    let other = bench.finish(context, &[NOTHING]).unwrap().session_id;
    assert_ne!(other, id);
    assert_eq!(bench.sessions.len(), 1);
    let context = bench.begin(claim(other, -1), vec![asked(0, 5)], &[]).unwrap();
    assert_eq!(order(&context), [(0, 5)]);
    let answer = bench.finish(context, &[NOTHING]).unwrap();
    assert_eq!(answer, SessionAnswer { session_id: 0, included: vec![true] });
    assert!(bench.sessions.is_empty());
    assert_eq!(bench.go_on(other, 1, &[]), Err(ResponseError::FetchSessionIdNotFound));
}

#[test]
fn only_news_are_answered() {
    let mut bench = Bench::new(10);
    let id = bench.open(3);
    let higher = Answered { high_watermark: 11, ..NOTHING };
    assert_eq!(bench.go_on(id, 1, &[NOTHING, higher, NOTHING]), Ok(vec![1]));
    assert_eq!(bench.go_on(id, 2, &[NOTHING, higher, NOTHING]), Ok(vec![]));
    let shorter = Answered { log_start: 4, ..NOTHING };
    assert_eq!(bench.go_on(id, 3, &[shorter, higher, NOTHING]), Ok(vec![0]));
    let redirected = Answered { redirected: true, ..NOTHING };
    assert_eq!(bench.go_on(id, 4, &[shorter, higher, redirected]), Ok(vec![2]));
    assert_eq!(bench.go_on(id, 5, &[shorter, higher, redirected]), Ok(vec![2]), "every time");
}

#[test]
fn an_error_is_told_every_time_and_its_end_once() {
    let mut bench = Bench::new(10);
    let id = bench.open(1);
    assert_eq!(bench.go_on(id, 1, &[FAILED]), Ok(vec![0]));
    assert_eq!(bench.go_on(id, 2, &[FAILED]), Ok(vec![0]));
    assert_eq!(bench.go_on(id, 3, &[NOTHING]), Ok(vec![0]));
    assert_eq!(bench.go_on(id, 4, &[NOTHING]), Ok(vec![]));
}

#[test]
fn what_had_records_is_read_last() {
    let mut bench = Bench::new(10);
    let id = bench.open(3);
    assert_eq!(bench.go_on(id, 1, &[RECORDS, NOTHING, NOTHING]), Ok(vec![0]));
    // The order is 1, 2, 0 now.
    assert_eq!(bench.go_on(id, 2, &[RECORDS, NOTHING, RECORDS]), Ok(vec![1, 0]));
    let context = bench.begin(claim(id, 3), vec![], &[]).unwrap();
    assert_eq!(order(&context), [(2, 0), (1, 0), (0, 0)]);
}

#[test]
fn partitions_are_added_changed_and_forgotten() {
    let mut bench = Bench::new(10);
    let id = bench.open(2);
    let context = bench.begin(claim(id, 1), vec![asked(7, 70), asked(0, 5)], &[key(1), key(99)]).unwrap();
    assert_eq!(order(&context), [(0, 5), (7, 70)], "what is changed keeps its place");
    let included = bench.finish(context, &[NOTHING; 2]).unwrap().included;
    assert_eq!(included, [false, true], "a new partition is news");
    // What is changed and forgotten in the same request is forgotten.
    let context = bench.begin(claim(id, 2), vec![asked(0, 6)], &[key(0)]).unwrap();
    assert_eq!(order(&context), [(7, 70)]);
}

#[test]
fn a_session_without_partitions_ends() {
    let mut bench = Bench::new(10);
    let id = bench.open(1);
    let context = bench.begin(claim(id, 1), vec![], &[key(0)]).unwrap();
    assert_eq!(order(&context), []);
    assert_eq!(bench.finish(context, &[]).unwrap().session_id, 0);
    assert!(bench.sessions.is_empty());
}

#[test]
fn an_overtaken_request_is_not_answered() {
    let mut bench = Bench::new(10);
    let id = bench.open(1);
    let slow = bench.begin(claim(id, 1), vec![], &[]).unwrap();
    assert_eq!(bench.go_on(id, 2, &[RECORDS]), Ok(vec![0]));
    assert_eq!(bench.finish(slow, &[RECORDS]), Err(ResponseError::InvalidFetchSessionEpoch));
}

#[test]
fn names_and_ids_are_not_mixed() {
    let mut bench = Bench::new(10);
    let id = bench.open(1);
    let by_id = |session_id, epoch| SessionClaim { by_id: true, ..claim(session_id, epoch) };
    let refused = bench.begin(by_id(id, 1), vec![], &[]).expect_err("the session knows names");
    assert_eq!(refused, ResponseError::FetchSessionTopicIdError);
    let context = bench.begin(by_id(0, 0), vec![asked_by_id(5, 0)], &[]).unwrap();
    let id = bench.finish(context, &[NOTHING]).unwrap().session_id;
    let refused = bench.begin(claim(id, 1), vec![], &[]).expect_err("the session knows ids");
    assert_eq!(refused, ResponseError::FetchSessionTopicIdError);
    assert_eq!(bench.begin(by_id(id, 1), vec![], &[]).unwrap().partitions.len(), 1);
}

#[test]
fn a_topic_id_keeps_the_name_that_it_had() {
    let bench = Bench::new(10);
    let by_id = |session_id, epoch| SessionClaim { by_id: true, ..claim(session_id, epoch) };
    let unknown = |_| None;
    let known = |_| Some("t".to_owned());
    let sessions = &bench.sessions;
    let context = sessions.begin(by_id(0, 0), vec![asked_by_id(5, 0)], &[], &unknown, bench.now).unwrap();
    let id = sessions.finish(context, &[FAILED], &unknown, || 7, bench.now).unwrap().session_id;
    let name = |epoch, name_of| {
        let context = sessions.begin(by_id(id, epoch), vec![], &[], name_of, bench.now).unwrap();
        context.partitions[0].known_as.as_deref().map(str::to_owned)
    };
    assert_eq!(name(1, &unknown), None);
    assert_eq!(name(2, &known), Some("t".to_owned()), "learnt later");
    assert_eq!(name(3, &unknown), Some("t".to_owned()), "kept when the topic is gone");
}

#[test]
fn a_partition_that_is_named_twice_is_read_once() {
    let bench = Bench::new(10);
    let twice = vec![asked(0, 1), asked(1, 2), asked(0, 3)];
    let context = bench.begin(SessionClaim::NONE, twice, &[]).unwrap();
    assert_eq!(order(&context), [(0, 3), (1, 2)]);
}

#[test]
fn a_full_cache_gives_no_session_to_newcomers() {
    let mut bench = Bench::new(2);
    let (first, second) = (bench.open(2), bench.open(2));
    assert_eq!(bench.open(100), 0, "nothing is idle or old");
    // Exactly at the limit nothing is idle yet.
    bench.wait(120);
    assert_eq!(bench.open(100), 0);
    assert_eq!(bench.go_on(first, 1, &[NOTHING; 2]), Ok(vec![]));
    bench.wait(1);
    let third = bench.open(1);
    assert_ne!(third, 0, "the second one was idle for two minutes");
    assert_eq!(bench.go_on(second, 1, &[NOTHING; 2]), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!(bench.go_on(first, 2, &[NOTHING; 2]), Ok(vec![]));
}

#[test]
fn an_old_session_goes_for_a_larger_one() {
    let mut bench = Bench::new(2);
    let (small, large) = (bench.open(2), bench.open(5));
    for epoch in 1..=3 {
        bench.wait(60);
        assert_eq!(bench.go_on(small, epoch, &[NOTHING; 2]), Ok(vec![]));
        assert_eq!(bench.go_on(large, epoch, &[NOTHING; 5]), Ok(vec![]));
    }
    assert_eq!(bench.open(2), 0, "no larger than the smallest");
    assert_ne!(bench.open(3), 0);
    assert_eq!(bench.go_on(small, 4, &[NOTHING; 2]), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!(bench.go_on(large, 4, &[NOTHING; 5]), Ok(vec![]));
    // The newcomer is not old yet, and the large one is larger.
    assert_eq!(bench.open(4), 0);
}

#[test]
fn partitions_are_bounded_too() {
    let mut bench = Bench::new(10);
    bench.sessions.limits.partitions = 100;
    let id = bench.open(99);
    assert_ne!(id, 0);
    assert_eq!(bench.open(2), 0, "no room");
    let other = bench.open(1);
    assert_ne!(other, 0);
    // A session that grows beyond the limit goes.
    let refused = bench.begin(claim(other, 1), vec![asked(5, 0)], &[]).expect_err("too many");
    assert_eq!(refused, ResponseError::FetchSessionIdNotFound);
    assert_eq!(bench.sessions.len(), 1);
    assert_eq!(bench.begin(claim(id, 1), vec![], &[]).unwrap().partitions.len(), 99);
}

/// A partition of a topic with a name of so many bytes.
fn asked_of_long_name(bytes: usize) -> Asked {
    let name = TopicName(StrBytes::from_string("x".repeat(bytes)));
    Asked { key: PartitionKey { topic: TopicKey::Name(name), partition: 0 }, ..asked(0, 0) }
}

#[test]
fn names_longer_than_any_topics_count_by_their_length() {
    let mut bench = Bench::new(10);
    bench.sessions.limits.partitions = 100;
    let mut open = |bytes| {
        let context = bench.begin(claim(0, 0), vec![asked_of_long_name(bytes)], &[]).unwrap();
        assert_eq!(context.partitions.len(), 1, "it is answered all the same");
        bench.finish(context, &[FAILED]).unwrap()
    };
    let refused = open(100 * PARTITION_BYTES);
    assert_eq!(refused, SessionAnswer { session_id: 0, included: vec![true] });
    assert_ne!(open(50 * PARTITION_BYTES).session_id, 0);
    assert_eq!(open(50 * PARTITION_BYTES).session_id, 0, "there is one that takes half of the room");
    let small = bench.open(1);
    assert_ne!(small, 0);
    for (asked, forgotten) in [
        (vec![asked_of_long_name(48 * PARTITION_BYTES)], vec![]),
        (vec![asked_of_long_name(100 * PARTITION_BYTES)], vec![]),
        (vec![], vec![asked_of_long_name(100 * PARTITION_BYTES).key]),
    ] {
        let id = bench.open(1);
        let refused = bench.begin(claim(id, 1), asked, &forgotten).expect_err("too large");
        assert_eq!(refused, ResponseError::FetchSessionIdNotFound);
    }
}

#[test]
fn partitions_are_told_apart_by_what_their_topics_are_called() {
    let name = |text: &str| TopicKey::Name(TopicName(StrBytes::from_string(text.to_owned())));
    let topics = [name("a"), name("a"), name("b"), TopicKey::Id(Uuid::from_u128(1)), name("a")];
    let of_topic = |topic: TopicKey| Asked { key: PartitionKey { topic, partition: 0 }, ..asked(0, 0) };
    let distinct = distinct(topics.into_iter().map(of_topic).collect());
    let topics: Vec<_> = distinct.into_iter().map(|one| one.key.topic).collect();
    assert_eq!(topics, [name("a"), name("b"), TopicKey::Id(Uuid::from_u128(1))]);
}

#[test]
fn a_cache_without_slots_gives_no_sessions() {
    assert_eq!(Bench::new(0).open(1), 0);
}

#[test]
fn a_number_in_use_is_not_given_again() {
    let sessions = FetchSessions::new(10);
    let now = Instant::now();
    let mut numbers = [4, 4, 9].into_iter();
    let mut open = || {
        let context = sessions.begin(claim(0, 0), vec![asked(0, 0)], &[], &|_| None, now).unwrap();
        sessions.finish(context, &[NOTHING], &|_| None, || numbers.next().unwrap(), now).unwrap().session_id
    };
    assert_eq!((open(), open()), (5, 10));
}
