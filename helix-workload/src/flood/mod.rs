//! Load without a client library: prebuilt requests over plain connections, so that next to nothing is spent on this side and
//! what is measured is the broker. Works with any broker that speaks Kafka's protocol.
//!
//! Nothing is repeated and nothing is read back: a request that fails is counted, and says that the measurement is none.

mod connection;
mod report;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use connection::{Orders, Tally};
pub use report::{FloodReport, StreamReport};
pub use stream::Stream;

use crate::client::{ClientError, ClusterClient, TopicSpec};
use crate::floor::{self, FloorError};
use crate::process::{ProcessError, Used};
use crate::progress::Progress;
use crate::report::Floors;
use crate::wire::{self, Led, Template};

/// Kafka's code for a partition that is led elsewhere, as far as the broker knows.
const NOT_LEADER: i16 = 6;
const TOPIC_DEADLINE: Duration = Duration::from_secs(60);
/// How long answers may be owed at the end.
const DRAIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// What to send, and how long.
#[derive(Debug, Clone)]
pub struct FloodOptions {
    /// Kafka addresses, the first of which is asked where the topic is led.
    pub bootstrap: String,
    /// The topic, made if it does not exist.
    pub topic: TopicSpec,
    /// All at the same time.
    pub streams: Vec<Stream>,
    /// Load before measuring begins.
    pub warmup: Duration,
    /// Measured load.
    pub duration: Duration,
    /// Processes whose CPU time and memory are the brokers'.
    pub broker_pids: Vec<u32>,
    /// Where the floor writes its files; without it there is no floor.
    pub floor_directory: Option<PathBuf>,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    /// The cluster could not be asked, or not make the topic.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A connection failed, or the broker said something that it should not.
    #[error("{doing}: {source}")]
    Connection {
        /// What was tried.
        doing: String,
        /// What happened.
        source: io::Error,
    },
    /// Answers are owed for too long.
    #[error("answers are owed for {} s after the last request", DRAIN.as_secs())]
    Undrained,
    /// The floor could not be measured.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// A broker's process could not be observed.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Runs the measurement.
pub fn run(options: &FloodOptions, progress: &Progress) -> Result<FloodReport, FloodError> {
    ClusterClient::new(&options.bootstrap)?.ensure_topic(&options.topic, TOPIC_DEADLINE)?;
    let floor = |when| floor::beside(options.floor_directory.as_deref(), when, progress);
    let floor_before = floor("before")?;
    let mut report = runtime()?.block_on(flood(options, progress))?;
    let floor_after = floor("after")?;
    report.floors = floor_before.zip(floor_after).map(|(before, after)| Floors { before, after });
    Ok(report)
}

/// Stores at least `bytes` in a topic, made if it does not exist, without measuring anything.
pub fn fill(bootstrap: &str, topic: &TopicSpec, bytes: u64, progress: Progress) -> Result<(), FloodError> {
    ClusterClient::new(bootstrap)?.ensure_topic(topic, TOPIC_DEADLINE)?;
    let stream = Stream::default();
    let requests = bytes.div_ceil(stream.request_bytes());
    runtime()?.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Mutex::new(Tally::new()));
        let leaders = leaders(bootstrap, &topic.name).await?;
        let mut connections = JoinSet::new();
        for orders in orders(&topic.name, stream, &leaders, &tally, &stopped)? {
            connections.spawn(connection::run(orders));
        }
        let bar = progress.stage("filling", Some(bytes));
        let (mut most, mut moved) = (0, Instant::now());
        loop {
            let (answered, failed) = {
                let tally = tally.lock();
                (tally.requests, tally.error_code.filter(|_| tally.failed > 0))
            };
            if answered > most {
                (most, moved) = (answered, Instant::now());
            }
            // A leader may be named by others before it knows of it itself: what it refuses then is sent again.
            let settling = |code| code == NOT_LEADER && moved.elapsed() < TOPIC_DEADLINE;
            if let Some(code) = failed.filter(|code| !settling(*code)) {
                let source = io::Error::other(format!("the broker answers with Kafka's error {code}"));
                return Err(FloodError::Connection { doing: format!("filling {}", topic.name), source });
            }
            bar.set(answered * stream.request_bytes());
            if answered >= requests {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = connections.join_next() => return Err(early(ended)),
            }
        }
        bar.finish();
        stop.send_replace(true);
        drain(&mut connections).await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, FloodError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|source| FloodError::Connection { doing: "starting the client".into(), source })
}

async fn flood(options: &FloodOptions, progress: &Progress) -> Result<FloodReport, FloodError> {
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut tallies = Vec::new();
    let leaders = leaders(&options.bootstrap, &options.topic.name).await?;
    for stream in &options.streams {
        let tally = Arc::new(Mutex::new(Tally::new()));
        for orders in orders(&options.topic.name, *stream, &leaders, &tally, &stopped)? {
            connections.spawn(connection::run(orders));
        }
        tallies.push(tally);
    }
    drop(stopped);
    let clock = progress.clock("flood", options.warmup + options.duration);
    watch_for(options.warmup, &tallies, &mut connections, &clock).await?;
    let before = Used::look(&options.broker_pids)?;
    for tally in &tallies {
        *tally.lock() = Tally::new();
    }
    let begun = Instant::now();
    watch_for(options.duration, &tallies, &mut connections, &clock).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let measured: Vec<Tally> =
        tallies.iter().map(|tally| std::mem::replace(&mut *tally.lock(), Tally::new())).collect();
    let used = Used::look(&options.broker_pids)?.since(before);
    clock.finish();
    stop.send_replace(true);
    drain(&mut connections).await?;
    // What failed after the measured time failed all the same.
    let late: Vec<u64> = tallies.iter().map(|tally| tally.lock().failed).collect();
    let streams = options.streams.iter().zip(measured).zip(late);
    let streams: Vec<StreamReport> =
        streams.map(|((stream, tally), late)| StreamReport::new(*stream, &tally, late, seconds)).collect();
    Ok(FloodReport::new(streams, seconds, used.client, used.brokers))
}

/// Asks the first broker of the list that answers.
async fn leaders(bootstrap: &str, topic: &str) -> Result<Vec<Led>, FloodError> {
    let mut last = None;
    for address in bootstrap.split(',') {
        match ask_leaders(address, topic).await {
            Ok(leaders) => return Ok(leaders),
            Err(source) => last = Some(source),
        }
    }
    let source = last.unwrap_or_else(|| io::ErrorKind::InvalidInput.into());
    Err(FloodError::Connection { doing: format!("asking {bootstrap} for leaders"), source })
}

async fn ask_leaders(address: &str, topic: &str) -> io::Result<Vec<Led>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(&wire::metadata_request(topic)?).await?;
    let mut prefix = [0; 4];
    socket.read_exact(&mut prefix).await?;
    let mut answer = BytesMut::zeroed(wire::answer_length(prefix)?);
    socket.read_exact(&mut answer).await?;
    wire::leaders(answer.freeze())
}

/// Connections take the brokers in turn, and write in turn to all partitions that theirs leads.
fn orders(
    topic: &str,
    stream: Stream,
    leaders: &[Led],
    tally: &Arc<Mutex<Tally>>,
    stopped: &watch::Receiver<bool>,
) -> Result<Vec<Orders>, FloodError> {
    let failed = |source| FloodError::Connection { doing: "making requests".into(), source };
    let records: Bytes = wire::records(stream.messages, stream.bytes, 1).map_err(failed)?;
    let mut led: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for one in leaders {
        let leader = one
            .leader
            .as_deref()
            .ok_or_else(|| failed(io::Error::other(format!("partition {} is not led", one.partition))))?;
        led.entry(leader).or_default().push(one.partition);
    }
    let brokers: Vec<(&str, Vec<i32>)> = led.into_iter().collect();
    let order = |number: u32| -> io::Result<Orders> {
        let (address, mut partitions) = brokers[number as usize % brokers.len()].clone();
        // Not all of them begin with the same one.
        let first = number as usize / brokers.len() % partitions.len();
        partitions.rotate_left(first);
        let template = |partition: &i32| Template::new(topic, *partition, &records);
        Ok(Orders {
            address: address.to_owned(),
            templates: partitions.iter().map(template).collect::<io::Result<_>>()?,
            stream,
            number,
            tally: Arc::clone(tally),
            stop: stopped.clone(),
        })
    };
    (0..stream.connections).map(order).collect::<io::Result<_>>().map_err(failed)
}

/// Lets time pass, and ends early only if a connection does.
async fn watch_for(
    time: Duration,
    tallies: &[Arc<Mutex<Tally>>],
    connections: &mut JoinSet<io::Result<()>>,
    clock: &crate::progress::Clock,
) -> Result<(), FloodError> {
    let until = tokio::time::Instant::now() + time;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
            Some(ended) = connections.join_next() => return Err(early(ended)),
        }
        let answered: u64 = tallies.iter().map(|tally| tally.lock().requests).sum();
        clock.show(&format!("{answered} requests answered"));
    }
}

fn early(ended: Result<io::Result<()>, tokio::task::JoinError>) -> FloodError {
    let source = match ended {
        Ok(Ok(())) => io::ErrorKind::UnexpectedEof.into(),
        Ok(Err(error)) => error,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    FloodError::Connection { doing: "a connection ended before its time".into(), source }
}

async fn drain(connections: &mut JoinSet<io::Result<()>>) -> Result<(), FloodError> {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                return Err(early(ended));
            }
        }
        Ok(())
    };
    tokio::time::timeout(DRAIN, all).await.map_err(|_| FloodError::Undrained)?
}
