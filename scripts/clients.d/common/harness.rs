//! The checks that every client goes through, for those written in Rust; README.md beside it says what each asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const WINDOW: usize = 100;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PER_CODEC: usize = 200;
const SHARED_PARTITIONS: i32 = 3;
const GROUP_PARTITIONS: i32 = 6;
const WAVE: usize = 300;
const RESUME_RECORDS: usize = 300;
const RESUME_FIRST: usize = 120;
const TIMED_RECORDS: usize = 100;
const TIMED_STEP_MS: i64 = 1000;
const KILL_AFTER: usize = 1000;

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The client has no way to do this; why.
#[derive(Debug)]
pub struct Cannot(pub &'static str);

impl Display for Cannot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Error for Cannot {}

/// What is written (offset -1, timestamp `None` for now) and what is read.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: String,
    pub headers: Vec<(String, String)>,
    pub timestamp_ms: Option<i64>,
}

/// What a client's program provides.
pub trait Client: Send + Sync {
    fn idempotent(&self) -> bool;
    fn create_topic(&self, topic: &str, partitions: i32) -> Result;
    /// 0 if there is no such topic.
    fn partition_count(&self, topic: &str) -> Result<usize>;
    fn leader(&self, topic: &str, partition: i32) -> Result<i32>;
    fn add_partitions(&self, topic: &str, total: usize) -> Result;
    fn delete_topic(&self, topic: &str) -> Result;
    fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result;
    fn topic_config(&self, topic: &str, name: &str) -> Result<String>;
    fn set_topic_config(&self, topic: &str, name: &str, value: &str) -> Result;
    fn groups(&self) -> Result<Vec<String>>;
    /// Its state, and how many members it has.
    fn describe_group(&self, group: &str) -> Result<(String, usize)>;
    fn delete_group(&self, group: &str) -> Result;
    /// All are acknowledged when it returns.
    fn produce(&self, topic: &str, messages: &[Message], codec: &str) -> Result;
    fn produce_idempotent(&self, topic: &str, messages: &[Message]) -> Result;
    /// Writes numbers 0, 1, ... into partition 0, and tells which are acknowledged.
    fn produce_while(&self, topic: &str, going: &dyn Fn() -> bool, acknowledged: &dyn Fn(usize)) -> Result;
    /// All of a topic, without a group.
    fn read(&self, topic: &str) -> Result<Vec<Message>>;
    /// The first record of partition 0 at or after the time, found by seeking.
    fn read_from_time(&self, topic: &str, timestamp_ms: i64) -> Result<Message>;
    /// A member that is polled by a thread of its own.
    fn member(&self, topic: &str, group: &str) -> Result<Box<dyn Source>>;
    /// At least `count` as a group's only member; commits exactly what it returns.
    fn take(&self, topic: &str, group: &str, count: usize) -> Result<Vec<Message>>;
}

/// A consumer as a member's thread sees it; it leaves its group when it is dropped.
pub trait Source: Send {
    fn poll(&mut self) -> Result<Vec<Message>>;
    fn owned(&self) -> Result<BTreeSet<i32>>;
}

pub fn expect(condition: bool, otherwise: impl Into<String>) -> Result {
    if condition { Ok(()) } else { Err(otherwise.into().into()) }
}

fn expect_equal<T: PartialEq + Debug>(actual: T, expected: T, what: &str) -> Result {
    expect(actual == expected, format!("{what}: {actual:?} instead of {expected:?}"))
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result {
    let until = Instant::now() + DEADLINE;
    while !condition()? {
        expect(Instant::now() < until, format!("waited {DEADLINE:?} for {what}"))?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn numbered(count: usize, partitions: i32, first: usize) -> Vec<Message> {
    let message = |number: usize| Message {
        partition: number as i32 % partitions,
        key: format!("key-{number}"),
        value: number.to_string(),
        ..Message::default()
    };
    (first..first + count).map(message).collect()
}

fn numbers(messages: &[Message]) -> Result<Vec<usize>> {
    Ok(messages.iter().map(|message| message.value.parse()).collect::<std::result::Result<_, _>>()?)
}

fn shared(codec: &str, number: usize) -> Message {
    let header = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Message {
        partition: number as i32 % SHARED_PARTITIONS,
        key: format!("key-{number}"),
        value: format!("{codec} {number} {}", "helix ".repeat(20)),
        headers: vec![header("codec", codec), header("empty", ""), header("number", &number.to_string())],
        ..Message::default()
    }
}

/// All that was written with the codecs is there once, unchanged, in its partition's order.
fn verify_shared(messages: &[Message], codecs: &[&str]) -> Result {
    let written = codecs.iter().flat_map(|codec| (0..PER_CODEC).map(|number| shared(codec, number)));
    let mut written: HashMap<_, _> = written.map(|one| (one.value.clone(), one)).collect();
    let mut last = BTreeMap::new();
    for message in messages {
        let expected = written.remove(&message.value).filter(|one| one.partition == message.partition);
        let expected = expected.ok_or_else(|| format!("{message:?} is there twice or was not written"))?;
        expect_equal(&message.key, &expected.key, "key")?;
        expect_equal(&message.headers, &expected.headers, "headers")?;
        let mut words = message.value.split(' ');
        let lane = (message.partition, words.next());
        let number: usize = words.next().unwrap_or_default().parse()?;
        let before = last.insert(lane, number);
        expect(before.is_none_or(|before| before < number), format!("{message:?} is out of order"))?;
    }
    expect(
        written.is_empty(),
        format!("{} of {} records are missing", written.len(), codecs.len() * PER_CODEC),
    )
}

/// What members have seen so far, also those that left.
type Seen = Arc<Mutex<Vec<Message>>>;

struct Member {
    seen: Seen,
    owned: Arc<Mutex<BTreeSet<i32>>>,
    going: Arc<AtomicBool>,
    thread: JoinHandle<Result>,
}

impl Member {
    fn start(mut source: Box<dyn Source>) -> Self {
        let (seen, owned) = (Seen::default(), Arc::<Mutex<BTreeSet<i32>>>::default());
        let going = Arc::new(AtomicBool::new(true));
        let (add_to, own, go) = (Arc::clone(&seen), Arc::clone(&owned), Arc::clone(&going));
        let thread = thread::spawn(move || {
            while go.load(Ordering::Relaxed) {
                let polled = source.poll()?;
                add_to.lock().map_err(|_| "poisoned")?.extend(polled);
                *own.lock().map_err(|_| "poisoned")? = source.owned()?;
            }
            Ok(())
        });
        Self { seen, owned, going, thread }
    }

    fn owned(&self) -> Result<BTreeSet<i32>> {
        expect(!self.thread.is_finished(), "a member ended")?;
        Ok(self.owned.lock().map_err(|_| "poisoned")?.clone())
    }

    fn leave(self) -> Result {
        self.going.store(false, Ordering::Relaxed);
        wait_until("a member to leave its group", || Ok(self.thread.is_finished()))?;
        self.thread.join().map_err(|_| "a member panicked")?
    }
}

struct Checks<'a> {
    client: &'a dyn Client,
    prefix: String,
    failed: bool,
}

impl Checks<'_> {
    fn check(&mut self, name: &str, body: impl FnOnce(&Self) -> Result) {
        match body(self) {
            Ok(()) => println!("ok {name}"),
            Err(error) if error.is::<Cannot>() => println!("n/a {name}: {error}"),
            Err(error) => {
                self.failed = true;
                println!("FAIL {name}: {}", error.to_string().replace('\n', " "));
            }
        }
    }

    fn await_partitions(&self, topic: &str, count: usize) -> Result {
        wait_until(&format!("{topic} to have {count} partitions"), || {
            Ok(self.client.partition_count(topic)? == count)
        })
    }

    fn topic(&self, name: &str, partitions: i32) -> Result<String> {
        let topic = format!("{}-{name}", self.prefix);
        self.client.create_topic(&topic, partitions)?;
        self.await_partitions(&topic, partitions as usize)?;
        Ok(topic)
    }

    fn all(&mut self) {
        self.topics();
        self.codecs();
        self.check("idempotent", Self::idempotent);
        self.check("seek-time", Self::seek_time);
        self.check("group-rebalance", Self::group_rebalance);
        self.check("commit-resume", Self::commit_resume);
        self.groups();
        self.check("leader-kill", Self::leader_kill);
    }

    fn topics(&mut self) {
        let (client, topic) = (self.client, &*format!("{}-admin", self.prefix));
        self.check("create-topic", |_| client.create_topic(topic, 2));
        self.check("describe-topic", |this| this.await_partitions(topic, 2));
        self.check("add-partitions", |this| {
            client.add_partitions(topic, 4)?;
            this.await_partitions(topic, 4)
        });
        self.check("describe-config", |_| {
            expect_equal(&*client.topic_config(topic, "cleanup.policy")?, "delete", "cleanup.policy")
        });
        self.check("alter-config", |_| {
            client.set_topic_config(topic, "retention.ms", "3600000")?;
            wait_until("retention.ms to be 3600000", || {
                Ok(client.topic_config(topic, "retention.ms")? == "3600000")
            })
        });
        self.check("delete-records", |_| {
            client.produce(topic, &numbered(20, 1, 0), "none")?;
            client.delete_records(topic, 0, 12)?;
            expect_equal(numbers(&client.read(topic)?)?, (12..20).collect(), "what is left")
        });
        self.check("delete-topic", |this| {
            client.delete_topic(topic)?;
            this.await_partitions(topic, 0)
        });
    }

    fn codecs(&mut self) {
        let (client, topic) = (self.client, self.topic("shared", SHARED_PARTITIONS));
        let topic = topic.as_deref().map_err(ToString::to_string);
        let mut done = Vec::new();
        for codec in CODECS {
            self.check(&format!("produce-{codec}"), |_| {
                let messages: Vec<_> = (0..PER_CODEC).map(|number| shared(codec, number)).collect();
                client.produce(topic.clone()?, &messages, codec)?;
                done.push(codec);
                Ok(())
            });
        }
        self.check("headers", |_| verify_shared(&client.read(topic.clone()?)?, &done));
    }

    fn idempotent(&self) -> Result {
        if !self.client.idempotent() {
            return Err(Cannot("the client has no idempotent producer").into());
        }
        let topic = self.topic("idempotent", 1)?;
        self.client.produce_idempotent(&topic, &numbered(1000, 1, 0))?;
        expect_equal(numbers(&self.client.read(&topic)?)?, (0..1000).collect(), "numbers")
    }

    fn seek_time(&self) -> Result {
        let topic = self.topic("timed", 1)?;
        let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64
            - TIMED_RECORDS as i64 * TIMED_STEP_MS;
        let mut messages = numbered(TIMED_RECORDS, 1, 0);
        for (message, number) in messages.iter_mut().zip(0..) {
            message.timestamp_ms = Some(start + number * TIMED_STEP_MS);
        }
        self.client.produce(&topic, &messages, "none")?;
        let found = self.client.read_from_time(&topic, start + 50 * TIMED_STEP_MS + 1)?;
        expect_equal((found.offset, &*found.value), (51, "51"), "the first record after the time")?;
        expect_equal(found.timestamp_ms, Some(start + 51 * TIMED_STEP_MS), "its timestamp")
    }

    fn group_rebalance(&self) -> Result {
        let (topic, group) = (self.topic("group", GROUP_PARTITIONS)?, format!("{}-group", self.prefix));
        let mut members = Vec::new();
        let mut everyone = Vec::new();
        for _ in 0..2 {
            self.join(&topic, &group, &mut members, &mut everyone)?;
        }
        settle(&members)?;
        self.wave(&topic, &everyone, 0)?;
        self.join(&topic, &group, &mut members, &mut everyone)?;
        settle(&members)?;
        self.wave(&topic, &everyone, WAVE)?;
        members.remove(0).leave()?;
        settle(&members)?;
        self.wave(&topic, &everyone, 2 * WAVE)?;
        for member in members {
            let seen = numbers(&member.seen.lock().map_err(|_| "poisoned")?)?;
            expect(seen.iter().any(|number| *number >= 2 * WAVE), "a member got nothing")?;
            member.leave()?;
        }
        Ok(())
    }

    fn join(&self, topic: &str, group: &str, members: &mut Vec<Member>, everyone: &mut Vec<Seen>) -> Result {
        let member = Member::start(self.client.member(topic, group)?);
        everyone.push(Arc::clone(&member.seen));
        members.push(member);
        Ok(())
    }

    fn wave(&self, topic: &str, everyone: &[Seen], first: usize) -> Result {
        self.client.produce(topic, &numbered(WAVE, GROUP_PARTITIONS, first), "none")?;
        wait_until(&format!("{} records", first + WAVE), || {
            let mut found = BTreeSet::new();
            for seen in everyone {
                found.extend(numbers(&seen.lock().map_err(|_| "poisoned")?)?);
            }
            Ok(found.len() == first + WAVE)
        })
    }

    fn commit_resume(&self) -> Result {
        let (topic, group) = (self.topic("resume", SHARED_PARTITIONS)?, format!("{}-resume", self.prefix));
        self.client.produce(&topic, &numbered(RESUME_RECORDS, SHARED_PARTITIONS, 0), "none")?;
        let mut all = self.client.take(&topic, &group, RESUME_FIRST)?;
        expect(all.len() < RESUME_RECORDS, "the first member took everything")?;
        all.extend(self.client.take(&topic, &group, RESUME_RECORDS - all.len())?);
        let mut all = numbers(&all)?;
        all.sort_unstable();
        expect_equal(all, (0..RESUME_RECORDS).collect(), "numbers")
    }

    fn groups(&mut self) {
        let (client, group) = (self.client, &*format!("{}-resume", self.prefix));
        let described =
            |state: &str, members| Ok(client.describe_group(group)? == (state.to_owned(), members));
        let listed =
            || Ok::<_, Box<dyn Error + Send + Sync>>(client.groups()?.iter().any(|one| one == group));
        self.check("list-groups", |_| expect(listed()?, format!("{group} is not listed")));
        self.check("describe-group", |_| {
            wait_until("the group to be empty", || described("Empty", 0))?;
            let member = Member::start(client.member(group, group)?);
            wait_until("one member in a stable group", || described("Stable", 1))?;
            member.leave()
        });
        self.check("delete-group", |_| {
            client.delete_group(group)?;
            expect(!listed()?, format!("{group} is still listed"))
        });
    }

    fn leader_kill(&self) -> Result {
        if std::env::var("HELIX_CLIENTS_CONTROL").unwrap_or_default().is_empty() {
            return Err(Cannot("no cluster whose nodes may be killed").into());
        }
        let topic = self.topic("kill", 1)?;
        let (going, acknowledged) = (AtomicBool::new(true), Mutex::new(BTreeSet::new()));
        let count = || acknowledged.lock().map_or(0, |all| all.len());
        thread::scope(|scope| {
            let add = |number| drop(acknowledged.lock().map(|mut all| all.insert(number)));
            let go = || going.load(Ordering::Relaxed);
            let producer = scope.spawn(move || self.client.produce_while(&topic, &go, &add).map(|()| topic));
            let more = || {
                let enough = count() + KILL_AFTER;
                wait_until(&format!("{enough} acknowledged records"), || {
                    Ok(producer.is_finished() || count() >= enough)
                })
            };
            let killed = more().and_then(|()| self.kill_leader(more));
            going.store(false, Ordering::Relaxed);
            let topic = producer.join().map_err(|_| "the producer panicked")??;
            killed?;
            let acknowledged = acknowledged.lock().map_err(|_| "poisoned")?;
            self.verify_kept(&topic, &acknowledged)
        })
    }

    fn kill_leader(&self, meanwhile: impl FnOnce() -> Result) -> Result {
        let leader = self.client.leader(&format!("{}-kill", self.prefix), 0)?.to_string();
        control(&["kill", &leader])?;
        let done = meanwhile();
        control(&["run", &leader])?;
        done
    }

    fn verify_kept(&self, topic: &str, acknowledged: &BTreeSet<usize>) -> Result {
        let read = numbers(&self.client.read(topic)?)?;
        let once: BTreeSet<_> = read.iter().copied().collect();
        let lost = acknowledged.difference(&once).count();
        expect(lost == 0, format!("{lost} of {} acknowledged records are lost", acknowledged.len()))?;
        let in_order = read.iter().eq(once.iter());
        expect(
            in_order || !self.client.idempotent(),
            "an idempotent producer's records are there twice or out of order",
        )
    }
}

fn settle(members: &[Member]) -> Result {
    wait_until(&format!("{} members to share {GROUP_PARTITIONS} partitions", members.len()), || {
        let owned = members.iter().map(Member::owned).collect::<Result<Vec<_>>>()?;
        let mut union: Vec<_> = owned.iter().flatten().copied().collect();
        union.sort_unstable();
        Ok(owned.iter().all(|its| !its.is_empty()) && union.into_iter().eq(0..GROUP_PARTITIONS))
    })
}

/// Asks who started the cluster to do something with it, and gives what that prints.
pub fn control(arguments: &[&str]) -> Result<String> {
    let output = Command::new(std::env::var("HELIX_CLIENTS_CONTROL")?).args(arguments).output()?;
    expect(output.status.success(), format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A client's main function; its arguments are: check or read, bootstrap, run, then `WRITER=CODEC,...` for what others wrote.
pub fn run<C: Client>(name: &str, version: &str, make: impl FnOnce(Vec<String>) -> Result<C>) -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, bootstrap, run, written @ ..] = &*arguments else {
        return Err("usage: check|read BOOTSTRAP RUN [WRITER=CODEC,...]".into());
    };
    println!("version {version}");
    let client = make(bootstrap.split(',').map(str::to_owned).collect())?;
    let mut checks = Checks { client: &client, prefix: format!("{run}-{name}"), failed: false };
    if command == "check" {
        checks.all();
    }
    for (writer, codecs) in written.iter().filter_map(|argument| argument.split_once('=')) {
        let codecs: Vec<_> = codecs.split(',').collect();
        checks.check(&format!("read-{writer}"), |_| {
            verify_shared(&client.read(&format!("{run}-{writer}-shared"))?, &codecs)
        });
    }
    // What a failed client left running must not keep the process alive.
    std::process::exit(i32::from(checks.failed))
}
