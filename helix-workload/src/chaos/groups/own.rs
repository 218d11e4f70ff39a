//! Members that speak for themselves. They do not read: each commits one offset after the other for what it owns, and asks for what
//! is committed whenever it was given an assignment.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{GROUPS, HEARTBEAT, REBALANCE_TIMEOUT, SESSION_TIMEOUT, Shared, Stage};
use crate::groups::member::{Member, MemberOptions, Setback};
use crate::groups::outside::Outside;

const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// At most so long somebody is away.
const LONGEST_ABSENCE_MS: u64 = 5_000;
/// Heartbeats and commits of a life.
const LONGEST_LIFE: u32 = 12;

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a machine on which a cluster runs can watch a few sockets")
}

pub(super) fn start(shared: &Arc<Shared>, group: usize) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        runtime().block_on(async {
            let mut members = JoinSet::new();
            for number in 0..GROUPS[group].members {
                members.spawn(Worker::new(&shared, group, number).live());
            }
            while members.join_next().await.is_some() {}
        });
    })
}

/// One member after the other, in the same place.
struct Worker {
    shared: Arc<Shared>,
    group: usize,
    name: String,
    random: SmallRng,
    member: Member,
    outside: Outside,
}

impl Worker {
    fn new(shared: &Arc<Shared>, group: usize, number: usize) -> Self {
        let shape = GROUPS[group];
        let brokers = shared.brokers();
        let outside = Outside::new(&brokers, shape.name, shape.topic, shared.partitions);
        let options = MemberOptions {
            bootstrap: brokers,
            group: shape.name.into(),
            topic: shape.topic.into(),
            partitions: shared.partitions,
            session_timeout: SESSION_TIMEOUT,
            rebalance_timeout: REBALANCE_TIMEOUT,
        };
        Self {
            shared: Arc::clone(shared),
            group,
            name: format!("own member {number}"),
            random: SmallRng::seed_from_u64(shared.seed.wrapping_add(1 + number as u64)),
            member: Member::new(options, number),
            outside,
        }
    }

    async fn live(mut self) {
        while self.shared.stage() != Stage::Ending {
            match self.life().await {
                Ok(()) => self.go_away().await,
                Err(Setback::Rebalance) => {}
                Err(Setback::Membership) => self.member.become_nobody(),
                Err(Setback::Coordinator(_)) => {
                    self.member.forget_coordinator();
                    sleep(RETRY_BACKOFF).await;
                }
                Err(refused @ Setback::Refused { .. }) => {
                    self.shared.ledger.lock().refused(self.group, &format!("{}: {refused}", self.name));
                    sleep(RETRY_BACKOFF).await;
                }
            }
        }
        // If it can't, it is missed for a session, and nobody is there to mind.
        let _ = self.member.leave().await;
    }

    /// From joining to the end of the generation, or until it has had enough.
    async fn life(&mut self) -> Result<(), Setback> {
        let owned = self.member.join().await?;
        {
            let mut ledger = self.shared.ledger.lock();
            ledger.rebalanced();
            ledger.owns(self.group, self.member.generation(), self.member.id(), &owned);
        }
        self.shared.look_soon(self.group);
        let before = self.shared.ledger.lock().committed(self.group);
        let committed = self.outside.committed().await?;
        self.shared.ledger.lock().seen(self.group, &self.name, &before, &committed);
        let next = |partition: i32| (partition, committed.get(&partition).map_or(0, |offset| offset + 1));
        let mut next: Vec<(i32, i64)> = owned.into_iter().map(next).collect();
        let mut left = self.random.random_range(1..=LONGEST_LIFE);
        while left > 0 && self.shared.stage() != Stage::Ending {
            if self.shared.stage() == Stage::Restless {
                left -= 1;
            }
            sleep(Duration::from_millis(self.random.random_range(0..HEARTBEAT.as_millis() as u64))).await;
            if next.is_empty() || self.random.random_bool(0.3) {
                self.member.heartbeat().await?;
            } else {
                self.commit(&mut next).await?;
            }
        }
        Ok(())
    }

    /// After an unclear outcome the caller joins again and asks what is committed, so nothing is committed twice.
    async fn commit(&mut self, next: &mut [(i32, i64)]) -> Result<(), Setback> {
        self.member.commit(next).await?;
        let mut ledger = self.shared.ledger.lock();
        for (partition, offset) in next {
            ledger.acknowledged(self.group, *partition, *offset);
            *offset += 1;
        }
        Ok(())
    }

    /// Says goodbye, or does not, or changes its mind.
    async fn go_away(&mut self) {
        match self.random.random_range(0..3) {
            0 => {
                let left = self.member.leave().await;
                if left.is_err() {
                    self.member.forget_coordinator();
                }
                self.member.become_nobody();
            }
            1 => {
                self.member.forget_coordinator();
                self.member.become_nobody();
            }
            _ => return,
        }
        let absence_ms = self.random.random_range(0..LONGEST_ABSENCE_MS);
        sleep(Duration::from_millis(absence_ms)).await;
    }
}
