//! AlterConfigs, IncrementalAlterConfigs, and what became of the configurations.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as Resource, AlterableConfig as Alteration,
};
use kafka_protocol::messages::{AlterConfigsRequest, IncrementalAlterConfigsRequest};

use super::super::case::{Case, ask};
use super::configs::{BROKER, CLIENT_METRICS, GROUP, LOGGER, TOPIC, described};
use super::topics::VALUES;
use super::{Times, made_topic, text};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A broker tells a change some time after it has taken it: what this one is set to says that it tells all up to here.
const MARK: &str = "message.timestamp.before.max.ms";
/// The same of the brokers' configuration.
const BROKER_MARK: &str = "message.max.bytes";
/// Marks count up from here.
const FIRST_MARK: i32 = 1_000_000;
/// The version that the script itself alters with.
const OWN_VERSION: i16 = 1;

/// The broker's configurations that are altered, and so asked for afterwards.
const BROKER_CONFIGS: &[&str] = &[
    BROKER_MARK,
    "compression.type",
    "log.cleaner.min.cleanable.ratio",
    "log.cleanup.policy",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.ms",
    "log.roll.ms",
    "log.segment.bytes",
];

type Config<'a> = (&'a str, Option<&'a str>);

fn replaced(kind: i8, name: &str, configs: &[Config<'_>]) -> AlterConfigsResource {
    let one = |(name, value): &Config<'_>| {
        AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(one).collect())
}

type Operation<'a> = (i8, &'a str, Option<&'a str>);

fn altered(kind: i8, name: &str, operations: &[Operation<'_>]) -> Resource {
    let one = |(operation, name, value): &Operation<'_>| {
        Alteration::default()
            .with_config_operation(*operation)
            .with_name(text(name))
            .with_value(value.map(text))
    };
    Resource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(operations.iter().map(one).collect())
}

fn incremental(resources: Vec<Resource>) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest::default().with_resources(resources)
}

/// The steps of one version, with a look at the configuration after those that may change it.
struct Steps {
    cases: Vec<Case>,
    topic: String,
    mark: i32,
}

impl Steps {
    fn of(topic: String) -> Self {
        Self { cases: made_topic(&topic, 1, &[]), topic, mark: FIRST_MARK }
    }

    fn go(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// Looks what the topic's configuration is after a step.
    fn look(&mut self, after: &str) {
        let (mark, topic) = (self.next_mark(), self.topic.clone());
        let marking = incremental(vec![altered(TOPIC, &topic, &[(SET, MARK, Some(&mark))])]);
        self.go(ask(&format!("mark {mark}"), OWN_VERSION, marking));
        let path = format!("results[{topic}].configs[{MARK}].value");
        self.go(described(&format!("after {after}"), TOPIC, &topic, &[]).until(&path, &mark));
    }

    /// Looks what this broker's configuration is after a step.
    fn look_at_broker(&mut self, after: &str) {
        let mark = self.next_mark();
        let marking = incremental(vec![altered(BROKER, "1", &[(SET, BROKER_MARK, Some(&mark))])]);
        self.go(ask(&format!("mark {mark}"), OWN_VERSION, marking));
        let path = format!("results[1].configs[{BROKER_MARK}].value");
        let after = format!("after {after}");
        self.go(described(&after, BROKER, "1", BROKER_CONFIGS).until(&path, &mark));
        self.go(described(&format!("{after}, for all brokers"), BROKER, "", BROKER_CONFIGS));
    }

    fn next_mark(&mut self) -> String {
        self.mark += 1;
        self.mark.to_string()
    }

    /// Nothing of the brokers' configuration stays altered.
    fn clear_brokers(&mut self) {
        for (what, name) in [("clear all brokers", ""), ("clear the broker", "1")] {
            let all: Vec<Operation<'_>> = BROKER_CONFIGS.iter().map(|name| (DELETE, *name, None)).collect();
            self.go(ask(what, OWN_VERSION, incremental(vec![altered(BROKER, name, &all)])));
        }
        let mut look = described("after all", BROKER, "1", BROKER_CONFIGS);
        for (name, default) in [(BROKER_MARK, "1048588"), ("log.retention.bytes", "-1")] {
            let of = format!("results[1].configs[{name}]");
            look = look.until(&format!("{of}.config_source"), "5").until(&format!("{of}.value"), default);
        }
        self.go(look);
    }
}

/// What is not a topic's configuration, and is refused in the same way whatever is to be done with it.
const SUBJECTS: &[(&str, i8, &str)] = &[
    ("unknown topic", TOPIC, "nowhere"),
    ("no topic's name", TOPIC, ""),
    ("illegal characters", TOPIC, "a b"),
    ("oversized name", TOPIC, OVERSIZED),
    ("another broker", BROKER, "2"),
    ("a negative broker", BROKER, "-1"),
    ("no broker's number", BROKER, "abc"),
    ("another broker's loggers", LOGGER, "2"),
    ("nobody's loggers", LOGGER, ""),
    ("no broker's loggers", LOGGER, "abc"),
    ("unknown type", 0, "altered"),
    ("any type", 1, "altered"),
    ("the type of clusters", 3, "altered"),
    ("another unknown type", 99, "altered"),
    ("negative type", -1, "altered"),
    ("client metrics", CLIENT_METRICS, "altered"),
    ("client metrics without a name", CLIENT_METRICS, ""),
    ("group", GROUP, "altered"),
    ("group without a name", GROUP, ""),
];

/// One more than the longest name of a topic.
const OVERSIZED: &str = concat!(
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
);

pub(super) fn alter_configs(version: i16, _: &Times) -> Vec<Case> {
    let mut steps = Steps::of(format!("replaced-{version}"));
    let topic = steps.topic.clone();
    let request =
        |resources: Vec<AlterConfigsResource>| AlterConfigsRequest::default().with_resources(resources);
    let one = |what: &str, configs: &[Config<'_>]| {
        ask(what, version, request(vec![replaced(TOPIC, &topic, configs)]))
    };
    let validated = |what: &str, configs: &[Config<'_>]| {
        ask(what, version, request(vec![replaced(TOPIC, &topic, configs)]).with_validate_only(true))
    };
    for (what, configs) in [
        ("one", &[("retention.ms", Some("86400000"))][..]),
        ("another", &[("retention.bytes", Some("1000000")), ("cleanup.policy", Some("delete"))]),
        ("blanks around a value", &[("retention.ms", Some(" 86400000 "))]),
        ("a list with blanks", &[("cleanup.policy", Some("compact , delete"))]),
        ("good and unknown", &[("retention.ms", Some("5")), ("no.such.config", Some("1"))]),
        ("none", &[]),
    ] {
        steps.go(one(what, configs));
        steps.look(what);
    }
    steps.go(one("null value", &[("retention.ms", None)]));
    steps.go(one("null value of an unknown one", &[("no.such.config", None)]));
    steps.go(one("the same twice", &[("retention.ms", Some("1000")), ("retention.ms", Some("2000"))]));
    steps.go(one("the same twice, once null", &[("retention.ms", Some("1000")), ("retention.ms", None)]));
    steps.go(validated("validated only", &[("retention.ms", Some("1000"))]));
    steps.go(validated("bad and validated only", &[("retention.ms", Some("x"))]));
    for (config, value) in VALUES {
        steps.go(validated(&format!("{config}={value}, validated only"), &[(config, Some(value))]));
    }
    steps.look("what was refused or not meant");
    steps.go(ask("nothing", version, request(Vec::new())));
    let good = || replaced(TOPIC, &topic, &[("retention.ms", Some("3600000"))]);
    // Apache Kafka does not answer at all: once is enough to wait for that.
    if version == 0 {
        let twice = ask("the same topic twice", version, request(vec![good(), good()]));
        steps.go(twice.on("to be forgotten"));
    }
    steps.go(ask("good and bad", version, request(vec![good(), replaced(TOPIC, "nowhere", &[])])));
    steps.look("good and bad");
    let own = replaced(TOPIC, "__consumer_offsets", &[("cleanup.policy", Some("compact"))]);
    steps.go(ask("a topic of the broker's own", version, request(vec![own]).with_validate_only(true)));
    for (what, kind, name) in SUBJECTS {
        steps.go(ask(what, version, request(vec![replaced(*kind, name, &[("retention.ms", Some("1"))])])));
        let empty = request(vec![replaced(*kind, name, &[])]);
        steps.go(ask(&format!("{what}, with nothing to alter"), version, empty));
    }
    replace_brokers(&mut steps, version);
    steps.cases
}

/// What Apache Kafka does not let go of all brokers' configuration: its leaders are elected by it (KIP-966).
const FIXED: Config<'static> = ("min.insync.replicas", Some("1"));

/// Gives all brokers what Apache Kafka has given them by itself, so that topics tell the same.
pub(super) fn before_all() -> Case {
    let (name, value) = FIXED;
    ask("what is fixed", OWN_VERSION, incremental(vec![altered(BROKER, "", &[(SET, name, value)])]))
}

/// The configurations that are altered of a broker, and what is made of them.
const BROKER_VALUES: &[Config<'static>] = &[
    ("log.retention.bytes", Some("7000000")),
    ("log.retention.ms", Some("90000000")),
    ("log.retention.ms", Some("-2")),
    ("log.retention.ms", Some("x")),
    ("log.retention.ms", None),
    ("max.connections", Some("5000")),
    ("compression.type", Some("zstd")),
    ("compression.type", Some("nonsense")),
    ("log.cleanup.policy", Some("delete")),
    ("log.cleanup.policy", Some("compact,delete")),
    ("log.cleanup.policy", Some("nonsense")),
    ("log.segment.bytes", Some("2000000")),
    ("log.segment.bytes", Some("1")),
    ("log.roll.ms", Some("3600000")),
    ("log.roll.jitter.ms", Some("1")),
    ("log.index.interval.bytes", Some("8192")),
    ("log.index.size.max.bytes", Some("3")),
    ("log.preallocate", Some("perhaps")),
    ("log.cleaner.min.cleanable.ratio", Some("0.25")),
    ("log.cleaner.min.cleanable.ratio", Some("2")),
    ("log.cleaner.delete.retention.ms", Some("-1")),
    ("log.segment.delete.delay.ms", Some("1000")),
    ("log.flush.interval.messages", Some("1")),
    ("unclean.leader.election.enable", Some("true")),
    ("num.partitions", Some("3")),
    ("broker.id", Some("1")),
    ("node.id", Some("1")),
    ("listeners", Some("PLAINTEXT://127.0.0.1:1")),
    ("retention.ms", Some("1")),
    ("no.such.config", Some("1")),
    ("", Some("1")),
];

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("null")
}

fn replace_brokers(steps: &mut Steps, version: i16) {
    let (bytes, ms) = (("log.retention.bytes", Some("7000000")), ("log.retention.ms", Some(" 80000000 ")));
    for (whose, name, kept) in [("broker", "1", None), ("all brokers", "", Some(FIXED))] {
        let request = |configs: &[Config<'_>]| {
            let all: Vec<Config<'_>> = kept.iter().chain(configs).copied().collect();
            AlterConfigsRequest::default().with_resources(vec![replaced(BROKER, name, &all)])
        };
        for (config, value) in BROKER_VALUES {
            let what = format!("{whose}: {config}={}, validated only", shown(*value));
            steps.go(ask(&what, version, request(&[(config, *value)]).with_validate_only(true)));
        }
        for (what, configs) in [("two", &[bytes, ms][..]), ("one", &[ms]), ("none", &[])] {
            let what = format!("{whose}: {what}");
            steps.go(ask(&what, version, request(configs)));
            steps.look_at_broker(&what);
        }
    }
    steps.clear_brokers();
}

pub(super) fn incremental_alter_configs(version: i16, _: &Times) -> Vec<Case> {
    let mut steps = Steps::of(format!("altered-{version}"));
    let topic = steps.topic.clone();
    let one = |what: &str, operations: &[Operation<'_>]| {
        ask(what, version, incremental(vec![altered(TOPIC, &topic, operations)]))
    };
    for (what, operations) in changes() {
        steps.go(one(what, &operations));
        steps.look(what);
    }
    for (what, operations) in refusals() {
        steps.go(one(what, &operations));
    }
    steps.look("what was refused");
    let validated = |what: &str, operations: &[Operation<'_>]| {
        let request = incremental(vec![altered(TOPIC, &topic, operations)]);
        ask(what, version, request.with_validate_only(true))
    };
    steps.go(validated("validated only", &[(SET, "retention.ms", Some("1000"))]));
    steps.go(validated("bad and validated only", &[(SET, "retention.ms", Some("x"))]));
    steps.look("what was not meant");
    for (number, round) in rounds().iter().enumerate() {
        for (config, value) in round {
            steps.go(one(&format!("{config}={value}"), &[(SET, config, Some(value))]));
        }
        let what = format!("round {number}");
        steps.look(&what);
        let back: Vec<Operation<'_>> = round.iter().map(|(config, _)| (DELETE, *config, None)).collect();
        steps.go(one(&format!("{what}, taken back"), &back));
    }
    steps.look("all was taken back");
    several(&mut steps, version);
    for (what, kind, name) in SUBJECTS {
        let operations = [(SET, "retention.ms", Some("1"))];
        steps.go(ask(what, version, incremental(vec![altered(*kind, name, &operations)])));
        let empty = incremental(vec![altered(*kind, name, &[])]);
        steps.go(ask(&format!("{what}, with nothing to alter"), version, empty));
    }
    alter_others(&mut steps, version);
    alter_brokers(&mut steps, version);
    steps.cases
}

/// The first values of each configuration, the second ones, and so on.
fn rounds() -> Vec<Vec<(&'static str, &'static str)>> {
    let mut out: Vec<Vec<(&str, &str)>> = Vec::new();
    for (config, value) in VALUES {
        let free = out.iter_mut().find(|round| round.iter().all(|(taken, _)| taken != config));
        match free {
            Some(round) => round.push((config, value)),
            None => out.push(vec![(config, value)]),
        }
    }
    out
}

/// Alterations of a topic, each of what those before it left.
fn changes() -> Vec<(&'static str, Vec<Operation<'static>>)> {
    let (list, number) = ("cleanup.policy", "retention.ms");
    vec![
        ("set", vec![(SET, number, Some("86400000"))]),
        ("set to the default", vec![(SET, number, Some("604800000"))]),
        ("set with blanks", vec![(SET, number, Some(" 86400000 "))]),
        ("set two", vec![(SET, "retention.bytes", Some("1000000")), (SET, number, Some("1000000"))]),
        ("delete", vec![(DELETE, number, None)]),
        ("delete what is not set", vec![(DELETE, number, None)]),
        ("delete with a value", vec![(DELETE, "retention.bytes", Some("x"))]),
        ("delete an unknown one", vec![(DELETE, "no.such.config", None)]),
        ("append to the default", vec![(APPEND, list, Some("compact"))]),
        ("append what is there", vec![(APPEND, list, Some("compact"))]),
        ("subtract", vec![(SUBTRACT, list, Some("compact"))]),
        ("subtract what is not there", vec![(SUBTRACT, list, Some("compact"))]),
        ("subtract what nobody knows", vec![(SUBTRACT, list, Some("nonsense"))]),
        ("append two", vec![(APPEND, list, Some("delete,compact"))]),
        ("subtract one of two", vec![(SUBTRACT, list, Some("delete"))]),
        ("set a list", vec![(SET, list, Some("delete,compact"))]),
        ("set a list with a word twice", vec![(SET, list, Some("compact,compact"))]),
        ("append nothing", vec![(APPEND, list, Some(""))]),
        ("subtract all", vec![(SUBTRACT, list, Some("delete,compact"))]),
        ("delete a list", vec![(DELETE, list, None)]),
        ("subtract all from the default", vec![(SUBTRACT, list, Some("delete"))]),
        ("set a list to nothing", vec![(SET, list, Some(""))]),
        ("delete a list again", vec![(DELETE, list, None)]),
        ("set a list with blanks", vec![(SET, list, Some(" compact , delete "))]),
        ("delete a list with blanks", vec![(DELETE, list, None)]),
        ("append with blanks", vec![(APPEND, list, Some(" delete , compact "))]),
        ("delete what was appended", vec![(DELETE, list, None)]),
    ]
}

/// Alterations of a topic that are not made.
fn refusals() -> Vec<(&'static str, Vec<Operation<'static>>)> {
    let (list, number) = ("cleanup.policy", "retention.ms");
    vec![
        ("set to null", vec![(SET, number, None)]),
        ("append null", vec![(APPEND, list, None)]),
        ("subtract null", vec![(SUBTRACT, list, None)]),
        ("append nonsense", vec![(APPEND, list, Some("nonsense"))]),
        ("append to a number", vec![(APPEND, number, Some("1"))]),
        ("subtract from a number", vec![(SUBTRACT, number, Some("1"))]),
        ("append to an unknown one", vec![(APPEND, "no.such.config", Some("1"))]),
        ("subtract from an unknown one", vec![(SUBTRACT, "no.such.config", Some("1"))]),
        ("append null to a number", vec![(APPEND, number, None)]),
        ("unknown operation", vec![(4, number, Some("1"))]),
        ("negative operation", vec![(-1, number, Some("1"))]),
        ("unknown operation of an unknown one", vec![(9, "no.such.config", Some("1"))]),
        ("unknown operation with null", vec![(9, number, None)]),
        ("the same twice", vec![(SET, number, Some("1")), (SET, number, Some("2"))]),
        ("set and deleted", vec![(SET, number, Some("1")), (DELETE, number, None)]),
        ("appended twice", vec![(APPEND, list, Some("compact")), (APPEND, list, Some("delete"))]),
        ("the same twice, once null", vec![(SET, number, Some("1")), (SET, number, None)]),
        ("good and unknown", vec![(SET, number, Some("1")), (SET, "no.such.config", Some("1"))]),
        ("good and bad", vec![(SET, number, Some("1")), (SET, "retention.bytes", Some("x"))]),
    ]
}

/// Several resources in one request.
fn several(steps: &mut Steps, version: i16) {
    let topic = steps.topic.clone();
    let good = || altered(TOPIC, &topic, &[(SET, "retention.ms", Some("7200000"))]);
    let nowhere = || altered(TOPIC, "nowhere", &[(SET, "retention.ms", Some("7200000"))]);
    for (what, resources) in [
        ("nothing", Vec::new()),
        ("nothing of a topic", vec![altered(TOPIC, &topic, &[])]),
        ("the same topic twice", vec![good(), good()]),
        ("the same unknown topic twice", vec![nowhere(), nowhere()]),
        ("the same topic twice and another", vec![good(), nowhere(), good()]),
        ("known and unknown topic", vec![nowhere(), good()]),
    ] {
        steps.go(ask(what, version, incremental(resources)));
    }
    steps.look("several at one time");
    let own = altered(TOPIC, "__consumer_offsets", &[(SET, "cleanup.policy", Some("compact"))]);
    let own = incremental(vec![own]).with_validate_only(true);
    steps.go(ask("a topic of the broker's own", version, own));
}

/// What has configurations in Apache Kafka besides topics and brokers.
fn alter_others(steps: &mut Steps, version: i16) {
    let one = |what: &str, kind: i8, name: &str, operations: &[Operation<'_>]| {
        ask(what, version, incremental(vec![altered(kind, name, operations)]))
    };
    let session = "consumer.session.timeout.ms";
    steps.go(one("group: set", GROUP, "altered", &[(SET, session, Some("50000"))]));
    steps.go(one("group: set too low", GROUP, "altered", &[(SET, session, Some("1"))]));
    steps.go(one("group: delete", GROUP, "altered", &[(DELETE, session, None)]));
    let interval = "interval.ms";
    steps.go(one("client metrics: set", CLIENT_METRICS, "altered", &[(SET, interval, Some("30000"))]));
    steps.go(one("client metrics: set too low", CLIENT_METRICS, "altered", &[(SET, interval, Some("1"))]));
    steps.go(one("client metrics: delete", CLIENT_METRICS, "altered", &[(DELETE, interval, None)]));
    let logger = "kafka.log.LogCleaner";
    steps.go(one("loggers: set", LOGGER, "1", &[(SET, logger, Some("DEBUG"))]));
    steps.go(one("loggers: set to an unknown level", LOGGER, "1", &[(SET, logger, Some("LOUD"))]));
    steps.go(one("loggers: an unknown one", LOGGER, "1", &[(SET, "no.such.logger", Some("DEBUG"))]));
    steps.go(one("loggers: append", LOGGER, "1", &[(APPEND, logger, Some("DEBUG"))]));
    steps.go(one("loggers: delete", LOGGER, "1", &[(DELETE, logger, None)]));
}

fn alter_brokers(steps: &mut Steps, version: i16) {
    let one = |what: &str, name: &str, operations: &[Operation<'_>]| {
        ask(what, version, incremental(vec![altered(BROKER, name, operations)]))
    };
    for (whose, name) in [("all brokers", ""), ("broker", "1")] {
        for (config, value) in BROKER_VALUES {
            let what = format!("{whose}: {config}={}, validated only", shown(*value));
            let request = incremental(vec![altered(BROKER, name, &[(SET, config, *value)])]);
            steps.go(ask(&what, version, request.with_validate_only(true)));
        }
        let retention = "log.retention.ms";
        for (what, operations) in [
            ("set", &[(SET, retention, Some("90000000"))][..]),
            ("set with blanks", &[(SET, retention, Some(" 80000000 "))]),
            ("set another", &[(SET, "log.retention.bytes", Some("7000000"))]),
            ("delete", &[(DELETE, retention, None)]),
            ("delete what is not set", &[(DELETE, retention, None)]),
            ("delete what is read-only", &[(DELETE, "num.partitions", None)]),
            ("delete an unknown one", &[(DELETE, "no.such.config", None)]),
            ("append to a list", &[(APPEND, "log.cleanup.policy", Some("delete"))]),
            ("append another to a list", &[(APPEND, "log.cleanup.policy", Some("compact"))]),
            (
                "set what topics inherit",
                &[(SET, "log.segment.bytes", Some(" 2000000 ")), (SET, "log.roll.ms", Some("3600000"))],
            ),
            (
                "set what nothing has to be done for",
                &[
                    (SET, "log.preallocate", Some("TRUE")),
                    (SET, "log.cleaner.min.cleanable.ratio", Some("0.25")),
                ],
            ),
            ("append to a number", &[(APPEND, retention, Some("1"))]),
            ("append to an unknown one", &[(APPEND, "no.such.config", Some("1"))]),
            ("subtract from a number", &[(SUBTRACT, retention, Some("1"))]),
            ("unknown operation", &[(9, retention, Some("1"))]),
            ("the same twice", &[(SET, retention, Some("1")), (SET, retention, Some("2"))]),
        ] {
            let what = format!("{whose}: {what}");
            steps.go(one(&what, name, operations));
            steps.look_at_broker(&what);
        }
        steps.look(&format!("{whose} were altered"));
    }
    steps.clear_brokers();
    steps.look("brokers were altered back");
}
