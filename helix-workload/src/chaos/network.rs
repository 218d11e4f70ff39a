//! The network between the nodes, and its weather: one TCP proxy for every ordered pair of nodes.
//!
//! A node dials another one at the proxy of that pair, which carries bytes both ways. Weather is a matter of a direction: what
//! travels from node 1 to node 2 obeys the weather from 1 to 2, whichever of them dialled. As on a real network,
//!
//! * nothing arrives while a direction is cut, and nobody is told: connections stay open, bytes are held back and arrive
//!   after the cut, as retransmissions would; a connection that is tried meanwhile is never answered;
//! * when a process is gone its port refuses connections. A proxy therefore listens only while its target does.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// What a direction does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Nothing arrives.
    pub cut: bool,
    /// Everything arrives later by this.
    pub delay: Duration,
    /// No more than this arrives in a second.
    pub bytes_per_second: Option<u64>,
}

impl Weather {
    /// Nothing arrives.
    pub const CUT: Self = Self { cut: true, delay: Duration::ZERO, bytes_per_second: None };
}

/// How often a proxy looks whether its target listens again.
const LOOK: Duration = Duration::from_millis(20);
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of a connection; then the sender has to wait.
const CHUNKS: usize = 64;

/// The proxies between some nodes. Dropping it ends them.
pub struct Network {
    /// By (from, to).
    weather: BTreeMap<(u32, u32), watch::Sender<Weather>>,
    addresses: BTreeMap<(u32, u32), SocketAddr>,
    /// Last, so that nothing runs any more when the rest goes.
    _runtime: Runtime,
}

impl Network {
    /// Proxies between `nodes`, each with the address where it listens for its peers; they listen on `ports`, one for each ordered
    /// pair.
    pub fn start(nodes: &[(u32, SocketAddr)], ports: &[u16]) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let pairs = || {
            let to = |from: u32| nodes.iter().filter(move |(to, _)| *to != from);
            nodes
                .iter()
                .flat_map(move |(from, _)| to(*from).map(move |(to, address)| ((*from, *to), *address)))
        };
        if pairs().count() > ports.len() {
            return Err(io::Error::other("there are fewer ports than pairs of nodes"));
        }
        let weather: BTreeMap<(u32, u32), watch::Sender<Weather>> =
            pairs().map(|(pair, _)| (pair, watch::Sender::new(Weather::default()))).collect();
        let mut addresses = BTreeMap::new();
        for (((from, to), target), port) in pairs().zip(ports) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            addresses.insert((from, to), address);
            let sky = Sky { out: weather[&(from, to)].subscribe(), back: weather[&(to, from)].subscribe() };
            runtime.spawn(keep_door(Arc::new(Door::new(address, target, sky))));
        }
        Ok(Self { weather, addresses, _runtime: runtime })
    }

    /// Where `from` has to dial `to`.
    pub fn address(&self, from: u32, to: u32) -> Option<SocketAddr> {
        self.addresses.get(&(from, to)).copied()
    }

    /// Changes the weather from one node to another.
    pub fn set(&self, from: u32, to: u32, weather: Weather) {
        if let Some(direction) = self.weather.get(&(from, to)) {
            direction.send_replace(weather);
        }
    }

    /// Changes the weather between a node and all others, both ways.
    pub fn set_around(&self, node: u32, weather: Weather) {
        for ((from, to), direction) in &self.weather {
            if *from == node || *to == node {
                direction.send_replace(weather);
            }
        }
    }

    /// Fair weather everywhere.
    pub fn heal(&self) {
        for direction in self.weather.values() {
            direction.send_replace(Weather::default());
        }
    }
}

/// The weather both ways between two nodes, seen from the one that dials.
#[derive(Debug, Clone)]
struct Sky {
    out: watch::Receiver<Weather>,
    back: watch::Receiver<Weather>,
}

impl Sky {
    /// A connection is made by packets both ways.
    fn connects(&self) -> bool {
        !self.out.borrow().cut && !self.back.borrow().cut
    }

    async fn until_it_connects(mut self) {
        while !self.connects() {
            until_open(&mut self.out).await;
            until_open(&mut self.back).await;
        }
    }
}

/// Waits out a cut.
async fn until_open(weather: &mut watch::Receiver<Weather>) {
    if weather.wait_for(|weather| !weather.cut).await.is_err() {
        // The network is being taken down, and this task with it.
        std::future::pending::<()>().await;
    }
}

/// One proxy.
struct Door {
    address: SocketAddr,
    target: SocketAddr,
    sky: Sky,
    is_open: watch::Sender<bool>,
    /// Somebody has seen that the target is gone.
    close: Notify,
}

impl Door {
    fn new(address: SocketAddr, target: SocketAddr, sky: Sky) -> Self {
        Self { address, target, sky, is_open: watch::Sender::new(false), close: Notify::new() }
    }

    fn target_listens(&self) -> bool {
        listens(self.target)
    }

    /// Whoever dials next must be refused before anybody is told that the target is gone.
    async fn until_closed(&self) {
        self.close.notify_one();
        let _ = self.is_open.subscribe().wait_for(|open| !open).await;
    }
}

/// Listens whenever the target does, and while the direction is cut: then it would look the same whether it does or not.
async fn keep_door(door: Arc<Door>) {
    loop {
        while door.sky.connects() && !door.target_listens() {
            sleep(LOOK).await;
        }
        let Ok(listener) = TcpListener::bind(door.address).await else {
            sleep(LOOK).await;
            continue;
        };
        door.is_open.send_replace(true);
        loop {
            tokio::select! {
                biased;
                () = door.close.notified() => break,
                accepted = listener.accept() => {
                    if let Ok((client, _)) = accepted {
                        tokio::spawn(serve(Arc::clone(&door), client));
                    }
                }
            }
        }
        drop(listener);
        door.is_open.send_replace(false);
    }
}

async fn serve(door: Arc<Door>, mut client: TcpStream) {
    if !door.sky.connects() {
        // It would never have been connected. Whoever dialled gives up, or notices when the cut ends.
        let mut scratch = [0; 1024];
        loop {
            tokio::select! {
                () = door.sky.clone().until_it_connects() => return,
                read = client.read(&mut scratch) => if !matches!(read, Ok(1..)) { return },
            }
        }
    }
    match TcpStream::connect(door.target).await {
        Ok(target) => carry(door, client, target).await,
        Err(_) if !door.target_listens() => door.until_closed().await,
        Err(_) => {}
    }
}

/// Carries bytes until both sides have said all they have to say, or one is gone.
async fn carry(door: Arc<Door>, client: TcpStream, target: TcpStream) {
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_target, to_target) = target.into_split();
    let out = pump(from_client, to_target, door.sky.out.clone(), None);
    let back = pump(from_target, to_client, door.sky.back.clone(), Some(Arc::clone(&door)));
    let _ = tokio::try_join!(out, back);
}

/// Carries bytes one way. If they come from the target of a door, its end may be the end of the process.
async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
    door: Option<Arc<Door>>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::try_join!(take_in(from, sender), let_out(receiver, to, weather, door))?;
    Ok(())
}

async fn take_in(mut from: OwnedReadHalf, sender: mpsc::Sender<(Instant, Vec<u8>)>) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        // A connection that was reset ends like one that was closed.
        if from.read_buf(&mut chunk).await.unwrap_or(0) == 0 {
            return Ok(());
        }
        if sender.send((Instant::now(), chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn let_out(
    mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    door: Option<Arc<Door>>,
) -> io::Result<()> {
    while let Some((sent, chunk)) = receiver.recv().await {
        until_open(&mut weather).await;
        let Weather { delay, bytes_per_second, .. } = *weather.borrow();
        sleep_until(sent + delay).await;
        to.write_all(&chunk).await?;
        if let Some(rate) = bytes_per_second {
            sleep(Duration::from_secs_f64(chunk.len() as f64 / rate.max(1) as f64)).await;
        }
    }
    until_open(&mut weather).await;
    if let Some(door) = door.filter(|door| !door.target_listens()) {
        door.until_closed().await;
    }
    to.shutdown().await
}

/// Whether somebody listens there. A port that is only shared can be bound by whoever shares it too, unless somebody listens. Nothing
/// is connected to find out, which would be a connection too many for whoever listens; nor is the system's table of sockets
/// read, which takes tens of milliseconds.
fn listens(address: SocketAddr) -> bool {
    let bind = || {
        let probe = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        probe.set_reuse_address(true)?;
        probe.bind(&address.into())
    };
    bind().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};

    use super::*;
    use crate::cluster::free_ports;
    use crate::wait;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Node 1 dials node 2.
    struct Pair {
        network: Network,
        listener: Option<StdListener>,
        target: SocketAddr,
    }

    impl Pair {
        fn new() -> Self {
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let target = listener.local_addr().unwrap();
            let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let network = Network::start(&[(1, nobody), (2, target)], &free_ports(2).unwrap()).unwrap();
            Self { network, listener: Some(listener), target }
        }

        fn dial(&self) -> io::Result<StdStream> {
            let stream = StdStream::connect(self.network.address(1, 2).unwrap())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        }

        fn connect(&self) -> (StdStream, StdStream) {
            let near =
                wait::until("the proxy to listen", PATIENCE, || self.dial().map_err(|e| e.to_string()))
                    .unwrap();
            let (far, _) = self.listener.as_ref().unwrap().accept().unwrap();
            far.set_read_timeout(Some(PATIENCE)).unwrap();
            (near, far)
        }
    }

    fn arrives(from: &mut StdStream, to: &mut StdStream, bytes: &[u8]) {
        from.write_all(bytes).unwrap();
        let mut got = vec![0; bytes.len()];
        to.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }

    fn nothing_arrives(at: &mut StdStream) {
        at.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let error = at.read(&mut [0; 1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        at.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    #[test]
    fn bytes_and_their_end_are_carried_both_ways() {
        let pair = Pair::new();
        let (mut near, mut far) = pair.connect();
        let long: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sending = std::thread::spawn(move || {
            near.write_all(&long).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            (near, long)
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        let (mut near, long) = sending.join().unwrap();
        assert!(got == long);
        arrives(&mut far, &mut near, b"the other way is still open");
        drop(far);
        assert_eq!(near.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_cut_holds_one_direction_back_and_lets_it_through_afterwards() {
        let pair = Pair::new();
        let (mut near, mut far) = pair.connect();
        arrives(&mut near, &mut far, b"a");
        pair.network.set(1, 2, Weather::CUT);
        near.write_all(b"held").unwrap();
        nothing_arrives(&mut far);
        arrives(&mut far, &mut near, b"only one direction is cut");
        pair.network.heal();
        let mut got = [0; 4];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"held");
    }

    #[test]
    fn a_connection_tried_during_a_cut_never_reaches_the_target() {
        let pair = Pair::new();
        let (mut near, mut far) = pair.connect();
        pair.network.set_around(2, Weather::CUT);
        let mut tried = pair.dial().unwrap();
        tried.write_all(b"hello").unwrap();
        nothing_arrives(&mut tried);
        pair.network.heal();
        assert_eq!(tried.read(&mut [0; 1]).unwrap_or(0), 0, "the attempt ends");
        arrives(&mut near, &mut far, b"the old connection lives on");
        pair.listener.as_ref().unwrap().set_nonblocking(true).unwrap();
        assert_eq!(pair.listener.as_ref().unwrap().accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn when_the_target_is_gone_connections_are_refused_and_when_it_is_back_they_are_not() {
        let mut pair = Pair::new();
        let (mut near, far) = pair.connect();
        drop((pair.listener.take(), far));
        assert_eq!(near.read(&mut [0; 1]).unwrap_or(0), 0);
        assert_eq!(pair.dial().unwrap_err().kind(), ErrorKind::ConnectionRefused, "at once");
        let again = wait::until("the port to be free", PATIENCE, || {
            StdListener::bind(pair.target).map_err(|error| error.to_string())
        });
        pair.listener = Some(again.unwrap());
        let (mut near, mut far) = pair.connect();
        arrives(&mut near, &mut far, b"back");
    }

    #[test]
    fn a_slow_direction_delivers_later_and_less() {
        let pair = Pair::new();
        let (mut near, mut far) = pair.connect();
        let delay = Duration::from_millis(300);
        pair.network.set(1, 2, Weather { delay, bytes_per_second: Some(100_000), ..Weather::default() });
        let begun = std::time::Instant::now();
        arrives(&mut near, &mut far, &[7; 50_000]);
        // The last chunk, of at most 16 KiB, is not waited for.
        let least = delay + Duration::from_secs_f64((50_000.0 - CHUNK_BYTES as f64) / 100_000.0);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_listener_is_told_from_an_open_connection_and_is_not_in_the_way() {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listens(address));
        let near = StdStream::connect(address).unwrap();
        let far = listener.accept().unwrap();
        drop(listener);
        assert!(!listens(address), "a connection is no listener");
        drop((near, far));
        assert!(!listens(address), "nor are the remains of one");
        StdListener::bind(address).unwrap();
    }
}
