//! What the node counts and measures, for `GET /metrics`.
//!
//! Counting is a few relaxed atomic additions: what is counted per request is looked up once, when the node starts.
//! What somebody else counts already (the log, the budgets) is asked for at each scrape.

mod histogram;
mod scrape;

use std::time::Duration;

use helix_wal::WalStats;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use histogram::{AtomicHistogram, BATCHES, BYTES, LATENCY_MICROS};
pub use scrape::{BudgetSample, NodeSample};
use scrape::{NodeCollector, Source, WalCollector};

/// Everything that the node counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Per API, by api key; `None` for what is not served.
    apis: Vec<Option<ApiMetrics>>,
    other_api: ApiMetrics,
    errors: Family<ErrorLabels, Counter>,
    entries: EntryMetrics,
    shard_rounds: AtomicHistogram,
    node: NodeMetrics,
    wal_source: Source<WalStats>,
    node_source: Source<NodeSample>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    api: String,
    error: String,
}

#[derive(Debug)]
struct ApiMetrics {
    requests: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    latency: AtomicHistogram,
}

#[derive(Debug)]
struct EntryMetrics {
    bytes: AtomicHistogram,
    batches: AtomicHistogram,
}

#[derive(Debug, Default)]
struct NodeMetrics {
    connections: Gauge,
    connections_opened: Counter,
    connections_rejected: Counter,
    bad_requests: Counter,
    produce_held: Counter,
    produce_refused: Counter,
    elections_started: Counter,
    leaders: Gauge,
    leaderships_won: Counter,
    groups_changing: Gauge,
    unclean_recoveries: Counter,
    begun_anew: Counter,
    damaged_places: Gauge,
    entries_repaired: Counter,
    panics_caught: Counter,
}

/// An open connection; counted until it is dropped.
#[derive(Debug)]
pub struct OpenConnection<'a> {
    connections: &'a Gauge,
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

impl Metrics {
    /// Metrics of a node that serves these APIs.
    pub fn new(served: impl IntoIterator<Item = ApiKey>) -> Self {
        let mut registry = Registry::with_prefix("helix");
        let families = ApiFamilies::register(&mut registry);
        let mut apis = Vec::new();
        for key in served {
            let place = usize::try_from(key as i16).expect("the keys of Kafka's APIs are not negative");
            if apis.len() <= place {
                apis.resize_with(place + 1, || None);
            }
            apis[place] = Some(families.of(format!("{key:?}")));
        }
        let errors = Family::default();
        registry.register(
            "request_errors",
            "Errors in answers, by API and Kafka's name of the error",
            errors.clone(),
        );
        let (wal_source, node_source) = (Source::default(), Source::default());
        let shard_rounds = AtomicHistogram::new(&LATENCY_MICROS);
        let help = "Time for which a shard was busy between two waits; the disk is not waited for in it";
        registry.register_with_unit("shard_round_duration", help, Unit::Seconds, shard_rounds.clone());
        let metrics = Self {
            apis,
            other_api: families.of("other".to_owned()),
            errors,
            entries: EntryMetrics::register(&mut registry),
            shard_rounds,
            node: NodeMetrics::register(&mut registry),
            wal_source: wal_source.clone(),
            node_source: node_source.clone(),
            registry: Registry::default(),
        };
        registry.register_collector(Box::new(WalCollector(wal_source)));
        registry.register_collector(Box::new(NodeCollector(node_source)));
        Self { registry, ..metrics }
    }

    /// Where the log's own counters come from at each scrape. The first call counts.
    pub fn watch_wal(&self, stats: impl Fn() -> WalStats + Send + Sync + 'static) {
        self.wal_source.set(Box::new(stats));
    }

    /// Where the node's state comes from at each scrape. The first call counts.
    pub fn watch_node(&self, sample: impl Fn() -> NodeSample + Send + Sync + 'static) {
        self.node_source.set(Box::new(sample));
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    fn api(&self, api: ApiKey) -> &ApiMetrics {
        let place = usize::try_from(api as i16).unwrap_or(usize::MAX);
        self.apis.get(place).and_then(Option::as_ref).unwrap_or(&self.other_api)
    }

    /// A request was read whole.
    pub fn request_received(&self, api: ApiKey, bytes: usize) {
        let api = self.api(api);
        api.requests.inc();
        api.received_bytes.inc_by(bytes as u64);
    }

    /// A request was answered, `elapsed` after its length was read; no bytes if it wanted no answer.
    pub fn request_answered(&self, api: ApiKey, bytes: usize, elapsed: Duration) {
        let api = self.api(api);
        api.sent_bytes.inc_by(bytes as u64);
        api.latency.observe(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    /// An answer carries this error, for one of its topics or partitions or as a whole; 0 is none and not counted.
    pub fn request_error(&self, api: ApiKey, code: i16) {
        if code != 0 {
            let error =
                ResponseError::try_from_code(code).map_or_else(|| "Unknown".to_owned(), |e| format!("{e:?}"));
            self.errors.get_or_create(&ErrorLabels { api: format!("{api:?}"), error }).inc();
        }
    }

    /// A shard has done what there was to do.
    pub fn shard_round(&self, busy: Duration) {
        self.shard_rounds.observe(u64::try_from(busy.as_micros()).unwrap_or(u64::MAX));
    }

    /// An entry of this size, with the batches of so many requests, was handed to Raft.
    pub fn entry_proposed(&self, bytes: usize, batches: usize) {
        self.entries.bytes.observe(bytes as u64);
        self.entries.batches.observe(batches as u64);
    }

    /// A client connected.
    pub fn connection_opened(&self) -> OpenConnection<'_> {
        self.node.connections_opened.inc();
        self.node.connections.inc();
        OpenConnection { connections: &self.node.connections }
    }

    /// A client was turned away because of `max.connections`.
    pub fn connection_rejected(&self) {
        self.node.connections_rejected.inc();
    }

    /// A connection was closed because of what the client sent.
    pub fn connection_refused_request(&self) {
        self.node.bad_requests.inc();
    }

    /// A produce request has to wait for room before it is read.
    pub fn produce_held(&self) {
        self.node.produce_held.inc();
    }

    /// A produce request was discarded and refused, because there was no room in time.
    pub fn produce_refused(&self) {
        self.node.produce_refused.inc();
    }

    /// A replica of this node stands for election.
    pub fn election_started(&self) {
        self.node.elections_started.inc();
    }

    /// A replica of this node leads.
    pub fn leadership_won(&self) {
        self.node.leaderships_won.inc();
        self.node.leaders.inc();
    }

    /// A replica of this node no longer leads.
    pub fn leadership_lost(&self) {
        self.node.leaders.dec();
    }

    /// So many groups that this node leads have not the members that they should have; there were `before` at the last look.
    pub fn groups_changing(&self, before: usize, now: usize) {
        self.node.groups_changing.inc_by(now as i64 - before as i64);
    }

    /// A group went on although not every acknowledged record could be shown to be there.
    pub fn unclean_recovery(&self) {
        self.node.unclean_recoveries.inc();
    }

    /// A replica held what the others have lost, and begins anew.
    pub fn replica_begun_anew(&self) {
        self.node.begun_anew.inc();
    }

    /// In so many places of the log damage is known and not repaired.
    pub fn damaged_places(&self, known: usize) {
        self.node.damaged_places.set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    /// Damaged entries were got back from other nodes.
    pub fn entries_repaired(&self, count: u64) {
        self.node.entries_repaired.inc_by(count);
    }

    /// A panic was caught: a bug, whose consequences were contained.
    pub fn panic_caught(&self) {
        self.node.panics_caught.inc();
    }
}

struct ApiFamilies {
    requests: Family<ApiLabels, Counter>,
    received_bytes: Family<ApiLabels, Counter>,
    sent_bytes: Family<ApiLabels, Counter>,
    latency: Family<ApiLabels, AtomicHistogram, fn() -> AtomicHistogram>,
}

impl ApiFamilies {
    fn register(registry: &mut Registry) -> Self {
        let families = Self {
            requests: Family::default(),
            received_bytes: Family::default(),
            sent_bytes: Family::default(),
            latency: Family::new_with_constructor(|| AtomicHistogram::new(&LATENCY_MICROS)),
        };
        registry.register("requests", "Requests read, by API", families.requests.clone());
        let received = families.received_bytes.clone();
        registry.register_with_unit("request_received", "Bytes of requests read", Unit::Bytes, received);
        let sent = families.sent_bytes.clone();
        registry.register_with_unit("response_sent", "Bytes of answers", Unit::Bytes, sent);
        let help = "Time from the first byte of a request to its answer, holding and long polling included";
        registry.register_with_unit("request_duration", help, Unit::Seconds, families.latency.clone());
        families
    }

    fn of(&self, api: String) -> ApiMetrics {
        let labels = ApiLabels { api };
        ApiMetrics {
            requests: self.requests.get_or_create(&labels).clone(),
            received_bytes: self.received_bytes.get_or_create(&labels).clone(),
            sent_bytes: self.sent_bytes.get_or_create(&labels).clone(),
            latency: self.latency.get_or_create(&labels).clone(),
        }
    }
}

impl EntryMetrics {
    fn register(registry: &mut Registry) -> Self {
        let entries = Self { bytes: AtomicHistogram::new(&BYTES), batches: AtomicHistogram::new(&BATCHES) };
        let help = "Bytes of records per Raft entry";
        registry.register_with_unit("entry_size", help, Unit::Bytes, entries.bytes.clone());
        registry.register("entry_batches", "Record batches per Raft entry", entries.batches.clone());
        entries
    }
}

impl NodeMetrics {
    fn register(registry: &mut Registry) -> Self {
        let node = Self::default();
        registry.register("connections", "Open client connections", node.connections.clone());
        registry.register("leaders", "Groups that this node leads", node.leaders.clone());
        let help = "Groups led by this node whose members are not yet those that the metadata wants";
        registry.register("groups_changing", help, node.groups_changing.clone());
        let help = "Places of this node's log that are known to be damaged and not repaired yet";
        registry.register("damaged_places", help, node.damaged_places.clone());
        let counters: [(&str, &str, &Counter); 11] = [
            ("connections_opened", "Client connections accepted", &node.connections_opened),
            (
                "connections_rejected",
                "Client connections turned away by max.connections",
                &node.connections_rejected,
            ),
            ("bad_requests", "Connections closed because of what the client sent", &node.bad_requests),
            (
                "produce_held",
                "Produce requests that waited for room before they were read",
                &node.produce_held,
            ),
            ("produce_refused", "Produce requests refused whole for lack of room", &node.produce_refused),
            ("elections_started", "Times a replica of this node stood for election", &node.elections_started),
            ("leaderships_won", "Times a replica of this node became leader", &node.leaderships_won),
            (
                "unclean_recoveries",
                "Groups that went on although acknowledged records may be missing",
                &node.unclean_recoveries,
            ),
            (
                "replicas_begun_anew",
                "Replicas of this node whose log was given up, because the others had lost what was committed in it",
                &node.begun_anew,
            ),
            (
                "entries_repaired",
                "Damaged entries of this node's log that were got back from other nodes",
                &node.entries_repaired,
            ),
            ("panics_caught", "Panics caught, each of them a bug", &node.panics_caught),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new([ApiKey::Produce, ApiKey::Fetch])
    }

    #[track_caller]
    fn assert_line(metrics: &Metrics, line: &str) {
        let text = metrics.text();
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }

    #[test]
    fn requests_are_counted_by_api() {
        let metrics = metrics();
        metrics.request_received(ApiKey::Produce, 100);
        metrics.request_received(ApiKey::Produce, 23);
        metrics.request_received(ApiKey::Metadata, 5);
        metrics.request_answered(ApiKey::Produce, 40, Duration::from_micros(150));
        metrics.request_error(ApiKey::Produce, 0);
        metrics.request_error(ApiKey::Produce, 19);
        assert_line(&metrics, "helix_requests_total{api=\"Produce\"} 2");
        assert_line(&metrics, "helix_requests_total{api=\"Fetch\"} 0");
        assert_line(&metrics, "helix_requests_total{api=\"other\"} 1");
        assert_line(&metrics, "helix_request_received_bytes_total{api=\"Produce\"} 123");
        assert_line(&metrics, "helix_response_sent_bytes_total{api=\"Produce\"} 40");
        assert_line(&metrics, "helix_request_duration_seconds_bucket{le=\"0.0002\",api=\"Produce\"} 1");
        assert_line(&metrics, "helix_request_duration_seconds_bucket{le=\"0.0001\",api=\"Produce\"} 0");
        assert_line(&metrics, "helix_request_errors_total{api=\"Produce\",error=\"NotEnoughReplicas\"} 1");
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let metrics = metrics();
        let open = metrics.connection_opened();
        drop(metrics.connection_opened());
        assert_line(&metrics, "helix_connections 1");
        assert_line(&metrics, "helix_connections_opened_total 2");
        drop(open);
        assert_line(&metrics, "helix_connections 0");
    }

    #[test]
    fn leaders_are_won_and_lost() {
        let metrics = metrics();
        metrics.leadership_won();
        metrics.leadership_won();
        metrics.leadership_lost();
        assert_line(&metrics, "helix_leaders 1");
        assert_line(&metrics, "helix_leaderships_won_total 2");
    }

    #[test]
    fn the_log_and_the_node_are_asked_at_each_scrape() {
        let metrics = metrics();
        assert!(!metrics.text().contains("helix_wal"), "nothing is known of the log yet");
        metrics.watch_wal(|| {
            let mut stats = WalStats { syncs: 3, bytes: 999, ..WalStats::default() };
            stats.sync_latency.buckets_us = vec![(1000, 2), (u64::MAX, 1)];
            stats.sync_latency.total_us = 5000;
            stats
        });
        metrics.watch_node(|| NodeSample {
            groups: 12,
            budgets: vec![BudgetSample { name: "produce", used: 5, limit: 10 }],
        });
        assert_line(&metrics, "helix_wal_syncs_total 3");
        assert_line(&metrics, "helix_wal_written_bytes_total 999");
        assert_line(&metrics, "helix_wal_sync_duration_seconds_bucket{le=\"0.001\"} 2");
        assert_line(&metrics, "helix_wal_sync_duration_seconds_bucket{le=\"+Inf\"} 3");
        assert_line(&metrics, "helix_wal_sync_duration_seconds_sum 0.005");
        assert_line(&metrics, "helix_groups 12");
        assert_line(&metrics, "helix_budget_used{budget=\"produce\"} 5");
        assert_line(&metrics, "helix_budget_limit{budget=\"produce\"} 10");
    }

    #[test]
    fn rounds_of_shards_have_durations() {
        let metrics = metrics();
        metrics.shard_round(Duration::from_micros(150));
        metrics.shard_round(Duration::from_millis(3));
        assert_line(&metrics, "helix_shard_round_duration_seconds_bucket{le=\"0.0002\"} 1");
        assert_line(&metrics, "helix_shard_round_duration_seconds_sum 0.00315");
    }

    #[test]
    fn entries_have_sizes() {
        let metrics = metrics();
        metrics.entry_proposed(5000, 3);
        assert_line(&metrics, "helix_entry_size_bytes_bucket{le=\"16384.0\"} 1");
        assert_line(&metrics, "helix_entry_size_bytes_sum 5000.0");
        assert_line(&metrics, "helix_entry_batches_count 1");
    }
}
