//! Which partitions of the internal topics are coordinated on this node: begins and ends coordinators with the leadership.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_raft::planted;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error};
use uuid::Uuid;

use super::groups::call::Reply;
use super::groups::{GroupCall, Groups, GroupsConfig};
use super::runtime::{Ended, Led, Runtime};
use super::{CoordinatorError, GROUPS_TOPIC, partition_of};
use crate::broker::Broker;
use crate::env::watch;
use crate::partition::view::PartitionView;

/// Calls that may wait for one coordinator; further ones wait at its door.
const MAX_WAITING_CALLS: usize = 1024;

/// How long a coordinator waits that was refused an append although its leadership goes on.
const RETRY: Duration = Duration::from_millis(100);

/// The way to the coordinators of this node.
#[derive(Debug, Default)]
pub(crate) struct Coordinators {
    /// By partition of the topic.
    groups: RwLock<BTreeMap<usize, Door>>,
}

/// The way to one coordinator.
#[derive(Debug, Clone)]
struct Door {
    calls: mpsc::Sender<GroupCall>,
    state: Arc<DoorState>,
    /// The partition whose leadership it goes with, and the epoch of that.
    view: Arc<PartitionView>,
    epoch: i32,
}

#[derive(Debug, Default)]
struct DoorState {
    loaded: AtomicBool,
    ended: AtomicBool,
}

impl Coordinators {
    /// Asks the coordinator of a consumer group.
    ///
    /// # Errors
    /// When it is not on this node, or cannot answer now.
    pub(crate) async fn ask<T>(
        &self,
        broker: &Broker,
        group: &str,
        call: impl FnOnce(Reply<T>) -> GroupCall,
    ) -> Result<T, CoordinatorError> {
        self.door_of(broker, group)?.ask(call).await
    }

    /// As [`Self::ask`], for what must not be answered by a coordinator that was deposed and does not know: whatever another one had
    /// acknowledged before this call is in the answer.
    ///
    /// # Errors
    /// When it is not on this node (any more), or cannot answer now.
    pub(crate) async fn ask_latest<T>(
        &self,
        broker: &Broker,
        group: &str,
        call: impl FnOnce(Reply<T>) -> GroupCall,
    ) -> Result<T, CoordinatorError> {
        let door = self.door_of(broker, group)?;
        door.check()?;
        // What this coordinator has acknowledged it has replayed, and what its predecessors had it has read before it took calls.
        if !planted("deposed-coordinator")
            && !broker.parts.shards.confirm_leadership(door.view.group, door.epoch).await
        {
            return Err(CoordinatorError::NotCoordinator);
        }
        door.ask(call).await
    }

    fn door_of(&self, broker: &Broker, group: &str) -> Result<Door, CoordinatorError> {
        let partitions = broker.groups_partitions().ok_or(CoordinatorError::NotCoordinator)?;
        self.door(partition_of(group, partitions))
    }

    fn door(&self, partition: usize) -> Result<Door, CoordinatorError> {
        self.groups.read().get(&partition).cloned().ok_or(CoordinatorError::NotCoordinator)
    }

    /// Asks every coordinator on this node.
    ///
    /// # Errors
    /// When one of them cannot answer now.
    pub(crate) async fn ask_all<T>(
        &self,
        call: impl Fn(Reply<T>) -> GroupCall,
    ) -> Result<Vec<T>, CoordinatorError> {
        let partitions: Vec<usize> = self.groups.read().keys().copied().collect();
        let mut answers = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let answer = match self.door(partition) {
                Ok(door) => door.ask(&call).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => answers.push(answer),
                // It went to another node meanwhile, which is asked too.
                Err(CoordinatorError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

impl Door {
    async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> GroupCall) -> Result<T, CoordinatorError> {
        self.check()?;
        let (reply, answer) = oneshot::channel();
        if self.calls.send(call(Reply::new(reply))).await.is_err() {
            return Err(CoordinatorError::NotCoordinator);
        }
        answer.await.map_err(|_| CoordinatorError::NotCoordinator)
    }

    fn check(&self) -> Result<(), CoordinatorError> {
        if self.state.ended.load(Ordering::Acquire) {
            Err(CoordinatorError::NotAvailable)
        } else if !self.state.loaded.load(Ordering::Acquire) {
            Err(CoordinatorError::Loading)
        } else if !self.view.quorum_contact() {
            // Somebody else may lead already, and know more.
            Err(CoordinatorError::NotCoordinator)
        } else {
            Ok(())
        }
    }
}

/// A coordinator that runs.
struct Running {
    epoch: i32,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            error!(%error, "a coordinator ended badly");
        }
    }
}

/// Begins and ends coordinators as this node wins and loses leaderships, until told to stop.
pub(crate) async fn follow_leadership(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut leaders = broker.leaders().watch();
    let mut topics = broker.parts.metadata_applied.clone();
    let mut running: BTreeMap<usize, Running> = BTreeMap::new();
    let mut known_topics = broker.image().topic_ids();
    loop {
        leaders.mark_unchanged();
        topics.mark_unchanged();
        follow(&broker, &mut running).await;
        forget_deleted_topics(&broker, &mut known_topics);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = leaders.changed() => if changed.is_err() { break },
            changed = topics.changed() => if changed.is_err() { break },
        }
    }
    broker.coordinators().groups.write().clear();
    for (_, one) in running {
        one.end().await;
    }
}

/// What this node leads of the topic: partition, view and epoch.
fn led(broker: &Broker) -> BTreeMap<usize, (Arc<PartitionView>, i32)> {
    let image = broker.image();
    let Some(topic) = image.topic_named(GROUPS_TOPIC) else { return BTreeMap::new() };
    let led = topic.partitions.iter().enumerate().filter_map(|(number, partition)| {
        let view = broker.parts.partitions.get(partition.group)?;
        let leadership = view.leadership();
        leadership.serving.then_some((number, (view, leadership.epoch)))
    });
    led.collect()
}

async fn follow(broker: &Arc<Broker>, running: &mut BTreeMap<usize, Running>) {
    let led = led(broker);
    let over: Vec<usize> = running
        .iter()
        .filter(|(partition, one)| led.get(partition).is_none_or(|(_, epoch)| *epoch != one.epoch))
        .map(|(partition, _)| *partition)
        .collect();
    for partition in over {
        broker.coordinators().groups.write().remove(&partition);
        if let Some(one) = running.remove(&partition) {
            debug!(partition, epoch = one.epoch, "this node coordinates the groups of a partition no longer");
            one.end().await;
        }
    }
    for (partition, (view, epoch)) in led {
        running.entry(partition).or_insert_with(|| begin(broker, partition, view, epoch));
    }
}

fn begin(broker: &Arc<Broker>, partition: usize, view: Arc<PartitionView>, epoch: i32) -> Running {
    let (calls, queue) = mpsc::channel(MAX_WAITING_CALLS);
    let (stop, stopped) = watch::channel(false);
    let state = Arc::<DoorState>::default();
    let door = Door { calls, state: Arc::clone(&state), view: Arc::clone(&view), epoch };
    broker.coordinators().groups.write().insert(partition, door);
    let env = broker.env().clone();
    let config = GroupsConfig::of(&broker.config());
    let machine = move || {
        let env = env.clone();
        Groups::new(config.clone(), Box::new(move || env.random_uuid()))
    };
    let broker_of_task = Arc::clone(broker);
    let task = broker.env().spawn(async move {
        let leadership = Led { broker: broker_of_task, view, epoch };
        let ended = keep_running(&leadership, &machine, queue, stopped, &state).await;
        debug!(partition, epoch, ?ended, "coordinator ended");
    });
    Running { epoch, stop, task }
}

/// Runs a coordinator until the leadership is over. Appends may be refused while it is handed over, and that may fail: then it begins again.
async fn keep_running(
    led: &Led,
    machine: &(impl Fn() -> Groups + Send + Sync),
    mut queue: mpsc::Receiver<GroupCall>,
    mut stop: watch::Receiver<bool>,
    state: &DoorState,
) -> Ended {
    let mut first = true;
    loop {
        let runtime = Runtime::new(led.clone(), machine(), first);
        let ended = runtime.run(&mut queue, &mut stop, || state.loaded.store(true, Ordering::Release)).await;
        state.loaded.store(false, Ordering::Release);
        state.ended.store(ended == Ended::Unreadable, Ordering::Release);
        if ended != Ended::NotLeader || !led.lasts() {
            return ended;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
            () = tokio::time::sleep(RETRY) => first = false,
        }
    }
}

/// Tells the coordinators of topics that are gone: what was committed for them goes too.
fn forget_deleted_topics(broker: &Broker, known: &mut BTreeMap<String, Uuid>) {
    let now = broker.image().topic_ids();
    let gone = |(name, id): &(&String, &Uuid)| now.get(*name) != Some(*id);
    let deleted: Vec<String> = known.iter().filter(gone).map(|(name, _)| name.clone()).collect();
    *known = now;
    if deleted.is_empty() {
        return;
    }
    let doors: Vec<Door> = broker.coordinators().groups.read().values().cloned().collect();
    // A coordinator that loads takes no calls yet, and must not hold up those that begin and end others.
    broker.env().spawn(async move {
        for door in doors {
            if door.calls.send(GroupCall::TopicsDeleted(deleted.clone())).await.is_err() {
                debug!("a coordinator ended before it heard of deleted topics");
            }
        }
    });
}
