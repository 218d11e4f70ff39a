//! What another node sends, and what dials the port of the nodes without being one: frames, hellos, control messages,
//! heartbeats, messages of the Raft core. What can be decoded is encoded to the same value again.

use bytes::{Bytes, BytesMut};
use helix_raft::{
    Append, AppendAnswer, AppendResult, Body, Durability, Entry, Heartbeat, HeartbeatAnswer,
    HeartbeatOptions, Heartbeats, Membership, Message, MessageBody, Start,
};
use helix_server::durable::founded::{FoundedCluster, Founding, FoundingMember};
use helix_server::entry::{self, Command, EntryTag};
use helix_server::founding::FoundingStatus;
use helix_server::ids::{ClusterId, GroupId, Incarnation, Index, NodeId, Offset, ReplicaId, Term};
use helix_server::peers::board::DigestBoard;
use helix_server::peers::codec;
use helix_server::peers::codec::repair::{self, RepairMessage};
use helix_server::peers::control::{self, ControlMessage, LeaderDelta};
use helix_server::peers::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use helix_server::peers::hello::{self, Hello, HelloAnswer, Identity, Lane, Refusal};
use helix_wal::Payload;

use crate::support::allocations::within;
use crate::target::Target;

pub(crate) const TARGET: Target = Target { name: "peer_frames", run, seeds };

/// What the first byte of an input says about the rest.
const STREAM: u8 = 0;
const HELLO: u8 = 1;
const HELLO_ANSWER: u8 = 2;
const CONTROL: u8 = 3;
const RAFT: u8 = 4;
const CONVERSATION: u8 = 5;
const REPAIR: u8 = 6;
const KINDS: u8 = 7;

const MAX_BODY_BYTES: usize = 1 << 20;
const ME: Identity = identity(1, 5);
const PEER: ReplicaId = ReplicaId(2);

fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % KINDS {
        STREAM => stream(rest),
        HELLO => check_hello(rest),
        HELLO_ANSWER => check_hello_answer(rest),
        CONTROL => drop(check_control(rest)),
        RAFT | REPAIR => {
            let Some((length, rest)) = rest.split_first_chunk() else { return };
            let (meta, payloads) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
            let check = if kind % KINDS == RAFT { check_raft } else { check_repair };
            check(meta, &Bytes::copy_from_slice(payloads));
        }
        _ => conversation(rest),
    }
}

/// What decoding `bytes` may allocate: serde reserves up to 1 MiB for each list on the way down.
fn fair_share(bytes: usize) -> usize {
    (4 << 20) + 64 * bytes
}

/// Frames, each with the checksum that it came with.
fn stream(input: &[u8]) {
    let mut rest = input;
    while let Some((header, behind)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(header) = FrameHeader::decode(header, MAX_BODY_BYTES) else { return };
        assert!(header.meta_length <= header.body_length && header.body_length <= MAX_BODY_BYTES);
        let Some((body, next)) = behind.split_at_checked(header.body_length) else { return };
        let Ok((meta, payloads)) = header.open(Bytes::copy_from_slice(body)) else { return };
        match header.kind {
            FrameKind::Hello => check_hello(&meta),
            FrameKind::HelloAnswer => check_hello_answer(&meta),
            FrameKind::Control => drop(check_control(&meta)),
            FrameKind::Raft => check_raft(&meta, &payloads),
            FrameKind::Description => check_raft(meta.get(8..).unwrap_or_default(), &payloads),
            // A number and bytes: they are looked at with what describes them.
            FrameKind::Payloads => {}
            FrameKind::Repair => check_repair(&meta, &payloads),
        }
        rest = next;
    }
}

/// The meta of a whole frame.
fn meta_of(frame: &Bytes, kind: FrameKind) -> Bytes {
    let header = FrameHeader::decode(frame.first_chunk().unwrap(), usize::MAX).expect("its own frame");
    assert_eq!(header.kind, kind);
    header.open(frame.slice(FRAME_HEADER_BYTES..)).expect("its own checksum").0
}

fn check_hello(meta: &[u8]) {
    let Ok(hello) = within(1024, || hello::decode_hello(meta)) else { return };
    let again = meta_of(&hello::encode_hello(&hello).unwrap(), FrameKind::Hello);
    assert_eq!(hello::decode_hello(&again), Ok(hello));
    for known in [None, Some(Incarnation(3))] {
        if let Err(refusal) = hello::admit(&ME, &hello, true, known) {
            let answer = meta_of(
                &hello::encode_answer(&HelloAnswer::Refused(refusal)).unwrap(),
                FrameKind::HelloAnswer,
            );
            assert!(answer.len() <= hello::MAX_HELLO_BYTES);
        }
    }
}

fn check_hello_answer(meta: &[u8]) {
    let Ok(answer) = within(1024, || hello::decode_answer(meta)) else { return };
    let again = meta_of(&hello::encode_answer(&answer).unwrap(), FrameKind::HelloAnswer);
    assert_eq!(hello::decode_answer(&again), Ok(answer));
}

fn check_control(meta: &[u8]) -> Option<ControlMessage> {
    let message = within(fair_share(meta.len()), || control::decode(meta)).ok()?;
    let again = meta_of(&control::encode(&message).unwrap(), FrameKind::Control);
    assert_eq!(control::decode(&again).as_ref(), Ok(&message));
    Some(message)
}

/// Each message has one encoding; its entries come back from the log as they went in.
fn check_raft(meta: &[u8], payloads: &Bytes) {
    let decoded = within(fair_share(meta.len() + payloads.len()), || codec::decode(meta, payloads.clone()));
    let Ok(message) = decoded else { return };
    let (mut meta_again, mut payloads_again) = (BytesMut::new(), Vec::new());
    codec::encode(&message, &mut meta_again, &mut payloads_again);
    assert_eq!(&meta_again[..], meta);
    assert_eq!(payloads_again.concat(), *payloads);
    if let MessageBody::Append(append) = &message.body {
        append.entries.iter().for_each(|entry| comes_back(message.group, entry));
    }
}

fn comes_back(group: GroupId, entry: &Entry<Command>) {
    let base_offset = match &entry.body {
        Body::Data(command) => command.base_offset,
        Body::NoOp | Body::Membership(_) => Offset(0),
    };
    let record = entry::to_record(group, entry, base_offset);
    assert_eq!(entry::from_record(&record).as_ref(), Ok(entry));
}

/// Each message has one encoding; its entries come back from the log as they went in.
fn check_repair(meta: &[u8], payloads: &Bytes) {
    let decoded = within(fair_share(meta.len() + payloads.len()), || repair::decode(meta, payloads.clone()));
    let Ok(message) = decoded else { return };
    let frame = repair::encode(&message).unwrap();
    let header = FrameHeader::decode(frame.first_chunk().unwrap(), usize::MAX).expect("its own frame");
    let (meta_again, payloads_again) =
        header.open(frame.slice(FRAME_HEADER_BYTES..)).expect("its own checksum");
    assert_eq!((&meta_again[..], &payloads_again), (meta, payloads));
    if let RepairMessage::Answer { entries, .. } = &message {
        entries.iter().for_each(|(_, entry)| comes_back(GroupId(1), entry));
    }
}

/// Control messages, each with its length in front, to a node that answers heartbeats.
fn conversation(input: &[u8]) {
    let options =
        HeartbeatOptions { me: ME.replica, incarnation: ME.incarnation, interval_ms: 100, timeout_ms: 500 };
    let board = DigestBoard::default();
    let mut heartbeats = Heartbeats::new(options);
    heartbeats.add_peer(0, PEER);
    let mut rest = input;
    for now_ms in (0..).step_by(60) {
        let Some((length, behind)) = rest.split_first() else { return };
        let (meta, next) = behind.split_at(usize::from(*length).min(behind.len()));
        match check_control(meta) {
            Some(ControlMessage::Heartbeat(heartbeat)) => {
                if let (Some(answer), _) = heartbeats.on_heartbeat(now_ms, PEER, &heartbeat, &board) {
                    assert_eq!((answer.incarnation, answer.sequence), (ME.incarnation, heartbeat.sequence));
                }
            }
            Some(ControlMessage::HeartbeatAnswer(answer)) => {
                let _ = heartbeats.on_answer(now_ms, PEER, &answer);
            }
            _ => {}
        }
        assert!(heartbeats.tick(now_ms, &board).len() <= 1);
        let _ = heartbeats.take_events();
        rest = next;
    }
}

const fn identity(number: i32, incarnation: u64) -> Identity {
    Identity {
        node: NodeId(number),
        replica: ReplicaId(number as u64),
        incarnation: Incarnation(incarnation),
        cluster: Some(ClusterId::from_bytes([7; 16])),
    }
}

/// One message of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let input = |kind: u8, rest: &[u8]| [&[kind], rest].concat();
    let mut seeds = Vec::new();
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        let hello = Hello { lane, from: identity(2, 4), to: ME.node };
        let frame = hello::encode_hello(&hello).unwrap();
        seeds.push(input(HELLO, &frame[FRAME_HEADER_BYTES..]));
        seeds.push(input(STREAM, &frame));
    }
    for answer in [HelloAnswer::Welcome(ME), HelloAnswer::Refused(Refusal::SameDisk)] {
        seeds.push(input(HELLO_ANSWER, &hello::encode_answer(&answer).unwrap()[FRAME_HEADER_BYTES..]));
    }
    let mut conversation = Vec::new();
    for message in control_messages() {
        let frame = control::encode(&message).unwrap();
        let meta = &frame[FRAME_HEADER_BYTES..];
        seeds.push(input(CONTROL, meta));
        conversation.push(u8::try_from(meta.len()).unwrap());
        conversation.extend_from_slice(meta);
    }
    seeds.push(input(CONVERSATION, &conversation));
    for message in raft_messages() {
        let (mut meta, mut payloads) = (BytesMut::new(), Vec::new());
        codec::encode(&message, &mut meta, &mut payloads);
        let length = u16::try_from(meta.len()).unwrap().to_le_bytes();
        seeds.push(input(RAFT, &[&length[..], &meta, &payloads.concat()].concat()));
    }
    for message in repair_messages() {
        let frame = repair::encode(&message).unwrap();
        let header = FrameHeader::decode(frame.first_chunk().unwrap(), usize::MAX).expect("its own frame");
        let length = u16::try_from(header.meta_length).unwrap().to_le_bytes();
        seeds.push(input(REPAIR, &[&length[..], &frame[FRAME_HEADER_BYTES..]].concat()));
    }
    seeds
}

fn repair_messages() -> Vec<RepairMessage> {
    let entries = raft_messages().into_iter().find_map(|message| match message.body {
        MessageBody::Append(append) => Some(append.entries),
        _ => None,
    });
    let entries = entries.expect("there is an append").into_iter().map(|entry| (Offset(4), entry)).collect();
    vec![
        RepairMessage::Ask { id: 7, group: GroupId(5), first: Index(5), last: Index(7) },
        RepairMessage::Answer { id: 7, entries },
    ]
}

fn control_messages() -> Vec<ControlMessage> {
    let members = [1, 2, 3].map(|n| FoundingMember { node: NodeId(n), replica: ReplicaId(n as u64) });
    let record = FoundedCluster { cluster: ClusterId::from_bytes([7; 16]), members: members.to_vec() };
    let status =
        |founding| ControlMessage::Founding(FoundingStatus { peers: vec![NodeId(1), NodeId(2)], founding });
    let heartbeat = |sequence| {
        ControlMessage::Heartbeat(Heartbeat {
            incarnation: Incarnation(2),
            to_incarnation: ME.incarnation,
            sequence,
            sent_ms: 40,
            digests: vec![(0, 77), (63, 5)],
        })
    };
    vec![
        status(Founding::Blank),
        status(Founding::Accepted(record.clone())),
        status(Founding::Founded(record)),
        heartbeat(1),
        heartbeat(2),
        ControlMessage::HeartbeatAnswer(HeartbeatAnswer {
            incarnation: Incarnation(2),
            to_incarnation: ME.incarnation,
            sequence: 1,
            echo_sent_ms: 40,
            differing: vec![0, 63],
        }),
        ControlMessage::Leaders(vec![LeaderDelta {
            group: GroupId(5),
            term: Term(8),
            leader: Some(PEER),
            in_sync: vec![ReplicaId(1), PEER],
        }]),
        ControlMessage::Request { id: 7, command: vec![1, 2, 3] },
        ControlMessage::Reply { id: 7, outcome: vec![] },
    ]
}

fn raft_messages() -> Vec<Message<Command>> {
    let membership =
        Membership { voters: vec![ReplicaId(1), PEER], outgoing: vec![], learners: vec![ReplicaId(3)] };
    let payload = Payload::from_chunks(vec![Bytes::from_static(b"some records")]);
    let command = Command::without_offsets(EntryTag::Metadata, Offset(4), payload);
    let entry = |index, body| Entry { index: Index(index), term: Term(3), prev_term: Term(2), body };
    let entries = vec![
        entry(5, Body::NoOp),
        entry(6, Body::Membership(membership.clone())),
        entry(7, Body::Data(command.clone())),
    ];
    let append = Append {
        prev_index: Index(4),
        prev_term: Term(2),
        entries,
        commit: Index(4),
        required: Durability::Synced,
        sound_through: Some(Index(3)),
        seq: 9,
    };
    let answer = |result| MessageBody::AppendAnswer(AppendAnswer { result, recovering: false, seq: 9 });
    let (last_index, last_term, index) = (Index(4), Term(2), Index(4));
    let start = Start { index, term: Term(2), membership, payload: command };
    let bodies = vec![
        MessageBody::PreVote { last_index, last_term, unclean: true },
        MessageBody::PreVoteAnswer { granted: true, recovering: true },
        MessageBody::Vote { last_index, last_term, unclean: false },
        MessageBody::VoteAnswer { granted: false, recovering: false },
        MessageBody::Append(append),
        answer(AppendResult::Matched { stored: index, synced: index, received: index, commit: index }),
        answer(AppendResult::Mismatch { prev_index: index, hint_index: index, hint_term: last_term }),
        answer(AppendResult::OldTerm),
        MessageBody::Heartbeat { commit: index, seq: 9 },
        MessageBody::TimeoutNow,
        MessageBody::InstallStart { start },
        MessageBody::InstallStartAnswer { index },
    ];
    let message = |body| Message {
        group: GroupId(5),
        from: ReplicaId(1),
        to: PEER,
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(2),
        term: Term(3),
        body,
    };
    bodies.into_iter().map(message).collect()
}
