//! One script of requests to a Helix node and to an Apache Kafka node; the answers are compared field by field.
//!
//! * `script` is what is asked: one function per API, which yields its steps for one version;
//! * `case` is one step, `subject` goes it with one of the brokers, `known` is what that broker has told so far;
//! * `value` makes a tree of any answer, `mask` takes out of it what must differ, `diff` compares two of them;
//! * `explain` holds what is found against the differences that are known, `report` tells what is left.

mod case;
mod diff;
mod explain;
mod known;
mod mask;
mod report;
mod script;
mod subject;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub use report::Report;

use crate::cluster::{Cluster, ClusterError, ClusterOptions};
use crate::kafka::{KafkaCluster, KafkaError, KafkaOptions};
use crate::progress::Progress;
use case::Case;
use diff::FieldDifference;
use report::Difference;
use script::{Api, Times};
use subject::{Outcome, Subject};
use value::Value;

/// Settings that both are given, so that what they are not asked about is alike.
const SETTINGS: &[(&str, &str)] = &[
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.num.partitions", "2"),
    ("num.partitions", "1"),
];
/// What Apache Kafka's node is always given.
const HELIX_SETTINGS: &[(&str, &str)] = &[
    ("default.replication.factor", "1"),
    ("min.insync.replicas", "1"),
    ("offsets.topic.replication.factor", "1"),
];
/// Kafka's own internal topic has three replicas otherwise.
const KAFKA_SETTINGS: &[(&str, &str)] =
    &[("transaction.state.log.replication.factor", "1"), ("transaction.state.log.min.isr", "1")];

/// What to run.
#[derive(Debug, Clone)]
pub struct DifferentialOptions {
    /// The `helix-server` to run.
    pub binary: PathBuf,
    /// Apache Kafka's jar files.
    pub kafka_libs: PathBuf,
    /// Both keep their data here; removed at the end.
    pub directory: PathBuf,
    /// Names of the APIs to ask; all if empty.
    pub apis: Vec<String>,
}

/// The script could not be run.
#[derive(Debug, thiserror::Error)]
pub enum DifferentialError {
    /// Helix could not be run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Apache Kafka could not be run.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// There is no such API in the script.
    #[error("the script has no {0}; it has {1}")]
    UnknownApi(String, String),
    /// The explanations are not what they should be.
    #[error("explanations.toml: {0}")]
    Explanations(#[from] toml::de::Error),
    /// Helix does not say what it serves.
    #[error("Helix does not say what it serves: {0}")]
    NotServed(String),
}

/// Runs the script.
///
/// # Errors
/// When one of the two cannot be run. Differences are in the report.
pub fn run(options: &DifferentialOptions, progress: Progress) -> Result<Report, DifferentialError> {
    let explanations = explain::explanations()?;
    let chosen = chosen(&options.apis)?;
    progress.note("starting Helix and Apache Kafka");
    let helix = Cluster::start(helix_options(options))?;
    let kafka = KafkaCluster::start(&kafka_options(options))?;
    let times = Times::beginning(now_ms());
    let mut pair = Pair {
        helix: Subject::new(&helix.kafka_address(1), times.range()),
        kafka: Subject::new(kafka.bootstrap(), times.range()),
        differences: Vec::new(),
        answers: 0,
        progress,
    };
    let served = pair.served()?;
    pair.go(&script::before_all(&times));
    for api in &chosen {
        let Some((min, max)) = served.get(&api.name()) else { continue };
        progress.note(&format!("{} v{min} to v{max}", api.name()));
        for version in (*min).max(api.first)..=*max {
            pair.go(&(api.cases)(version, &times));
        }
    }
    let mut report = Report::new(pair.differences, explanations);
    report.answers = pair.answers;
    report.whole = options.apis.is_empty();
    let known = |name: &String| script::APIS.iter().any(|api| api.name() == *name);
    report.without_cases = served.into_keys().filter(|name| !known(name)).collect();
    Ok(report)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Api>, DifferentialError> {
    if names.is_empty() {
        return Ok(script::APIS.iter().collect());
    }
    let find = |name: &String| {
        script::APIS.iter().find(|api| api.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let all: Vec<String> = script::APIS.iter().map(Api::name).collect();
            DifferentialError::UnknownApi(name.clone(), all.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn helix_options(options: &DifferentialOptions) -> ClusterOptions {
    ClusterOptions {
        binary: options.binary.clone(),
        directory: options.directory.join("helix"),
        nodes: 1,
        write_durability: None,
        settings: SETTINGS
            .iter()
            .chain(HELIX_SETTINGS)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn kafka_options(options: &DifferentialOptions) -> KafkaOptions {
    KafkaOptions {
        libs: options.kafka_libs.clone(),
        directory: options.directory.join("kafka"),
        nodes: 1,
        heap: "512m",
        settings: SETTINGS
            .iter()
            .chain(KAFKA_SETTINGS)
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Both brokers, and what they answered differently.
struct Pair {
    helix: Subject,
    kafka: Subject,
    differences: Vec<Difference>,
    answers: usize,
    progress: Progress,
}

impl Pair {
    fn go(&mut self, cases: &[Case]) {
        for case in cases {
            let helix = self.helix.go(case);
            let kafka = self.kafka.go(case);
            self.answers += 1;
            for (who, outcome) in [("Helix", &helix), ("Apache Kafka", &kafka)] {
                if let Outcome::Wrong(reason) = outcome {
                    self.progress.note(&format!("    {case:?}: {who}: {reason}"));
                }
            }
            let found = compared(&helix, &kafka).into_iter().map(|field| Difference {
                api: script::name(case.api),
                version: case.version,
                case: case.name.clone(),
                field,
            });
            self.differences.extend(found);
        }
    }

    /// The versions of each API that Helix says it serves.
    fn served(&mut self) -> Result<BTreeMap<String, (i16, i16)>, DifferentialError> {
        match self.helix.go(&script::what_is_served()) {
            Outcome::Answer(answer) => Ok(script::served_in(&answer)),
            other => Err(DifferentialError::NotServed(told(&other))),
        }
    }
}

fn compared(helix: &Outcome, kafka: &Outcome) -> Vec<FieldDifference> {
    match (helix, kafka) {
        (Outcome::Answer(helix), Outcome::Answer(kafka)) => diff::compare(helix, kafka),
        (Outcome::Wrong(_), _) | (_, Outcome::Wrong(_)) => vec![whole(helix, kafka)],
        (helix, kafka) if helix == kafka => Vec::new(),
        _ => vec![whole(helix, kafka)],
    }
}

/// The answers are not of the same kind.
fn whole(helix: &Outcome, kafka: &Outcome) -> FieldDifference {
    FieldDifference { field: "(answer)".into(), helix: told(helix), kafka: told(kafka) }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answer(answer) => {
            let code = answer.at("error_code").and_then(Value::number);
            code.map_or("an answer".into(), |code| format!("an answer with error {code}"))
        }
        Outcome::Closed => "closes the connection".into(),
        Outcome::Silent => "no answer".into(),
        Outcome::Wrong(reason) => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_a_difference_even_if_it_did_with_both() {
        let wrong = Outcome::Wrong("nothing came".into());
        assert_eq!(compared(&wrong, &wrong).len(), 1);
        assert!(compared(&Outcome::Closed, &Outcome::Closed).is_empty());
        assert_eq!(compared(&Outcome::Closed, &Outcome::Silent)[0].helix, "closes the connection");
    }

    #[test]
    fn apis_are_chosen_by_name() {
        assert_eq!(chosen(&["metadata".into()]).unwrap().len(), 1);
        assert!(chosen(&["Metadatum".into()]).unwrap_err().to_string().contains("DescribeCluster"));
    }
}
