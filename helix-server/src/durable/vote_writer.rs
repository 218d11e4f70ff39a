//! The writer of the term and vote file: one thread owns it, or a simulation steps it.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use helix_raft::HardState;
use parking_lot::Mutex;

use super::votes::{VoteChange, VoteError, VoteStore};
use crate::ids::GroupId;

type Done = Box<dyn FnOnce(Result<(), VoteError>) + Send>;

struct Request {
    change: VoteChange,
    done: Done,
}

/// Stores votes beside everything else: whatever is queued while one batch is being synced forms the next one.
///
/// The queue is bounded by its users: a group asks for its next change after the last one is done.
pub struct VoteWriter {
    /// `None` once closed.
    requests: Mutex<Option<Sender<Request>>>,
    engine: Engine,
}

/// Who does the work.
enum Engine {
    Thread(Mutex<Option<JoinHandle<()>>>),
    /// The caller, step by step, when `on_work` has told it to.
    Stepped {
        batches: Mutex<Batches>,
        on_work: Box<dyn Fn() + Send + Sync>,
    },
}

impl VoteWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub fn start(store: VoteStore) -> io::Result<Self> {
        let (sender, requests) = channel();
        let batches = Batches { store, requests };
        let thread =
            std::thread::Builder::new().name("helix-votes".to_owned()).spawn(move || batches.run())?;
        Ok(Self { requests: Mutex::new(Some(sender)), engine: Engine::Thread(Mutex::new(Some(thread))) })
    }

    /// A writer without a thread: `on_work` tells when [`VoteWriter::step`] has something to do.
    pub fn stepped(store: VoteStore, on_work: impl Fn() + Send + Sync + 'static) -> Self {
        let (sender, requests) = channel();
        let batches = Mutex::new(Batches { store, requests });
        let engine = Engine::Stepped { batches, on_work: Box::new(on_work) };
        Self { requests: Mutex::new(Some(sender)), engine }
    }

    /// Stores what is queued, as one batch. Whether there was anything; never for a writer with a thread.
    pub fn step(&self) -> bool {
        match &self.engine {
            Engine::Thread(_) => false,
            Engine::Stepped { batches, .. } => batches.lock().step(),
        }
    }

    /// Stores term and vote of a group. `done` is called by the writer, once it is durable or has failed;
    /// it must be quick. An error means that the node must stop.
    pub fn persist(
        &self,
        group: GroupId,
        state: HardState,
        done: impl FnOnce(Result<(), VoteError>) + Send + 'static,
    ) {
        self.submit(VoteChange::Persist(group, state), Box::new(done));
    }

    /// Forgets a group that is gone from this node; its place is used again once that is durable.
    pub fn remove(&self, group: GroupId, done: impl FnOnce(Result<(), VoteError>) + Send + 'static) {
        self.submit(VoteChange::Remove(group), Box::new(done));
    }

    fn submit(&self, change: VoteChange, done: Done) {
        let refused = match &*self.requests.lock() {
            Some(sender) => sender.send(Request { change, done }).err().map(|error| error.0.done),
            None => Some(done),
        };
        match (refused, &self.engine) {
            (Some(done), _) => {
                done(Err(VoteError::new(io::Error::other("the file of terms and votes is closed"))));
            }
            (None, Engine::Stepped { on_work, .. }) => on_work(),
            (None, Engine::Thread(_)) => {}
        }
    }

    /// Stores what is queued and ends the thread. Blocks.
    pub fn close(&self) {
        *self.requests.lock() = None;
        match &self.engine {
            Engine::Stepped { .. } => while self.step() {},
            Engine::Thread(thread) => {
                let thread = thread.lock().take();
                if let Some(thread) = thread
                    && thread.join().is_err()
                {
                    tracing::error!("the thread that stores terms and votes has panicked");
                }
            }
        }
    }
}

impl Drop for VoteWriter {
    /// A thread ends with its writer; a writer that is stepped may go like that of a process that is killed.
    fn drop(&mut self) {
        if matches!(self.engine, Engine::Thread(_)) {
            self.close();
        }
    }
}

/// The file and what is to be done to it.
struct Batches {
    store: VoteStore,
    requests: Receiver<Request>,
}

impl Batches {
    fn run(mut self) {
        while let Ok(first) = self.requests.recv() {
            self.store(first);
        }
    }

    fn step(&mut self) -> bool {
        let first = self.requests.try_recv();
        first.map(|first| self.store(first)).is_ok()
    }

    /// One batch: `first` and everything else that is queued.
    fn store(&mut self, first: Request) {
        let batch: Vec<Request> = std::iter::once(first).chain(self.requests.try_iter()).collect();
        let changes: Vec<VoteChange> = batch.iter().map(|request| request.change).collect();
        let result = self.store.persist(&changes);
        for request in batch {
            (request.done)(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_wal::disk::{Crash, FaultyDisk};

    use super::*;
    use crate::durable::votes::VoteFound;
    use crate::ids::Term;

    fn state(term: u64) -> HardState {
        HardState { term: Term(term), vote: None }
    }

    #[test]
    fn requests_are_answered_when_they_are_durable() {
        let disk = FaultyDisk::new(7);
        let writer = VoteWriter::start(VoteStore::open(&disk).unwrap().0).unwrap();
        let (sender, answers) = channel();
        for group in 0..500 {
            let sender = sender.clone();
            writer.persist(GroupId(group), state(group + 1), move |result| {
                sender.send((group, result.is_ok())).unwrap();
            });
        }
        drop(sender);
        let mut stored: Vec<u64> = answers.iter().take(100).map(|(group, _)| group).collect();
        disk.crash(Crash::Machine);
        stored.extend(answers.iter().filter(|(_, stored)| *stored).map(|(group, _)| group));
        let loaded = VoteStore::open(&disk).unwrap().1;
        assert!(stored.len() >= 100);
        for group in stored {
            assert_eq!(loaded.of(GroupId(group)), VoteFound::Promised(state(group + 1)));
        }
    }

    #[test]
    fn closing_stores_what_is_queued() {
        let disk = FaultyDisk::new(7);
        let writer = VoteWriter::start(VoteStore::open(&disk).unwrap().0).unwrap();
        for group in 0..500 {
            writer.persist(GroupId(group), state(group + 1), |result| result.unwrap());
        }
        writer.remove(GroupId(3), |result| result.unwrap());
        writer.close();
        disk.crash(Crash::Machine);
        assert_eq!(VoteStore::open(&disk).unwrap().1.states().len(), 499);
    }

    #[test]
    fn a_stepped_writer_stores_a_batch_per_step() {
        let disk = FaultyDisk::new(7);
        let (sender, answers) = channel();
        let work = sender.clone();
        let store = VoteStore::open(&disk).unwrap().0;
        let writer = VoteWriter::stepped(store, move || work.send("work").unwrap());
        for group in 0..2 {
            let sender = sender.clone();
            writer.persist(GroupId(group), state(1), move |result| {
                result.unwrap();
                sender.send("done").unwrap();
            });
        }
        assert!(writer.step());
        assert!(!writer.step());
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), ["work", "work", "done", "done"]);
    }

    #[test]
    fn failures_and_a_closed_writer_are_reported() {
        let disk = FaultyDisk::new(1);
        let writer = VoteWriter::start(VoteStore::open(&disk).unwrap().0).unwrap();
        disk.fail_syncs(true);
        let (sender, answers) = channel();
        let failed = sender.clone();
        writer.persist(GroupId(1), state(1), move |result| failed.send(result.is_err()).unwrap());
        assert!(answers.recv().unwrap());
        writer.close();
        writer.persist(GroupId(1), state(1), move |result| sender.send(result.is_err()).unwrap());
        assert!(answers.recv().unwrap());
    }
}
