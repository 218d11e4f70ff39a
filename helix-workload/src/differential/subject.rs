//! One of the two brokers: its connections, and what it has told.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsRequest;

use super::case::{Case, Step, Unsent, ask};
use super::known::Known;
use super::mask::mask;
use super::value::Value;
use crate::wire;

/// Longer than any request of the script may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a condition is waited for.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer, comparable with the other broker's.
    Answer(Value),
    /// The broker closed the connection.
    Closed,
    /// Nothing came, and the connection is open.
    Silent,
    /// What both are expected to do did not happen: never equal to anything.
    Wrong(String),
}

/// One of the two brokers.
pub(super) struct Subject {
    address: String,
    connections: BTreeMap<String, TcpStream>,
    known: Known,
    sent_ms: Range<i64>,
    requests: i32,
}

impl Subject {
    /// `sent_ms` are the times that the script gives to records.
    pub(super) fn new(address: &str, sent_ms: Range<i64>) -> Self {
        Self {
            address: address.to_owned(),
            connections: BTreeMap::new(),
            known: Known::default(),
            sent_ms,
            requests: 0,
        }
    }

    /// Goes one step.
    pub(super) fn go(&mut self, case: &Case) -> Outcome {
        let begun = Instant::now();
        loop {
            let outcome = self.once(case);
            let Outcome::Answer(answer) = outcome else { return outcome };
            match unmet(case, &answer) {
                None => {
                    for (name, path) in &case.kept {
                        if let Some(value) = answer.at(path) {
                            self.known.keep(name, value.clone());
                        }
                    }
                    return Outcome::Answer(mask(answer, &self.known, &self.sent_ms));
                }
                Some(unmet) if begun.elapsed() > CONDITION_TIMEOUT => {
                    return Outcome::Wrong(format!("{unmet} after {CONDITION_TIMEOUT:?}"));
                }
                Some(_) => std::thread::sleep(BETWEEN_LOOKS),
            }
        }
    }

    fn once(&mut self, case: &Case) -> Outcome {
        if case.step != Step::Finish
            && let Err(error) = self.send(case)
        {
            return Outcome::Wrong(error.to_string());
        }
        match case.step {
            Step::Begin => Outcome::Silent,
            Step::Ask | Step::Finish => self.take(case),
            Step::Unanswered => self.look(case),
        }
    }

    fn send(&mut self, case: &Case) -> Result<(), Unsent> {
        self.requests += 1;
        let bytes = case.request(&self.known, self.requests)?;
        let connection = match self.connections.remove(&case.connection) {
            Some(open) => open,
            None => connect(&self.address)?,
        };
        let connection = self.connections.entry(case.connection.clone()).or_insert(connection);
        // Who closes on a request may do so before it has read all of it: the answer tells.
        let _ = connection.write_all(&bytes);
        Ok(())
    }

    fn take(&mut self, case: &Case) -> Outcome {
        match self.receive(case) {
            Ok(Some(bytes)) => match case.answer(bytes) {
                Ok(answer) => Outcome::Answer(answer),
                Err(reason) => Outcome::Wrong(reason),
            },
            Ok(None) => Outcome::Closed,
            Err(error) => Outcome::Wrong(format!("no answer: {error}")),
        }
    }

    /// Whether the connection answers the next request instead of this one.
    fn look(&mut self, case: &Case) -> Outcome {
        let probe = ask("probe", 0, ApiVersionsRequest::default()).on(&case.connection);
        match self.once(&probe) {
            Outcome::Answer(_) => Outcome::Silent,
            Outcome::Wrong(_) => Outcome::Wrong("an answer where none was due".into()),
            other => other,
        }
    }

    /// The next answer; `None` if the connection is closed instead.
    fn receive(&mut self, case: &Case) -> io::Result<Option<Bytes>> {
        let Some(connection) = self.connections.get_mut(&case.connection) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let received = frame(connection);
        if !matches!(received, Ok(Some(_))) {
            self.connections.remove(&case.connection);
        }
        received
    }
}

/// The first condition that an answer does not meet.
fn unmet(case: &Case, answer: &Value) -> Option<String> {
    case.until.iter().find_map(|(path, wanted)| {
        let found = answer.at(path);
        let is = match found {
            Some(Value::Text(text)) => text == wanted,
            Some(other) => other.to_string() == *wanted,
            None => false,
        };
        (!is).then(|| match found {
            Some(found) => format!("{path} is {found} instead of {wanted}"),
            None => format!("there is no {path}"),
        })
    })
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(connection)
}

fn frame(connection: &mut TcpStream) -> io::Result<Option<Bytes>> {
    let mut prefix = [0; 4];
    match connection.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if is_end(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut answer = vec![0; wire::answer_length(prefix)?];
    connection.read_exact(&mut answer)?;
    Ok(Some(answer.into()))
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::HeartbeatRequest;

    use super::*;

    #[test]
    fn conditions_are_told_when_they_are_not_met() {
        let case = ask("case", 0, HeartbeatRequest::default()).until("a.state", "Stable").until("b", "0");
        let answer = |text| Value::from_debug(text).unwrap();
        assert_eq!(unmet(&case, &answer("{a: {state: \"Stable\"}, b: 0}")), None);
        assert_eq!(
            unmet(&case, &answer("{a: {state: \"Dead\"}, b: 0}")).unwrap(),
            "a.state is \"Dead\" instead of Stable"
        );
        assert_eq!(unmet(&case, &answer("{a: {state: \"Stable\"}}")).unwrap(), "there is no b");
    }
}
