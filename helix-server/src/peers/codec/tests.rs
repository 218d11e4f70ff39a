//! Round trips of every message, and bytes that are none.

use proptest::prelude::{any, prop_assert_eq, proptest};
use proptest::{collection, option, prop_oneof, strategy::Just, strategy::Strategy};

use super::*;

fn index() -> impl Strategy<Value = Index> {
    any::<u64>().prop_map(Index)
}

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn membership() -> impl Strategy<Value = Membership> {
    let list = || collection::vec(any::<u64>().prop_map(ReplicaId), 0..4);
    (list(), list(), list()).prop_map(|(voters, outgoing, learners)| Membership {
        voters,
        outgoing,
        learners,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let tag = prop_oneof![Just(EntryTag::Data), Just(EntryTag::Metadata), Just(EntryTag::LogStart)];
    let chunks = collection::vec(collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from), 0..4);
    (tag, any::<u64>(), any::<u32>(), any::<i64>(), chunks).prop_map(
        |(tag, base_offset, offset_count, max_timestamp_ms, chunks)| Command {
            tag,
            base_offset: Offset(base_offset),
            offset_count,
            max_timestamp_ms,
            payload: Payload::from_chunks(chunks),
        },
    )
}

fn entry() -> impl Strategy<Value = Entry<Command>> {
    let body = prop_oneof![
        Just(Body::NoOp),
        membership().prop_map(Body::Membership),
        command().prop_map(Body::Data)
    ];
    (index(), term(), term(), body).prop_map(|(index, term, prev_term, body)| Entry {
        index,
        term,
        prev_term,
        body,
    })
}

fn append() -> impl Strategy<Value = Append<Command>> {
    let required = prop_oneof![Just(Durability::PageCache), Just(Durability::Synced)];
    (index(), term(), collection::vec(entry(), 0..5), index(), required, option::of(index()), any::<u64>())
        .prop_map(|(prev_index, prev_term, entries, commit, required, sound_through, seq)| Append {
            seq,
            prev_index,
            prev_term,
            entries,
            commit,
            required,
            sound_through,
        })
}

fn append_answer() -> impl Strategy<Value = AppendAnswer> {
    let result = prop_oneof![
        (index(), index(), index(), index()).prop_map(|(stored, synced, received, commit)| {
            AppendResult::Matched { stored, synced, received, commit }
        }),
        (index(), index(), term()).prop_map(|(prev_index, hint_index, hint_term)| {
            AppendResult::Mismatch { prev_index, hint_index, hint_term }
        }),
        Just(AppendResult::OldTerm),
    ];
    (result, any::<bool>(), any::<u64>()).prop_map(|(result, recovering, seq)| AppendAnswer {
        result,
        recovering,
        seq,
    })
}

fn body() -> impl Strategy<Value = MessageBody<Command>> {
    prop_oneof![
        (index(), term(), any::<bool>()).prop_map(|(last_index, last_term, unclean)| MessageBody::PreVote {
            last_index,
            last_term,
            unclean
        }),
        any::<(bool, bool)>()
            .prop_map(|(granted, recovering)| MessageBody::PreVoteAnswer { granted, recovering }),
        (index(), term(), any::<bool>()).prop_map(|(last_index, last_term, unclean)| MessageBody::Vote {
            last_index,
            last_term,
            unclean
        }),
        any::<(bool, bool)>()
            .prop_map(|(granted, recovering)| MessageBody::VoteAnswer { granted, recovering }),
        append().prop_map(MessageBody::Append),
        append_answer().prop_map(MessageBody::AppendAnswer),
        (index(), any::<u64>()).prop_map(|(commit, seq)| MessageBody::Heartbeat { commit, seq }),
        Just(MessageBody::TimeoutNow),
        (index(), term(), membership(), command()).prop_map(|(index, term, membership, payload)| {
            MessageBody::InstallStart { start: Start { index, term, membership, payload } }
        }),
        index().prop_map(|index| MessageBody::InstallStartAnswer { index }),
    ]
}

fn message() -> impl Strategy<Value = Message<Command>> {
    (any::<[u64; 6]>(), body()).prop_map(|([group, from, to, mine, yours, term], body)| Message {
        group: GroupId(group),
        from: ReplicaId(from),
        to: ReplicaId(to),
        from_incarnation: Incarnation(mine),
        to_incarnation: Incarnation(yours),
        term: Term(term),
        body,
    })
}

fn encoded(message: &Message<Command>) -> (Bytes, Bytes) {
    let (mut meta, mut payloads) = (BytesMut::new(), Vec::new());
    encode(message, &mut meta, &mut payloads);
    (meta.freeze(), Bytes::from(payloads.concat()))
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in message()) {
        let (meta, payloads) = encoded(&message);
        prop_assert_eq!(decode(&meta, payloads).unwrap(), message);
    }

    #[test]
    fn a_message_that_was_cut_is_refused(message in message(), cut in any::<proptest::sample::Index>()) {
        let (meta, payloads) = encoded(&message);
        assert!(decode(&meta[..cut.index(meta.len())], payloads.clone()).is_err());
        if !payloads.is_empty() {
            assert!(decode(&meta, payloads.slice(..cut.index(payloads.len()))).is_err());
        }
        let longer = [&payloads[..], b"x"].concat();
        assert!(decode(&meta, Bytes::from(longer)).is_err());
    }

    #[test]
    fn changed_payloads_are_noticed(message in message(), at in any::<proptest::sample::Index>()) {
        let (meta, payloads) = encoded(&message);
        if !payloads.is_empty() {
            let mut changed = payloads.to_vec();
            changed[at.index(payloads.len())] ^= 0x10;
            prop_assert_eq!(decode(&meta, Bytes::from(changed)), Err(DecodeError::Payload));
        }
    }

    /// Changed bytes are read as something else or refused; whatever is read is written back the same way.
    #[test]
    fn damaged_messages_break_nothing(
        message in message(),
        changes in collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (meta, payloads) = encoded(&message);
        let mut meta = meta.to_vec();
        for (at, byte) in changes {
            let at = at.index(meta.len());
            meta[at] = byte;
        }
        if let Ok(read) = decode(&meta, payloads.clone()) {
            prop_assert_eq!(encoded(&read), (Bytes::from(meta), payloads));
        }
    }

    #[test]
    fn random_bytes_break_nothing(
        kind in 0_u8..12,
        rest in collection::vec(any::<u8>(), 0..200),
        payloads in collection::vec(any::<u8>(), 0..50),
    ) {
        let mut meta = vec![0; 48];
        meta.push(kind);
        meta.extend(rest);
        let _ = decode(&meta, Bytes::from(payloads));
    }
}

#[test]
fn a_count_of_entries_is_checked_before_memory_is_taken() {
    let append = Append {
        prev_index: Index(1),
        prev_term: Term(1),
        entries: vec![],
        commit: Index(0),
        required: Durability::PageCache,
        sound_through: None,
        seq: 0,
    };
    let message = Message {
        group: GroupId(1),
        from: ReplicaId(1),
        to: ReplicaId(2),
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(0),
        term: Term(1),
        body: MessageBody::Append(append),
    };
    let (meta, payloads) = encoded(&message);
    let mut meta = meta.to_vec();
    let count = meta.len() - 4;
    meta[count..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&meta, payloads), Err(DecodeError::Short));
}

proptest! {
    #[test]
    fn questions_and_answers_about_damage_survive_the_wire(
        numbers: [u64; 4],
        entries in collection::vec((any::<u64>().prop_map(Offset), entry()), 0..5),
        cut: usize,
    ) {
        use super::repair::{RepairMessage, decode, encode};
        use crate::peers::frame::{FRAME_HEADER_BYTES, FrameHeader};

        let [id, group, first, last] = numbers;
        let ask = RepairMessage::Ask { id, group: GroupId(group), first: Index(first), last: Index(last) };
        for message in [ask, RepairMessage::Answer { id, entries }] {
            let frame = encode(&message).unwrap();
            let header = FrameHeader::decode(frame.first_chunk().unwrap(), usize::MAX).unwrap();
            let (meta, payloads) = header.open(frame.slice(FRAME_HEADER_BYTES..)).unwrap();
            prop_assert_eq!(decode(&meta[..cut % meta.len()], payloads.clone()).is_err(), true);
            prop_assert_eq!(decode(&meta, payloads), Ok(message));
        }
    }
}
