//! Fetch sessions (KIP-227): a client names its partitions once, later sends only what changed, and is answered only what is
//! new.
//!
//! The cache is bounded as Kafka bounds its own: a number of sessions, of which only an idle or a smaller and old one makes
//! room. Unlike Kafka it bounds the partitions in them too, because whoever can connect can ask for any number. A client
//! that gets no session names everything each time, which is always right. Nothing here is replicated: a session is known
//! to one node, and ends with it.

mod session;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use session::Session;

/// What a session has to be idle or old for, until another may take its place
/// (`min.incremental.fetch.session.eviction.ms`, which Kafka does not let anybody change).
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// Partitions in all sessions together.
const MAX_PARTITIONS: usize = 400_000;
/// What a partition takes, about. A name may be much longer than any topic's: each such stretch of it counts as one more partition.
const PARTITION_BYTES: usize = 200;

/// Number of a session; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchSessionId(pub i32);

/// What a fetch request says about its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionClaim {
    /// Its number, 0 if the client has none.
    pub session_id: i32,
    /// Number of this request in the session: 0 asks for a new session, -1 for none.
    pub epoch: i32,
    /// Whether the request names topics by id (version 13 and up).
    pub by_id: bool,
}

impl SessionClaim {
    /// Epoch of a request that would like a session.
    const INITIAL: i32 = 0;
    /// Epoch of a request that wants no session, or no longer.
    const FINAL: i32 = -1;

    /// What a request of a version that knows no sessions stands for.
    pub const NONE: Self = Self { session_id: 0, epoch: Self::FINAL, by_id: false };
}

/// The epoch behind another: 0 is never reached again.
fn epoch_after(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

/// How a request names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// Before version 13.
    Name(TopicName),
    /// Since version 13.
    Id(Uuid),
}

/// How a request names a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionKey {
    /// Its topic.
    pub topic: TopicKey,
    /// Its number.
    pub partition: i32,
}

/// What a client wants of a partition, until it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which partition.
    pub key: PartitionKey,
    /// The name that its topic id had when the partition came into the session.
    pub known_as: Option<Arc<str>>,
    /// The leader epoch that the client knows, -1 if none.
    pub current_leader_epoch: i32,
    /// Offset of the first record wanted.
    pub fetch_offset: i64,
    /// Most bytes of records wanted.
    pub max_bytes: i32,
}

/// What a partition is about to be answered: enough to tell whether that is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// High watermark in the answer.
    pub high_watermark: i64,
    /// Log start offset in the answer.
    pub log_start: i64,
    /// Whether there are records.
    pub has_records: bool,
    /// Whether there is an error.
    pub failed: bool,
    /// Whether the client is sent to another replica.
    pub redirected: bool,
}

/// One fetch request in its session.
#[derive(Debug)]
pub struct FetchContext {
    /// Everything that is to be read, in this order.
    pub partitions: Vec<Asked>,
    kind: ContextKind,
}

#[derive(Debug)]
enum ContextKind {
    /// Everything is answered, and nothing remembered.
    Sessionless,
    /// Everything is answered, and a session begins if there is room.
    Full { by_id: bool },
    /// Only news are answered.
    Incremental { session: Arc<Session>, epoch: i32 },
}

/// What leaves for the client.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionAnswer {
    /// The session that the client has now, 0 if none.
    pub session_id: i32,
    /// For each partition of the context, whether it is part of the answer.
    pub included: Vec<bool>,
}

/// All sessions of a node.
#[derive(Debug)]
pub struct FetchSessions {
    limits: Limits,
    cache: Mutex<Cache>,
}

/// How much there may be in the cache.
#[derive(Debug, Clone, Copy)]
struct Limits {
    sessions: usize,
    partitions: usize,
}

#[derive(Debug, Default)]
struct Cache {
    sessions: HashMap<FetchSessionId, Slot>,
    /// In all of them, as [`size`] counts them.
    partitions: usize,
}

/// A session in the cache. Size and last use are as of the last request, so that the sessions need not be locked to compare them.
#[derive(Debug)]
struct Slot {
    session: Arc<Session>,
    created: Instant,
    last_used: Instant,
    /// As [`size`] counts it.
    size: usize,
}

impl FetchSessions {
    /// A cache for `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub fn new(slots: usize) -> Self {
        Self { limits: Limits { sessions: slots, partitions: MAX_PARTITIONS }, cache: Mutex::default() }
    }

    /// How many sessions there can be.
    pub fn slots(&self) -> usize {
        self.limits.sessions
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.cache.lock().sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a request in. `name_of` gives the name that a topic id has now.
    ///
    /// # Errors
    /// When the request does not continue the session that it claims: 70, 71 or 106. The client starts over then.
    pub fn begin(
        &self,
        claim: SessionClaim,
        asked: Vec<Asked>,
        forgotten: &[PartitionKey],
        name_of: &dyn Fn(Uuid) -> Option<String>,
        now: Instant,
    ) -> Result<FetchContext, ResponseError> {
        if matches!(claim.epoch, SessionClaim::INITIAL | SessionClaim::FINAL) {
            // A session that a full request names is over.
            self.cache.lock().remove(FetchSessionId(claim.session_id));
            let kind = if claim.epoch == SessionClaim::FINAL {
                ContextKind::Sessionless
            } else {
                ContextKind::Full { by_id: claim.by_id }
            };
            return Ok(FetchContext { partitions: distinct(asked), kind });
        }
        let id = FetchSessionId(claim.session_id);
        if size_of_asked(&asked).max(size(forgotten.iter())) > self.limits.partitions {
            // No session has room for that: the client starts over, and gets none.
            self.cache.lock().remove(id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        let session = self.cache.lock().sessions.get(&id).map(|slot| Arc::clone(&slot.session));
        let session = session.ok_or(ResponseError::FetchSessionIdNotFound)?;
        let (epoch, partitions) = session.continued(claim, &asked, forgotten, name_of)?;
        if partitions.is_empty() {
            self.cache.lock().remove(id);
            return Ok(FetchContext { partitions: distinct(asked), kind: ContextKind::Sessionless });
        }
        if !self.cache.lock().touch(id, size_of_asked(&partitions), self.limits, now) {
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        Ok(FetchContext { partitions, kind: ContextKind::Incremental { session, epoch } })
    }

    /// Decides which of the answers leave; `answered` has one for each partition of the context. `random` chooses the number
    /// of a new session.
    ///
    /// # Errors
    /// When the session went on while the request was being worked on: 71.
    pub fn finish(
        &self,
        context: FetchContext,
        answered: &[Answered],
        name_of: &dyn Fn(Uuid) -> Option<String>,
        mut random: impl FnMut() -> u64,
        now: Instant,
    ) -> Result<SessionAnswer, ResponseError> {
        let all = vec![true; answered.len()];
        match context.kind {
            ContextKind::Sessionless => Ok(SessionAnswer { session_id: 0, included: all }),
            ContextKind::Full { by_id } => {
                let mut cache = self.cache.lock();
                let size = size_of_asked(&context.partitions);
                if !cache.make_room(self.limits, size, now) {
                    return Ok(SessionAnswer { session_id: 0, included: all });
                }
                let id = cache.free_id(&mut random);
                let session = Arc::new(Session::new(id, by_id, &context.partitions, answered, name_of));
                cache.insert(id, Slot { session, created: now, last_used: now, size });
                Ok(SessionAnswer { session_id: id.0, included: all })
            }
            ContextKind::Incremental { session, epoch } => {
                let included = session.news(epoch, &context.partitions, answered)?;
                Ok(SessionAnswer { session_id: session.id.0, included })
            }
        }
    }
}

impl Cache {
    fn insert(&mut self, id: FetchSessionId, slot: Slot) {
        self.partitions += slot.size;
        self.sessions.insert(id, slot);
    }

    fn remove(&mut self, id: FetchSessionId) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.partitions -= slot.size;
        }
    }

    /// Notes the use of a session. False if it is gone, or has grown too large and goes.
    fn touch(&mut self, id: FetchSessionId, size: usize, limits: Limits, now: Instant) -> bool {
        let Some(slot) = self.sessions.get_mut(&id) else { return false };
        self.partitions = self.partitions - slot.size + size;
        (slot.size, slot.last_used) = (size, now);
        if self.partitions > limits.partitions {
            self.remove(id);
            return false;
        }
        true
    }

    /// Whether there is room for a session of this size, if need be in the place of another one.
    fn make_room(&mut self, limits: Limits, size: usize, now: Instant) -> bool {
        let fits = |cache: &Self| {
            cache.sessions.len() < limits.sessions && cache.partitions + size <= limits.partitions
        };
        if fits(self) {
            return true;
        }
        if let Some(id) = self.evictable(size, now) {
            self.remove(id);
        }
        fits(self)
    }

    /// The session that goes for one of this size. Looking at all of them is no loss: they are few, and looked at only when
    /// the cache is full.
    fn evictable(&self, size: usize, now: Instant) -> Option<FetchSessionId> {
        let (oldest, slot) = self.sessions.iter().min_by_key(|(id, slot)| (slot.last_used, **id))?;
        if now.saturating_duration_since(slot.last_used) > EVICTION_AGE {
            return Some(*oldest);
        }
        let aged = |slot: &Slot| slot.last_used.saturating_duration_since(slot.created) > EVICTION_AGE;
        let (smallest, slot) =
            self.sessions.iter().filter(|(_, slot)| aged(slot)).min_by_key(|(id, slot)| (slot.size, **id))?;
        (slot.size < size).then_some(*smallest)
    }

    fn free_id(&self, random: &mut impl FnMut() -> u64) -> FetchSessionId {
        loop {
            let id = FetchSessionId((random() % i32::MAX as u64) as i32 + 1);
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

/// Each partition once, in the order of first mention; what was said of it last counts.
fn distinct(asked: Vec<Asked>) -> Vec<Asked> {
    let mut topics = TopicNumbers::default();
    let mut places = HashMap::with_capacity(asked.len());
    let mut out: Vec<Asked> = Vec::with_capacity(asked.len());
    for one in asked {
        let key = (topics.number(&one.key.topic), one.key.partition);
        match places.get(&key) {
            Some(&place) => out[place] = one,
            None => {
                places.insert(key, out.len());
                out.push(one);
            }
        }
    }
    out
}

/// Numbers topics. Partitions of a topic follow each other in a request and share its name, which may be so long that it must not be looked at
/// for each of them.
#[derive(Debug, Default)]
struct TopicNumbers {
    numbers: HashMap<TopicKey, usize>,
    last: Option<(TopicKey, usize)>,
}

impl TopicNumbers {
    fn number(&mut self, topic: &TopicKey) -> usize {
        if let Some((last, number)) = &self.last
            && is_same_copy(last, topic)
        {
            return *number;
        }
        let next = self.numbers.len();
        let number = *self.numbers.entry(topic.clone()).or_insert(next);
        self.last = Some((topic.clone(), number));
        number
    }
}

/// Whether two keys are the same id, or names in the same place in memory.
fn is_same_copy(one: &TopicKey, other: &TopicKey) -> bool {
    match (one, other) {
        (TopicKey::Id(one), TopicKey::Id(other)) => one == other,
        (TopicKey::Name(one), TopicKey::Name(other)) => std::ptr::eq(one.as_bytes(), other.as_bytes()),
        _ => false,
    }
}

/// The size of a session of these partitions: how many there are, and more for names longer than any topic's.
fn size<'a>(partitions: impl Iterator<Item = &'a PartitionKey>) -> usize {
    let size = |key: &PartitionKey| match &key.topic {
        TopicKey::Name(name) => 1 + name.len() / PARTITION_BYTES,
        TopicKey::Id(_) => 1,
    };
    partitions.map(size).sum()
}

fn size_of_asked(asked: &[Asked]) -> usize {
    size(asked.iter().map(|one| &one.key))
}

#[cfg(test)]
mod tests;
