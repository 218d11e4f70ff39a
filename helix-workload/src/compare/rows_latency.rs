//! Rows about how long an acknowledgement takes at loads below the most that a cluster can take.

use super::results::Figures;
use super::rows::{LOAD_5, LOAD_50, LOAD_80, LoadFigures, MAXIMUM_REQUESTS_PER_S, MB_PER_S};
use super::rows_load::{Measured, PARTITIONS, flood_with, profile, with_latency};
use super::subjects::{CompareError, Contender, Subject, Subjects};
use crate::flood::{FloodReport, Stream};

pub(super) fn latency(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let profile = profile("latency", subjects.scale(), subjects.scale().measured);
    let each = 5_000 / profile.producer.threads;
    let mut measured = Measured::new(subjects, contender, profile);
    measured.messages_per_second = each;
    let report = measured.on(&subject)?;
    Ok(with_latency(Figures::default().with(MB_PER_S, report.mb_per_s), &report.latency))
}

pub(super) fn loads(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    shares_of_the_maximum(subjects, &subject, &[])
}

pub(super) fn loads_fsync(
    subjects: &mut Subjects<'_>,
    contender: Contender,
) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes_fsync(contender)?;
    let settings: &[_] = match contender {
        Contender::Helix => &[],
        Contender::Kafka => &[("flush.messages", "1")],
    };
    shares_of_the_maximum(subjects, &subject, settings)
}

/// Measures the maximum, then latencies at shares of it, one after the other on the same cluster.
fn shares_of_the_maximum(
    subjects: &mut Subjects<'_>,
    subject: &Subject,
    settings: &[(&str, &str)],
) -> Result<Figures, CompareError> {
    let mut with_rate = |rate: u32| -> Result<FloodReport, CompareError> {
        subjects.settle()?;
        let topic = subjects.topic(PARTITIONS, settings);
        let stream = Stream { connections: 6, in_flight: 16, messages: 10, bytes: 1024, rate };
        flood_with(subjects, subject, topic, &[stream], subjects.scale().measured)
    };
    let maximum = with_rate(0)?.streams[0].requests_per_s;
    let mut figures = Figures::default().with(MAXIMUM_REQUESTS_PER_S, maximum);
    for LoadFigures { share, p50_ms, p99_ms, p999_ms } in [LOAD_5, LOAD_50, LOAD_80] {
        let report = with_rate((maximum * share).max(1.0) as u32)?;
        let latency = &report.streams[0].latency;
        figures =
            figures.with(p50_ms, latency.p50_ms).with(p99_ms, latency.p99_ms).with(p999_ms, latency.p999_ms);
    }
    Ok(figures)
}
