//! Members of librdkafka that read, commit, stop and come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::{GROUPS, HEARTBEAT, Kind, REBALANCE_TIMEOUT, SESSION_TIMEOUT, Shared, Stage};

const POLL: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(20);
/// Answers that do not come are waited for so long: a member that is to be stable in time must not wait for a paused node as long as
/// librdkafka does by default.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// From one commit by hand to the next.
const BETWEEN_COMMITS: Duration = Duration::from_millis(700);
const LIFE_MS: std::ops::Range<u64> = 4_000..25_000;
const ABSENCE_MS: std::ops::Range<u64> = 200..4_000;

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commits {
    /// The library, every second and when a partition is taken away.
    Automatic,
    /// We do, at the same occasions.
    ByHand,
}

/// Starts a member that lives, goes and comes back.
pub(super) fn start(shared: &Arc<Shared>, group: usize, number: usize) -> Result<JoinHandle<()>, KafkaError> {
    let mut member = Member {
        shared: Arc::clone(shared),
        group,
        number,
        random: SmallRng::seed_from_u64(shared.seed.wrapping_add(((group as u64) << 32) + number as u64)),
    };
    let first = member.join()?;
    Ok(std::thread::spawn(move || member.live(first)))
}

struct Member {
    shared: Arc<Shared>,
    group: usize,
    number: usize,
    random: SmallRng,
}

/// Told by the library what happens to a member.
struct Context {
    shared: Arc<Shared>,
    group: usize,
    commits: Commits,
    /// By partition, what is to be committed by hand.
    read: Mutex<BTreeMap<i32, i64>>,
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (Rebalance::Revoke(partitions) | Rebalance::Assign(partitions)) = rebalance else { return };
        let revoked = matches!(rebalance, Rebalance::Revoke(_));
        let taken: BTreeMap<i32, i64> = {
            let mut read = self.read.lock();
            let partitions = partitions.elements();
            partitions
                .iter()
                .filter_map(|one| read.remove(&one.partition()).map(|next| (one.partition(), next)))
                .collect()
        };
        // What was lost belongs to somebody else already, who must not be overtaken.
        if revoked && !consumer.assignment_lost() {
            self.commit(consumer, &taken);
        }
        self.shared.ledger.lock().rebalanced();
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.shared.look_soon(self.group);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if self.commits == Commits::Automatic && result.is_ok() {
            self.acknowledged(offsets);
        }
    }
}

impl Context {
    /// Waits for the answer: a commit that is still on its way could be overtaken by the next.
    fn commit(&self, consumer: &BaseConsumer<Self>, next: &BTreeMap<i32, i64>) {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            // Both are numbers that the library gave us.
            let _ =
                offsets.add_partition_offset(GROUPS[self.group].topic, *partition, Offset::Offset(*offset));
        }
        // Refused while the group rebalances or moves: what is not committed is read again.
        if offsets.count() > 0 && consumer.commit(&offsets, CommitMode::Sync).is_ok() {
            self.acknowledged(&offsets);
        }
    }

    fn acknowledged(&self, offsets: &TopicPartitionList) {
        let mut ledger = self.shared.ledger.lock();
        for one in offsets.elements() {
            if let (Ok(()), Offset::Offset(offset)) = (one.error(), one.offset()) {
                match self.commits {
                    Commits::Automatic => {
                        ledger.acknowledged_to_library(self.group, one.partition(), offset);
                    }
                    Commits::ByHand => ledger.acknowledged(self.group, one.partition(), offset),
                }
            }
        }
    }
}

impl Member {
    fn join(&mut self) -> Result<BaseConsumer<Context>, KafkaError> {
        let shape = GROUPS[self.group];
        let (strategy, is_static, commits) = match shape.kind {
            Kind::Librdkafka { strategy, is_static, commits } => (strategy, is_static, commits),
            Kind::Own => ("range", false, Commits::Automatic),
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.shared.bootstrap)
            .set("group.id", shape.name)
            .set("partition.assignment.strategy", strategy)
            .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
            .set("heartbeat.interval.ms", HEARTBEAT.as_millis().to_string())
            .set("max.poll.interval.ms", REBALANCE_TIMEOUT.as_millis().to_string())
            .set("socket.timeout.ms", SOCKET_TIMEOUT.as_millis().to_string())
            .set("enable.auto.commit", (commits == Commits::Automatic).to_string())
            .set("auto.commit.interval.ms", "1000")
            // Else it commits what it takes from its queue while it is closed, which nobody is shown.
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("check.crcs", "true");
        if is_static {
            config.set("group.instance.id", format!("{}-{}", shape.name, self.number));
        }
        let context =
            Context { shared: Arc::clone(&self.shared), group: self.group, commits, read: Mutex::default() };
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        consumer.subscribe(&[shape.topic])?;
        Ok(consumer)
    }

    fn live(mut self, first: BaseConsumer<Context>) {
        let mut consumer = first;
        loop {
            let end = Instant::now() + Duration::from_millis(self.random.random_range(LIFE_MS));
            self.read(&consumer, end);
            // The library leaves the group, unless it is a static member's, who is expected back.
            drop(consumer);
            consumer = loop {
                self.rest();
                if self.shared.stage() == Stage::Ending {
                    return;
                }
                match self.join() {
                    Ok(consumer) => break consumer,
                    Err(error) => {
                        self.shared
                            .ledger
                            .lock()
                            .refused(self.group, &format!("a member can't begin: {error}"));
                    }
                }
            };
        }
    }

    /// Reads until it has had enough, or to the end of the run if all are to stay.
    fn read(&self, consumer: &BaseConsumer<Context>, end: Instant) {
        let context = consumer.context();
        let mut committed = Instant::now();
        loop {
            match self.shared.stage() {
                Stage::Restless if Instant::now() >= end => break,
                Stage::Restless | Stage::Settling => {}
                Stage::Ending => break,
            }
            // After such an error the library does nothing any more, such as that another one has this member's name.
            if let Some((code, text)) = consumer.client().fatal_error() {
                let mut ledger = self.shared.ledger.lock();
                match self.shared.stage() {
                    Stage::Restless => ledger.given_up(),
                    Stage::Settling | Stage::Ending => {
                        ledger.refused(self.group, &format!("a member is given up for good, {code}: {text}"));
                    }
                }
                break;
            }
            // Other errors are of brokers that can't be reached; the library goes on by itself.
            if let Some(Ok(record)) = consumer.poll(POLL) {
                let offset = record.offset();
                let mut ledger = self.shared.ledger.lock();
                ledger.delivered(self.group, record.partition(), u64::try_from(offset).unwrap_or(0));
                drop(ledger);
                match context.commits {
                    Commits::ByHand => {
                        context.read.lock().insert(record.partition(), offset + 1);
                    }
                    // Refused if the partition has been taken away meanwhile; then others read the record again.
                    Commits::Automatic => drop(consumer.store_offset_from_message(&record)),
                }
            }
            if context.commits == Commits::ByHand && committed.elapsed() > BETWEEN_COMMITS {
                let next = std::mem::take(&mut *context.read.lock());
                context.commit(consumer, &next);
                committed = Instant::now();
            }
        }
    }

    fn rest(&mut self) {
        let until = Instant::now() + Duration::from_millis(self.random.random_range(ABSENCE_MS));
        while Instant::now() < until && self.shared.stage() == Stage::Restless {
            std::thread::sleep(LOOK);
        }
    }
}
