//! Gathers produce requests of one partition into one Raft entry.
//!
//! Pure: time comes in as an instant, the decision goes out. An idle partition flushes at once; while an entry is in
//! flight the next one gathers until it is big enough or its oldest request has lingered.

use std::time::Duration;

use tokio::time::Instant;

/// When a batch is full or old enough to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatcherLimits {
    /// How long the oldest request waits for company while an entry is in flight.
    pub linger: Duration,
    /// Bytes that make a full batch.
    pub max_bytes: usize,
    /// Requests that make a full batch.
    pub max_requests: usize,
}

/// The requests of one partition that wait to become an entry.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: BatcherLimits,
    waiting: Vec<T>,
    bytes: usize,
    oldest: Option<Instant>,
}

/// What to do with the gathered requests now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// Nothing gathered.
    Empty,
    /// Take them now.
    Flush,
    /// Look again at this instant, or when an entry in flight completes.
    Until(Instant),
}

impl<T> Batcher<T> {
    /// An empty batcher.
    pub fn new(limits: BatcherLimits) -> Self {
        Self { limits, waiting: Vec::new(), bytes: 0, oldest: None }
    }

    /// Adds a request of `bytes` payload.
    pub fn push(&mut self, item: T, bytes: usize, now: Instant) {
        self.waiting.push(item);
        self.bytes += bytes;
        self.oldest.get_or_insert(now);
    }

    /// Whether the gathered requests should go now, given whether an entry of this partition is in flight.
    pub fn poll(&self, in_flight: bool, now: Instant) -> Gather {
        let Some(oldest) = self.oldest else { return Gather::Empty };
        let full = self.bytes >= self.limits.max_bytes || self.waiting.len() >= self.limits.max_requests;
        let due = oldest + self.limits.linger;
        if full || !in_flight || now >= due { Gather::Flush } else { Gather::Until(due) }
    }

    /// Takes the gathered requests, oldest first: at most one full batch, so that an entry's size stays bounded by
    /// `max_bytes` plus one request.
    pub fn take(&mut self, size_of: impl Fn(&T) -> usize, now: Instant) -> Vec<T> {
        let mut bytes = 0;
        let mut count = 0;
        while count < self.waiting.len() && count < self.limits.max_requests && bytes < self.limits.max_bytes
        {
            bytes += size_of(&self.waiting[count]);
            count += 1;
        }
        let rest = self.waiting.split_off(count);
        self.bytes -= bytes;
        self.oldest = (!rest.is_empty()).then_some(now);
        std::mem::replace(&mut self.waiting, rest)
    }

    /// Takes everything, whatever its size.
    pub fn drain(&mut self) -> Vec<T> {
        self.bytes = 0;
        self.oldest = None;
        std::mem::take(&mut self.waiting)
    }

    /// Number of requests gathered.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatcherLimits =
        BatcherLimits { linger: Duration::from_millis(1), max_bytes: 100, max_requests: 3 };

    #[test]
    fn an_idle_partition_flushes_at_once_and_a_loaded_one_lingers() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        assert_eq!(batcher.poll(false, start), Gather::Empty);
        batcher.push(10, 10, start);
        assert_eq!(batcher.poll(false, start), Gather::Flush);
        let due = start + LIMITS.linger;
        assert_eq!(batcher.poll(true, start), Gather::Until(due));
        assert_eq!(batcher.poll(true, due), Gather::Flush);
    }

    #[test]
    fn size_and_count_end_the_linger_and_bound_the_batch() {
        let now = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        for size in [60, 60, 60, 1] {
            batcher.push(size, size, now);
        }
        assert_eq!(batcher.poll(true, now), Gather::Flush);
        assert_eq!(batcher.take(|s| *s, now), vec![60, 60]);
        assert_eq!(batcher.len(), 2);
        assert_eq!(batcher.take(|s| *s, now), vec![60, 1]);
        assert_eq!(batcher.poll(false, now), Gather::Empty);
        for size in [1, 1, 1, 1] {
            batcher.push(size, size, now);
        }
        assert_eq!(batcher.poll(true, now), Gather::Flush);
        assert_eq!(batcher.take(|s| *s, now).len(), 3);
        assert_eq!(batcher.drain(), vec![1]);
        assert!(batcher.is_empty());
    }
}
