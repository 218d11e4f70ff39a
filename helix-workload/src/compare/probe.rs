//! Whether partitions can be written to, seen from outside: one small message to each, over plain connections, repeated until it is
//! acknowledged by all in-sync replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;

use super::subjects::CompareError;
use crate::wait;
use crate::wire::{self, Led};

const CONNECT: Duration = Duration::from_secs(1);
/// Longer than an election; a request that waits longer is sent again.
const ANSWER: Duration = Duration::from_secs(5);
/// So many partitions share a request: one that is late delays no more than these.
const PER_REQUEST: usize = 500;

/// Partitions, each with its error code.
type Outcomes = Vec<(i32, i16)>;

/// Writes to every partition of a topic, until all have acknowledged. `addresses` are of the nodes that are to be asked where
/// partitions are led.
pub(super) fn write_to_all(
    addresses: &[String],
    topic: &str,
    partitions: u32,
    deadline: Duration,
) -> Result<(), CompareError> {
    let records = wire::records(1, 16, 1).map_err(CompareError::io("making a record"))?;
    let mut outstanding: BTreeSet<i32> = (0..partitions as i32).collect();
    let mut turn = 0;
    wait::until(format!("{partitions} partitions of {topic} to be writable"), deadline, || {
        // The next node is asked when one does not answer.
        let address = &addresses[turn % addresses.len()];
        turn += 1;
        let led = ask_leaders(address, topic).map_err(|error| format!("{address}: {error}"))?;
        let refused = write_round(&led, topic, &records, &mut outstanding);
        if outstanding.is_empty() {
            return Ok(());
        }
        Err(format!("{} are not; {}", outstanding.len(), refused.unwrap_or_else(|| "not led".into())))
    })?;
    Ok(())
}

/// Writes to the partitions that are outstanding and led, all leaders at the same time; says what was last refused.
fn write_round(led: &[Led], topic: &str, records: &Bytes, outstanding: &mut BTreeSet<i32>) -> Option<String> {
    let mut by_leader: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for one in led.iter().filter(|one| outstanding.contains(&one.partition)) {
        if let Some(leader) = &one.leader {
            by_leader.entry(leader).or_default().push(one.partition);
        }
    }
    let answers: Vec<(String, io::Result<Outcomes>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = by_leader
            .iter()
            .map(|(leader, partitions)| {
                (leader, scope.spawn(move || write_to_leader(leader, topic, partitions, records)))
            })
            .collect();
        threads
            .into_iter()
            .map(|(leader, thread)| match thread.join() {
                Ok(answer) => ((*leader).to_owned(), answer),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    let mut refused = None;
    for (leader, answer) in answers {
        match answer {
            Ok(outcomes) => {
                for (partition, code) in outcomes {
                    if code == 0 {
                        outstanding.remove(&partition);
                    } else {
                        refused = Some(format!("{leader} answers {code} for partition {partition}"));
                    }
                }
            }
            Err(error) => refused = Some(format!("{leader}: {error}")),
        }
    }
    refused
}

fn write_to_leader(leader: &str, topic: &str, partitions: &[i32], records: &Bytes) -> io::Result<Outcomes> {
    let mut socket = connect(leader)?;
    let mut outcomes = Vec::new();
    for some in partitions.chunks(PER_REQUEST) {
        socket.write_all(&wire::produce_request(topic, some, records)?)?;
        outcomes.extend(wire::produce_outcomes(read_answer(&mut socket)?, 0)?);
    }
    Ok(outcomes)
}

fn ask_leaders(address: &str, topic: &str) -> io::Result<Vec<Led>> {
    let mut socket = connect(address)?;
    socket.write_all(&wire::metadata_request(topic)?)?;
    wire::leaders(read_answer(&mut socket)?)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let socket = TcpStream::connect_timeout(&address, CONNECT)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.set_write_timeout(Some(ANSWER))?;
    Ok(socket)
}

fn read_answer(socket: &mut TcpStream) -> io::Result<Bytes> {
    let mut prefix = [0; 4];
    socket.read_exact(&mut prefix)?;
    let mut answer = vec![0; wire::answer_length(prefix)?];
    socket.read_exact(&mut answer)?;
    Ok(answer.into())
}
