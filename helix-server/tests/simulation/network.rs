//! The network of a simulation: connections between nodes that carry bytes with delay, stall, break, and lose, repeat or
//! reorder whole frames, which no TCP does but the protocol must bear.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use helix_server::env::{PeerConnection, PeerListener, PeerStream};
use helix_server::peers::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep};

/// Bytes on their way before the writer has to wait.
const WINDOW_BYTES: usize = 256 << 10;
/// Connections to a node that were not accepted yet.
const BACKLOG: usize = 64;

/// A node, by its place in the simulation.
pub(crate) type Place = usize;

/// How the network treats what is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Longest delay of a frame.
    pub(crate) delay_ms: u64,
    /// Frames lost, of 10,000.
    pub(crate) lost: u32,
    /// Frames delivered twice, of 10,000.
    pub(crate) repeated: u32,
    /// Frames that later ones overtake, of 10,000.
    pub(crate) overtaken: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// The machine is off: nobody answers.
    Off,
    /// The machine is on; whether somebody listens is another question.
    On,
}

struct State {
    random: SmallRng,
    weather: Weather,
    hosts: BTreeMap<Place, Host>,
    listeners: BTreeMap<Place, mpsc::Sender<PeerStream>>,
    /// Ways that nothing gets through.
    cut: BTreeSet<(Place, Place)>,
    /// Ways that take longer.
    slow: BTreeMap<(Place, Place), Duration>,
    pipes: Vec<Weak<Mutex<Pipe>>>,
    delivered: u64,
    /// Connections made so far.
    connections: u64,
}

/// The network between the nodes of a simulation.
#[derive(Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// One direction of a connection.
struct Pipe {
    number: u64,
    from: Place,
    to: Place,
    /// What is on its way, in the order of arrival.
    queue: VecDeque<(Instant, Item)>,
    /// Of the frame that arrived last, what was not read yet.
    arrived: Bytes,
    last_due: Option<Instant>,
    buffered: usize,
    /// The beginning of a frame of which the rest was not written yet.
    partial: BytesMut,
    /// The other side sees a reset.
    broken: bool,
    /// It does once it has read what has arrived.
    reset: bool,
    /// The machine of one side went down: nothing more is sent, and nobody says why. What the machine had sent still arrives.
    dead: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Item {
    Frame(Bytes),
    End,
}

impl Pipe {
    fn new(number: u64, from: Place, to: Place) -> Self {
        Self {
            number,
            from,
            to,
            queue: VecDeque::new(),
            arrived: Bytes::new(),
            last_due: None,
            buffered: 0,
            partial: BytesMut::new(),
            broken: false,
            reset: false,
            dead: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn put(&mut self, due: Instant, item: Item) {
        if let Item::Frame(bytes) = &item {
            self.buffered += bytes.len();
        }
        let at = self.queue.partition_point(|(other, _)| *other <= due);
        self.queue.insert(at, (due, item));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            weather: Weather::default(),
            hosts: (0..nodes).map(|place| (place, Host::On)).collect(),
            listeners: BTreeMap::new(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            pipes: Vec::new(),
            delivered: 0,
            connections: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()) }
    }

    /// The address at which a node listens for others.
    pub(crate) fn address(place: Place) -> String {
        format!("node{place}:7000")
    }

    fn place_at(address: &str) -> Option<Place> {
        address.strip_prefix("node")?.strip_suffix(":7000")?.parse().ok()
    }

    /// Frames delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.state.lock().delivered
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Nothing gets through from one node to another any more.
    pub(crate) fn cut(&self, from: Place, to: Place) {
        self.state.lock().cut.insert((from, to));
    }

    /// Everything from one node to another takes longer.
    pub(crate) fn slow_down(&self, from: Place, to: Place, by: Duration) {
        self.state.lock().slow.insert((from, to), by);
    }

    /// All ways are open and fast again.
    pub(crate) fn heal(&self) {
        {
            let mut state = self.state.lock();
            state.cut.clear();
            state.slow.clear();
        }
        self.wake_all(|_| true);
        self.changed.notify_waiters();
    }

    /// Connections between two nodes are reset.
    pub(crate) fn reset(&self, one: Place, other: Place) {
        self.each_pipe(|pipe| {
            if (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one) {
                pipe.broken = true;
                pipe.wake();
            }
        });
    }

    /// One connection between two nodes makes no progress for a while, one way, while others do: its packets get lost.
    pub(crate) fn stall(&self, from: Place, to: Place, by: Duration) {
        let mut found = Vec::new();
        self.each_pipe(|pipe| {
            if (pipe.from, pipe.to) == (from, to) && !pipe.dead && !pipe.broken {
                found.push(pipe.number);
            }
        });
        let chosen = {
            let mut state = self.state.lock();
            let Some(last) = found.len().checked_sub(1) else { return };
            found[state.random.random_range(0..=last)]
        };
        let until = Instant::now() + by;
        self.each_pipe(|pipe| {
            if pipe.number == chosen {
                pipe.queue.iter_mut().for_each(|(due, _)| *due = until.max(*due));
                pipe.last_due = pipe.last_due.max(Some(until));
            }
        });
    }

    /// The process of a node is gone: the system closes its connections once its tasks are dropped.
    pub(crate) fn process_gone(&self, place: Place) {
        self.state.lock().listeners.remove(&place);
    }

    /// The machine of a node is gone: its connections hang. What it had sent before is on its way, or waits to be read.
    pub(crate) fn machine_gone(&self, place: Place) {
        self.process_gone(place);
        let mut random = {
            let mut state = self.state.lock();
            state.hosts.insert(place, Host::Off);
            SmallRng::seed_from_u64(state.random.random())
        };
        self.each_pipe(|pipe| {
            if pipe.from == place || pipe.to == place {
                pipe.dead = true;
            }
            if pipe.to == place {
                pipe.queue.clear();
            }
            if pipe.from == place && random.random_bool(0.5) {
                // The rest had not left the machine.
                let left = random.random_range(0..=pipe.queue.len());
                pipe.queue.truncate(left);
            }
        });
    }

    /// The machine of a node is on again: whoever still holds a connection of before learns that it is none.
    pub(crate) fn machine_back(&self, place: Place) {
        self.state.lock().hosts.insert(place, Host::On);
        self.each_pipe(|pipe| {
            if pipe.dead && (pipe.from == place || pipe.to == place) {
                pipe.reset = true;
                pipe.wake();
            }
        });
        self.changed.notify_waiters();
    }

    fn each_pipe(&self, mut each: impl FnMut(&mut Pipe)) {
        let pipes: Vec<_> = {
            let mut state = self.state.lock();
            state.pipes.retain(|pipe| pipe.strong_count() > 0);
            state.pipes.iter().filter_map(Weak::upgrade).collect()
        };
        for pipe in pipes {
            each(&mut pipe.lock());
        }
    }

    fn wake_all(&self, which: impl Fn(&Pipe) -> bool) {
        self.each_pipe(|pipe| {
            if which(pipe) {
                pipe.wake();
            }
        });
    }

    pub(crate) fn listen(&self, place: Place) -> io::Result<Box<dyn PeerListener>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut state = self.state.lock();
        if state.listeners.get(&place).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listeners.insert(place, sender);
        Ok(Box::new(SimListener { receiver }))
    }

    /// Connects as TCP does: refused where nobody listens, no answer where nothing gets through.
    pub(crate) async fn dial(&self, from: Place, address: &str) -> io::Result<PeerStream> {
        let to = Self::place_at(address).ok_or(io::ErrorKind::NotFound)?;
        loop {
            let changed = self.changed.notified();
            let delay = self.state.lock().delay(from, to);
            tokio::time::sleep(delay).await;
            let answer = self.state.lock().try_dial(self, from, to);
            match answer {
                Some(outcome) => return outcome,
                None => changed.await,
            }
        }
    }
}

impl State {
    fn delay(&mut self, from: Place, to: Place) -> Duration {
        let usual = Duration::from_millis(self.random.random_range(0..=self.weather.delay_ms));
        usual + self.slow.get(&(from, to)).copied().unwrap_or_default()
    }

    fn chance(&mut self, of_10_000: u32) -> bool {
        of_10_000 > 0 && self.random.random_range(0..10_000) < of_10_000
    }

    /// `None` if there is no answer.
    fn try_dial(&mut self, network: &Network, from: Place, to: Place) -> Option<io::Result<PeerStream>> {
        if self.cut.contains(&(from, to)) || self.cut.contains(&(to, from)) || self.hosts[&to] == Host::Off {
            return None;
        }
        let Some(listener) = self.listeners.get(&to) else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let number = 2 * self.connections;
        self.connections += 1;
        let [there, back] = [(number, from, to), (number + 1, to, from)]
            .map(|(number, from, to)| Arc::new(Mutex::new(Pipe::new(number, from, to))));
        let end = |incoming: &Arc<Mutex<Pipe>>, outgoing: &Arc<Mutex<Pipe>>, peer| {
            Box::new(SimStream {
                network: network.clone(),
                incoming: Arc::clone(incoming),
                outgoing: Arc::clone(outgoing),
                peer,
                arrival: None,
            })
        };
        let accepted = end(&there, &back, from);
        if listener.try_send(accepted).is_err() {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let dialled = end(&back, &there, to);
        self.pipes.extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
        Some(Ok(dialled))
    }

    /// Sends one frame on its way, or loses it.
    fn send(&mut self, pipe: &mut Pipe, frame: Bytes, kind: Option<FrameKind>) {
        let now = Instant::now();
        // A hello is the connection itself; only what comes after it may suffer.
        let may_suffer = matches!(kind, Some(FrameKind::Raft | FrameKind::Control));
        let weather = self.weather;
        if may_suffer && self.chance(weather.lost) {
            return;
        }
        let delay = self.delay(pipe.from, pipe.to);
        if may_suffer && self.chance(weather.repeated) {
            let again = now + delay + self.delay(pipe.from, pipe.to) * 3;
            pipe.put(again, Item::Frame(frame.clone()));
        }
        if may_suffer && self.chance(weather.overtaken) {
            let late = now + delay + self.delay(pipe.from, pipe.to) * 5;
            pipe.put(late, Item::Frame(frame));
            return;
        }
        let due = pipe.last_due.map_or(now + delay, |last| last.max(now + delay));
        pipe.last_due = Some(due);
        pipe.put(due, Item::Frame(frame));
    }
}

struct SimListener {
    receiver: mpsc::Receiver<PeerStream>,
}

impl PeerListener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<PeerStream>> {
        Box::pin(async move { self.receiver.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) })
    }
}

/// One end of a connection.
struct SimStream {
    network: Network,
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    peer: Place,
    /// Wakes the reader when the next frame arrives.
    arrival: Option<Pin<Box<Sleep>>>,
}

impl PeerConnection for SimStream {
    fn peer(&self) -> String {
        format!("node{}", self.peer)
    }

    fn move_to(self: Box<Self>, _runtime: &Handle) -> io::Result<PeerStream> {
        Ok(self)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let incoming = Arc::clone(&this.incoming);
        let mut pipe = incoming.lock();
        loop {
            if pipe.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if pipe.arrived.has_remaining() {
                let count = out.remaining().min(pipe.arrived.len());
                out.put_slice(&pipe.arrived.split_to(count));
                pipe.buffered -= count;
                if let Some(writer) = pipe.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            if this.network.state.lock().cut.contains(&(pipe.from, pipe.to)) {
                return Poll::Pending;
            }
            if pipe.reset && pipe.queue.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let Some((due, _)) = pipe.queue.front() else { return Poll::Pending };
            if *due > Instant::now() {
                let sleep = this.arrival.insert(Box::pin(tokio::time::sleep_until(*due)));
                match sleep.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => continue,
                }
            }
            match pipe.queue.pop_front() {
                Some((_, Item::Frame(bytes))) => {
                    this.network.state.lock().delivered += 1;
                    pipe.arrived = bytes;
                }
                Some((due, Item::End)) => {
                    pipe.queue.push_front((due, Item::End));
                    return Poll::Ready(Ok(()));
                }
                None => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.outgoing.lock();
        if pipe.broken || pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.buffered >= WINDOW_BYTES {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if pipe.dead {
            // The system takes it, and nobody ever acknowledges it.
            pipe.buffered += bytes.len();
            return Poll::Ready(Ok(bytes.len()));
        }
        pipe.partial.extend_from_slice(bytes);
        let mut state = self.network.state.lock();
        while let Some((frame, kind)) = whole_frame(&mut pipe.partial) {
            state.send(&mut pipe, frame, kind);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl SimStream {
    fn close(&self) {
        let mut pipe = self.outgoing.lock();
        if pipe.dead || pipe.queue.iter().any(|(_, item)| matches!(item, Item::End)) {
            return;
        }
        // Behind everything that is on its way.
        let due = pipe.queue.back().map_or_else(Instant::now, |(due, _)| *due).max(Instant::now());
        pipe.put(due, Item::End);
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.close();
        // Nobody will read what still comes: the writer is told.
        let mut pipe = self.incoming.lock();
        if !pipe.dead {
            pipe.broken = true;
            pipe.wake();
        }
    }
}

/// Takes the first frame, if all of it is there.
fn whole_frame(bytes: &mut BytesMut) -> Option<(Bytes, Option<FrameKind>)> {
    let head = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let header = FrameHeader::decode(head, u32::MAX as usize).expect("nodes send frames");
    let length = FRAME_HEADER_BYTES + header.body_length;
    (bytes.len() >= length).then(|| (bytes.split_to(length).freeze(), Some(header.kind)))
}
