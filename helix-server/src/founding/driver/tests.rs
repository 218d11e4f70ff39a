//! Real connections over the loopback interface, disks in memory.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use helix_raft::{HeartbeatEvent, Wake};
use helix_wal::disk::FaultyDisk;
use tokio::sync::mpsc::{Sender, channel};

use super::*;
use crate::durable::start::Surroundings;
use crate::durable::state::WriteMode;
use crate::durable::state_file::start;
use crate::env::{Env, tcp_listener};
use crate::ids::ReplicaId;
use crate::peers::codec::repair::RepairMessage;
use crate::peers::{HeartbeatTiming, Inbound, PeerEvents, PeerLimits, Peers, PeersOptions, ReceivePermit};

struct Mailbox {
    founding: Sender<FoundingEvent>,
}

impl PeerEvents for Mailbox {
    fn raft(&self, _messages: Vec<Inbound>) {}
    fn control(&self, from: Identity, message: ControlMessage) {
        if let ControlMessage::Founding(status) = message {
            // Statuses are repeated, and the test may be over.
            let _ = self.founding.try_send(FoundingEvent::Status(from, status));
        }
    }
    fn repair(&self, _from: NodeId, _message: RepairMessage, _permit: Option<ReceivePermit>) {}
    fn peer_state(&self, node: NodeId, state: PeerState) {
        // The test may be over.
        let _ = self.founding.try_send(FoundingEvent::Peer(node, state));
    }
    fn heartbeat(&self, _event: HeartbeatEvent) {}
    fn wake(&self, _wake: Wake) {}
}

struct Node {
    state: StateFile,
    events: Receiver<FoundingEvent>,
    peers: PeersHandle,
}

fn node(disk: &FaultyDisk, number: i32, listener: TcpListener, listed: &[(NodeId, String)]) -> Node {
    let around = Surroundings {
        node: NodeId(number),
        mode: WriteMode::Fsync,
        boot: None,
        page_cache_outlives_process: true,
        fresh_replica: ReplicaId(u64::from(number.unsigned_abs()) * 100),
    };
    let starting = start(Arc::new(disk.clone()), &around).unwrap();
    let state = starting.begin_writing(WriteMode::Fsync, || Ok::<_, Infallible>(())).unwrap();
    let (founding, events) = channel(64);
    let known = state.state();
    let me = Identity {
        node: known.node,
        replica: known.replica,
        incarnation: known.incarnation,
        cluster: known.founding.founded().map(|record| record.cluster),
    };
    let options = PeersOptions {
        me,
        env: Env::real(),
        listener: tcp_listener(listener).unwrap(),
        peers: listed.to_vec(),
        limits: PeerLimits::default(),
        heartbeats: HeartbeatTiming { interval: Duration::from_millis(50), timeout: Duration::from_secs(60) },
        board: Arc::default(),
        data_runtime: tokio::runtime::Handle::current(),
    };
    let peers = Peers::start(options, Arc::new(Mailbox { founding })).unwrap();
    Node { state, events, peers }
}

async fn found(mut node: Node, listed: &[NodeId]) -> (Node, FoundedCluster) {
    let record = run(&Env::real(), &node.peers, listed, &mut node.state, &mut node.events).await.unwrap();
    assert_eq!(node.state.state().founding, Founding::Founded(record.clone()));
    node.peers.join(&record);
    (node, record)
}

/// As a running node does: once it belongs to the cluster it answers those that look for it.
async fn found_and_answer(node: Node, listed: &[NodeId]) -> FoundedCluster {
    let (mut node, record) = found(node, listed).await;
    let (known, listed) = (record.clone(), listed.to_vec());
    tokio::spawn(async move {
        while let Some(event) = node.events.recv().await {
            if let FoundingEvent::Status(from, status) = event
                && let Some(message) = answer(&known, &listed, &from, &status)
            {
                // Whoever asked asks again.
                let _ = node.peers.send_control(from.node, &message);
            }
        }
    });
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_found_one_cluster() {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let listed: Vec<(NodeId, String)> = (1..).map(NodeId).zip(listeners.iter().map(address)).collect();
    let ids: Vec<NodeId> = listed.iter().map(|(id, _)| *id).collect();
    let disks: Vec<FaultyDisk> = (0..3).map(FaultyDisk::new).collect();
    let mut nodes = (1..)
        .zip(listeners)
        .zip(&disks)
        .map(|((number, listener), disk)| node(disk, number, listener, &listed));
    let mut next = || found_and_answer(nodes.next().unwrap(), &ids);
    let (first, second, third) = tokio::join!(next(), next(), next());
    assert_eq!(first.members.len(), 3);
    assert_eq!(first, second);
    assert_eq!(first, third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_single_node_founds_alone_and_finds_its_cluster_again() {
    let disk = FaultyDisk::new(1);
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (first, record) = found(node(&disk, 1, listener(), &[]), &[]).await;
    first.peers.shutdown().await;
    let (again, same) = found(node(&disk, 1, listener(), &[]), &[]).await;
    assert_eq!(record, same);
    assert_eq!(record.members.len(), 1);
    again.peers.shutdown().await;
}
