//! What goes wrong in a simulation, when, and for how long.

use std::time::Duration;

use helix_server::ids::ReplicaId;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IteratorRandom, SliceRandom};
use tokio::time::Instant;

use crate::machine::Ended;
use crate::network::Place;
use crate::plan::{self, Plan};
use crate::world::World;

/// Something that ends a fault, or a part of it.
#[derive(Debug, Clone, Copy)]
enum Later {
    Start(Place),
    /// Soon after its process has started, the machine loses its power.
    StartAndFall(Place),
    PowerUp(Place),
    Kill(Place),
    LosePower(Place),
    HealNetwork,
    SlowDisk(Place),
    MendDisk(Place),
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    KillSeveral,
    KillAll,
    Power,
    PowerEverywhere,
    Restart,
    Cut,
    CutOneWay,
    Isolate,
    Flap,
    SlowLink,
    Reset,
    Stall,
    Weather,
    SlowDisk,
    DiskFull,
    SyncFails,
    TornWrite,
    DiskLost,
    Damage,
    Clock,
}

/// All of them, each with its weight.
pub(crate) const FAULTS: &[(Fault, u32)] = &[
    (Fault::Kill, 10),
    (Fault::KillSeveral, 4),
    (Fault::KillAll, 2),
    (Fault::Power, 8),
    (Fault::PowerEverywhere, 3),
    (Fault::Restart, 5),
    (Fault::Cut, 5),
    (Fault::CutOneWay, 5),
    (Fault::Isolate, 6),
    (Fault::Flap, 3),
    (Fault::SlowLink, 3),
    (Fault::Reset, 5),
    (Fault::Stall, 5),
    (Fault::Weather, 3),
    (Fault::SlowDisk, 4),
    (Fault::DiskFull, 3),
    (Fault::SyncFails, 3),
    (Fault::TornWrite, 5),
    (Fault::DiskLost, 3),
    (Fault::Damage, 4),
    (Fault::Clock, 3),
];

/// A disk that was lost, until another has its place everywhere.
#[derive(Debug, Clone, Copy)]
struct LostDisk {
    place: Place,
    replica: ReplicaId,
}

/// Causes faults and ends them.
pub(crate) struct Faults {
    random: SmallRng,
    pause_ms: u64,
    synced: bool,
    harsh: bool,
    /// What may strike, and how often.
    kinds: &'static [(Fault, u32)],
    later: Vec<(Instant, Later)>,
    lost_disk: Option<LostDisk>,
    /// The machine whose log has damaged files. One in a schedule: what it holds no more others have to hold.
    damaged: Option<Place>,
}

impl Faults {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            random: plan.random.clone(),
            pause_ms: plan.pause_ms,
            synced: plan.synced,
            harsh: plan.harsh,
            kinds: plan.faults,
            later: Vec::new(),
            lost_disk: None,
            damaged: None,
        }
    }

    /// Waits until the next thing is due, and does it.
    pub(crate) async fn next(&mut self, world: &mut World) {
        let pause = Duration::from_millis(self.random.random_range(0..=2 * self.pause_ms));
        let fault_due = Instant::now() + pause;
        loop {
            self.reap(world).await;
            let next = self.later.iter().map(|(due, _)| *due).min();
            let due = next.map_or(fault_due, |next| next.min(fault_due));
            // Processes that end by themselves are noticed in between.
            tokio::time::sleep_until(due.min(Instant::now() + Duration::from_millis(50))).await;
            self.do_due(world);
            if Instant::now() >= fault_due {
                break;
            }
        }
        self.strike(world);
    }

    /// Ends all faults: from here on nothing goes wrong.
    pub(crate) async fn heal(&mut self, world: &mut World) {
        self.reap(world).await;
        self.later.clear();
        world.network.heal();
        world.network.set_weather(crate::network::Weather { delay_ms: 2, ..Default::default() });
        for place in 0..world.machines.len() {
            let machine = &mut world.machines[place];
            machine.set_slow_disk(0);
            machine.mend_disks();
            if machine.is_stuck() || world.witness.has_failed(place) {
                machine.kill_process();
            }
            machine.power_up();
            machine.start();
        }
    }

    /// Starts processes again that ended by themselves, after a while. They may do so where their disks fail, and nowhere else.
    pub(crate) async fn reap(&mut self, world: &mut World) {
        for place in 0..world.machines.len() {
            let Some(ended) = world.machines[place].reap().await else { continue };
            tracing::info!(node = place + 1, ?ended, "the process has ended");
            if let Ended::Failed(error) = &ended
                && !world.machines[place].has_bad_disk()
            {
                world.witness.accuse(format!("node {} ended by itself: {error}", place + 1));
            }
            // Machines whose disks fail are often about to fail themselves.
            let falls = matches!(ended, Ended::Failed(_)) && self.random.random_bool(0.4);
            self.in_ms(2000, if falls { Later::StartAndFall(place) } else { Later::Start(place) });
        }
    }

    fn in_ms(&mut self, longest_ms: u64, what: Later) {
        let after = Duration::from_millis(self.random.random_range(0..=longest_ms));
        self.later.push((Instant::now() + after, what));
    }

    fn do_due(&mut self, world: &mut World) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, Later)> = due;
        for (_, what) in due {
            tracing::info!(?what, "ends");
            match what {
                Later::Start(place) => world.machines[place].start(),
                Later::StartAndFall(place) => {
                    world.machines[place].start();
                    if self.may_lose_power(world, place) {
                        self.in_ms(300, Later::LosePower(place));
                    }
                }
                Later::PowerUp(place) => {
                    world.machines[place].power_up();
                    self.in_ms(300, Later::Start(place));
                }
                Later::Kill(place) => {
                    world.machines[place].kill_process();
                    self.in_ms(1000, Later::Start(place));
                }
                Later::LosePower(place) => self.lose_power(world, place),
                Later::HealNetwork => world.network.heal(),
                Later::SlowDisk(place) => world.machines[place].set_slow_disk(0),
                Later::MendDisk(place) => world.machines[place].mend_disks(),
            }
        }
    }

    fn strike(&mut self, world: &mut World) {
        let total: u32 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.random_range(0..total);
        let (fault, _) = self
            .kinds
            .iter()
            .find(|(_, weight)| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            })
            .expect("the weights add up");
        let place = self.random.random_range(0..world.machines.len());
        tracing::info!(?fault, node = place + 1, "strikes");
        match fault {
            Fault::Kill => self.kill(world, &[place]),
            Fault::KillSeveral => {
                let mut places: Vec<Place> = (0..world.machines.len()).collect();
                places.shuffle(&mut self.random);
                let count = self.random.random_range(2..=places.len());
                self.kill(world, &places[..count]);
            }
            Fault::KillAll => self.kill(world, &(0..world.machines.len()).collect::<Vec<_>>()),
            Fault::Power if self.may_lose_power(world, place) => self.lose_power(world, place),
            Fault::PowerEverywhere
                if self.synced || (self.harsh && self.lost_disk.is_none() && self.damaged.is_none()) =>
            {
                for place in 0..world.machines.len() {
                    self.lose_power(world, place);
                }
            }
            Fault::Restart => {
                world.machines[place].ask_to_stop();
                // `reap` starts it again.
            }
            Fault::Cut | Fault::CutOneWay | Fault::Isolate | Fault::Flap | Fault::SlowLink => {
                self.disturb_links(world, *fault, place);
            }
            Fault::Reset => world.network.reset(place, self.other(world, place)),
            Fault::Stall => {
                let (other, by_ms) = (self.other(world, place), self.random.random_range(100..5000));
                world.network.stall(place, other, Duration::from_millis(by_ms));
            }
            Fault::Weather => world.network.set_weather(plan::weather(&mut self.random)),
            Fault::SlowDisk => {
                world.machines[place].set_slow_disk(self.random.random_range(5..300));
                self.in_ms(3000, Later::SlowDisk(place));
            }
            Fault::DiskFull => self.fill_disk(world, place),
            Fault::SyncFails => self.fail_syncs(world, place),
            Fault::TornWrite => self.tear_a_write(world, place),
            Fault::DiskLost if self.may_lose_disk(world, place) => self.lose_disk(world, place),
            Fault::Damage if self.may_damage(world, place) => {
                if world.machines[place].damage_log(&mut self.random, self.synced) {
                    self.damaged = Some(place);
                }
            }
            Fault::Clock => world.machines[place].turn_clock(self.random.random_range(-600_000..600_000)),
            // Not now.
            Fault::Power | Fault::PowerEverywhere | Fault::DiskLost | Fault::Damage => {}
        }
    }

    fn other(&mut self, world: &World, place: Place) -> Place {
        let others = (0..world.machines.len()).filter(|other| *other != place);
        others.choose(&mut self.random).expect("there are several nodes")
    }

    fn kill(&mut self, world: &mut World, places: &[Place]) {
        for place in places {
            world.machines[*place].kill_process();
            let longest_ms = if self.random.random_bool(0.5) { 200 } else { 4000 };
            self.in_ms(longest_ms, Later::Start(*place));
        }
    }

    fn lose_power(&mut self, world: &mut World, place: Place) {
        world.machines[place].lose_power();
        self.in_ms(4000, Later::PowerUp(place));
    }

    /// Without syncs a minority of machines may lose what they had not synced, at any one time; with syncs, all of them.
    fn may_lose_power(&mut self, world: &World, place: Place) -> bool {
        self.forget_replaced_disk(world);
        // What nobody but the others may hold must not become suspect there too: only an operator gets out of that.
        let whole = self.lost_disk.is_none_or(|lost| lost.place == place)
            && self.damaged.is_none_or(|damaged| damaged == place);
        self.synced || (self.harsh && whole) || self.all_sound_but(world, place)
    }

    fn all_sound_but(&mut self, world: &World, place: Place) -> bool {
        self.forget_replaced_disk(world);
        let about_to = |later: &Later| matches!(later, Later::LosePower(other) if *other != place);
        let sound = |other: Place| other == place || !world.is_suspect(other);
        self.lost_disk.is_none_or(|lost| lost.place == place)
            && self.damaged.is_none_or(|damaged| damaged == place)
            && !self.later.iter().any(|(_, later)| about_to(later))
            && (0..world.machines.len()).all(sound)
    }

    /// One disk at a time, and never what others may need.
    fn may_lose_disk(&mut self, world: &World, place: Place) -> bool {
        self.forget_replaced_disk(world);
        self.lost_disk.is_none()
            && self.all_sound_but(world, place)
            && world.is_founded()
            && world.machines[place].state().is_some()
    }

    /// Never where others may be about to need it, and not in a schedule in which anything may be lost anyway.
    fn may_damage(&mut self, world: &World, place: Place) -> bool {
        (self.synced || !self.harsh) && self.lost_disk.is_none() && self.all_sound_but(world, place)
    }

    fn lose_disk(&mut self, world: &mut World, place: Place) {
        let Some(state) = world.machines[place].state() else { return };
        self.lost_disk = Some(LostDisk { place, replica: state.replica });
        world.machines[place].lose_disk();
        self.damaged = None;
        self.in_ms(2000, Later::Start(place));
    }

    fn forget_replaced_disk(&mut self, world: &World) {
        if self.lost_disk.is_some_and(|lost| world.is_replaced(lost.replica)) {
            self.lost_disk = None;
        }
    }

    /// Whether every lost disk has been replaced.
    pub(crate) fn is_whole(&mut self, world: &World) -> Result<(), String> {
        self.forget_replaced_disk(world);
        match self.lost_disk {
            None => Ok(()),
            Some(lost) => Err(format!("{lost:?} is not replaced")),
        }
    }

    fn disturb_links(&mut self, world: &World, fault: Fault, place: Place) {
        let other = self.other(world, place);
        let network = &world.network;
        match fault {
            Fault::CutOneWay => network.cut(place, other),
            Fault::Isolate => {
                for other in (0..world.machines.len()).filter(|other| *other != place) {
                    network.cut(place, other);
                    if self.random.random_bool(0.8) {
                        network.cut(other, place);
                    }
                }
            }
            Fault::SlowLink => {
                let by = Duration::from_millis(self.random.random_range(10..600));
                network.slow_down(place, other, by);
                network.slow_down(other, place, by);
            }
            _ => {
                network.cut(place, other);
                network.cut(other, place);
            }
        }
        let longest_ms = if fault == Fault::Flap { 300 } else { 5000 };
        self.in_ms(longest_ms, Later::HealNetwork);
    }

    fn fill_disk(&mut self, world: &mut World, place: Place) {
        world.machines[place].fill_disk(self.random.random_range(0..4_000_000));
        self.in_ms(4000, Later::MendDisk(place));
    }

    fn fail_syncs(&mut self, world: &mut World, place: Place) {
        world.machines[place].fail_syncs(self.random.random_bool(0.3));
        self.in_ms(1000, Later::MendDisk(place));
    }

    /// The process, or the machine, stops in the middle of a write.
    fn tear_a_write(&mut self, world: &mut World, place: Place) {
        if !world.machines[place].runs() {
            return;
        }
        let (of_the_log, after) = (self.random.random_bool(0.8), self.random.random_range(0..30));
        world.machines[place].tear_a_write(of_the_log, after);
        let power = self.may_lose_power(world, place) && self.random.random_bool(0.5);
        self.in_ms(400, if power { Later::LosePower(place) } else { Later::Kill(place) });
    }
}
