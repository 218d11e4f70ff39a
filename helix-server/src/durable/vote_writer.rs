//! The thread that owns the term and vote file.

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

/// Stores votes on a thread of its own: whatever is queued while one batch is being synced forms the next one.
///
/// The queue is bounded by its users: a group asks for its next change after the last one is done.
pub struct VoteWriter {
    /// `None` once closed.
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl VoteWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub fn start(store: VoteStore) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("helix-votes".to_owned())
            .spawn(move || run(store, &receiver))?;
        Ok(Self { requests: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Stores term and vote of a group. `done` is called on the writer's thread, once it is durable or has failed;
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
        if let Some(done) = refused {
            done(Err(VoteError::new(io::Error::other("the file of terms and votes is closed"))));
        }
    }

    /// Stores what is queued and ends the thread. Blocks.
    pub fn close(&self) {
        *self.requests.lock() = None;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that stores terms and votes has panicked");
        }
    }
}

impl Drop for VoteWriter {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(mut store: VoteStore, requests: &Receiver<Request>) {
    while let Ok(first) = requests.recv() {
        let batch: Vec<Request> = std::iter::once(first).chain(requests.try_iter()).collect();
        let changes: Vec<VoteChange> = batch.iter().map(|request| request.change).collect();
        let result = store.persist(&changes);
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
