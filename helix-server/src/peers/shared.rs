//! What all tasks of the connections share: who this node is, whom it knows, and where to send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use helix_raft::planted;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::heartbeats::HeartbeatService;
use super::hello::{Hello, Identity, Lane, Refusal, admit};
use super::inbound::Complaints;
use super::link::Link;
use super::{PeerEvents, PeerLimits};
use crate::durable::founded::FoundedCluster;
use crate::env::{Env, watch};
use crate::ids::{Incarnation, NodeId, ReplicaId};

/// State of one lane towards a node.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// The process at the other end, while there is a connection.
    pub connected: Option<Identity>,
    /// What waits to be sent.
    pub queued_bytes: usize,
    /// Messages handed to the network.
    pub sent_messages: u64,
    /// Bytes handed to the network.
    pub sent_bytes: u64,
    /// Messages dropped: there was no connection, or too much was waiting.
    pub dropped_messages: u64,
    /// Connections made so far.
    pub connections: u64,
}

/// State of the connections to a node.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The node.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: String,
    /// Heartbeats, votes, commands.
    pub control: LaneStatus,
    /// Entries.
    pub data: LaneStatus,
    /// Large payloads.
    pub bulk: LaneStatus,
}

/// A connection that was accepted.
struct Accepted {
    id: u64,
    identity: Identity,
    cancel: watch::Sender<bool>,
}

pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) limits: PeerLimits,
    pub(super) events: Arc<dyn PeerEvents>,
    pub(super) heartbeats: HeartbeatService,
    pub(super) receive_budget: Arc<Semaphore>,
    /// Not the same: messages that wait for payloads must not keep these from being read.
    pub(super) bulk_budget: Arc<Semaphore>,
    /// Every task holds a receiver: true means stop, and all of them are gone when the tasks are.
    pub(super) stop: watch::Sender<bool>,
    /// Messages that nobody could be found for, or that came under a wrong name.
    pub(super) misdirected: AtomicU64,
    pub(super) complaints: Complaints,
    me: ArcSwap<Identity>,
    links: BTreeMap<NodeId, Arc<Link>>,
    /// Where each disk is reached.
    routes: ArcSwap<BTreeMap<ReplicaId, Arc<Link>>>,
    /// The newest incarnation seen of each disk.
    incarnations: Mutex<BTreeMap<ReplicaId, Incarnation>>,
    accepted: Mutex<BTreeMap<(NodeId, Lane), Accepted>>,
    accepted_count: AtomicU64,
    started: Instant,
}

impl Shared {
    pub(super) fn new(
        env: Env,
        me: Identity,
        peers: &[(NodeId, String)],
        limits: PeerLimits,
        heartbeats: HeartbeatService,
        events: Arc<dyn PeerEvents>,
    ) -> Self {
        let others = peers.iter().filter(|(node, _)| *node != me.node);
        let links = others
            .map(|(node, address)| (*node, Arc::new(Link::new(*node, address.clone(), &limits))))
            .collect();
        let budget = || Arc::new(Semaphore::new(limits.receive_budget_bytes.min(Semaphore::MAX_PERMITS)));
        Self {
            env,
            limits,
            events,
            heartbeats,
            receive_budget: budget(),
            bulk_budget: budget(),
            stop: watch::Sender::new(false),
            misdirected: AtomicU64::new(0),
            complaints: Complaints::default(),
            me: ArcSwap::from_pointee(me),
            links,
            routes: ArcSwap::default(),
            incarnations: Mutex::default(),
            accepted: Mutex::default(),
            accepted_count: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(super) fn me(&self) -> Identity {
        **self.me.load()
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values()
    }

    pub(super) fn link_to(&self, node: NodeId) -> Option<&Arc<Link>> {
        self.links.get(&node)
    }

    pub(super) fn route_to(&self, replica: ReplicaId) -> Option<Arc<Link>> {
        self.routes.load().get(&replica).cloned()
    }

    /// The known disks of the other nodes, in order.
    pub(super) fn replicas(&self) -> Vec<ReplicaId> {
        let mut replicas: Vec<ReplicaId> = self.routes.load().keys().copied().collect();
        replicas.sort_unstable();
        replicas
    }

    pub(super) fn note_incarnation(&self, replica: ReplicaId, incarnation: Incarnation) {
        let mut incarnations = self.incarnations.lock();
        let known = incarnations.entry(replica).or_insert(incarnation);
        *known = (*known).max(incarnation);
    }

    /// The disk of a node, if it is known.
    pub(super) fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.routes.load().iter().find(|(_, link)| link.node == node).map(|(replica, _)| *replica)
    }

    /// The members of this node's cluster. If it belonged to none before, all connections are made anew, so that every
    /// node knows that it does now.
    pub(super) fn join(&self, founded: &FoundedCluster) {
        let mut me = self.me();
        let is_new = me.cluster != Some(founded.cluster);
        me.cluster = Some(founded.cluster);
        self.me.store(Arc::new(me));
        for member in founded.members.iter().filter(|member| member.replica != me.replica) {
            self.learn_route(member.node, member.replica);
        }
        if is_new {
            for accepted in self.accepted.lock().values() {
                accepted.cancel.send_replace(true);
            }
            for link in self.links() {
                link.renew();
            }
        }
    }

    fn learn_route(&self, node: NodeId, replica: ReplicaId) {
        let Some(link) = self.links.get(&node) else { return };
        self.routes.rcu(|routes| {
            let mut routes = BTreeMap::clone(routes);
            // A node has one disk: the one that it showed last.
            routes.retain(|_, known| known.node != node);
            routes.insert(replica, Arc::clone(link));
            routes
        });
        self.heartbeats.add_peer(self.now_ms(), replica);
    }

    pub(super) fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let known = self.incarnations.lock().get(&hello.from.replica).copied();
        admit(&self.me(), hello, self.links.contains_key(&hello.from.node), known)?;
        self.observe(&hello.from)
    }

    /// Notes that this process exists. A process of the same disk that started earlier is no longer listened to.
    pub(super) fn observe(&self, identity: &Identity) -> Result<(), Refusal> {
        {
            let mut incarnations = self.incarnations.lock();
            let known = incarnations.entry(identity.replica).or_insert(identity.incarnation);
            if *known > identity.incarnation {
                let (asked, known) = (identity.incarnation.get(), known.get());
                return Err(Refusal::OldIncarnation { asked, known });
            }
            *known = identity.incarnation;
        }
        for accepted in self.accepted.lock().values() {
            let other = &accepted.identity;
            let old = other.replica == identity.replica && other.incarnation < identity.incarnation;
            if old && !planted("old-incarnation") {
                accepted.cancel.send_replace(true);
            }
        }
        if self.me().shares_cluster_with(identity) {
            let known =
                self.routes.load().get(&identity.replica).is_some_and(|link| link.node == identity.node);
            if !known {
                self.learn_route(identity.node, identity.replica);
            }
        }
        Ok(())
    }

    /// Whether messages of this process may still be taken.
    pub(super) fn is_current(&self, identity: &Identity) -> bool {
        let known = self.incarnations.lock().get(&identity.replica).copied();
        planted("old-incarnation") || known.is_none_or(|known| known == identity.incarnation)
    }

    /// Takes the place of an earlier connection of the same node and lane. The receiver turns true when this one has
    /// to go.
    pub(super) fn register(&self, identity: Identity, lane: Lane) -> (u64, watch::Receiver<bool>) {
        let id = self.accepted_count.fetch_add(1, Ordering::Relaxed);
        let (cancel, cancelled) = watch::channel(false);
        let accepted = Accepted { id, identity, cancel };
        if let Some(earlier) = self.accepted.lock().insert((identity.node, lane), accepted) {
            earlier.cancel.send_replace(true);
        }
        (id, cancelled)
    }

    pub(super) fn unregister(&self, node: NodeId, lane: Lane, id: u64) {
        let mut accepted = self.accepted.lock();
        if accepted.get(&(node, lane)).is_some_and(|accepted| accepted.id == id) {
            accepted.remove(&(node, lane));
        }
    }
}
