//! The window of appends on their way to one follower, limited in number and in bytes.

use std::collections::VecDeque;

use crate::types::Index;

#[derive(Clone, Copy, Debug)]
struct Inflight {
    last: Index,
    bytes: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Inflights {
    window: VecDeque<Inflight>,
    bytes: usize,
    max_count: usize,
    max_bytes: usize,
    /// Nothing may be sent before the follower has stored this: it holds more in memory than the window knows of.
    blocked_until: Option<Index>,
}

impl Inflights {
    pub(crate) fn new(max_count: usize, max_bytes: usize) -> Inflights {
        Inflights {
            window: VecDeque::new(),
            bytes: 0,
            max_count: max_count.max(1),
            max_bytes: max_bytes.max(1),
            blocked_until: None,
        }
    }

    /// Bytes that may still be sent; `None` if the window is closed. An empty window is always open.
    pub(crate) fn room(&self) -> Option<usize> {
        if self.blocked_until.is_some() || self.window.len() >= self.max_count {
            return None;
        }
        let room = self.max_bytes.saturating_sub(self.bytes);
        (room > 0 || self.window.is_empty()).then_some(room)
    }

    pub(crate) fn add(&mut self, last: Index, bytes: usize) {
        debug_assert!(self.window.back().is_none_or(|newest| newest.last < last), "appends leave in order");
        self.window.push_back(Inflight { last, bytes });
        self.bytes += bytes;
    }

    /// The follower has stored everything up to `stored`.
    pub(crate) fn free_to(&mut self, stored: Index) {
        while let Some(oldest) = self.window.front().filter(|oldest| oldest.last <= stored) {
            self.bytes -= oldest.bytes;
            self.window.pop_front();
        }
        self.blocked_until = self.blocked_until.filter(|until| *until > stored);
    }

    pub(crate) fn clear(&mut self) {
        self.window.clear();
        self.bytes = 0;
        self.blocked_until = None;
    }

    pub(crate) fn block_until(&mut self, stored: Index) {
        self.blocked_until = Some(stored);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.blocked_until.is_none()
    }
}
