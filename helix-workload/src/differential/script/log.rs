//! ListOffsets, OffsetForLeaderEpoch, Fetch.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use uuid::Uuid;

use super::super::case::{Case, ask, ask_with};
use super::{Times, nobodys_id, text, topic};

/// An epoch that no leader will have during the script.
const FAR_EPOCH: i32 = 1_000_000;

/// First version of ListOffsets with an isolation level.
const LIST_ISOLATION_FROM: i16 = 2;
/// First version of ListOffsets with the leader's epoch.
const LIST_EPOCH_FROM: i16 = 4;

#[allow(clippy::too_many_lines)] // One case after the other.
pub(super) fn list_offsets(version: i16, times: &Times) -> Vec<Case> {
    let partition = |number: i32, timestamp: i64| {
        ListOffsetsPartition::default().with_partition_index(number).with_timestamp(timestamp)
    };
    let of = |name: &str, partitions: Vec<ListOffsetsPartition>| {
        ListOffsetsTopic::default().with_name(topic(name)).with_partitions(partitions)
    };
    let request = |topics: Vec<ListOffsetsTopic>| {
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics)
    };
    let one = |what: &str, timestamp: i64| {
        ask(what, version, request(vec![of("orders", vec![partition(0, timestamp)])]))
    };
    let mut cases = vec![
        one("latest", -1),
        one("earliest", -2),
        one("largest timestamp", -3),
        one("earliest local", -4),
        one("latest tiered", -5),
        one("earliest pending upload", -6),
        one("an unknown kind", -7),
        one("the very smallest time", i64::MIN),
        one("time zero", 0),
        one("time of the first record", times.at(0)),
        one("time of a record inside a batch", times.at(1)),
        one("time between two batches", times.at(500)),
        one("time of the second batch", times.at(1_000)),
        one("time behind all", times.at(1_000_000)),
        ask(
            "kinds in an empty partition",
            version,
            request(vec![
                of("empty", vec![partition(0, -1)]),
                of("orders", vec![partition(1, -2), partition(2, 0)]),
            ]),
        ),
        ask("unknown topic", version, request(vec![of("nowhere", vec![partition(0, -1)])])),
        ask(
            "unknown partition",
            version,
            request(vec![of("orders", vec![partition(99, -1), partition(0, -1)])]),
        ),
        ask("negative partition", version, request(vec![of("orders", vec![partition(-1, -1)])])),
        ask("empty name", version, request(vec![of("", vec![partition(0, -1)])])),
        ask(
            "the same partition twice",
            version,
            request(vec![of("orders", vec![partition(0, -1), partition(0, -2)])]),
        ),
        ask("no topics", version, request(Vec::new())),
        ask("no partitions", version, request(vec![of("orders", Vec::new())])),
        ask(
            "as a debugger",
            version,
            request(vec![of("orders", vec![partition(0, -1)])]).with_replica_id(BrokerId(-2)),
        ),
        ask(
            "as an unknown replica",
            version,
            request(vec![of("orders", vec![partition(0, -1)])]).with_replica_id(BrokerId(99)),
        ),
    ];
    if version >= LIST_ISOLATION_FROM {
        for (what, level) in [("read committed", 1), ("unknown isolation", 9), ("negative isolation", -1)] {
            let request = request(vec![of("orders", vec![partition(0, -1)])]);
            cases.push(ask(what, version, request.with_isolation_level(level)));
        }
    }
    if version >= LIST_EPOCH_FROM {
        cases.extend(list_at_epochs(version));
    }
    cases
}

fn list_at_epochs(version: i16) -> Vec<Case> {
    let at_epoch = |epoch: i32| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(epoch);
        let of = ListOffsetsTopic::default().with_name(topic("orders")).with_partitions(vec![partition]);
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![of])
    };
    vec![
        ask("epoch to come", version, at_epoch(FAR_EPOCH)),
        ask("very negative epoch", version, at_epoch(-5)),
        ask_with("current epoch", version, move |known| Ok(at_epoch(known.number("epoch of orders")?))),
    ]
}

/// First version of OffsetForLeaderEpoch that says who asks.
const ASKER_FROM: i16 = 3;

pub(super) fn offset_for_leader_epoch(version: i16, _: &Times) -> Vec<Case> {
    let partition = |number: i32, current: i32, epoch: i32| {
        OffsetForLeaderPartition::default()
            .with_partition(number)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch)
    };
    let request = move |name: &str, partitions: Vec<OffsetForLeaderPartition>| {
        let topic = OffsetForLeaderTopic::default().with_topic(topic(name)).with_partitions(partitions);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        if version >= ASKER_FROM { request.with_replica_id(BrokerId(-1)) } else { request }
    };
    let mut cases = vec![
        ask("epoch to come", version, request("orders", vec![partition(0, -1, FAR_EPOCH)])),
        ask("no epoch", version, request("orders", vec![partition(0, -1, -1)])),
        ask("very negative epoch", version, request("orders", vec![partition(0, -1, -5)])),
        ask("leader of an epoch to come", version, request("orders", vec![partition(0, FAR_EPOCH, 0)])),
        ask("unknown topic", version, request("nowhere", vec![partition(0, -1, 0)])),
        ask("unknown partition", version, request("orders", vec![partition(99, -1, 0)])),
        ask("negative partition", version, request("orders", vec![partition(-1, -1, 0)])),
        ask("no partitions", version, request("orders", Vec::new())),
        ask_with("current epoch", version, move |known| {
            let epoch = known.number("epoch of orders")?;
            Ok(request("orders", vec![partition(0, epoch, epoch)]))
        }),
        ask_with("current epoch of an empty partition", version, move |known| {
            Ok(request("empty", vec![partition(0, -1, known.number("epoch of empty")?)]))
        }),
        ask_with("the same partition twice", version, move |known| {
            let epoch = known.number("epoch of orders")?;
            Ok(request("orders", vec![partition(0, epoch, epoch), partition(0, -1, epoch)]))
        }),
    ];
    if version >= ASKER_FROM {
        let debugging = request("orders", vec![partition(0, -1, FAR_EPOCH)]).with_replica_id(BrokerId(-2));
        cases.push(ask("as a debugger", version, debugging));
    }
    cases
}

/// First version of Fetch whose topics are ids.
const FETCH_IDS_FROM: i16 = 13;
/// First version with sessions.
const SESSIONS_FROM: i16 = 7;
/// First version with the leader's epoch.
const FETCH_EPOCH_FROM: i16 = 9;
/// First version with the epoch of what was fetched last.
const LAST_EPOCH_FROM: i16 = 12;
/// First version in which replicas say more than their number.
const REPLICA_STATE_FROM: i16 = 15;
/// More than all that is stored.
const PLENTY: i32 = 1 << 20;

#[derive(Clone, Copy)]
struct Fetching {
    version: i16,
}

impl Fetching {
    fn partition(number: i32, offset: i64) -> FetchPartition {
        FetchPartition::default()
            .with_partition(number)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(PLENTY)
    }

    fn of(self, name: &str, id: Uuid, partitions: Vec<FetchPartition>) -> FetchTopic {
        let out = FetchTopic::default().with_partitions(partitions);
        if self.version >= FETCH_IDS_FROM { out.with_topic_id(id) } else { out.with_topic(topic(name)) }
    }

    fn request(self, topics: Vec<FetchTopic>) -> FetchRequest {
        let out = FetchRequest::default().with_max_bytes(PLENTY).with_topics(topics);
        let out = if self.version >= SESSIONS_FROM { out.with_session_epoch(-1) } else { out };
        if self.version >= REPLICA_STATE_FROM { out } else { out.with_replica_id(BrokerId(-1)) }
    }

    /// Asks for partitions of a topic that exists.
    fn ask(self, what: &str, name: &'static str, partitions: Vec<FetchPartition>) -> Case {
        self.ask_as(what, name, partitions, |request| request)
    }

    fn ask_as(
        self,
        what: &str,
        name: &'static str,
        partitions: Vec<FetchPartition>,
        change: impl Fn(FetchRequest) -> FetchRequest + 'static,
    ) -> Case {
        ask_with(what, self.version, move |known| {
            let topic = self.of(name, known.id(&format!("id of {name}"))?, partitions.clone());
            Ok(change(self.request(vec![topic])))
        })
    }
}

pub(super) fn fetch(version: i16, _: &Times) -> Vec<Case> {
    let fetching = Fetching { version };
    let partition = Fetching::partition;
    let all = || vec![partition(0, 0)];
    let nowhere = fetching.of("nowhere", nobodys_id(), all());
    let mut cases = vec![
        fetching.ask("all", "orders", all()),
        fetching.ask("from inside a batch", "orders", vec![partition(0, 1)]),
        fetching.ask("from the second batch", "orders", vec![partition(0, 3)]),
        fetching.ask("at the end", "orders", vec![partition(0, 5)]),
        fetching.ask("behind the end", "orders", vec![partition(0, 6)]),
        fetching.ask("negative offset", "orders", vec![partition(0, -1)]),
        fetching.ask("an empty partition", "empty", all()),
        fetching.ask("several partitions", "orders", vec![partition(0, 0), partition(1, 0), partition(2, 0)]),
        fetching.ask("known and unknown partition", "orders", vec![partition(0, 0), partition(99, 0)]),
        fetching.ask("negative partition", "orders", vec![partition(-1, 0)]),
        fetching.ask("the same partition twice", "orders", vec![partition(0, 0), partition(0, 3)]),
        fetching.ask("no partitions", "orders", Vec::new()),
        fetching.ask("appended times", "log-append", all()),
        ask("unknown topic", version, fetching.request(vec![nowhere])),
        ask("no topics", version, fetching.request(Vec::new())),
        fetching.ask(
            "one byte of the partition",
            "orders",
            vec![partition(0, 0).with_partition_max_bytes(1)],
        ),
        fetching.ask(
            "no bytes of the partition",
            "orders",
            vec![partition(0, 0).with_partition_max_bytes(0)],
        ),
        fetching.ask(
            "negative bytes of the partition",
            "orders",
            vec![partition(0, 0).with_partition_max_bytes(-1)],
        ),
        fetching.ask_as("one byte", "orders", all(), |request| request.with_max_bytes(1)),
        fetching.ask_as("no bytes", "orders", all(), |request| request.with_max_bytes(0)),
        fetching.ask_as("negative bytes", "orders", all(), |request| request.with_max_bytes(-1)),
        fetching.ask_as("waiting in vain", "orders", vec![partition(0, 5)], |request| {
            request.with_max_wait_ms(50).with_min_bytes(1)
        }),
        fetching.ask_as("negative wait", "orders", vec![partition(0, 5)], |request| {
            request.with_max_wait_ms(-1).with_min_bytes(1)
        }),
        fetching.ask_as("read committed", "orders", all(), |request| request.with_isolation_level(1)),
        fetching.ask_as("unknown isolation", "orders", all(), |request| request.with_isolation_level(9)),
        fetching.ask_as("as an unknown replica", "orders", all(), move |request| {
            if version >= REPLICA_STATE_FROM {
                request.with_replica_state(ReplicaState::default().with_replica_id(BrokerId(99)))
            } else {
                request.with_replica_id(BrokerId(99))
            }
        }),
        fetching.ask_as("as a debugger", "orders", all(), move |request| {
            if version >= REPLICA_STATE_FROM {
                request.with_replica_state(ReplicaState::default().with_replica_id(BrokerId(-2)))
            } else {
                request.with_replica_id(BrokerId(-2))
            }
        }),
    ];
    if version >= SESSIONS_FROM {
        cases.extend(sessions(fetching));
    }
    if version >= FETCH_EPOCH_FROM {
        cases.extend(epochs(fetching));
    }
    if version >= LAST_EPOCH_FROM {
        cases.push(fetching.ask_as("another cluster's id", "orders", all(), |request| {
            request.with_cluster_id(Some(text("another")))
        }));
    }
    if version >= FETCH_IDS_FROM {
        let nobody = fetching.of("", Uuid::nil(), all());
        cases.push(ask("no id", version, fetching.request(vec![nobody])));
    }
    cases
}

fn sessions(fetching: Fetching) -> Vec<Case> {
    let all = || vec![Fetching::partition(0, 0)];
    let session = |what: &str, id: i32, epoch: i32| {
        fetching.ask_as(what, "orders", all(), move |request| {
            request.with_session_id(id).with_session_epoch(epoch)
        })
    };
    vec![
        session("unknown session", 12_345, 5),
        session("unknown session to be closed", 12_345, -1),
        session("unknown session to be begun anew", 12_345, 0),
        session("no session with an epoch", 0, 5),
        session("new session", 0, 0).keep("session", "session_id"),
        ask_with("nothing new in the session", fetching.version, move |known| {
            let request = fetching.request(Vec::new());
            Ok(request.with_session_id(known.number("session")?).with_session_epoch(1))
        }),
        ask_with("wrong epoch of the session", fetching.version, move |known| {
            let request = fetching.request(Vec::new());
            Ok(request.with_session_id(known.number("session")?).with_session_epoch(9))
        }),
        ask_with("end of the session", fetching.version, move |known| {
            let request = fetching.request(Vec::new());
            Ok(request.with_session_id(known.number("session")?).with_session_epoch(-1))
        }),
    ]
}

fn epochs(fetching: Fetching) -> Vec<Case> {
    let at = |current: i32| Fetching::partition(0, 0).with_current_leader_epoch(current);
    let current = move |what: &str, partition: FetchPartition| {
        ask_with(what, fetching.version, move |known| {
            let partition = partition.clone().with_current_leader_epoch(known.number("epoch of orders")?);
            let topic = fetching.of("orders", known.id("id of orders")?, vec![partition]);
            Ok(fetching.request(vec![topic]))
        })
    };
    let mut cases = vec![
        fetching.ask("leader of an epoch to come", "orders", vec![at(FAR_EPOCH)]),
        fetching.ask("very negative epoch", "orders", vec![at(-5)]),
        current("current epoch", Fetching::partition(0, 0)),
    ];
    if fetching.version >= LAST_EPOCH_FROM {
        let last = |offset: i64, epoch: i32| Fetching::partition(0, offset).with_last_fetched_epoch(epoch);
        cases.push(fetching.ask("last epoch to come", "orders", vec![last(0, FAR_EPOCH)]));
        cases.push(fetching.ask("very negative last epoch", "orders", vec![last(0, -5)]));
        cases.push(ask_with("last epoch is the current", fetching.version, move |known| {
            let partition = last(3, known.number("epoch of orders")?);
            let topic = fetching.of("orders", known.id("id of orders")?, vec![partition]);
            Ok(fetching.request(vec![topic]))
        }));
        cases.push(ask_with("more than the last epoch has", fetching.version, move |known| {
            let partition = last(50, known.number("epoch of orders")?);
            let topic = fetching.of("orders", known.id("id of orders")?, vec![partition]);
            Ok(fetching.request(vec![topic]))
        }));
    }
    cases
}
