//! Hostile bytes on every port: no node ends, memory stays within a bound, and other clients notice nothing.
//!
//! `HELIX_HOSTILE` inputs (5,000 without it): random bytes, truncated and oversized frames, crafted lengths in every
//! API that is served. `HELIX_SEED` repeats a run; `HELIX_MEMORY_GROWTH_MB` (96) bounds how far the peak memory of the
//! largest node may grow over what it was before.

mod support;
mod hostile {
    pub(crate) mod inputs;
    pub(crate) mod requests;
}

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helix_workload::client::{ClusterClient, TopicSpec};
use helix_workload::cluster::{Cluster, DEADLINE};
use helix_workload::engine::{Load, LoadOptions};
use helix_workload::process::usage_of_all;
use helix_workload::profile::{Execution, ProducerShape, Profile};
use helix_workload::progress::{Progress, line};
use helix_workload::reader::{self, ReadCounters};
use helix_workload::verify;
use hostile::inputs::{Inputs, Socket, framed};
use hostile::requests::{TOPIC, valid_requests};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{OrPanic, start_cluster, variable};

const SENDERS: u64 = 4;
const BYSTANDER: &str = "bystander";
/// How long an answer, or the end of the connection, is waited for; nothing is concluded from its absence.
const ANSWER: Duration = Duration::from_millis(500);

/// The three addresses of each node.
type Addresses = Vec<[SocketAddr; 3]>;

fn addresses(cluster: &Cluster) -> Addresses {
    let parse = |address: String| address.parse().or_panic();
    let of = |id| {
        [parse(cluster.kafka_address(id)), parse(cluster.peer_address(id)), parse(cluster.http_address(id))]
    };
    cluster.ids().into_iter().map(of).collect()
}

/// Sends one input on a connection of its own; true if anything came back. The node may close at any moment, so
/// errors after connecting mean nothing.
fn send(address: SocketAddr, input: &[u8]) -> bool {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)
        .unwrap_or_else(|error| panic!("{address} does not accept connections any more: {error}"));
    let _ = stream.set_read_timeout(Some(ANSWER));
    let _ = stream.set_write_timeout(Some(ANSWER));
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = [0; 64 * 1024];
    let mut answered = false;
    while let Ok(count @ 1..) = stream.read(&mut answer) {
        answered |= count > 0;
    }
    answered
}

/// A client that must notice nothing.
fn bystander(client: &ClusterClient, message_size: usize) -> Load {
    let topic = TopicSpec::new(BYSTANDER, 3, Some(3));
    client.ensure_topic(&topic, DEADLINE).or_panic();
    let hostile = TopicSpec::new(TOPIC, 3, Some(3));
    client.ensure_topic(&hostile, DEADLINE).or_panic();
    Load::start(LoadOptions {
        bootstrap: client.bootstrap().to_owned(),
        topic: BYSTANDER.into(),
        partitions: 3,
        profile: Profile {
            name: BYSTANDER.into(),
            producer: ProducerShape { threads: 1, inflight: 20, message_size, linger_ms: 5 },
            execution: Execution::default(),
        },
        idempotent: true,
        messages_per_producer: None,
        messages_per_second: 0,
        timeline: false,
        client_settings: Vec::new(),
    })
    .or_panic()
}

fn read_everything(client: &ClusterClient) -> u64 {
    let ranges = reader::whole_topic(client, BYSTANDER).or_panic();
    let counters = ReadCounters::default();
    reader::read(client.bootstrap(), BYSTANDER, &ranges, &counters, |_, _, _| {}).or_panic();
    counters.records.into_inner()
}

struct Hostility {
    sent: AtomicU64,
    answered: AtomicU64,
}

fn attack(addresses: &Addresses, mut random: SmallRng, count: u64, hostility: &Hostility) {
    let mut inputs = Inputs::new(SmallRng::seed_from_u64(random.random()));
    for _ in 0..count {
        let (socket, input) = inputs.next();
        let [kafka, peers, http] = addresses[random.random_range(0..addresses.len())];
        let address = match socket {
            Socket::Kafka => kafka,
            Socket::Peers => peers,
            Socket::Http => http,
        };
        if send(address, &input) {
            hostility.answered.fetch_add(1, Ordering::Relaxed);
        }
        hostility.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// The material itself must be what a client would send: each request is answered.
fn valid_requests_are_answered(addresses: &Addresses) {
    for (request, _) in valid_requests() {
        assert!(send(addresses[0][0], &framed(&request)), "a valid request was not answered: {request:?}");
    }
}

/// The most memory that any node has ever used.
fn peak_mb(cluster: &Cluster) -> f64 {
    usage_of_all(&cluster.pids()).or_panic().peak_bytes as f64 / 1e6
}

fn check(cluster: &mut Cluster, bound_mb: f64) -> f64 {
    cluster.check_alive().or_panic();
    let peak_mb = peak_mb(cluster);
    assert!(peak_mb <= bound_mb, "a node used {peak_mb:.0} MB, more than {bound_mb:.0} MB");
    peak_mb
}

#[test]
fn hostile_input_harms_nobody() {
    let count: u64 = variable("HELIX_HOSTILE", 5_000);
    let seed: u64 = variable("HELIX_SEED", SmallRng::from_os_rng().random());
    let growth_mb: f64 = variable("HELIX_MEMORY_GROWTH_MB", 96.0);
    let mut cluster = start_cluster("hostile-input", 3, &[("auto.create.topics.enable", "false")]);
    let client = ClusterClient::new(&cluster.bootstrap()).or_panic();
    let mut load = bystander(&client, 200);
    load.begin_measuring();
    let before_mb = peak_mb(&cluster);
    let bound_mb = before_mb + growth_mb;
    line(&format!("{count} hostile inputs, HELIX_SEED={seed}"));
    let hostility = Hostility { sent: AtomicU64::new(0), answered: AtomicU64::new(0) };
    let stage = Progress::detect().stage("hostile input", Some(count));
    let addresses = addresses(&cluster);
    valid_requests_are_answered(&addresses);
    std::thread::scope(|scope| {
        let mut random = SmallRng::seed_from_u64(seed);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let own = count / SENDERS + u64::from(sender < count % SENDERS);
                let random = SmallRng::seed_from_u64(random.random());
                let (addresses, hostility) = (&addresses, &hostility);
                scope.spawn(move || attack(addresses, random, own, hostility))
            })
            .collect();
        while !senders.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            check(&mut cluster, bound_mb);
            read_everything(&client);
            stage.set(hostility.sent.load(Ordering::Relaxed));
        }
    });
    stage.finish();
    let peak_mb = check(&mut cluster, bound_mb);
    cluster.await_ready().or_panic();
    let outcome = load.stop(DEADLINE);
    let verified = verify::verify(&client, &outcome.history, &Progress::detect()).or_panic();
    line(&format!(
        "{} inputs, {} answered, the others closed or left unanswered; memory of the largest node {before_mb:.0} MB before, \
         {peak_mb:.0} MB at most ({bound_mb:.0} MB allowed); bystander: {} messages acknowledged, {} failed, {} repeated, longest wait {:.1} ms",
        hostility.sent.load(Ordering::Relaxed),
        hostility.answered.load(Ordering::Relaxed),
        outcome.history.acknowledged(),
        outcome.failed(),
        outcome.retried_messages,
        outcome.latency_us.max() as f64 / 1e3,
    ));
    assert_eq!(outcome.failed(), 0, "{:?}", outcome.errors);
    assert!(outcome.errors.is_empty(), "the bystander's client complained: {:?}", outcome.errors);
    assert!(verified.findings.is_clean(), "{:#?}", verified.findings);
}
