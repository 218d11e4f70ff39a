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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Send { entries: u64, bytes: usize },
        Answer { back: u64 },
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u64..4, 0usize..700).prop_map(|(entries, bytes)| Step::Send { entries, bytes }),
            3 => (0u64..12).prop_map(|back| Step::Answer { back }),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn the_window_is_what_was_sent_and_not_answered(steps in steps()) {
            let mut inflights = Inflights::new(4, 1000);
            let mut model: Vec<(u64, usize)> = Vec::new();
            let mut last = 0;
            for step in steps {
                match step {
                    Step::Send { entries, bytes } => {
                        let Some(room) = inflights.room() else { continue };
                        let bytes = bytes.min(room.max(1));
                        last += entries;
                        inflights.add(Index(last), bytes);
                        model.push((last, bytes));
                    }
                    Step::Answer { back } => {
                        let stored = last.saturating_sub(back);
                        inflights.free_to(Index(stored));
                        model.retain(|sent| sent.0 > stored);
                    }
                    Step::Clear => {
                        inflights.clear();
                        model.clear();
                    }
                }
                let bytes: usize = model.iter().map(|sent| sent.1).sum();
                prop_assert!(model.len() <= 4 && bytes <= 1000);
                prop_assert_eq!(inflights.is_empty(), model.is_empty());
                let open = model.len() < 4 && (bytes < 1000 || model.is_empty());
                prop_assert_eq!(inflights.room(), open.then_some(1000 - bytes));
            }
        }
    }

    #[test]
    fn nothing_is_sent_on_top_of_what_a_follower_holds_in_memory() {
        let mut inflights = Inflights::new(4, 1000);
        inflights.block_until(Index(5));
        assert_eq!(inflights.room(), None);
        inflights.free_to(Index(4));
        assert_eq!(inflights.room(), None);
        inflights.free_to(Index(5));
        assert_eq!(inflights.room(), Some(1000));
    }
}
