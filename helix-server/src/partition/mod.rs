//! One replica of a Kafka partition, as its owner (a shard) holds it.
//!
//! `append` is the one place where sequences are checked and offsets given; `apply` the one place where committed entries
//! take effect; `view` is what readers see.

pub mod append;
pub mod apply;
pub mod checkpoint;
pub mod epochs;
pub mod producers;
pub mod retention;
pub mod slices;
pub mod view;

use helix_raft::planted;
use std::collections::VecDeque;
use std::sync::Arc;

use helix_raft::{GroupId, Index, Term};
use tokio::time::Instant;

use crate::broker::batcher::{Batcher, BatcherLimits, Gather};
use crate::broker::produce::{AppendError, AppendRequest};
use crate::config::topic::TopicConfig;
use append::Waiting;
use checkpoint::PartitionCheckpoint;
use epochs::EpochCache;
use producers::{ProducerBatch, Producers};
use retention::PendingStart;
use view::{Leadership, PartitionView};

/// A partition replica.
#[derive(Debug)]
pub struct Partition {
    view: Arc<PartitionView>,
    producers: Producers,
    epochs: EpochCache,
    batcher: Batcher<AppendRequest>,
    /// Entries that this replica appended as leader and that are not decided yet, by index.
    pending: VecDeque<PendingEntry>,
    /// Moves of the log start that clients wait for, by index.
    starts: VecDeque<PendingStart>,
    /// The term in which this replica leads and may answer clients.
    serving: Option<Term>,
    applied: Index,
}

/// An entry on its way, and those who wait for it.
#[derive(Debug)]
struct PendingEntry {
    index: Index,
    term: Term,
    waiting: Vec<Waiting>,
}

impl Partition {
    /// A replica that continues from a checkpoint.
    pub fn new(
        group: GroupId,
        config: Arc<TopicConfig>,
        limits: BatcherLimits,
        checkpoint: PartitionCheckpoint,
    ) -> Self {
        let view = Arc::new(PartitionView::new(
            group,
            config,
            checkpoint.log_start,
            checkpoint.next_offset,
            checkpoint.epochs.clone(),
        ));
        Self {
            view,
            producers: Producers::new(checkpoint.producers),
            epochs: checkpoint.epochs,
            batcher: Batcher::new(limits),
            pending: VecDeque::new(),
            starts: VecDeque::new(),
            serving: None,
            applied: checkpoint.applied,
        }
    }

    /// What readers see.
    pub fn view(&self) -> &Arc<PartitionView> {
        &self.view
    }

    /// The topic was altered, or the broker: what comes from now on is held against this.
    pub fn configure(&self, config: Arc<TopicConfig>) {
        self.view.set_config(config);
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The last committed batch of every producer that is remembered.
    pub fn last_batches(&self) -> Vec<ProducerBatch> {
        self.producers.table().last_batches()
    }

    /// This replica leads now, and has applied an entry of its own term: it may answer clients.
    pub fn start_serving(&mut self, term: Term) {
        self.serving = Some(term);
        // A moment ago the node refused whatever came for the partition, perhaps before there was a replica to note it, and what was sent
        // behind that may come now. Taken for a gap that the producer made, it would make librdkafka go on under a new epoch, with which
        // it repeats what is stored already.
        if !planted("refusals-forgotten") {
            self.view.note_refusal(Instant::now());
        }
        if planted("producers-forgotten") {
            self.producers = Producers::default();
        }
        self.view.set_leadership(Leadership { epoch: term.0 as i32, serving: true });
    }

    /// This replica does not lead (any more). Whoever waits is told so; what was appended may or may not commit.
    pub fn stop_serving(&mut self, term: Term) {
        self.view.set_leadership(Leadership { epoch: term.0 as i32, serving: false });
        self.serving = None;
        self.producers.drop_overlay();
        // Dropping an unanswered reply answers that another replica leads.
        self.pending.clear();
        self.starts.clear();
        drop(self.batcher.drain());
    }

    /// The term in which this replica leads and may answer clients.
    pub fn serving_term(&self) -> Option<Term> {
        self.serving
    }

    /// Takes a batch from a connection.
    pub fn gather(&mut self, request: AppendRequest, now: Instant) {
        if self.serving.is_none() {
            request.reply.send(Err(AppendError::NotLeader));
            return;
        }
        let bytes = request.batch.total_bytes();
        self.batcher.push(request, bytes, now);
    }

    /// Whether the gathered batches should become an entry now.
    pub fn poll(&self, now: Instant) -> Gather {
        self.batcher.poll(!self.pending.is_empty(), now)
    }

    /// Everything through (`index`, `term`) is stored on this replica: `acks=1` is satisfied.
    pub fn stored(&mut self, index: Index, term: Term) {
        let stored = |entry: &&mut PendingEntry| entry.index <= index && entry.term == term;
        for entry in self.pending.iter_mut().take_while(stored) {
            entry.answer_acks_one();
        }
    }

    /// Bytes and batches gathered but not appended, for metrics.
    pub fn gathered(&self) -> usize {
        self.batcher.len()
    }
}
