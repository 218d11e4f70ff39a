//! Asks the coordinators of all groups about them, every second and after every rebalance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{GROUPS, Shared, Stage};
use crate::groups::outside::Outside;

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// How soon a look begins that somebody wants.
const SOON: Duration = Duration::from_millis(20);

pub(super) fn start(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        super::own::runtime().block_on(async {
            let mut looks = JoinSet::new();
            for group in 0..GROUPS.len() {
                looks.spawn(look_at(Arc::clone(&shared), group));
            }
            while looks.join_next().await.is_some() {}
        });
    })
}

async fn look_at(shared: Arc<Shared>, group: usize) {
    let shape = GROUPS[group];
    let mut outside = Outside::new(&shared.brokers(), shape.name, shape.topic, shared.partitions);
    while shared.stage() != Stage::Ending {
        let next = Instant::now() + BETWEEN_LOOKS;
        let before = shared.ledger.lock().committed(group);
        // No answer is none to hold against anybody: another node coordinates, or will.
        if let Ok(now) = outside.committed().await {
            shared.ledger.lock().seen(group, "the lookout", &before, &now);
        }
        let asked = Instant::now().into_std();
        if let Ok(described) = outside.describe().await {
            shared.ledger.lock().described(group, asked, described);
        }
        while Instant::now() < next && !shared.wanted[group].swap(false, Ordering::Relaxed) {
            sleep(SOON).await;
        }
    }
}
