//! What a node keeps on its disk besides the frames of its log: the state file, terms and votes, memberships, checkpoints, the
//! commands and the image of the cluster's metadata. What can be decoded is encoded to the same value again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use helix_raft::{HardState, Membership};
use helix_server::controller::commands::{
    BrokerRegistration, ConfigChange, ConfigOperation, ConfigSubject, ListChange, MetadataCommand, NewTopic,
};
use helix_server::controller::image::ClusterImage;
use helix_server::controller::machine::MetadataMachine;
use helix_server::durable::founded::Founding;
use helix_server::durable::recovering::Recovering;
use helix_server::durable::state::{BootId, NodeState, WriteMode};
use helix_server::durable::vote_slot::{
    Half, SLOT_BYTES, SlotValue, encode_header, encode_slot, slot_position,
};
use helix_server::durable::votes::{VoteChange, VoteFound, VoteStore};
use helix_server::entry::{decode_membership, encode_membership};
use helix_server::ids::{GroupId, Incarnation, Index, NodeId, ReplicaId, Term};
use helix_server::partition::checkpoint::PartitionCheckpoint;
use helix_server::partition::epochs::EpochCache;
use helix_server::partition::producers::{ProducerBatch, ProducerTable};
use helix_server::versioned;
use helix_wal::disk::{Disk, FaultyDisk};
use uuid::Uuid;

use crate::support::allocations::within;
use crate::target::Target;

pub(crate) const TARGET: Target = Target { name: "node_files", run, seeds };

/// What the first byte of an input says about the rest.
const STATE: u8 = 0;
const STATE_BODY: u8 = 1;
const VOTES: u8 = 2;
const MEMBERSHIP: u8 = 3;
const CHECKPOINT: u8 = 4;
const PRODUCERS: u8 = 5;
const EPOCHS: u8 = 6;
const COMMANDS: u8 = 7;
const IMAGE: u8 = 8;
const KINDS: u8 = 9;

const STATE_MAGIC: &[u8; 8] = b"HELIXND\0";
/// Pairs of slots in the file of terms and votes.
const PAIRS: u8 = 16;
/// Bytes that describe one slot.
const SLOT_DESCRIPTION_BYTES: usize = 20;

fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % KINDS {
        STATE => state(rest),
        STATE_BODY => state(&state_file(rest)),
        VOTES => votes(rest),
        MEMBERSHIP => membership(rest),
        CHECKPOINT => drop(within(fair_share(rest), || PartitionCheckpoint::decode(rest, 0))),
        PRODUCERS => producers(rest),
        EPOCHS => epochs(rest),
        COMMANDS => commands(rest),
        _ => image(rest),
    }
}

/// What decoding may allocate: serde reserves up to 1 MiB for each list on the way down.
fn fair_share(bytes: &[u8]) -> usize {
    (4 << 20) + 128 * bytes.len()
}

fn state(bytes: &[u8]) {
    if let Ok(state) = within(fair_share(bytes), || NodeState::decode(bytes)) {
        assert_eq!(NodeState::decode(&state.encode()), Ok(state));
    }
}

/// A state file with this body.
fn state_file(body: &[u8]) -> Vec<u8> {
    let words = [1_u32.to_le_bytes(), u32::try_from(body.len()).unwrap().to_le_bytes()].concat();
    let checksum = crc32fast::hash(&[&words, body].concat());
    [&STATE_MAGIC[..], &words, &checksum.to_le_bytes(), body].concat()
}

/// A file of terms and votes with slots as described, opened, written to, and opened again.
fn votes(descriptions: &[u8]) {
    let mut file = encode_header();
    file.resize(usize::try_from(slot_position(u32::from(PAIRS), Half::First)).unwrap(), 0);
    descriptions
        .chunks_exact(SLOT_DESCRIPTION_BYTES)
        .for_each(|description| put_slot(&mut file, description));
    let disk = FaultyDisk::new(1);
    disk.create("votes", 0).unwrap().write_at(&file, 0).unwrap();
    let (mut store, loaded) = VoteStore::open(&disk).expect("the header is whole");
    let highest = loaded.states().values().map(|state| state.term.0).max().unwrap_or_default();
    let groups = (0..PAIRS).map(|group| GroupId(u64::from(group)));
    let promise = HardState { term: Term(highest.saturating_add(1)), vote: Some(ReplicaId(1)) };
    let changes: Vec<_> = groups.clone().map(|group| VoteChange::Persist(group, promise)).collect();
    store.persist(&changes).expect("the disk works");
    let (_, loaded) = VoteStore::open(&disk).expect("it could be opened before");
    for group in groups {
        let VoteFound::Promised(found) = loaded.of(group) else { panic!("the promise of {group} is gone") };
        assert!(found.covers(&promise), "{group} promised {promise:?}, and {found:?} is left");
    }
}

/// Pair and flags, then sequence, group, term and vote.
fn put_slot(file: &mut [u8], description: &[u8]) {
    let long = |at: usize| u64::from_le_bytes(*description[at..].first_chunk().unwrap());
    let (pair, flags) = (u32::from(description[0] % PAIRS), description[1]);
    let vote = (flags & 1 != 0).then(|| ReplicaId(u64::from(description[18])));
    let value = SlotValue {
        sequence: long(2),
        group: GroupId(u64::from(description[19])),
        state: (flags & 2 != 0).then(|| HardState { term: Term(long(10)), vote }),
    };
    let position = usize::try_from(slot_position(pair, Half::of(value.sequence))).unwrap();
    let slot = &mut file[position..position + SLOT_BYTES];
    slot.copy_from_slice(&encode_slot(&value, pair));
    if flags & 4 != 0 {
        slot[usize::from(description[19])] ^= 1;
    }
}

fn membership(bytes: &[u8]) {
    if let Ok(membership) = within(fair_share(bytes), || decode_membership(bytes)) {
        assert_eq!(encode_membership(&membership), bytes, "a membership has one encoding");
    }
}

fn producers(bytes: &[u8]) {
    if let Ok(table) = within(fair_share(bytes), || ProducerTable::decode(bytes, 0)) {
        let mut again = Vec::new();
        table.encode(&mut again);
        assert_eq!(again, bytes, "producer state has one encoding");
    }
}

fn epochs(bytes: &[u8]) {
    if let Ok(epochs) = within(fair_share(bytes), || EpochCache::decode(bytes)) {
        let mut again = Vec::new();
        epochs.encode(&mut again);
        assert_eq!(again, bytes, "leader epochs have one encoding");
    }
}

/// A node's copy of the metadata, and what its requests see of it.
struct Node {
    machine: MetadataMachine,
    published: Arc<ArcSwap<ClusterImage>>,
}

impl Node {
    fn new() -> Self {
        let published = Arc::new(ArcSwap::from_pointee(ClusterImage::empty()));
        let machine =
            MetadataMachine::new(Arc::clone(&published), helix_server::env::watch::Sender::new(Index(0)));
        Self { machine, published }
    }
}

/// Commands with their lengths in front. A node that applies them and one that starts from a checkpoint see the same.
fn commands(input: &[u8]) {
    let mut node = Node::new();
    apply(&mut node, input);
    survives_checkpoint(&node);
}

fn apply(node: &mut Node, input: &[u8]) {
    let mut rest = input;
    for index in 1.. {
        let Some((length, behind)) = rest.split_first_chunk() else { break };
        let (command, next) = behind.split_at(usize::from(u16::from_le_bytes(*length)).min(behind.len()));
        let before = node.machine.checkpoint();
        if node.machine.apply(Index(index), command).is_err() {
            assert_eq!(node.machine.checkpoint(), before, "a refused command changed something");
        }
        node.machine.publish(Index(index));
        rest = next;
    }
}

fn survives_checkpoint(node: &Node) {
    let checkpoint = node.machine.checkpoint();
    let mut restored = Node::new();
    restored.machine.restore(Index(1), &checkpoint).expect("its own checkpoint");
    assert_eq!(restored.machine.checkpoint(), checkpoint);
    assert_eq!(*restored.published.load(), *node.published.load());
}

/// The image of a checkpoint, and commands behind it.
fn image(input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk() else { return };
    let (checkpoint, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let mut node = Node::new();
    if within(fair_share(checkpoint), || node.machine.restore(Index(1), checkpoint)).is_ok() {
        survives_checkpoint(&node);
        // From the last number that is believed the next step leads to one that is not, so no checkpoint is taken here.
        apply(&mut node, rest);
    }
}

/// One of each, written by the server's own encoders.
fn seeds() -> Vec<Vec<u8>> {
    let input = |kind: u8, rest: &[u8]| [&[kind], rest].concat();
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let state = example_state().encode();
    let replicas = |numbers: &[u64]| numbers.iter().copied().map(ReplicaId).collect();
    let joint =
        Membership { voters: replicas(&[1, 2, 3]), outgoing: replicas(&[1]), learners: replicas(&[4]) };
    let (mut epochs, mut encoded_epochs) = (EpochCache::new(), Vec::new());
    epochs.assign(1, 0);
    epochs.assign(4, 17);
    epochs.encode(&mut encoded_epochs);
    let producers = example_producers();
    let stored: (u64, i64, i64, &[u8], &[u8]) = (9, 20, 3, &producers, &encoded_epochs);
    let commands: Vec<u8> =
        example_commands().iter().flat_map(|command| with_length(&versioned::encode(command))).collect();
    let mut machine = Node::new().machine;
    for (index, command) in (1..).zip(example_commands()) {
        let _ = machine.apply(Index(index), &versioned::encode(&command));
    }
    vec![
        input(STATE, &state),
        input(STATE_BODY, &state[20..]),
        input(VOTES, &example_slots()),
        input(MEMBERSHIP, &encode_membership(&joint)),
        input(CHECKPOINT, &versioned::encode(&stored)),
        input(PRODUCERS, &producers),
        input(EPOCHS, &encoded_epochs),
        input(COMMANDS, &commands),
        input(IMAGE, &[with_length(&machine.checkpoint()), commands.clone()].concat()),
    ]
}

fn example_state() -> NodeState {
    NodeState {
        node: NodeId(1),
        replica: ReplicaId(77),
        incarnation: Incarnation(3),
        boot: Some(BootId([9; 16])),
        clean: true,
        written_in: WriteMode::ReplicationOnly,
        recovering: Recovering::Groups([GroupId(1), GroupId(300)].into()),
        founding: Founding::Blank,
    }
}

/// Both slots of one pair, and one each of two others, the last of them damaged.
fn example_slots() -> Vec<u8> {
    let slot = |pair: u8, flags: u8, sequence: u64, term: u64, group: u8| {
        [&[pair, flags][..], &sequence.to_le_bytes(), &term.to_le_bytes(), &[2, group]].concat()
    };
    [slot(0, 3, 1, 5, 7), slot(0, 3, 2, 6, 7), slot(1, 2, 1, 1, 8), slot(2, 7, 1, 1, 9)].concat()
}

fn example_producers() -> Vec<u8> {
    let batch = |first_sequence: i32| ProducerBatch {
        producer_id: 4000,
        epoch: 1,
        first_sequence,
        last_sequence: first_sequence + 2,
        base_offset: i64::from(first_sequence),
        last_offset: i64::from(first_sequence) + 2,
        timestamp_ms: 1,
    };
    let mut table = ProducerTable::default();
    table.apply(5, &[batch(0), batch(3)], 0);
    table.remove(6, &[4001]);
    let mut out = Vec::new();
    table.encode(&mut out);
    out
}

fn example_commands() -> Vec<MetadataCommand> {
    let register = |node: i32| {
        MetadataCommand::RegisterBroker(BrokerRegistration {
            node: NodeId(node),
            replica: ReplicaId(node as u64),
            incarnation: Incarnation(1),
            host: "localhost".to_owned(),
            port: 9092,
            rack: Some("a".to_owned()),
        })
    };
    let topic_id = Uuid::from_u128(5);
    let topic = NewTopic {
        name: "topic".to_owned(),
        topic_id,
        partitions: 3,
        replication_factor: 2,
        assignments: None,
        configs: BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]),
    };
    let chosen = NewTopic {
        name: "chosen".to_owned(),
        topic_id: Uuid::from_u128(6),
        assignments: Some(vec![vec![NodeId(2), NodeId(1)]]),
        ..topic.clone()
    };
    let alter = |subject, replace| {
        let change = || ListChange { words: vec!["compact".to_owned()], inherited: "delete".to_owned() };
        let values = [
            ("retention.ms", ConfigOperation::Delete),
            ("log.retention.ms", ConfigOperation::Set("1".to_owned())),
            ("cleanup.policy", ConfigOperation::Append(change())),
            ("log.cleanup.policy", ConfigOperation::Subtract(change())),
        ];
        let values = values.map(|(name, operation)| (name.to_owned(), operation));
        MetadataCommand::AlterConfigs(ConfigChange { subject, replace, values: values.into() })
    };
    vec![
        register(1),
        register(2),
        MetadataCommand::CreateTopic(topic),
        MetadataCommand::CreateTopic(chosen),
        MetadataCommand::CreatePartitions { topic_id, total: 5, assignments: None },
        MetadataCommand::AllocateProducerIds { count: 1000 },
        alter(ConfigSubject::Topic(topic_id), false),
        alter(ConfigSubject::Broker(NodeId(1)), false),
        alter(ConfigSubject::Brokers, true),
        MetadataCommand::DeleteTopic { topic_id },
    ]
}
