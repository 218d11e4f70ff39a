//! The row about many members of consumer groups.

use std::time::{Duration, Instant};

use super::results::Figures;
use super::rows::{
    CPU_PER_HEARTBEAT, GROUPS_AGAIN_S, GROUPS_CPU_PERCENT, GROUPS_STABLE_S, HEARTBEAT_P99_MS, JOINED_AGAIN,
    PEAK_MB,
};
use super::subjects::{CompareError, Contender, Subject, Subjects};
use crate::groups::crowd::{Crowd, CrowdOptions};
use crate::process::{forget_peak, usage_of_all};

const DEADLINE: Duration = Duration::from_secs(300);
/// The default of Kafka's clients.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// So often each member is heard of in the measured time, however short that is.
const LEAST_HEARTBEATS: u32 = 3;

pub(super) fn groups(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    // The topic of groups is made, and what is compiled while it runs is.
    let unmeasured = start(subjects, &subject)?;
    let stable = unmeasured.await_stable(DEADLINE);
    unmeasured.stop();
    stable?;
    subject.pids.iter().try_for_each(|pid| forget_peak(*pid))?;
    let begun = Instant::now();
    let crowd = start(subjects, &subject)?;
    crowd.await_stable(DEADLINE)?;
    let figures = Figures::default().with(GROUPS_STABLE_S, begun.elapsed().as_secs_f64());
    let figures = steady(&crowd, &subject, subjects.scale().stress, figures)?;
    let victim = crowd.busiest().map_or(-1, |(node, _)| node);
    let victim =
        u32::try_from(victim).map_err(|_| CompareError::Wrong(format!("node {victim} coordinates")))?;
    let assignments = crowd.assignments();
    crowd.name_victim(victim.cast_signed());
    let killed = Instant::now();
    subjects.kill(contender, victim)?;
    let again = crowd.await_stable(DEADLINE);
    let (took, joined_again) = (killed.elapsed(), crowd.assignments() - assignments);
    crowd.stop();
    subjects.revive(contender, victim)?;
    again?;
    Ok(figures.with(GROUPS_AGAIN_S, took.as_secs_f64()).with(JOINED_AGAIN, joined_again as f64))
}

fn start(subjects: &mut Subjects<'_>, subject: &Subject) -> Result<Crowd, CompareError> {
    let scale = subjects.scale();
    let options = CrowdOptions {
        bootstrap: subject.bootstrap.split(',').map(str::to_owned).collect(),
        // Nobody has been a member of these before.
        prefix: subjects.topic(1, &[]).name,
        groups: scale.groups as usize,
        members: scale.group_members as usize,
        heartbeat: HEARTBEAT.min(scale.stress / LEAST_HEARTBEATS),
    };
    Crowd::start(&options).map_err(CompareError::io("starting members"))
}

/// All members do nothing but live.
fn steady(
    crowd: &Crowd,
    subject: &Subject,
    time: Duration,
    figures: Figures,
) -> Result<Figures, CompareError> {
    crowd.take_latencies();
    let (begun, before, heartbeats) = (Instant::now(), usage_of_all(&subject.pids)?.cpu, crowd.heartbeats());
    std::thread::sleep(time);
    let after = usage_of_all(&subject.pids)?;
    let (took, cpu) = (begun.elapsed(), after.cpu.saturating_sub(before));
    let heartbeats = (crowd.heartbeats() - heartbeats).max(1);
    Ok(figures
        .with(GROUPS_CPU_PERCENT, 100.0 * cpu.as_secs_f64() / took.as_secs_f64())
        .with(CPU_PER_HEARTBEAT, cpu.as_secs_f64() * 1e6 / heartbeats as f64)
        .with(HEARTBEAT_P99_MS, crowd.take_latencies().value_at_quantile(0.99) as f64 / 1e3)
        .with(PEAK_MB, after.peak_bytes as f64 / 1e6))
}
