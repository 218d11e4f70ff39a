//! Consumer groups while the cluster suffers: members that come and go, and what they and others are told.
//!
//! Three groups have members of librdkafka (`librdkafka`): one eager, that commits automatically; one cooperative, that commits by
//! hand; one of static members. The members of a fourth speak for themselves (`own`): they know of generations, and some vanish
//! without a word. Everybody's coordinators are asked from outside all the time (`lookout`). [`ledger`] judges, and is pure.

pub mod delivered;
pub mod ledger;
mod librdkafka;
mod lookout;
mod own;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::KafkaError;
use serde::Serialize;

use crate::client::ClusterClient;
use crate::cluster::DEADLINE;
use crate::two_loads::TOPICS;
use crate::wait::{self, TimedOut};
use ledger::{Ledger, Tally};
use librdkafka::Commits;

/// A member that is not heard of for so long is dead; the least that brokers allow by default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// So long a rebalance waits for a member.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often members say that they live.
const HEARTBEAT: Duration = Duration::from_millis(1500);

/// What a group is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    name: &'static str,
    topic: &'static str,
    members: usize,
    kind: Kind,
}

/// Who its members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Librdkafka's.
    Librdkafka { strategy: &'static str, is_static: bool, commits: Commits },
    /// Our own.
    Own,
}

const GROUPS: [Shape; 4] = [
    Shape {
        name: "eager",
        topic: TOPICS[0],
        members: 3,
        kind: Kind::Librdkafka { strategy: "range", is_static: false, commits: Commits::Automatic },
    },
    Shape {
        name: "cooperative",
        topic: TOPICS[1],
        members: 3,
        kind: Kind::Librdkafka { strategy: "cooperative-sticky", is_static: false, commits: Commits::ByHand },
    },
    Shape {
        name: "static",
        topic: TOPICS[0],
        members: 2,
        kind: Kind::Librdkafka { strategy: "roundrobin", is_static: true, commits: Commits::ByHand },
    },
    Shape { name: "own", topic: TOPICS[1], members: 4, kind: Kind::Own },
];

impl Shape {
    /// Whether its members read: ours only commit.
    fn reads(&self) -> bool {
        self.kind != Kind::Own
    }
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Members come and go.
    Restless,
    /// All come and stay.
    Settling,
    /// All go.
    Ending,
}

/// What all threads share.
struct Shared {
    bootstrap: String,
    partitions: i32,
    seed: u64,
    stage: AtomicU8,
    /// By group: somebody wants it to be looked at soon.
    wanted: [AtomicBool; GROUPS.len()],
    ledger: Mutex<Ledger>,
}

impl Shared {
    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Restless,
            1 => Stage::Settling,
            _ => Stage::Ending,
        }
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn look_soon(&self, group: usize) {
        self.wanted[group].store(true, Ordering::Relaxed);
    }

    fn brokers(&self) -> Vec<String> {
        self.bootstrap.split(',').map(str::to_owned).collect()
    }
}

/// The groups of a run.
pub struct Groups {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of the groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GroupsReport {
    /// Groups.
    pub groups: usize,
    /// Their members, when all are there.
    pub members: usize,
    /// From when members were told to come and stay, after the last fault, until all groups were stable; `None` if they never were.
    pub stable_after_ms: Option<f64>,
    /// What was seen.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Groups {
    /// Starts everybody.
    ///
    /// # Errors
    /// When a client can't be set up.
    pub fn start(bootstrap: &str, partitions: i32, seed: u64) -> Result<Self, KafkaError> {
        let shared = Arc::new(Shared {
            bootstrap: bootstrap.to_owned(),
            partitions,
            seed,
            stage: AtomicU8::new(Stage::Restless as u8),
            wanted: Default::default(),
            ledger: Mutex::new(Ledger::new(&GROUPS.map(|group| group.name), partitions)),
        });
        let mut groups = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for (group, shape) in GROUPS.into_iter().enumerate() {
            match shape.kind {
                Kind::Librdkafka { .. } => {
                    for member in 0..shape.members {
                        groups.threads.push(librdkafka::start(&shared, group, member)?);
                    }
                }
                Kind::Own => groups.threads.push(own::start(&shared, group)),
            }
        }
        groups.threads.push(lookout::start(&shared));
        Ok(groups)
    }

    /// All members come and stay; waits until all groups are stable, with all members and partitions, and says how long that took.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn settle(&self) -> Result<Duration, TimedOut> {
        let begun = Instant::now();
        self.shared.enter(Stage::Settling);
        wait::until("every consumer group to be stable", DEADLINE, || {
            let ledger = self.shared.ledger.lock();
            let complaint = |(group, shape): (usize, &Shape)| {
                let complaint = ledger.unstable(group, shape.members, begun)?;
                Some(format!("{}: {complaint}", shape.name))
            };
            let complaints: Vec<String> = GROUPS.iter().enumerate().filter_map(complaint).collect();
            if complaints.is_empty() { Ok(begun.elapsed()) } else { Err(complaints.join("; ")) }
        })
    }

    /// Waits until every group that reads was shown everything that there is, and ends. `settled` is what [`Groups::settle`] said.
    /// Also says what must not have happened.
    pub fn finish(
        self,
        client: &ClusterClient,
        settled: Result<Duration, TimedOut>,
    ) -> (GroupsReport, Vec<String>) {
        let mut violations = Vec::new();
        for (group, shape) in GROUPS.iter().enumerate().filter(|(_, shape)| shape.reads()) {
            if let Err(late) = self.await_all_delivered(client, group, shape) {
                violations.push(format!("group {}: not every record was delivered: {late}", shape.name));
            }
        }
        self.shared.enter(Stage::Ending);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        let tally = self.shared.ledger.lock().tally();
        violations.extend(tally.violations());
        let stable_after_ms = settled.as_ref().ok().map(|took| took.as_secs_f64() * 1e3);
        if let Err(late) = settled {
            violations.push(format!("after the last fault: {late}"));
        }
        let members = GROUPS.iter().map(|shape| shape.members).sum();
        (GroupsReport { groups: GROUPS.len(), members, stable_after_ms, tally }, violations)
    }

    fn await_all_delivered(
        &self,
        client: &ClusterClient,
        group: usize,
        shape: &Shape,
    ) -> Result<(), TimedOut> {
        for partition in 0..self.shared.partitions {
            wait::until(format!("the last record of partition {partition}"), DEADLINE, || {
                let (_, end) =
                    client.watermarks(shape.topic, partition).map_err(|error| error.to_string())?;
                match self.shared.ledger.lock().first_missing(group, partition, end) {
                    None => Ok(()),
                    Some(offset) => Err(format!("offset {offset} of {end} was delivered to no member")),
                }
            })?;
        }
        Ok(())
    }
}

impl GroupsReport {
    /// What was checked and found, a row each.
    pub fn verdicts(&self) -> Vec<(&'static str, String)> {
        let tally = &self.tally;
        let stable = match self.stable_after_ms {
            Some(ms) => format!("{:.2} s", ms / 1e3),
            None => "NEVER".into(),
        };
        vec![
            ("consumer groups: committed offsets", self.offsets().to_string()),
            (
                "consumer groups: owned twice",
                format!(
                    "{} partitions, of {} assignments of our own members and {} stable groups looked at",
                    tally.owned_twice, tally.assignments, tally.described
                ),
            ),
            (
                "consumer groups: delivered",
                format!("{} records, {} of them once more", tally.delivered, tally.repeated),
            ),
            (
                "consumer groups: given up for good",
                format!("{} members, while faults struck", tally.given_up),
            ),
            ("consumer groups: all stable in the end", stable),
        ]
    }

    fn offsets(&self) -> impl fmt::Display {
        let Tally { went_back, vanished, looks, commits, overtaken, rebalances, .. } = self.tally;
        format!(
            "{went_back} went back, {vanished} vanished; {looks} looks, {commits} commits, {overtaken} of them repeated by the library after \
             later ones, {rebalances} rebalances of members"
        )
    }
}
