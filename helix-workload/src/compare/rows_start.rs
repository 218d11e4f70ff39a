//! The row about starting with much that is stored.

use std::time::Instant;

use std::fs::File;

use super::results::Figures;
use super::rows::FIRST_ACK_S;
use super::subjects::{CompareError, Contender, Subjects};
use super::{probe, rows_read};
use crate::client::TopicSpec;
use crate::cluster::DEADLINE;
use crate::flood;

const PARTITIONS: u32 = 12;

pub(super) fn cold_start(subjects: &mut Subjects<'_>, _: Contender) -> Result<Figures, CompareError> {
    let mut cluster = subjects.own_helix("cold-start", 1)?;
    let node = cluster.ids()[0];
    let topic = TopicSpec { replication_factor: Some(1), ..subjects.topic(PARTITIONS, &[]) };
    flood::fill(&cluster.bootstrap(), &topic, subjects.scale().stored_bytes, subjects.progress)?;
    cluster.stop(node)?;
    rows_read::forget_files(cluster.data_directory(node), File::sync_data)?;
    let begun = Instant::now();
    cluster.run(node)?;
    probe::write_to_all(&[cluster.kafka_address(node)], &topic.name, PARTITIONS, DEADLINE)?;
    Ok(Figures::default().with(FIRST_ACK_S, begun.elapsed().as_secs_f64()))
}
