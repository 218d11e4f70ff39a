//! One session: the partitions that a client wants, in the order in which they are read, and what it was told of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Answered, Asked, FetchSessionId, PartitionKey, SessionClaim, TopicKey, epoch_after};

/// Of a partition of which the client was told nothing yet, or an error.
const NEVER_TOLD: i64 = -1;

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: FetchSessionId,
    by_id: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Epoch of the next request.
    epoch: i32,
    /// By place in the order of reading.
    partitions: BTreeMap<u64, Cached>,
    places: HashMap<PartitionKey, u64>,
    next_place: u64,
}

#[derive(Debug)]
struct Cached {
    asked: Asked,
    high_watermark: i64,
    log_start: i64,
}

impl Session {
    /// The session of a full request that was answered like this.
    pub(super) fn new(
        id: FetchSessionId,
        by_id: bool,
        asked: &[Asked],
        answered: &[Answered],
        name_of: &dyn Fn(Uuid) -> Option<String>,
    ) -> Self {
        let mut state = State {
            epoch: epoch_after(SessionClaim::INITIAL),
            partitions: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        let mut names = Names::new(name_of);
        for (asked, answered) in asked.iter().zip(answered) {
            let asked = names.own(asked);
            state.push(Cached {
                asked,
                high_watermark: answered.high_watermark,
                log_start: answered.log_start,
            });
        }
        Self { id, by_id, state: Mutex::new(state) }
    }

    /// Takes the next request in. Returns the epoch behind it, and everything that is wanted now.
    pub(super) fn continued(
        &self,
        claim: SessionClaim,
        asked: &[Asked],
        forgotten: &[PartitionKey],
        name_of: &dyn Fn(Uuid) -> Option<String>,
    ) -> Result<(i32, Vec<Asked>), ResponseError> {
        let mut state = self.state.lock();
        if state.epoch != claim.epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if self.by_id != claim.by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        let mut names = Names::new(name_of);
        for one in asked {
            state.update(one, &mut names);
        }
        for key in forgotten {
            state.remove(key);
        }
        state.learn_names(&mut names);
        state.epoch = epoch_after(state.epoch);
        let partitions = state.partitions.values().map(|cached| cached.asked.clone()).collect();
        Ok((state.epoch, partitions))
    }

    /// Which answers are news to the client. Partitions with records are read last the next time, so that none starves.
    pub(super) fn news(
        &self,
        epoch: i32,
        asked: &[Asked],
        answered: &[Answered],
    ) -> Result<Vec<bool>, ResponseError> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        Ok(asked.iter().zip(answered).map(|(asked, answered)| state.tell(&asked.key, *answered)).collect())
    }
}

impl State {
    fn push(&mut self, cached: Cached) {
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(cached.asked.key.clone(), place);
        self.partitions.insert(place, cached);
    }

    fn remove(&mut self, key: &PartitionKey) -> Option<Cached> {
        let place = self.places.remove(key)?;
        self.partitions.remove(&place)
    }

    fn get_mut(&mut self, key: &PartitionKey) -> Option<&mut Cached> {
        self.partitions.get_mut(self.places.get(key)?)
    }

    fn update(&mut self, asked: &Asked, names: &mut Names<'_>) {
        match self.get_mut(&asked.key) {
            Some(cached) => {
                let Asked { current_leader_epoch, fetch_offset, max_bytes, .. } = *asked;
                cached.asked =
                    Asked { current_leader_epoch, fetch_offset, max_bytes, ..cached.asked.clone() };
            }
            None => {
                let asked = names.own(asked);
                self.push(Cached { asked, high_watermark: NEVER_TOLD, log_start: NEVER_TOLD });
            }
        }
    }

    /// Topic ids that meant nothing yet may have a name by now.
    fn learn_names(&mut self, names: &mut Names<'_>) {
        for cached in self.partitions.values_mut() {
            if let (TopicKey::Id(topic_id), None) = (&cached.asked.key.topic, &cached.asked.known_as) {
                cached.asked.known_as = names.of(*topic_id);
            }
        }
    }

    /// Whether the answer is news; it is told then.
    fn tell(&mut self, key: &PartitionKey, answered: Answered) -> bool {
        let Some(cached) = self.get_mut(key) else { return false };
        let moved =
            (cached.high_watermark, cached.log_start) != (answered.high_watermark, answered.log_start);
        (cached.high_watermark, cached.log_start) = (answered.high_watermark, answered.log_start);
        if answered.failed {
            // So that the end of the error is news.
            cached.high_watermark = NEVER_TOLD;
        }
        if answered.has_records
            && let Some(cached) = self.remove(key)
        {
            self.push(cached);
        }
        moved || answered.has_records || answered.failed || answered.redirected
    }
}

/// Names that may be kept: those of a request are slices of it, and would keep all of it in memory.
struct Names<'a> {
    name_of: &'a dyn Fn(Uuid) -> Option<String>,
    by_id: HashMap<Uuid, Option<Arc<str>>>,
    last: Option<TopicName>,
}

impl<'a> Names<'a> {
    fn new(name_of: &'a dyn Fn(Uuid) -> Option<String>) -> Self {
        Self { name_of, by_id: HashMap::new(), last: None }
    }

    fn of(&mut self, topic_id: Uuid) -> Option<Arc<str>> {
        let name_of = self.name_of;
        self.by_id.entry(topic_id).or_insert_with(|| name_of(topic_id).map(Into::into)).clone()
    }

    fn own(&mut self, asked: &Asked) -> Asked {
        let (topic, known_as) = match &asked.key.topic {
            TopicKey::Name(name) => (TopicKey::Name(self.copy(name)), None),
            TopicKey::Id(topic_id) => (TopicKey::Id(*topic_id), self.of(*topic_id)),
        };
        let key = PartitionKey { topic, partition: asked.key.partition };
        Asked { key, known_as, ..*asked }
    }

    /// Partitions of a topic follow each other, and share one copy.
    fn copy(&mut self, name: &TopicName) -> TopicName {
        match &self.last {
            Some(last) if last == name => last.clone(),
            _ => {
                let copy = TopicName(StrBytes::from_string(name.to_string()));
                self.last = Some(copy.clone());
                copy
            }
        }
    }
}
