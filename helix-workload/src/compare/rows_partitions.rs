//! Rows about many partitions.

use std::time::{Duration, Instant};

use super::probe;
use super::results::Figures;
use super::rows::{CREATION_S, IDLE_PERCENT, KIB_PER_PARTITION, RESTART_S, WRITABLE_S};
use super::subjects::{CompareError, Contender, Subjects};
use crate::client::{ClusterClient, TopicSpec};
use crate::cluster::{Cluster, DEADLINE};
use crate::process::usage_of_all;
use crate::wait;

const NODES: u32 = 3;
const CREATION_DEADLINE: Duration = Duration::from_secs(300);
/// The node that is stopped or killed.
const VICTIM: u32 = 1;
/// Below this share of a core for a second, what creating partitions set off is over.
const SETTLED_PERCENT: f64 = 10.0;

pub(super) fn idle(subjects: &mut Subjects<'_>, _: Contender) -> Result<Figures, CompareError> {
    let mut cluster = subjects.own_helix("idle", NODES)?;
    let empty_bytes = usage_of_all(&cluster.pids())?.resident_bytes;
    let (topic, creation) = create(subjects, &cluster)?;
    await_settled(&cluster)?;
    let grown_bytes = usage_of_all(&cluster.pids())?.resident_bytes.saturating_sub(empty_bytes);
    let percent = cpu_percent(&cluster, subjects.scale().measured)? / f64::from(NODES);
    cluster.stop(VICTIM)?;
    let begun = Instant::now();
    cluster.run(VICTIM)?;
    cluster.await_node(VICTIM, NODES as usize)?;
    let replicas = f64::from(NODES) * f64::from(topic.partitions);
    Ok(Figures::default()
        .with(CREATION_S, creation.as_secs_f64())
        .with(IDLE_PERCENT, percent)
        .with(KIB_PER_PARTITION, grown_bytes as f64 / 1024.0 / replicas)
        .with(RESTART_S, begun.elapsed().as_secs_f64()))
}

pub(super) fn failover(subjects: &mut Subjects<'_>, _: Contender) -> Result<Figures, CompareError> {
    let mut cluster = subjects.own_helix("failover", NODES)?;
    let (topic, creation) = create(subjects, &cluster)?;
    await_settled(&cluster)?;
    let survivors: Vec<String> =
        cluster.ids().into_iter().filter(|id| *id != VICTIM).map(|id| cluster.kafka_address(id)).collect();
    cluster.kill(VICTIM)?;
    let begun = Instant::now();
    probe::write_to_all(&survivors, &topic.name, topic.partitions, DEADLINE)?;
    Ok(Figures::default()
        .with(CREATION_S, creation.as_secs_f64())
        .with(WRITABLE_S, begun.elapsed().as_secs_f64()))
}

/// Makes the partitions; the time is that until each of them has been written to.
fn create(subjects: &mut Subjects<'_>, cluster: &Cluster) -> Result<(TopicSpec, Duration), CompareError> {
    let topic = subjects.topic(subjects.scale().partitions, &[]);
    let client = ClusterClient::new(&cluster.bootstrap())?;
    let begun = Instant::now();
    client.create_topic(&topic, CREATION_DEADLINE)?;
    let addresses: Vec<String> = cluster.ids().into_iter().map(|id| cluster.kafka_address(id)).collect();
    probe::write_to_all(&addresses, &topic.name, topic.partitions, CREATION_DEADLINE)?;
    Ok((topic, begun.elapsed()))
}

fn await_settled(cluster: &Cluster) -> Result<(), CompareError> {
    wait::until("the cluster to settle", CREATION_DEADLINE, || {
        let percent = cpu_percent(cluster, Duration::from_secs(1)).map_err(|error| error.to_string())?;
        if percent < SETTLED_PERCENT { Ok(()) } else { Err(format!("{percent:.1} % of a core")) }
    })?;
    Ok(())
}

/// Of all nodes together, in percent of one core.
fn cpu_percent(cluster: &Cluster, over: Duration) -> Result<f64, CompareError> {
    let (begun, before) = (Instant::now(), usage_of_all(&cluster.pids())?.cpu);
    std::thread::sleep(over);
    let used = usage_of_all(&cluster.pids())?.cpu.saturating_sub(before);
    Ok(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64())
}
