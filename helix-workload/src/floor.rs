//! The floor: the least work that any broker built on TCP and the page cache does per byte, and nothing else.
//!
//! ```text
//! client --TCP--> leader --TCP--> 2 followers; each of the three writes a file through the page cache;
//! the leader acknowledges a chunk once it has written it and one follower has acknowledged it
//! ```
//!
//! It runs on the same disk, in the same minutes as the measurement that is compared with it: machines differ, and
//! drift by a factor of two.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::process;
use crate::progress::Progress;

const CHUNK_BYTES: usize = 256 * 1024;
/// Files are written in a circle of this size, so that the floor needs little disk however long it runs.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
const REPLICAS: usize = 3;
const BESIDE_BYTES: u64 = 2_000_000_000;

/// What a replica does with a chunk before it acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storing {
    /// Writes it to the page cache.
    PageCache,
    /// Waits until it is on disk. One fdatasync, and then the next, is for all that has arrived by then: group commit.
    Synced,
}

impl Storing {
    /// So much is in flight that the disk, or the processors, never wait for the client.
    fn window_chunks(self) -> u64 {
        match self {
            Self::PageCache => 16,
            Self::Synced => 64,
        }
    }
}

/// What the floor costs here and now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Floor {
    /// Payload per second, each byte counted once.
    pub mb_per_s: f64,
    /// CPU seconds per GB of payload, client included.
    pub cpu_s_per_gb: f64,
}

/// The floor could not be measured.
#[derive(Debug, thiserror::Error)]
#[error("measuring the floor in {directory:?}: {source}")]
pub struct FloorError {
    /// Where its files were to be.
    pub directory: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Moves `bytes` to three files in `directory`. The files have no name once they are open, so nothing stays behind.
pub fn measure(directory: &Path, bytes: u64, storing: Storing) -> Result<Floor, FloorError> {
    let chunks = (bytes / CHUNK_BYTES as u64).max(1);
    let cpu_before = own_cpu();
    let took = run(directory, chunks, storing)
        .map_err(|source| FloorError { directory: directory.to_owned(), source })?;
    let gb = (chunks * CHUNK_BYTES as u64) as f64 / 1e9;
    let cpu = own_cpu().saturating_sub(cpu_before);
    Ok(Floor { mb_per_s: gb * 1e3 / took.as_secs_f64(), cpu_s_per_gb: cpu.as_secs_f64() / gb })
}

/// Beside a load: moves so much that it takes seconds. `None` without a directory.
pub fn beside(
    directory: Option<&Path>,
    when: &str,
    progress: &Progress,
) -> Result<Option<Floor>, FloorError> {
    let Some(directory) = directory else { return Ok(None) };
    progress.note(&format!("measuring the floor {when} the load"));
    measure(directory, BESIDE_BYTES, Storing::PageCache).map(Some)
}

fn own_cpu() -> Duration {
    process::usage(std::process::id()).map_or(Duration::ZERO, |usage| usage.cpu)
}

fn run(directory: &Path, chunks: u64, storing: Storing) -> io::Result<Duration> {
    let mut stores = Vec::new();
    for replica in 0..REPLICAS {
        stores.push(Store::create(directory, replica)?);
    }
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (leader, follower_1, follower_2) = (listen()?, listen()?, listen()?);
    let to_leader = leader.local_addr()?;
    let to_followers = [follower_1.local_addr()?, follower_2.local_addr()?];
    std::thread::scope(|scope| {
        let mut roles = Vec::new();
        for (listener, store) in [follower_1, follower_2].into_iter().zip(stores.split_off(1)) {
            roles.push(scope.spawn(move || follow(&listener, store, storing)));
        }
        let store = stores.remove(0);
        let followers = [connect(to_followers[0])?, connect(to_followers[1])?];
        roles.push(scope.spawn(move || lead(&leader, &followers, store, storing)));
        let took = produce(&connect(to_leader)?, chunks, storing.window_chunks());
        for role in roles {
            match role.join() {
                Ok(outcome) => outcome?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        took
    })
}

fn connect(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One replica's file.
struct Store {
    file: File,
    at: u64,
}

impl Store {
    fn create(directory: &Path, replica: usize) -> io::Result<Self> {
        let path = directory.join(format!("floor-{}-{replica}", std::process::id()));
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, at: 0 })
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.at)?;
        self.at = (self.at + chunk.len() as u64) % FILE_BYTES;
        Ok(())
    }
}

/// Reads one chunk; false at the end of the stream.
fn read_chunk(stream: &mut TcpStream, chunk: &mut [u8]) -> io::Result<bool> {
    match stream.read_exact(chunk) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many chunks were written, for the thread that syncs them.
#[derive(Default)]
struct Written {
    chunks: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Written {
    fn add(&self) {
        self.chunks.lock().0 += 1;
        self.changed.notify_one();
    }

    fn end(&self) {
        self.chunks.lock().1 = true;
        self.changed.notify_one();
    }

    /// Syncs whatever was written since the last time, over and over.
    fn sync(&self, file: &File, stored: &impl Fn(u64) -> io::Result<()>) -> io::Result<()> {
        let mut synced = 0;
        loop {
            let written = {
                let mut chunks = self.chunks.lock();
                while chunks.0 == synced && !chunks.1 {
                    self.changed.wait(&mut chunks);
                }
                chunks.0
            };
            if written == synced {
                return Ok(());
            }
            file.sync_data()?;
            stored(written - synced)?;
            synced = written;
        }
    }
}

/// Stores every chunk of a stream, and says of how many more it is true.
fn store_all(
    from: &mut TcpStream,
    mut store: Store,
    storing: Storing,
    forward: impl Fn(&[u8]) -> io::Result<()>,
    stored: impl Fn(u64) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let file = store.file.try_clone()?;
    let written = Written::default();
    std::thread::scope(|scope| {
        let syncer = (storing == Storing::Synced).then(|| scope.spawn(|| written.sync(&file, &stored)));
        let mut write_all = || {
            let mut chunk = vec![0; CHUNK_BYTES];
            while read_chunk(from, &mut chunk)? {
                forward(&chunk)?;
                store.write(&chunk)?;
                match storing {
                    Storing::PageCache => stored(1)?,
                    Storing::Synced => written.add(),
                }
            }
            Ok(())
        };
        let outcome = write_all();
        written.end();
        match syncer.map(std::thread::ScopedJoinHandle::join) {
            None => outcome,
            Some(Ok(synced)) => outcome.and(synced),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    })
}

fn follow(listener: &TcpListener, store: Store, storing: Storing) -> io::Result<()> {
    let (mut leader, _) = listener.accept()?;
    leader.set_nodelay(true)?;
    let answers = leader.try_clone()?;
    store_all(
        &mut leader,
        store,
        storing,
        |_| Ok(()),
        |chunks| (&answers).write_all(&vec![1; chunks as usize]),
    )
}

/// How far the leader's own file and each follower are, in chunks.
#[derive(Default)]
struct Acknowledged {
    stored: AtomicU64,
    followers: [AtomicU64; REPLICAS - 1],
    client: Mutex<u64>,
}

impl Acknowledged {
    /// Acknowledges to the client what is newly stored here and on one follower.
    fn advance(&self, client: &TcpStream) -> io::Result<()> {
        let follower = self.followers.iter().map(|one| one.load(Ordering::SeqCst)).max().unwrap_or(0);
        let majority = follower.min(self.stored.load(Ordering::SeqCst));
        let mut answered = self.client.lock();
        if majority > *answered {
            let answers = vec![1; (majority - *answered) as usize];
            *answered = majority;
            (&mut &*client).write_all(&answers)?;
        }
        Ok(())
    }
}

fn lead(
    listener: &TcpListener,
    followers: &[TcpStream; 2],
    store: Store,
    storing: Storing,
) -> io::Result<()> {
    let (client, _) = listener.accept()?;
    client.set_nodelay(true)?;
    let acknowledged = Acknowledged::default();
    std::thread::scope(|scope| {
        for (follower, count) in followers.iter().zip(&acknowledged.followers) {
            let (acknowledged, client) = (&acknowledged, &client);
            scope.spawn(move || -> io::Result<()> {
                let mut answers = [0; 4096];
                loop {
                    match (&mut &*follower).read(&mut answers)? {
                        0 => return Ok(()),
                        read => count.fetch_add(read as u64, Ordering::SeqCst),
                    };
                    acknowledged.advance(client)?;
                }
            });
        }
        let mut from_client = client.try_clone()?;
        let forward = |chunk: &[u8]| followers.iter().try_for_each(|mut follower| follower.write_all(chunk));
        let stored = |chunks| {
            acknowledged.stored.fetch_add(chunks, Ordering::SeqCst);
            acknowledged.advance(&client)
        };
        store_all(&mut from_client, store, storing, forward, stored)?;
        for follower in followers {
            follower.shutdown(std::net::Shutdown::Write)?;
        }
        Ok(())
    })
    .and_then(|()| (&client).flush())
}

/// The client: keeps a window of chunks in flight, one thread writing, one reading acknowledgements.
fn produce(stream: &TcpStream, chunks: u64, window_chunks: u64) -> io::Result<Duration> {
    let window = (Mutex::new(0_u64), Condvar::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> io::Result<()> {
            let mut answers = [0; 4096];
            let mut received = 0;
            while received < chunks {
                let read = (&mut &*stream).read(&mut answers)? as u64;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                received += read;
                *window.0.lock() = received;
                window.1.notify_one();
            }
            Ok(())
        });
        let chunk = vec![b'x'; CHUNK_BYTES];
        for sent in 0..chunks {
            let mut received = window.0.lock();
            while sent - *received >= window_chunks && !reader.is_finished() {
                window.1.wait_for(&mut received, Duration::from_millis(100));
            }
            drop(received);
            (&mut &*stream).write_all(&chunk)?;
        }
        let outcome = match reader.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let took = begun.elapsed();
        stream.shutdown(std::net::Shutdown::Write)?;
        outcome.map(|()| took)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_the_bytes_and_leaves_nothing_behind() {
        for storing in [Storing::PageCache, Storing::Synced] {
            let directory = tempfile::tempdir().unwrap();
            let floor = measure(directory.path(), 8 * CHUNK_BYTES as u64, storing).unwrap();
            assert!(floor.mb_per_s > 0.0);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = measure(Path::new("/nonexistent"), 1, Storing::PageCache).unwrap_err().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
