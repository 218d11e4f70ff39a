//! `helix-server recover`: what an operator asks a running node about groups that wait for a leader, and what it answers.
//!
//! The node answers over HTTP (`POST /admin/recover`), the command line asks. Both sides are here.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::HostPort;

/// Where the node answers.
pub const RECOVER_PATH: &str = "/admin/recover";
/// How long the node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// An answer longer than this is no answer of a node.
const LONGEST_ANSWER_BYTES: u64 = 256 << 20;
/// How long the command line waits for the elections that it has asked for.
const ELECTION_LIMIT: Duration = Duration::from_secs(15);
/// How often it looks meanwhile.
const ELECTION_PAUSE: Duration = Duration::from_millis(250);

/// Which groups are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// Every group with a replica on the node.
    All,
    /// The cluster's metadata.
    Metadata,
    /// The partitions of a topic, or one of them.
    Topic {
        /// Its name.
        name: String,
        /// Of all its partitions, only this one.
        partition: Option<i32>,
    },
}

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// About whom.
    pub groups: Selection,
    /// Whether elections are to be forced.
    pub force: bool,
}

/// How one group stands on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its number.
    pub group: u64,
    /// What it holds, in the words of clients.
    pub name: String,
    /// The node that leads it and answers clients.
    pub led_by: Option<i32>,
    /// The voters that there are.
    pub voters: usize,
    /// How many of them have said in the present election whether they are sound.
    pub answered: usize,
    /// How many of those are.
    pub sound: usize,
    /// What there is of this node's replica.
    pub replica: ReplicaState,
    /// The term of the last entry of its log.
    pub last_term: u64,
    /// The index of it.
    pub last_index: u64,
    /// If it was to be forced: what came of that.
    pub forced: Option<Forced>,
}

/// What there is of a node's replica of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Its log holds all that it has acknowledged.
    Sound,
    /// Its log may lack some of that.
    Recovering,
    /// An entry of its log is damaged, and it is out of service until another node has told that entry.
    AwaitsRepair,
    /// It has given its log up and is about to go on with an empty one.
    BeginsAnew,
}

impl ReplicaState {
    /// Whether it takes part in elections.
    #[must_use]
    pub const fn in_service(self) -> bool {
        matches!(self, Self::Sound | Self::Recovering)
    }
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sound => "is sound",
            Self::Recovering => "is recovering",
            Self::AwaitsRepair => {
                "is out of service: an entry of its log is damaged, and other nodes are asked for that"
            }
            Self::BeginsAnew => "is out of service: it begins anew, with an empty log",
        })
    }
}

/// What came of forcing an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forced {
    /// It has begun.
    Begun,
    /// There is nothing to force, or not here.
    Refused(String),
}

/// What a node answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverAnswer {
    /// The groups asked for that have a replica on the node.
    pub groups: Vec<GroupReport>,
}

impl GroupReport {
    /// Whether it waits for a leader that can answer clients.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.led_by.is_none()
    }
}

impl fmt::Display for GroupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, name, voters, answered, sound, last_index, last_term, .. } = self;
        write!(f, "{name} (group {group}): ")?;
        match self.led_by {
            Some(node) => write!(f, "led by node {node}")?,
            None => {
                write!(
                    f,
                    "waits for a leader; of {voters} voters {answered} have answered, {sound} of them sound"
                )?;
            }
        }
        write!(f, "; this node's replica {}", self.replica)?;
        if self.replica.in_service() {
            write!(f, ", its log ends at term {last_term}, index {last_index}")?;
        }
        match &self.forced {
            None => Ok(()),
            Some(Forced::Begun) => f.write_str("; an election is forced"),
            Some(Forced::Refused(reason)) => write!(f, "; nothing is forced: {reason}"),
        }
    }
}

/// Why a node could not be asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no connection to it.
    #[error("can't ask the node at {address}: {source}; is it running, and is that its --http-listen?")]
    Io {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// It does not do what it was asked for.
    #[error("the node at {address} answers {status}: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// The status of HTTP.
        status: String,
        /// Why.
        reason: String,
    },
}

/// Asks a node.
///
/// # Errors
/// When it can't be reached, or refuses.
pub fn ask(address: &HostPort, request: &RecoverRequest) -> Result<RecoverAnswer, AskError> {
    let text =
        exchange(address, request).map_err(|source| AskError::Io { address: address.to_string(), source })?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().and_then(|line| line.split_once(' ')).map_or("", |(_, status)| status);
    let refused = |reason: String| {
        let (address, status) = (address.to_string(), status.to_owned());
        AskError::Refused { address, status, reason }
    };
    if !status.starts_with("200") {
        return Err(refused(body.trim().to_owned()));
    }
    serde_json::from_str(body).map_err(|error| refused(format!("{error}; is it a node of this version?")))
}

fn exchange(address: &HostPort, request: &RecoverRequest) -> io::Result<String> {
    let body = serde_json::to_string(request).expect("names and numbers can be written as JSON");
    let resolved = (address.host.as_str(), address.port).to_socket_addrs()?.next();
    let resolved = resolved.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&resolved, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(2 * ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    // HTTP/1.0: the answer ends where the connection ends, and nothing is chunked.
    write!(
        stream,
        "POST {RECOVER_PATH} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Does what `helix-server recover` is asked for and tells about it on `out`. Whether no group waits for a leader in the end.
///
/// # Errors
/// When the node can't be asked, or `out` can't be written.
pub fn run(address: &HostPort, request: &RecoverRequest, out: &mut dyn Write) -> io::Result<bool> {
    let answer = ask(address, request).map_err(io::Error::other)?;
    let told = |report: &&GroupReport| report.waits() || request.groups != Selection::All;
    for report in answer.groups.iter().filter(told) {
        writeln!(out, "{report}")?;
    }
    let waiting = answer.groups.iter().filter(|report| report.waits()).count();
    if waiting == 0 {
        writeln!(out, "none of {} group(s) waits for a leader", answer.groups.len())?;
        return Ok(true);
    }
    if !request.force {
        writeln!(
            out,
            "{waiting} of {} group(s) wait for a leader. If a voter is lost for good, `--force` lets a majority go on without it: on the \
             node whose log holds the most (last term, then last index). What only missing replicas hold is lost then.",
            answer.groups.len()
        )?;
        return Ok(false);
    }
    await_leaders(address, request, answer, out)
}

/// Waits until every group has a leader, for as long as an election may take. An election that could not be forced because the replica was out
/// of service is forced once it is back.
fn await_leaders(
    address: &HostPort,
    request: &RecoverRequest,
    mut forced: RecoverAnswer,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let look = RecoverRequest { force: false, ..request.clone() };
    let began = Instant::now();
    loop {
        let answer = ask(address, &look).map_err(io::Error::other)?;
        let waiting: Vec<_> = answer.groups.iter().filter(|report| report.waits()).collect();
        if waiting.iter().any(|report| is_back(report, &forced)) {
            forced = ask(address, request).map_err(io::Error::other)?;
        }
        if waiting.is_empty() {
            writeln!(out, "every group has a leader")?;
            return Ok(true);
        }
        if began.elapsed() > ELECTION_LIMIT {
            for report in &waiting {
                writeln!(out, "still {report}")?;
            }
            writeln!(
                out,
                "{} group(s) still wait for a leader: too few of their voters run, or another replica's log holds more; \
                 force the recovery there",
                waiting.len()
            )?;
            return Ok(false);
        }
        std::thread::sleep(ELECTION_PAUSE);
    }
}

/// Whether a replica is in service that was not when an election was to be forced.
fn is_back(report: &GroupReport, forced: &RecoverAnswer) -> bool {
    let before = forced.groups.iter().find(|before| before.group == report.group);
    report.replica.in_service() && before.is_none_or(|before| !before.replica.in_service())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> GroupReport {
        GroupReport {
            group: 17,
            name: "events-3".to_owned(),
            led_by: None,
            voters: 3,
            answered: 2,
            sound: 0,
            replica: ReplicaState::Recovering,
            last_term: 7,
            last_index: 1200,
            forced: None,
        }
    }

    #[test]
    fn requests_and_answers_survive_the_wire() {
        for groups in [
            Selection::All,
            Selection::Metadata,
            Selection::Topic { name: "t".to_owned(), partition: Some(3) },
            Selection::Topic { name: "t".to_owned(), partition: None },
        ] {
            let request = RecoverRequest { groups, force: true };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<RecoverRequest>(&text).unwrap(), request, "{text}");
        }
        let forced = Some(Forced::Refused("it is led".to_owned()));
        let answer = RecoverAnswer { groups: vec![report(), GroupReport { forced, ..report() }] };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<RecoverAnswer>(&text).unwrap(), answer, "{text}");
    }

    #[test]
    fn a_report_says_what_an_operator_decides_by() {
        let text = report().to_string();
        assert_eq!(
            text,
            "events-3 (group 17): waits for a leader; of 3 voters 2 have answered, 0 of them sound; this node's replica is \
             recovering, its log ends at term 7, index 1200"
        );
        let led = GroupReport {
            led_by: Some(2),
            replica: ReplicaState::Sound,
            forced: Some(Forced::Begun),
            ..report()
        };
        assert!(!led.waits() && led.to_string().contains("led by node 2; this node's replica is sound"));
        let closed = GroupReport { replica: ReplicaState::AwaitsRepair, ..report() };
        let text = closed.to_string();
        assert!(closed.waits() && !text.contains("index") && text.contains("out of service"), "{text}");
    }
}
