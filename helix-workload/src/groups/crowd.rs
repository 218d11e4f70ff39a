//! Thousands of members in hundreds of groups: whether all groups are stable, and how long heartbeats take.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::member::{Member, MemberOptions, Setback};
use crate::wait::{self, TimedOut};

/// What every client library waits before it asks again.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// Members do not all come in the same instant: the queue of connections that a broker has not accepted yet is short.
const BETWEEN_STARTS: Duration = Duration::from_micros(200);
/// The default of Kafka's clients.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);
/// As above (`max.poll.interval.ms`).
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long members may take to leave.
const LEAVING: Duration = Duration::from_secs(30);
const NOBODY: i32 = -1;
const TOPIC: &str = "crowd";

/// How many members, and what they do.
#[derive(Debug, Clone)]
pub(crate) struct CrowdOptions {
    /// `HOST:PORT` of the brokers.
    pub(crate) bootstrap: Vec<String>,
    /// What names of groups begin with.
    pub(crate) prefix: String,
    /// Groups.
    pub(crate) groups: usize,
    /// Members of each.
    pub(crate) members: usize,
    /// From one heartbeat of a member to its next.
    pub(crate) heartbeat: Duration,
}

/// What is known of one member.
#[derive(Debug)]
struct Slot {
    /// Of its assignment; [`NOBODY`] while it has none.
    generation: AtomicI32,
    /// Who answered it last.
    node: AtomicI32,
    /// Whether somebody else than the victim answered it since the victim was named.
    answered: AtomicBool,
}

/// What members write down. Pure.
#[derive(Debug)]
struct Board {
    slots: Vec<Slot>,
    members: usize,
    victim: AtomicI32,
    heartbeats: AtomicU64,
    assignments: AtomicU64,
    latency_us: Mutex<Histogram<u64>>,
    last_setback: Mutex<Option<String>>,
}

impl Board {
    fn new(groups: usize, members: usize) -> Self {
        let slot = |_| Slot {
            generation: AtomicI32::new(NOBODY),
            node: AtomicI32::new(NOBODY),
            answered: AtomicBool::new(false),
        };
        // Up to ten minutes, at three digits: within the bounds of the library.
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
        Self {
            slots: (0..groups * members).map(slot).collect(),
            members,
            victim: AtomicI32::new(NOBODY),
            heartbeats: AtomicU64::new(0),
            assignments: AtomicU64::new(0),
            latency_us: Mutex::new(latency_us),
            last_setback: Mutex::new(None),
        }
    }

    fn assigned(&self, slot: usize, node: i32, generation: i32) {
        self.slots[slot].generation.store(generation, Ordering::Relaxed);
        self.assignments.fetch_add(1, Ordering::Relaxed);
        self.answered(slot, node);
    }

    fn lost(&self, slot: usize) {
        self.slots[slot].generation.store(NOBODY, Ordering::Relaxed);
    }

    fn heartbeat(&self, slot: usize, node: i32, took: Duration) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
        self.latency_us.lock().saturating_record(took.as_micros() as u64);
        self.answered(slot, node);
    }

    fn answered(&self, slot: usize, node: i32) {
        self.slots[slot].node.store(node, Ordering::Relaxed);
        if node != self.victim.load(Ordering::Relaxed) {
            self.slots[slot].answered.store(true, Ordering::Relaxed);
        }
    }

    /// From now on those whom the victim answered last must be answered by somebody else.
    fn name_victim(&self, victim: i32) {
        self.victim.store(victim, Ordering::Relaxed);
        for slot in &self.slots {
            let elsewhere = slot.node.load(Ordering::Relaxed) != victim;
            slot.answered.store(elsewhere, Ordering::Relaxed);
        }
    }

    /// Groups all of whose members have an assignment, of the same generation.
    fn stable(&self) -> usize {
        let is_stable = |group: &&[Slot]| {
            let generations = || group.iter().map(|slot| slot.generation.load(Ordering::Relaxed));
            generations().all(|generation| generation != NOBODY) && generations().min() == generations().max()
        };
        self.slots.chunks(self.members).filter(is_stable).count()
    }

    fn unanswered(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.answered.load(Ordering::Relaxed)).count()
    }

    /// How many groups each node coordinates.
    fn coordinated(&self) -> BTreeMap<i32, usize> {
        let mut groups = BTreeMap::new();
        for slot in self.slots.iter().step_by(self.members) {
            *groups.entry(slot.node.load(Ordering::Relaxed)).or_default() += 1;
        }
        groups
    }
}

/// Running members.
pub(crate) struct Crowd {
    runtime: tokio::runtime::Runtime,
    board: Arc<Board>,
    stop: watch::Sender<bool>,
    members: JoinSet<()>,
}

impl Crowd {
    /// Starts all members; they are not members yet.
    pub(crate) fn start(options: &CrowdOptions) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let board = Arc::new(Board::new(options.groups, options.members));
        let (stop, stopped) = watch::channel(false);
        let mut members = JoinSet::new();
        for slot in 0..board.slots.len() {
            let options = options.clone();
            let (board, stopped) = (Arc::clone(&board), stopped.clone());
            members.spawn_on(live(options, slot, board, stopped), runtime.handle());
        }
        Ok(Self { runtime, board, stop, members })
    }

    /// Waits until every group is stable, and nobody is owed an answer because of the victim.
    pub(crate) fn await_stable(&self, deadline: Duration) -> Result<(), TimedOut> {
        let groups = self.board.slots.len() / self.board.members;
        wait::until(format!("{groups} groups to be stable"), deadline, || {
            let (stable, unanswered) = (self.board.stable(), self.board.unanswered());
            if stable == groups && unanswered == 0 {
                return Ok(());
            }
            let setback = self.board.last_setback.lock().clone().unwrap_or_default();
            Err(format!("{stable} are, {unanswered} members are not answered; last setback: {setback}"))
        })
    }

    /// The node that coordinates most groups, and how many these are.
    pub(crate) fn busiest(&self) -> Option<(i32, usize)> {
        self.board.coordinated().into_iter().max_by_key(|(_, groups)| *groups)
    }

    /// This node is about to be killed.
    pub(crate) fn name_victim(&self, victim: i32) {
        self.board.name_victim(victim);
    }

    /// Heartbeats answered so far.
    pub(crate) fn heartbeats(&self) -> u64 {
        self.board.heartbeats.load(Ordering::Relaxed)
    }

    /// Assignments given to members so far.
    pub(crate) fn assignments(&self) -> u64 {
        self.board.assignments.load(Ordering::Relaxed)
    }

    /// How long heartbeats took since the last call, in microseconds.
    pub(crate) fn take_latencies(&self) -> Histogram<u64> {
        let mut latencies = self.board.latency_us.lock();
        let taken = latencies.clone();
        latencies.reset();
        taken
    }

    /// All members leave.
    pub(crate) fn stop(mut self) {
        self.stop.send_replace(true);
        self.runtime.block_on(async {
            // Who can't leave in time is missed by its coordinator for a session.
            let _ = timeout(LEAVING, async { while self.members.join_next().await.is_some() {} }).await;
        });
    }
}

async fn live(options: CrowdOptions, slot: usize, board: Arc<Board>, mut stop: watch::Receiver<bool>) {
    let who = MemberOptions {
        bootstrap: options.bootstrap,
        group: format!("{}-{}", options.prefix, slot / options.members),
        topic: TOPIC.into(),
        partitions: i32::try_from(options.members).unwrap_or(i32::MAX),
        session_timeout: SESSION_TIMEOUT,
        rebalance_timeout: REBALANCE_TIMEOUT,
    };
    let mut member = Member::new(who, slot);
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = work(&mut member, slot, &board, options.heartbeat) => {}
    }
    // Whoever does not get away is missed for a session, which the caller does not wait for.
    let _ = member.leave().await;
}

/// Is a member for ever.
async fn work(member: &mut Member, slot: usize, board: &Board, heartbeat: Duration) {
    sleep(BETWEEN_STARTS * u32::try_from(slot).unwrap_or(u32::MAX)).await;
    let mut assigned = false;
    loop {
        let worked = match assigned {
            false => member.join().await.map(|_| {
                board.assigned(slot, node_of(member), member.generation());
                assigned = true;
            }),
            true => {
                let begun = Instant::now();
                member.heartbeat().await.map(|()| board.heartbeat(slot, node_of(member), begun.elapsed()))
            }
        };
        let Err(setback) = worked else {
            // As clients do, it looks for another coordinator as soon as the connection ends, not when the next heartbeat is due.
            if timeout(heartbeat, member.disconnected()).await.is_ok() {
                member.forget_coordinator();
                sleep(RETRY_BACKOFF).await;
            }
            continue;
        };
        *board.last_setback.lock() = Some(setback.to_string());
        match setback {
            Setback::Coordinator(_) => {
                member.forget_coordinator();
                sleep(RETRY_BACKOFF).await;
                continue;
            }
            Setback::Rebalance => {}
            Setback::Membership => member.become_nobody(),
            Setback::Refused { .. } => sleep(RETRY_BACKOFF).await,
        }
        assigned = false;
        board.lost(slot);
    }
}

fn node_of(member: &Member) -> i32 {
    member.coordinator().unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_stable_when_all_its_members_are_of_one_generation() {
        let board = Board::new(2, 2);
        board.assigned(0, 1, 5);
        assert_eq!(board.stable(), 0);
        board.assigned(1, 1, 4);
        assert_eq!(board.stable(), 0, "another generation");
        board.assigned(1, 1, 5);
        board.assigned(2, 2, 1);
        board.assigned(3, 2, 1);
        assert_eq!((board.stable(), board.coordinated()), (2, BTreeMap::from([(1, 1), (2, 1)])));
        board.lost(3);
        assert_eq!(board.stable(), 1);
    }

    #[test]
    fn only_those_whom_the_victim_answered_have_to_hear_of_somebody_else() {
        let board = Board::new(1, 2);
        assert_eq!(board.unanswered(), 2);
        board.assigned(0, 1, 1);
        board.assigned(1, 2, 1);
        board.name_victim(1);
        assert_eq!(board.unanswered(), 1);
        board.heartbeat(0, 1, Duration::ZERO);
        assert_eq!(board.unanswered(), 1, "an answer that was on its way");
        board.heartbeat(0, 2, Duration::ZERO);
        assert_eq!(board.unanswered(), 0);
    }
}
