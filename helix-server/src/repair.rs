//! Damaged entries of this node's log, got back from nodes that have them.
//!
//! Whoever stumbles over damage reports it and does without. One task goes through what is reported: it finds out what exactly
//! is damaged, asks one node after the other for it, the leader first, and gives what it gets to the WAL, which takes only what
//! is provably the same. What nobody has stays damaged, is not served, and is asked for again later: a node that has it may be down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helix_raft::{Entry, GroupId, Index};
use helix_wal::{DamagedRange, ReadError, ReadLimit, Record, RepairError, Wal};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info, warn};

use crate::broker::leaders::LeaderTable;
use crate::cluster::ClusterLink;
use crate::entry::{self, Command};
use crate::env::Env;
use crate::ids::NodeId;
use crate::ops::metrics::Metrics;
use crate::peers::ReceivePermit;
use crate::peers::codec::repair::RepairMessage;
use crate::shard::Shards;

/// How long a node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before asking again for what nobody had: after a start the other nodes may not be reached yet.
const SHORT_PAUSE: Duration = Duration::from_millis(500);
/// How long once it has been asked for this often.
const LONG_PAUSE: Duration = Duration::from_secs(10);
const PATIENT_ATTEMPTS: u32 = 10;
/// What one answer holds, unless a single entry is larger.
const ANSWER_BYTES: u64 = 4 << 20;
const ANSWER_RECORDS: usize = 1024;

/// What repairs work with.
pub(crate) struct RepairParts {
    pub(crate) env: Env,
    pub(crate) wal: Wal,
    pub(crate) cluster: ClusterLink,
    pub(crate) leaders: Arc<LeaderTable>,
    pub(crate) shards: Shards,
    pub(crate) metrics: Arc<Metrics>,
}

/// The way to report damage, and to answer others that have some.
#[derive(Clone)]
pub(crate) struct Repairs {
    inner: Arc<Inner>,
}

struct Inner {
    parts: RepairParts,
    /// Where damage is known to be.
    known: Mutex<BTreeSet<(GroupId, Index)>>,
    news: Notify,
    questions: AtomicU64,
    /// Questions under way, and who waits for the answers.
    asked: Mutex<BTreeMap<u64, (NodeId, oneshot::Sender<Answer>)>>,
}

/// What a node has of what it was asked for.
struct Answer {
    records: Vec<Record>,
    _permit: Option<ReceivePermit>,
}

impl std::fmt::Debug for Repairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repairs").field("known", &*self.inner.known.lock()).finish_non_exhaustive()
    }
}

impl Repairs {
    pub(crate) fn new(parts: RepairParts) -> Self {
        let inner = Inner {
            parts,
            known: Mutex::default(),
            news: Notify::new(),
            questions: AtomicU64::new(0),
            asked: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// An entry cannot be read.
    pub(crate) fn report(&self, group: GroupId, index: Index) {
        let known = {
            let mut known = self.inner.known.lock();
            if !known.insert((group, index)) {
                return;
            }
            known.len()
        };
        self.inner.parts.metrics.damaged_places(known);
        self.inner.news.notify_one();
    }

    /// Reports what a failed read says of damage, if that is why it failed.
    pub(crate) fn report_failed_read(&self, error: &ReadError) {
        if let ReadError::Damaged { group, index } = error {
            self.report(GroupId(group.0), Index(index.0));
        }
    }

    /// Another node asks, or answers.
    pub(crate) fn take(&self, from: NodeId, message: RepairMessage, permit: Option<ReceivePermit>) {
        match message {
            RepairMessage::Ask { id, group, first, last } => {
                self.answer(from, id, group, first, last, permit);
            }
            RepairMessage::Answer { id, entries } => {
                let mut asked = self.inner.asked.lock();
                if asked.get(&id).is_some_and(|(node, _)| *node == from)
                    && let Some((_, waiting)) = asked.remove(&id)
                {
                    // The group is known to whoever asked.
                    let records = entries
                        .iter()
                        .map(|(base, entry)| entry::to_record(GroupId(0), entry, *base))
                        .collect();
                    // It may have given up.
                    let _told = waiting.send(Answer { records, _permit: permit });
                }
            }
        }
    }

    fn answer(
        &self,
        from: NodeId,
        id: u64,
        group: GroupId,
        first: Index,
        last: Index,
        permit: Option<ReceivePermit>,
    ) {
        let Self { inner } = self.clone();
        let env = inner.parts.env.clone();
        env.spawn_blocking(move || {
            let _permit = permit;
            let entries = held(&inner.parts.wal, group, first, last);
            debug!(%group, %first, %last, %from, held = entries.len(), "another node asks for damaged entries");
            inner.parts.cluster.send_repair(from, &RepairMessage::Answer { id, entries });
        });
    }

    /// Repairs what is reported, for as long as the node runs.
    pub(crate) async fn run(self) {
        let mut attempts: BTreeMap<(GroupId, Index), u32> = BTreeMap::new();
        loop {
            let known: Vec<_> = self.inner.known.lock().iter().copied().collect();
            for place in known {
                let (group, index) = place;
                if self.repair(group, index).await {
                    attempts.remove(&place);
                    self.forget(place);
                    continue;
                }
                let attempts = attempts.entry(place).or_default();
                *attempts += 1;
                if *attempts >= PATIENT_ATTEMPTS {
                    self.inner.parts.shards.not_repaired(group, index);
                }
                if *attempts == PATIENT_ATTEMPTS {
                    warn!(%group, %index, "no node that can be asked has the damaged entries; they are not served until one has");
                }
            }
            let pause = async {
                match attempts.values().min() {
                    Some(fewest) if *fewest < PATIENT_ATTEMPTS => tokio::time::sleep(SHORT_PAUSE).await,
                    Some(_) => tokio::time::sleep(LONG_PAUSE).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.inner.news.notified() => {}
                () = pause => {}
            }
        }
    }

    fn forget(&self, place: (GroupId, Index)) {
        let known = {
            let mut known = self.inner.known.lock();
            known.remove(&place);
            known.len()
        };
        self.inner.parts.metrics.damaged_places(known);
        self.inner.parts.shards.repaired(place.0);
    }

    /// Repairs what is damaged from `index` on in one stretch of a log. Returns whether nothing there is damaged any more.
    async fn repair(&self, group: GroupId, index: Index) -> bool {
        let wal = self.inner.parts.wal.clone();
        let from = helix_wal::Index(index.0);
        let found = self.blocking(move || wal.find_damage(helix_wal::GroupId(group.0), from)).await;
        let damaged = match found {
            Some(Ok(damaged)) => damaged,
            // Deleted, or given up: nobody needs it any more.
            Some(Err(ReadError::UnknownGroup(_))) => return true,
            Some(Err(error)) => {
                warn!(%group, %error, "damaged entries cannot be looked at");
                return false;
            }
            None => return false,
        };
        for range in damaged {
            if !self.repair_range(group, range).await {
                return false;
            }
        }
        true
    }

    async fn repair_range(&self, group: GroupId, range: DamagedRange) -> bool {
        let (first, last) = (Index(range.first.0), Index(range.last.0));
        for node in self.candidates(group) {
            let mut next = first;
            while next <= last {
                match self.repair_from(node, group, next, last).await {
                    Some(through) => next = through.next(),
                    None => break,
                }
            }
            if next > last {
                info!(%group, %first, %last, %node, "damaged entries are repaired");
                self.inner.parts.metrics.entries_repaired(last.0 - first.0 + 1);
                return true;
            }
        }
        false
    }

    /// Whom to ask: the leader first.
    fn candidates(&self, group: GroupId) -> Vec<NodeId> {
        let RepairParts { cluster, leaders, .. } = &self.inner.parts;
        let leader = leaders.get(group).and_then(|info| cluster.node_of(info.leader?));
        let others = cluster.nodes().into_iter().filter(|node| Some(*node) != leader);
        leader.into_iter().chain(others).collect()
    }

    /// Asks one node for entries `first ..= last`. Returns through where they are repaired.
    async fn repair_from(&self, node: NodeId, group: GroupId, first: Index, last: Index) -> Option<Index> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let next = records.last().map_or(first, |record| Index(record.index.0).next());
            let answer = self.ask(node, group, next, last).await?;
            if answer.records.is_empty() {
                return None;
            }
            records.extend(
                answer
                    .records
                    .into_iter()
                    .map(|record| Record { group: helix_wal::GroupId(group.0), ..record }),
            );
            let through =
                records.last().map(|record| Index(record.index.0)).filter(|through| *through <= last)?;
            let (wal, offered) = (self.inner.parts.wal.clone(), records.clone());
            match self.blocking(move || wal.repair(&offered)).await? {
                Ok(_) => return Some(through),
                // Only the last ones show that all of them are right.
                Err(RepairError::Unproven) if through < last => {}
                Err(error) => {
                    warn!(%group, %first, %through, %node, %error, "entries of another node do not repair the damage");
                    return None;
                }
            }
        }
    }

    async fn ask(&self, node: NodeId, group: GroupId, first: Index, last: Index) -> Option<Answer> {
        let id = self.inner.questions.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.inner.asked.lock().insert(id, (node, sender));
        let sent = self.inner.parts.cluster.send_repair(node, &RepairMessage::Ask { id, group, first, last });
        let answer = match sent {
            true => tokio::time::timeout(ANSWER_LIMIT, answer).await.ok(),
            false => None,
        };
        self.inner.asked.lock().remove(&id);
        answer?.ok()
    }

    /// `None` if the node stops meanwhile.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.inner.parts.env.spawn_blocking(work).await.ok()
    }
}

/// The first of these entries that this node has, each with its offset. It need not know whether they are committed: whoever asks takes only
/// what it can prove to be what it had.
fn held(wal: &Wal, group: GroupId, first: Index, last: Index) -> Vec<(helix_wal::Offset, Entry<Command>)> {
    let limit = ReadLimit { max_bytes: ANSWER_BYTES, max_records: ANSWER_RECORDS };
    let stored = match wal.read(helix_wal::GroupId(group.0), helix_wal::Index(first.0), limit) {
        Ok(stored) => stored,
        Err(error) => {
            debug!(%group, %first, %error, "asked for entries that are not here");
            return Vec::new();
        }
    };
    stored
        .iter()
        .take_while(|stored| stored.record.index.0 <= last.0)
        .map_while(|stored| Some((stored.record.base_offset, entry::from_record(&stored.record).ok()?)))
        .collect()
}
