//! Which partitions of the internal topics are coordinated on this node: begins and ends coordinators with the leadership.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helix_raft::GroupId;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error};
use uuid::Uuid;

use super::groups::call::{OffsetKey, Reply};
use super::groups::{GroupCall, Groups, GroupsConfig};
use super::runtime::{Ended, Led, Runtime};
use super::{CoordinatorError, GROUPS_TOPIC, partition_of};
use crate::broker::Broker;
use crate::controller::image::ClusterImage;
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
    /// The partition whose leadership it goes with.
    view: Arc<PartitionView>,
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
        let partitions = broker.groups_partitions().ok_or(CoordinatorError::NotCoordinator)?;
        self.ask_at(partition_of(group, partitions), call).await
    }

    /// Asks one coordinator.
    async fn ask_at<T>(
        &self,
        partition: usize,
        call: impl FnOnce(Reply<T>) -> GroupCall,
    ) -> Result<T, CoordinatorError> {
        let door = self.groups.read().get(&partition).cloned().ok_or(CoordinatorError::NotCoordinator)?;
        door.check()?;
        let (reply, answer) = oneshot::channel();
        if door.calls.send(call(Reply::new(reply))).await.is_err() {
            return Err(CoordinatorError::NotCoordinator);
        }
        answer.await.map_err(|_| CoordinatorError::NotCoordinator)
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
            match self.ask_at(partition, &call).await {
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
    let door = Door { calls, state: Arc::clone(&state), view: Arc::clone(&view) };
    broker.coordinators().groups.write().insert(partition, door);
    let env = broker.env().clone();
    let config = GroupsConfig::of(&broker.config());
    let broker_of_machine = Arc::clone(broker);
    let machine = move || {
        let (env, broker) = (env.clone(), Arc::clone(&broker_of_machine));
        let is_gone = move |key: &OffsetKey, incarnation| is_gone(&broker.image(), key, incarnation);
        Groups::new(config.clone(), Box::new(move || env.random_uuid()), Box::new(is_gone))
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

/// Whether the partition that an offset is of, the one of this Raft group, was deleted. An image that is not the latest may not know yet, and never says so of
/// a partition that is there: Raft groups are numbered in order, and no number is given out twice.
fn is_gone(image: &ClusterImage, key: &OffsetKey, incarnation: GroupId) -> bool {
    let number = usize::try_from(key.partition).ok();
    let is =
        image.topic_named(&key.topic).zip(number).and_then(|(topic, number)| topic.partitions.get(number));
    image.was_allocated(incarnation) && is.is_none_or(|partition| partition.group != incarnation)
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
