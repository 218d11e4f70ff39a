//! What the broker is made of, and what of it is measured.

use std::sync::Arc;

use tokio::time::Instant;

use super::Parts;
use super::engine::Engine;
use crate::broker::budget::{Budget, MAX_ANSWERS_BYTES};
use crate::broker::fetch_sessions::FetchSessions;
use crate::broker::lookup::MAX_SEARCHES;
use crate::broker::producer_ids::ProducerIds;
use crate::broker::{Broker, BrokerParts, Budgets};
use crate::cluster::ClusterLink;
use crate::coordinator::Coordinators;
use crate::ids::ClusterId;
use crate::ops::metrics::{BudgetSample, NodeSample};

/// What the broker works with.
pub(super) fn gather(
    parts: &Parts,
    engine: &Engine,
    producer_ids: ProducerIds,
    wal: &helix_wal::Wal,
    cluster_id: ClusterId,
) -> BrokerParts {
    let broker = &parts.config.broker;
    BrokerParts {
        env: parts.env.clone(),
        node: parts.config.node_id,
        started: Instant::now(),
        cluster_id,
        config: Arc::clone(&parts.live),
        image: Arc::clone(&parts.image),
        leaders: Arc::clone(&parts.leaders),
        partitions: Arc::clone(&parts.partitions),
        liveness: Arc::clone(&parts.liveness),
        cluster: engine.cluster.clone(),
        shards: parts.shards.clone(),
        controller: engine.controller.clone(),
        producer_ids,
        coordinators: Coordinators::default(),
        metadata_applied: engine.metadata_applied.clone(),
        cluster_size: parts.config.peers.len().max(1),
        wal: wal.clone(),
        repairs: engine.repairs.clone(),
        questions: engine.questions.clone(),
        budgets: Budgets {
            produce_bytes: Budget::new(broker.produce_max_pending_bytes),
            produce_requests: Budget::new(broker.produce_max_pending_requests),
            other_requests: Budget::new(broker.request_max_pending_bytes),
            fetch: Budget::new(broker.fetch_max_pending_bytes),
            searches: Budget::new(MAX_SEARCHES),
            answers: Budget::new(MAX_ANSWERS_BYTES),
        },
        fetch_sessions: Arc::new(FetchSessions::new(broker.max_incremental_fetch_session_cache_slots)),
        metrics: Arc::clone(&parts.metrics),
    }
}

/// Lets the metrics see how full the node is.
pub(super) fn watch_metrics(parts: &Parts, broker: &Arc<Broker>, cluster: &ClusterLink) {
    let wal = broker.wal().clone();
    parts.metrics.watch_wal(move || wal.stats());
    let budgets = broker.budgets().clone();
    let sessions = Arc::clone(broker.fetch_sessions());
    let (partitions, cluster) = (Arc::clone(&parts.partitions), cluster.clone());
    let peer_limit = parts.config.broker.peer_max_pending_bytes;
    parts.metrics.watch_node(move || {
        let budget = |name, budget: &Budget| BudgetSample {
            name,
            used: budget.used() as u64,
            limit: budget.limit() as u64,
        };
        NodeSample {
            groups: partitions.len() as u64 + 1,
            budgets: vec![
                budget("produce", &budgets.produce_bytes),
                budget("produce_requests", &budgets.produce_requests),
                BudgetSample {
                    name: "fetch_sessions",
                    used: sessions.len() as u64,
                    limit: sessions.slots() as u64,
                },
                budget("requests", &budgets.other_requests),
                budget("fetch", &budgets.fetch),
                budget("answers", &budgets.answers),
                BudgetSample {
                    name: "peers",
                    used: cluster.receive_bytes_held() as u64,
                    limit: peer_limit as u64,
                },
            ],
        }
    });
}
