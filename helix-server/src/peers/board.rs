//! The digests that heartbeats carry: published by the shards, read by the thread of the control lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use helix_raft::{BUCKETS, Bucket, DigestSource, ReplicaId};
use parking_lot::RwLock;

#[derive(Debug)]
struct PeerDigests {
    led: [AtomicU64; BUCKETS as usize],
    followed: [AtomicU64; BUCKETS as usize],
}

impl Default for PeerDigests {
    fn default() -> Self {
        Self {
            led: std::array::from_fn(|_| AtomicU64::new(0)),
            followed: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Sums over all shards of a node. Digests are sums of group digests, so every shard adds what changed in its own.
#[derive(Debug, Default)]
pub struct DigestBoard {
    peers: RwLock<HashMap<ReplicaId, Arc<PeerDigests>>>,
}

impl DigestBoard {
    fn peer(&self, replica: ReplicaId) -> Arc<PeerDigests> {
        if let Some(known) = self.peers.read().get(&replica) {
            return Arc::clone(known);
        }
        Arc::clone(self.peers.write().entry(replica).or_default())
    }

    fn read(&self, replica: ReplicaId, read: impl FnOnce(&PeerDigests) -> &AtomicU64) -> u64 {
        self.peers.read().get(&replica).map_or(0, |digests| read(digests).load(Ordering::Relaxed))
    }
}

impl DigestSource for DigestBoard {
    fn led_digest(&self, to: ReplicaId, bucket: Bucket) -> u64 {
        self.read(to, |digests| &digests.led[usize::from(bucket.0)])
    }

    fn followed_digest(&self, leader: ReplicaId, bucket: Bucket) -> u64 {
        self.read(leader, |digests| &digests.followed[usize::from(bucket.0)])
    }
}

#[derive(Debug)]
struct Published {
    replica: ReplicaId,
    digests: Arc<PeerDigests>,
    led: [u64; BUCKETS as usize],
    followed: [u64; BUCKETS as usize],
}

/// What one shard has published so far. What it published is withdrawn when this is dropped.
#[derive(Debug)]
pub struct ShardDigests {
    board: Arc<DigestBoard>,
    published: Vec<Published>,
}

impl ShardDigests {
    /// Nothing yet.
    #[must_use]
    pub const fn new(board: Arc<DigestBoard>) -> Self {
        Self { board, published: Vec::new() }
    }

    /// Publishes what changed in the shard's groups towards these replicas. Called after each batch of work.
    pub fn publish(&mut self, source: &dyn DigestSource, replicas: impl IntoIterator<Item = ReplicaId>) {
        for replica in replicas {
            let place = self.published.iter().position(|published| published.replica == replica);
            let place = place.unwrap_or_else(|| {
                let digests = self.board.peer(replica);
                let nothing = [0; BUCKETS as usize];
                self.published.push(Published { replica, digests, led: nothing, followed: nothing });
                self.published.len() - 1
            });
            let published = &mut self.published[place];
            for bucket in Bucket::all() {
                let at = usize::from(bucket.0);
                let (led, followed) =
                    (source.led_digest(replica, bucket), source.followed_digest(replica, bucket));
                replace(&published.digests.led[at], &mut published.led[at], led);
                replace(&published.digests.followed[at], &mut published.followed[at], followed);
            }
        }
    }
}

impl Drop for ShardDigests {
    fn drop(&mut self) {
        for published in &mut self.published {
            for at in 0..usize::from(BUCKETS) {
                replace(&published.digests.led[at], &mut published.led[at], 0);
                replace(&published.digests.followed[at], &mut published.followed[at], 0);
            }
        }
    }
}

fn replace(sum: &AtomicU64, mine: &mut u64, new: u64) {
    if *mine != new {
        // Wraps, as the sums themselves do.
        sum.fetch_add(new.wrapping_sub(*mine), Ordering::Relaxed);
        *mine = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64, u64);

    impl DigestSource for Fixed {
        fn led_digest(&self, _to: ReplicaId, bucket: Bucket) -> u64 {
            self.0.wrapping_mul(u64::from(bucket.0))
        }

        fn followed_digest(&self, _leader: ReplicaId, bucket: Bucket) -> u64 {
            self.1.wrapping_mul(u64::from(bucket.0))
        }
    }

    #[test]
    fn the_board_holds_the_sum_over_the_shards() {
        let board = Arc::new(DigestBoard::default());
        let (mut one, mut two) =
            (ShardDigests::new(Arc::clone(&board)), ShardDigests::new(Arc::clone(&board)));
        let peer = ReplicaId(5);
        one.publish(&Fixed(u64::MAX, 3), [peer]);
        two.publish(&Fixed(10, 4), [peer]);
        assert_eq!(board.led_digest(peer, Bucket(2)), 18);
        assert_eq!(board.followed_digest(peer, Bucket(2)), 14);
        one.publish(&Fixed(1, 3), [peer]);
        assert_eq!(board.led_digest(peer, Bucket(2)), 22);
        drop(two);
        assert_eq!(board.led_digest(peer, Bucket(2)), 2);
        assert_eq!(board.led_digest(ReplicaId(6), Bucket(2)), 0);
    }
}
