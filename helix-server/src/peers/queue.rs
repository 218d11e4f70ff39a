//! What waits to be sent on one connection: bounded in bytes, never in the way of who sends.

use std::collections::VecDeque;

use bytes::Bytes;
use helix_raft::Message;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

use crate::entry::Command;

/// What of a message is sent on a lane. The number joins the two parts of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// What it says, without its payloads.
    Description(u64),
    /// Its payloads.
    Payloads(u64),
}

/// One thing to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A message of the Raft core, or a part of it; encoded when its turn comes.
    Raft {
        /// The message.
        message: Message<Command>,
        /// What of it is sent here.
        part: Part,
    },
    /// A frame.
    Frame {
        /// Its bytes.
        bytes: Bytes,
        /// Whether it may go to a node that does not share a cluster with this one.
        founding: bool,
    },
}

impl Outgoing {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Raft { message, part: Part::Description(_) } => {
                super::raft_message_bytes(message) - super::payload_bytes(message)
            }
            Self::Raft { message, .. } => super::raft_message_bytes(message),
            Self::Frame { bytes, .. } => bytes.len(),
        }
    }
}

/// Why something was not queued.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotSent {
    /// There is no connection at the moment.
    #[error("there is no connection to the node at the moment")]
    NotConnected,
    /// Too much is waiting already.
    #[error("too much is waiting for the node already")]
    QueueFull,
    /// Nobody knows where that is.
    #[error("the node is not in --peers")]
    UnknownNode,
    /// Longer than a frame may be.
    #[error("the message is longer than a frame may be")]
    TooLong,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    /// Whether there is a connection.
    open: bool,
}

/// The queue. Many push, the task of the connection takes.
#[derive(Debug)]
pub(super) struct SendQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    limit_bytes: usize,
}

impl SendQueue {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { waiting: Mutex::new(Waiting::default()), arrived: Notify::new(), limit_bytes }
    }

    /// Queues something, unless there is no connection or too much is waiting. Something that is longer than the
    /// whole queue is let in when nothing else waits.
    pub(super) fn push(&self, item: Outgoing) -> Result<(), NotSent> {
        let length = item.len_bytes();
        let mut waiting = self.waiting.lock();
        if !waiting.open {
            return Err(NotSent::NotConnected);
        }
        if waiting.bytes > 0 && waiting.bytes + length > self.limit_bytes {
            return Err(NotSent::QueueFull);
        }
        waiting.bytes += length;
        waiting.queue.push_back(item);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// There is a connection now.
    pub(super) fn open(&self) {
        self.waiting.lock().open = true;
    }

    /// The connection is gone, and with it everything that waited for it; returns how many messages that were.
    pub(super) fn close(&self) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.open = false;
        waiting.bytes = 0;
        std::mem::take(&mut waiting.queue).len()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Waits for something to send and takes it, with what follows up to these limits.
    pub(super) async fn next_batch(&self, max_bytes: usize, max_items: usize) -> Vec<Outgoing> {
        loop {
            let batch = self.take(max_bytes, max_items);
            if !batch.is_empty() {
                return batch;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self, max_bytes: usize, max_items: usize) -> Vec<Outgoing> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < max_items
            && let Some(next) = waiting.queue.front().map(Outgoing::len_bytes)
            && (batch.is_empty() || bytes + next <= max_bytes)
        {
            bytes += next;
            waiting.bytes -= next;
            batch.extend(waiting.queue.pop_front());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Outgoing {
        Outgoing::Frame { bytes: Bytes::from(vec![0; length]), founding: false }
    }

    fn open(limit_bytes: usize) -> SendQueue {
        let queue = SendQueue::new(limit_bytes);
        queue.open();
        queue
    }

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let queue = open(100);
        assert_eq!(queue.push(frame(60)), Ok(()));
        assert_eq!(queue.push(frame(60)), Err(NotSent::QueueFull));
        assert_eq!(queue.push(frame(40)), Ok(()));
        assert_eq!(queue.take(1000, 10).len(), 2);
        assert_eq!(queue.push(frame(500)), Ok(()), "a long one is admitted alone");
        assert_eq!(queue.push(frame(1)), Err(NotSent::QueueFull));
        assert_eq!(queue.bytes(), 500);
    }

    #[test]
    fn without_a_connection_nothing_waits() {
        let queue = SendQueue::new(100);
        assert_eq!(queue.push(frame(1)), Err(NotSent::NotConnected));
        queue.open();
        assert_eq!(queue.push(frame(1)), Ok(()));
        assert_eq!(queue.close(), 1);
        assert_eq!((queue.bytes(), queue.take(100, 100).len()), (0, 0));
    }

    #[test]
    fn batches_are_limited_but_never_empty() {
        let queue = open(10_000);
        for _ in 0..10 {
            queue.push(frame(100)).unwrap();
        }
        assert_eq!(queue.take(250, 10).len(), 2);
        assert_eq!(queue.take(10, 10).len(), 1);
        assert_eq!(queue.take(10_000, 3).len(), 3);
        assert_eq!(queue.take(10_000, 100).len(), 4);
        assert!(queue.take(10_000, 100).is_empty());
    }
}
