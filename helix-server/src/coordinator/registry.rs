//! Which partitions of the internal topics are coordinated on this node: begins and ends coordinators with the leadership.

use std::collections::BTreeMap;
use std::sync::Arc;
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
use super::{CoordinatorError, partition_of};
use crate::broker::Broker;
use crate::controller::internal_topics::GROUPS_TOPIC;
use crate::env::watch;
use crate::partition::view::{Leadership, PartitionView};

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
    standing: Arc<Standing>,
    /// The partition whose leadership it goes with, and the epoch of that.
    view: Arc<PartitionView>,
    epoch: i32,
}

/// How far a coordinator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It reads its log.
    Loading,
    /// It takes calls.
    Serving,
    /// It cannot read its log.
    Unreadable,
}

/// How far a coordinator is, as its door sees it.
#[derive(Debug)]
struct Standing(RwLock<Stage>);

impl Standing {
    fn get(&self) -> Stage {
        *self.0.read()
    }

    fn set(&self, stage: Stage) {
        *self.0.write() = stage;
    }
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
        if !broker.parts.shards.confirm_leadership(door.view.group, door.epoch).await {
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
        let lasts = self.view.leadership() == Leadership { epoch: self.epoch, serving: true };
        // Without a majority somebody else may lead already, and know more. So may whoever follows when the leadership is over, and the door still there.
        if !lasts || !self.view.quorum_contact() {
            return Err(CoordinatorError::NotCoordinator);
        }
        match self.standing.get() {
            Stage::Loading => Err(CoordinatorError::Loading),
            Stage::Serving => Ok(()),
            Stage::Unreadable => Err(CoordinatorError::NotAvailable),
        }
    }
}

/// The leadership that a coordinator goes with.
#[derive(Debug, Clone, Copy)]
struct Term {
    /// The Raft group of the partition: a topic that is made again has others, which may be in the same epoch.
    group: GroupId,
    epoch: i32,
}

impl Term {
    fn goes_on(self, led: Option<&(Arc<PartitionView>, i32)>) -> bool {
        led.is_some_and(|(view, epoch)| (view.group, *epoch) == (self.group, self.epoch))
    }
}

/// A coordinator that runs.
struct Running {
    term: Term,
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
    let over = running.iter().filter(|(partition, one)| !one.term.goes_on(led.get(partition)));
    let over: Vec<usize> = over.map(|(partition, _)| *partition).collect();
    for partition in over {
        broker.coordinators().groups.write().remove(&partition);
        if let Some(one) = running.remove(&partition) {
            debug!(
                partition,
                epoch = one.term.epoch,
                "this node coordinates the groups of a partition no longer"
            );
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
    let standing = Arc::new(Standing(RwLock::new(Stage::Loading)));
    let group = view.group;
    let door = Door { calls, standing: Arc::clone(&standing), view: Arc::clone(&view), epoch };
    broker.coordinators().groups.write().insert(partition, door);
    let env = broker.env().clone();
    let config = GroupsConfig::of(&broker.config());
    let broker_of_machine = Arc::clone(broker);
    let machine = move || {
        let (env, broker) = (env.clone(), Arc::clone(&broker_of_machine));
        let is_gone = move |key: &OffsetKey, incarnation| {
            broker.image().was_deleted(&key.topic, key.partition, incarnation)
        };
        Groups::new(config.clone(), Box::new(move || env.random_uuid()), Box::new(is_gone))
    };
    let broker_of_task = Arc::clone(broker);
    let task = broker.env().spawn(async move {
        let leadership = Led { broker: broker_of_task, view, epoch };
        let ended = keep_running(&leadership, &machine, queue, stopped, &standing).await;
        debug!(partition, epoch, ?ended, "coordinator ended");
    });
    Running { term: Term { group, epoch }, stop, task }
}

/// Runs a coordinator until the leadership is over. Appends may be refused while it is handed over, and that may fail: then it begins again.
async fn keep_running(
    led: &Led,
    machine: &(impl Fn() -> Groups + Send + Sync),
    mut queue: mpsc::Receiver<GroupCall>,
    mut stop: watch::Receiver<bool>,
    standing: &Standing,
) -> Ended {
    let mut first = true;
    loop {
        let runtime = Runtime::new(led.clone(), machine(), first);
        let ended = runtime.run(&mut queue, &mut stop, || standing.set(Stage::Serving)).await;
        standing.set(if ended == Ended::Unreadable { Stage::Unreadable } else { Stage::Loading });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::config::topic::TopicConfig;

    fn view() -> Arc<PartitionView> {
        let config = Arc::new(TopicConfig::resolve(&Default::default(), &BrokerConfig::default()));
        Arc::new(PartitionView::new(GroupId(1), config, 0, 0, Default::default()))
    }

    #[test]
    fn a_coordinator_goes_with_one_leadership_of_one_group() {
        let led = (view(), 3);
        assert!(Term { group: GroupId(1), epoch: 3 }.goes_on(Some(&led)));
        assert!(!Term { group: GroupId(1), epoch: 2 }.goes_on(Some(&led)));
        assert!(!Term { group: GroupId(9), epoch: 3 }.goes_on(Some(&led)), "the topic was made again");
        assert!(!Term { group: GroupId(1), epoch: 3 }.goes_on(None));
    }

    #[test]
    fn a_door_is_shut_when_its_leadership_is_over() {
        let view = view();
        let (calls, _queue) = mpsc::channel(1);
        let standing = Arc::new(Standing(RwLock::new(Stage::Loading)));
        let door = Door { calls, standing: Arc::clone(&standing), view: Arc::clone(&view), epoch: 3 };
        assert_eq!(door.check(), Err(CoordinatorError::NotCoordinator), "it does not lead");
        view.set_leadership(Leadership { epoch: 3, serving: true });
        assert_eq!(door.check(), Err(CoordinatorError::NotCoordinator), "nobody follows");
        view.set_contact(true, 1);
        assert_eq!(door.check(), Err(CoordinatorError::Loading));
        standing.set(Stage::Serving);
        assert_eq!(door.check(), Ok(()));
        for over in [Leadership { epoch: 3, serving: false }, Leadership { epoch: 4, serving: true }] {
            view.set_leadership(over);
            assert_eq!(door.check(), Err(CoordinatorError::NotCoordinator), "{over:?}");
        }
        view.set_leadership(Leadership { epoch: 3, serving: true });
        standing.set(Stage::Unreadable);
        assert_eq!(door.check(), Err(CoordinatorError::NotAvailable));
    }
}
