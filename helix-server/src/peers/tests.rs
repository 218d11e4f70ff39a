//! The connections over the loopback interface.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use helix_raft::{Append, Body, Durability, Entry, GroupId, Index, ReplicaId, Term};
use helix_wal::{Offset, Payload};
use parking_lot::Mutex;

use super::*;
use crate::durable::founded::{FoundedCluster, Founding, FoundingMember};
use crate::entry::EntryTag;
use crate::env::{Env, tcp_listener};
use crate::founding::FoundingStatus;
use crate::ids::{ClusterId, Incarnation};

const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);
/// Only ever reached when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Event {
    Raft(Vec<Inbound>),
    Control(Identity, ControlMessage),
    Repair(NodeId, RepairMessage),
    Peer(PeerState),
    Heartbeat(HeartbeatEvent),
}

struct Mailbox(Mutex<Sender<Event>>);

impl Mailbox {
    fn put(&self, event: Event) {
        // The test may be over.
        let _ = self.0.lock().send(event);
    }
}

impl PeerEvents for Mailbox {
    fn raft(&self, messages: Vec<Inbound>) {
        self.put(Event::Raft(messages));
    }
    fn control(&self, from: Identity, message: ControlMessage) {
        self.put(Event::Control(from, message));
    }
    fn repair(&self, from: NodeId, message: RepairMessage, _permit: Option<ReceivePermit>) {
        self.put(Event::Repair(from, message));
    }
    fn peer_state(&self, _node: NodeId, state: PeerState) {
        self.put(Event::Peer(state));
    }
    fn heartbeat(&self, event: HeartbeatEvent) {
        self.put(Event::Heartbeat(event));
    }
    fn wake(&self, _wake: Wake) {}
}

fn replica(node: i32) -> ReplicaId {
    ReplicaId(u64::from(node.unsigned_abs()) * 100)
}

fn identity(node: i32, incarnation: u64) -> Identity {
    let cluster = Some(CLUSTER);
    Identity { node: NodeId(node), replica: replica(node), incarnation: Incarnation(incarnation), cluster }
}

fn members() -> FoundedCluster {
    let members = [1, 2].map(|node| FoundingMember { node: NodeId(node), replica: replica(node) });
    FoundedCluster { cluster: CLUSTER, members: members.to_vec() }
}

/// Addresses of two nodes, and the listeners that hold them.
struct Net {
    runtime: tokio::runtime::Runtime,
    addresses: Vec<(NodeId, String)>,
    listeners: Vec<Option<StdListener>>,
    limits: PeerLimits,
}

impl Net {
    fn new() -> Self {
        let listeners: Vec<StdListener> = (0..2).map(|_| StdListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |listener: &StdListener| listener.local_addr().unwrap().to_string();
        let addresses = (1..).map(NodeId).zip(listeners.iter().map(address)).collect();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listeners = listeners.into_iter().map(Some).collect();
        Self { runtime, addresses, listeners, limits: PeerLimits::default() }
    }

    fn start(&mut self, me: Identity) -> Node {
        let place = usize::try_from(me.node.get()).unwrap() - 1;
        let listener = self.listeners[place].take().unwrap_or_else(|| {
            let address: SocketAddr = self.addresses[place].1.parse().unwrap();
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(16).unwrap();
            socket.into()
        });
        let options = PeersOptions {
            me,
            env: Env::real(),
            listener: tcp_listener(listener).unwrap(),
            peers: self.addresses.clone(),
            limits: self.limits,
            heartbeats: HeartbeatTiming {
                interval: Duration::from_millis(20),
                // Nobody is called dead because the machine of the test is slow.
                timeout: PATIENCE,
            },
            board: Arc::default(),
            data_runtime: self.runtime.handle().clone(),
        };
        let (sender, events) = channel();
        let handle = Peers::start(options, Arc::new(Mailbox(Mutex::new(sender)))).unwrap();
        if me.cluster.is_some() {
            handle.join(&members());
        }
        Node { handle, events, pending: VecDeque::new() }
    }

    fn stop(&self, node: &Node) {
        self.runtime.block_on(node.handle.shutdown());
    }
}

struct Node {
    handle: PeersHandle,
    events: Receiver<Event>,
    /// Came together with what was asked for.
    pending: VecDeque<Inbound>,
}

impl Node {
    /// Waits for an event and drops those before it.
    fn wait<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("the event never came");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    fn wait_for_peer(&mut self, wanted: impl Fn(&PeerState) -> bool) -> PeerState {
        self.wait(|event| match event {
            Event::Peer(state) if wanted(&state) => Some(state),
            _ => None,
        })
    }

    fn wait_until_connected(&mut self) {
        self.wait_for_peer(|state| matches!(state, PeerState::Connected(_)));
        self.wait_for_data_lane();
    }

    /// There is no event for it: messages would just be dropped and sent again.
    fn wait_for_data_lane(&self) {
        while self.handle.roster().iter().any(|peer| peer.data.connected.and(peer.bulk.connected).is_none()) {
            std::thread::yield_now();
        }
    }

    /// Waits for the next message.
    fn receive(&mut self) -> Inbound {
        if self.pending.is_empty() {
            let messages = self.wait(|event| match event {
                Event::Raft(messages) => Some(messages),
                _ => None,
            });
            self.pending.extend(messages);
        }
        self.pending.pop_front().unwrap()
    }

    fn receive_control(&mut self) -> (Identity, ControlMessage) {
        self.wait(|event| match event {
            Event::Control(from, message) => Some((from, message)),
            _ => None,
        })
    }
}

fn message(to: i32, from: Identity, body: MessageBody<Command>) -> Message<Command> {
    Message {
        group: GroupId(3),
        from: from.replica,
        to: replica(to),
        from_incarnation: from.incarnation,
        to_incarnation: Incarnation(0),
        term: Term(4),
        body,
    }
}

fn append(index: u64, chunks: Vec<Bytes>) -> MessageBody<Command> {
    let command = Command {
        tag: EntryTag::Data,
        base_offset: Offset(index),
        offset_count: 1,
        max_timestamp_ms: 5,
        payload: Payload::from_chunks(chunks),
    };
    let body = Body::Data(command);
    let entry = Entry { index: Index(index), term: Term(4), prev_term: Term(4), body };
    MessageBody::Append(Append {
        seq: index,
        prev_index: Index(index - 1),
        prev_term: Term(4),
        entries: vec![entry],
        commit: Index(0),
        required: Durability::PageCache,
        sound_through: None,
    })
}

#[test]
fn messages_arrive_on_both_lanes() {
    let mut net = Net::new();
    let (mut one, mut two) = (net.start(identity(1, 1)), net.start(identity(2, 1)));
    one.wait_until_connected();
    two.wait_until_connected();

    let long = vec![Bytes::from(vec![1; 300_000]), Bytes::from_static(b"tail")];
    for body in [append(7, long), MessageBody::TimeoutNow] {
        let sent = message(2, identity(1, 1), body);
        one.handle.send_raft(sent.clone());
        assert_eq!(two.receive().message, sent);
    }
    let request = ControlMessage::Request { id: 1, command: vec![1, 2, 3] };
    two.handle.send_control(NodeId(1), &request).unwrap();
    assert_eq!(one.receive_control(), (identity(2, 1), request));
    assert_eq!(
        one.handle.send_control(NodeId(9), &ControlMessage::Leaders(vec![])),
        Err(NotSent::UnknownNode)
    );
    net.stop(&one);
    net.stop(&two);
}

#[test]
fn a_full_receiver_holds_the_data_lane_and_not_the_control_lane() {
    let mut net = Net::new();
    net.limits.receive_budget_bytes = 100_000;
    let (mut one, mut two) = (net.start(identity(1, 1)), net.start(identity(2, 1)));
    one.wait_until_connected();
    for index in 1..=3 {
        let body = append(index, vec![Bytes::from(vec![1; 80_000])]);
        one.handle.send_raft(message(2, identity(1, 1), body));
    }
    let mut held = two.receive();
    assert_eq!(held.message.body.name(), "append");
    // The first one is not written yet: the second one is not read. Votes pass.
    one.handle.send_raft(message(2, identity(1, 1), MessageBody::TimeoutNow));
    assert_eq!(two.receive().message.body.name(), "timeout-now");
    assert!(two.handle.receive_bytes_held() > 80_000);
    for index in 2..=3 {
        drop(held);
        held = two.receive();
        let MessageBody::Append(append) = &held.message.body else { panic!("not an append") };
        assert_eq!(append.prev_index, Index(index - 1));
    }
    drop(held);
    assert_eq!(two.handle.receive_bytes_held(), 0);
    net.stop(&one);
    net.stop(&two);
}

#[test]
fn what_is_small_does_not_wait_for_large_payloads_of_other_groups() {
    let mut net = Net::new();
    (net.limits.bulk_bytes, net.limits.receive_budget_bytes) = (50_000, 100_000);
    let (mut one, mut two) = (net.start(identity(1, 1)), net.start(identity(2, 1)));
    one.wait_until_connected();
    let send = |group, index, bytes| {
        let body = append(index, vec![Bytes::from(vec![1; bytes]), Bytes::from_static(b"tail")]);
        let message = Message { group: GroupId(group), ..message(2, identity(1, 1), body) };
        one.handle.send_raft(message.clone());
        message
    };
    let first = send(1, 1, 80_000);
    let held = two.receive();
    assert_eq!(held.message, first);
    // As long as the first one is held, the second one is not read.
    let large = send(1, 2, 80_000);
    let behind_it = send(1, 3, 10);
    let elsewhere = send(2, 1, 10);
    assert_eq!(two.receive().message, elsewhere);
    drop(held);
    assert_eq!(two.receive().message, large);
    assert_eq!(two.receive().message, behind_it);
    assert!(send(1, 4, 10) == two.receive().message);
    assert_eq!(two.handle.receive_bytes_held(), 0);
    // The last on each lane may not be counted yet.
    let status = &one.handle.roster()[0];
    assert!(status.bulk.sent_messages >= 1 && status.data.sent_messages >= 4, "{status:?}");
    net.stop(&one);
    net.stop(&two);
}

#[test]
fn a_process_that_is_gone_is_noticed_and_its_successor_is_found() {
    let mut net = Net::new();
    let (mut one, two) = (net.start(identity(1, 1)), net.start(identity(2, 1)));
    one.wait_until_connected();
    net.stop(&two);
    drop(two);
    one.wait_for_peer(|state| *state == PeerState::Lost);
    one.wait_for_peer(|state| *state == PeerState::Refused);
    one.handle.send_raft(message(2, identity(1, 1), MessageBody::TimeoutNow));
    assert!(one.handle.roster()[0].control.dropped_messages > 0);

    let mut two = net.start(identity(2, 2));
    // Each of the two connections may be the first.
    let (mut connected, mut restarted) = (None, None);
    one.wait(|event| {
        match event {
            Event::Peer(PeerState::Connected(identity)) => connected = Some(identity),
            Event::Heartbeat(HeartbeatEvent::Incarnation(replica, Incarnation(2))) => {
                restarted = Some(replica);
            }
            _ => {}
        }
        connected.zip(restarted)
    });
    assert_eq!((connected, restarted), (Some(identity(2, 2)), Some(replica(2))));
    // What was meant for the process that is gone does not reach the new one.
    two.wait_until_connected();
    one.wait_for_data_lane();
    for incarnation in [1, 2] {
        let mut sent = message(2, identity(1, 1), append(incarnation, vec![]));
        sent.to_incarnation = Incarnation(incarnation);
        one.handle.send_raft(sent);
    }
    assert_eq!(two.receive().message.to_incarnation, Incarnation(2));
    net.stop(&one);
    net.stop(&two);
}

#[test]
fn a_disk_that_was_set_back_is_turned_away() {
    let mut net = Net::new();
    let (mut one, two) = (net.start(identity(1, 1)), net.start(identity(2, 7)));
    one.wait_until_connected();
    net.stop(&two);
    drop(two);
    let mut restored = net.start(identity(2, 3));
    let state = restored.wait_for_peer(|state| matches!(state, PeerState::TurnedAway(_)));
    let PeerState::TurnedAway(refusal) = state else { panic!("it was let in") };
    assert!(refusal.to_string().contains("start number 3"), "{refusal}");
    net.stop(&one);
    net.stop(&restored);
}

#[test]
fn blank_nodes_talk_about_founding_and_nothing_else() {
    let mut net = Net::new();
    let blank = |node| Identity { cluster: None, ..identity(node, 1) };
    let (mut one, mut two) = (net.start(blank(1)), net.start(blank(2)));
    one.wait_for_peer(|state| matches!(state, PeerState::Connected(_)));
    let founding = ControlMessage::Founding(FoundingStatus { peers: vec![], founding: Founding::Blank });
    one.handle.send_control(NodeId(2), &ControlMessage::Leaders(vec![])).unwrap();
    one.handle.send_control(NodeId(2), &founding).unwrap();
    assert_eq!(two.receive_control().1, founding);
    one.handle.join(&members());
    two.handle.join(&members());
    // Only nodes of one cluster have a data lane.
    one.wait_for_data_lane();
    while one.handle.identity_of(NodeId(2)).and_then(|identity| identity.cluster).is_none() {
        std::thread::yield_now();
    }
    one.handle.send_control(NodeId(2), &ControlMessage::Leaders(vec![])).unwrap();
    assert_eq!(two.receive_control().1, ControlMessage::Leaders(vec![]));
    net.stop(&one);
    net.stop(&two);
}

#[test]
fn strangers_on_the_port_do_no_harm() {
    use std::io::{Read, Write};

    let mut net = Net::new();
    let mut one = net.start(identity(1, 1));
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], b""] {
        let mut stream = std::net::TcpStream::connect(&net.addresses[0].1).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Closed with or without a reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    // A node of another version is told.
    let mut stream = std::net::TcpStream::connect(&net.addresses[0].1).unwrap();
    stream.write_all(&frame::encode(frame::FrameKind::Hello, b"HLXP\x63\x00something").unwrap()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = hello::decode_answer(&answer[frame::FRAME_HEADER_BYTES..]);
    assert_eq!(answer, Ok(hello::HelloAnswer::Refused(Refusal::OtherVersion)));

    let two = net.start(identity(2, 1));
    one.wait_until_connected();
    net.stop(&one);
    net.stop(&two);
}

#[test]
fn questions_about_damaged_entries_are_answered() {
    let mut net = Net::new();
    let (mut one, mut two) = (net.start(identity(1, 1)), net.start(identity(2, 1)));
    one.wait_until_connected();
    two.wait_until_connected();
    let heard = |event| match event {
        Event::Repair(from, message) => Some((from, message)),
        _ => None,
    };
    let ask = RepairMessage::Ask { id: 5, group: GroupId(3), first: Index(7), last: Index(9) };
    one.handle.send_repair(NodeId(2), &ask).unwrap();
    assert_eq!(two.wait(heard), (NodeId(1), ask));
    let MessageBody::Append(append) = append(7, vec![Bytes::from_static(b"records")]) else {
        panic!("it is one")
    };
    let entries = append.entries.into_iter().map(|entry| (Offset(7), entry)).collect();
    let answer = RepairMessage::Answer { id: 5, entries };
    two.handle.send_repair(NodeId(1), &answer).unwrap();
    assert_eq!(one.wait(heard), (NodeId(2), answer));
    net.stop(&one);
    net.stop(&two);
}
