//! Sees everything that happens to every replica, and knows what must never happen: two leaders in one term, two entries in one
//! place, a committed entry that changes, a leader without what is committed, a log that comes back shorter than it was said to be
//! stored, a commit that too few have stored or that counts copies of an entry of an earlier term, a vote that is given twice or
//! forgotten.

mod brief;
mod committed;
mod holdings;
mod seen;
mod shadow;
mod votes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use helix_raft::{Body, Durability, Entry, GroupId, Incarnation, Index, ReplicaId, Role, Term};
use helix_server::controller::commands::METADATA_GROUP;
use helix_server::entry::Command;
use helix_server::env::{Event, Observer};
use helix_wal::disk::Crash;
use parking_lot::Mutex;

use self::brief::{Brief, mark};
use self::committed::Committed;
use self::holdings::Holdings;
pub(crate) use self::seen::Seen;
use self::shadow::{Digest, Logged, Shadow};
use self::votes::Votes;
use super::network::Place;

/// Of every topic of a simulation.
const REPLICATION_FACTOR: usize = 3;

/// Sees what happens on one node.
pub(crate) struct WitnessOf {
    witness: Arc<Witness>,
    place: Place,
    /// Number of the process: what a dead one still says is not heard.
    process: u64,
}

impl WitnessOf {
    pub(crate) fn new(witness: Arc<Witness>, place: Place) -> Self {
        let process = witness.inner.lock().process_began(place);
        Self { witness, place, process }
    }
}

impl Observer for WitnessOf {
    fn observe(&self, group: GroupId, event: &Event<'_>) {
        let mut inner = self.witness.inner.lock();
        if inner.processes.get(&self.place) == Some(&self.process) {
            inner.observe(self.place, group, event);
        }
    }
}

/// What the faults of a schedule may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promises {
    /// Data counts when a majority has synced it.
    pub(crate) synced: bool,
    /// How many nodes founded the cluster.
    pub(crate) founders: usize,
    /// More machines may lose their power at one time than the mode survives: what no voter holds any more may be lost then.
    pub(crate) may_lose: bool,
}

/// Watches all nodes of a simulation.
pub(crate) struct Witness {
    inner: Mutex<Inner>,
}

struct Inner {
    promises: Promises,
    verdict: Option<String>,
    events: u64,
    fingerprint: u64,
    processes: HashMap<Place, u64>,
    deleted: BTreeSet<GroupId>,
    replicas: BTreeMap<(Place, GroupId), Replica>,
    votes: Votes,
    holdings: Holdings,
    committed: Committed,
    leaders: HashMap<(GroupId, Term), Place>,
    /// Nodes whose disks are bad: replicas there may give up.
    may_fail: BTreeSet<Place>,
    failed: BTreeSet<Place>,
    seen: Seen,
}

/// One replica, as its events show it.
struct Replica {
    log: Shadow,
    applied: Index,
    recovering: bool,
    /// What has happened since it was opened last.
    crash: Option<Crash>,
    opened: bool,
    /// It leads, in this term.
    leads: Option<Term>,
    /// Files of its log were damaged: it may end early, if the replica knows that it does.
    damaged: bool,
}

impl Witness {
    pub(crate) fn new(promises: Promises) -> Arc<Self> {
        let inner = Inner {
            promises,
            verdict: None,
            events: 0,
            fingerprint: 0,
            processes: HashMap::new(),
            deleted: BTreeSet::new(),
            replicas: BTreeMap::new(),
            votes: Votes::default(),
            holdings: Holdings::default(),
            committed: Committed::default(),
            leaders: HashMap::new(),
            may_fail: BTreeSet::new(),
            failed: BTreeSet::new(),
            seen: Seen::default(),
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Somebody else found a promise broken.
    pub(crate) fn accuse(&self, text: String) {
        self.inner.lock().accuse(text);
    }

    /// The first broken promise.
    pub(crate) fn verdict(&self) -> Option<String> {
        self.inner.lock().verdict.clone()
    }

    pub(crate) fn events(&self) -> u64 {
        self.inner.lock().events
    }

    /// A number made of everything that happened, in its order.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.inner.lock().fingerprint
    }

    /// Counts what clients have seen.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Seen)) {
        count(&mut self.inner.lock().seen);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.inner.lock().seen
    }

    /// From which offset on unclean recoveries have taken records of a group.
    pub(crate) fn lost_from(&self, group: GroupId) -> Option<u64> {
        self.inner.lock().committed.lost_from(group)
    }

    /// From here on, until its process starts again, replicas of the node may give up.
    pub(crate) fn let_fail(&self, place: Place) {
        self.inner.lock().may_fail.insert(place);
    }

    /// Whether a replica of the process has given up.
    pub(crate) fn has_failed(&self, place: Place) -> bool {
        self.inner.lock().failed.contains(&place)
    }

    pub(crate) fn crashed(&self, place: Place, crash: Crash) {
        let mut inner = self.inner.lock();
        inner.seen.crashes += 1;
        inner.processes.remove(&place);
        inner.may_fail.remove(&place);
        inner.failed.remove(&place);
        // A crash of the machine and one of the process, without a start between them, are one of the machine.
        for (_, replica) in inner.replicas.iter_mut().filter(|((at, _), _)| *at == place) {
            replica.opened = false;
            if replica.crash != Some(Crash::Machine) {
                replica.crash = Some(crash);
            }
        }
    }

    pub(crate) fn disk_lost(&self, place: Place) {
        let mut inner = self.inner.lock();
        inner.replicas.retain(|(at, _), _| *at != place);
        inner.votes.forget_disk(place);
    }

    /// Bits of old files were flipped: the logs of the node may come back cut, but only as such.
    pub(crate) fn disk_damaged(&self, place: Place) {
        let mut inner = self.inner.lock();
        inner.seen.damaged += 1;
        for (_, replica) in inner.replicas.iter_mut().filter(|((at, _), _)| *at == place) {
            replica.damaged = true;
        }
    }

    /// Whether a crash of the machine has happened since the node started last.
    pub(crate) fn has_crashed(&self, place: Place) -> bool {
        let inner = self.inner.lock();
        inner.replicas.iter().any(|((at, group), replica)| {
            *at == place && replica.crash == Some(Crash::Machine) && !inner.deleted.contains(group)
        })
    }

    /// Whether the newest committed configuration of a group has the disk; of one that began with `founders`.
    pub(crate) fn is_member(&self, group: GroupId, replica: ReplicaId, founders: &[ReplicaId]) -> bool {
        self.inner.lock().committed.is_member(group, replica, founders)
    }

    /// The metadata says which groups were deleted: nodes that were down then never had them open again.
    pub(crate) fn note_deleted(&self, is_deleted: impl Fn(GroupId) -> bool) {
        let inner = &mut *self.inner.lock();
        let groups = inner.replicas.keys().map(|(_, group)| *group);
        inner.deleted.extend(groups.filter(|group| is_deleted(*group)));
    }

    /// Whether every replica of every group has applied all that is committed. Says which has not.
    pub(crate) fn agreement(&self) -> Result<(), String> {
        let inner = self.inner.lock();
        for ((place, group), replica) in &inner.replicas {
            if inner.deleted.contains(group) {
                continue;
            }
            if !replica.opened {
                return Err(format!("node {} has not opened group {group}", place + 1));
            }
            let last = inner.committed.last(*group);
            if replica.applied < last {
                return Err(format!(
                    "node {} has applied {} of {last} in group {group}",
                    place + 1,
                    replica.applied
                ));
            }
        }
        Ok(())
    }
}

impl Inner {
    fn process_began(&mut self, place: Place) -> u64 {
        let number = self.events + 1;
        self.processes.insert(place, number);
        number
    }

    fn accuse(&mut self, text: String) {
        tracing::error!("{text}");
        self.verdict.get_or_insert(text);
    }

    fn check(&mut self, outcome: Result<(), String>) {
        if let Err(text) = outcome {
            self.accuse(text);
        }
    }

    fn observe(&mut self, place: Place, group: GroupId, event: &Event<'_>) {
        self.events += 1;
        let [kind, one, two] = mark(event);
        for part in [place as u64, group.0, kind, one, two] {
            self.fingerprint = (self.fingerprint.rotate_left(5) ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        tracing::trace!(node = place + 1, %group, "{}", Brief(event));
        match *event {
            Event::Opened { last, applied, recovering, promised, me, incarnation, .. } => {
                self.holdings.runs(place, me, incarnation);
                self.on_opened(place, group, last, applied, recovering);
                if !self.deleted.contains(&group) {
                    self.check(self.votes.find(place, group, promised));
                }
            }
            Event::Promised(state) => {
                let outcome = self.votes.promise(place, group, state);
                self.check(outcome);
            }
            Event::Committed { through, incarnations } => {
                self.on_committed(place, group, through, incarnations);
            }
            Event::Appended(entries) => self.on_appended(place, group, entries),
            Event::Stored { index, term, durability } => {
                self.on_stored(place, group, index, term, durability);
            }
            Event::Applied { index, term, body } => self.on_applied(place, group, index, term, body),
            Event::Installing { index, term } => {
                if let Some(replica) = self.replicas.get_mut(&(place, group)) {
                    replica.log.begin_install(index, term);
                }
            }
            Event::Installed { index, term } => self.on_installed(place, group, index, term),
            Event::LogStartMoved { index } => {
                self.seen.retired += 1;
                if let Some(replica) = self.replicas.get_mut(&(place, group)) {
                    replica.log.forget_through(index);
                }
            }
            Event::Role { role, term } => {
                if let Some(replica) = self.replicas.get_mut(&(place, group)) {
                    replica.leads = (role == Role::Leader).then_some(term);
                }
                if role == Role::Leader {
                    self.on_leader(place, group, term);
                }
            }
            Event::Serving { .. } => {}
            Event::UncleanRecovery => self.on_unclean(place, group),
            Event::Sound => self.on_sound(place, group),
            // The log goes, and until it is gone for certain it may come back.
            Event::GivenUp => {
                if let Some(replica) = self.replicas.get_mut(&(place, group)) {
                    let before = replica.log.positions();
                    replica.log.doubt();
                    replica.opened = false;
                    self.holdings.unmark_lost(place, group, before, |_, _| false);
                }
            }
            Event::Failed(_) if self.may_fail.contains(&place) => {
                self.failed.insert(place);
            }
            Event::Failed(reason) => {
                self.accuse(format!("node {}, group {group}: the replica failed: {reason}", place + 1));
            }
            Event::Deleted => {
                self.deleted.insert(group);
                self.replicas.remove(&(place, group));
                self.votes.forget(place, group);
            }
        }
    }

    /// A replica counts as committed what it has through `through`.
    fn on_committed(
        &mut self,
        place: Place,
        group: GroupId,
        through: Index,
        heard_of: &[(ReplicaId, Incarnation)],
    ) {
        let Some(replica) = self.replicas.get(&(place, group)) else { return };
        let news = self.committed.count(group, through, &replica.log);
        if let Some((last, logged)) = news.last()
            && replica.leads.is_some_and(|term| logged.term < term)
        {
            // Raft thesis, section 3.6.2.
            let text = format!(
                "node {}, group {group}: it leads in {:?} and counts copies of {last} of {}",
                place + 1,
                replica.leads,
                logged.term
            );
            self.accuse(text);
        }
        for (index, logged) in news {
            self.check_stored(place, group, index, logged, heard_of);
        }
    }

    fn on_opened(
        &mut self,
        place: Place,
        group: GroupId,
        last: (Index, Term),
        applied: Index,
        recovering: bool,
    ) {
        if recovering {
            self.seen.recovering += 1;
        }
        let fresh = || Replica {
            log: Shadow::default(),
            applied,
            recovering,
            crash: None,
            opened: true,
            leads: None,
            damaged: false,
        };
        let replica = self.replicas.entry((place, group)).or_insert_with(fresh);
        replica.applied = applied;
        replica.recovering = recovering;
        replica.opened = true;
        replica.leads = None;
        let crash = replica.crash.take();
        if replica.log.is_doubtful() && last.0 == Index::ZERO {
            // It was given up, and begins anew.
            replica.log = Shadow::default();
        }
        if self.deleted.contains(&group) {
            // What says that it was deleted may have been lost with the crash; then it is deleted again.
            replica.log.doubt();
        }
        let before = replica.log.positions();
        // It is known to lack what cannot be read any more.
        let may_be_cut = replica.damaged && recovering;
        let reopened = replica.log.reopen(last, crash.unwrap_or(Crash::Process), may_be_cut);
        let now: BTreeMap<Index, Logged> = replica.log.positions().into_iter().collect();
        // A suspect log counts for nothing.
        self.holdings.unmark_lost(place, group, before, |index, logged| {
            !recovering && now.get(&index) == Some(&logged)
        });
        if let Some(replica) = self.replicas.get(&(place, group))
            && !recovering
        {
            // What was on its way when the process died may have arrived; it counts like everything else that is there.
            self.holdings.mark_all(place, group, &replica.log);
        }
        if let Err(claimed) = reopened {
            self.accuse(format!(
                "node {}, group {group}: the log came back after {crash:?} with its end at {last:?}; {claimed}",
                place + 1
            ));
        }
    }

    fn on_appended(&mut self, place: Place, group: GroupId, entries: &[Entry<Command>]) {
        let mut logged = Vec::with_capacity(entries.len());
        for entry in entries {
            let (what, is_the_same) = self.holdings.note(group, entry);
            if !is_the_same {
                let text = format!(
                    "node {}, group {group}: two different entries at {} of {}",
                    place + 1,
                    entry.index,
                    entry.term
                );
                self.accuse(text);
            }
            logged.push((entry.index, what));
        }
        let Some(first) = entries.first() else { return };
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        if first.index <= replica.applied {
            let text = format!(
                "node {}, group {group}: {} is replaced, and {} is applied",
                place + 1,
                first.index,
                replica.applied
            );
            return self.accuse(text);
        }
        replica.log.append(logged);
    }

    fn on_stored(&mut self, place: Place, group: GroupId, index: Index, term: Term, durability: Durability) {
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        let stored = replica.log.stored(index, term, durability);
        if !replica.recovering {
            for (index, logged) in stored {
                self.holdings.mark(place, group, index, logged.term, durability);
            }
        }
    }

    fn on_sound(&mut self, place: Place, group: GroupId) {
        self.seen.sound += 1;
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        replica.recovering = false;
        self.holdings.mark_all(place, group, &replica.log);
    }

    fn on_applied(&mut self, place: Place, group: GroupId, index: Index, term: Term, body: &Body<Command>) {
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        if index != replica.applied.next() {
            let text =
                format!("node {}, group {group}: {index} is applied after {}", place + 1, replica.applied);
            return self.accuse(text);
        }
        replica.applied = index;
        let logged = Logged { term, digest: Digest::of(body) };
        match self.committed.apply(group, index, logged) {
            Ok(true) => self.on_first_commit(place, group, index, term, body),
            Ok(false) => {}
            Err(other) => self.accuse(format!(
                "node {}, group {group}: {index} is committed with {other:?} and applied with {logged:?}",
                place + 1
            )),
        }
    }

    /// The first that takes effect anywhere of what an entry says.
    fn on_first_commit(
        &mut self,
        place: Place,
        group: GroupId,
        index: Index,
        term: Term,
        body: &Body<Command>,
    ) {
        self.seen.commits += 1;
        if !self.holdings.knows(group, index, term) {
            self.accuse(format!(
                "node {}, group {group}: {index} of {term} is applied, and nobody has appended it",
                place + 1
            ));
        }
        if self.committed.learn_members(group, body) {
            self.seen.membership_changes += 1;
        }
    }

    /// What counts as committed is stored by a majority, as durably as it has to be.
    fn check_stored(
        &mut self,
        place: Place,
        group: GroupId,
        index: Index,
        logged: Logged,
        heard_of: &[(ReplicaId, Incarnation)],
    ) {
        // One that a crash has brought back goes on until it is deleted again; what was stored of it before is not known any more.
        if self.deleted.contains(&group) {
            return;
        }
        let must_be_synced = self.promises.synced || group == METADATA_GROUP || logged.digest.is_membership();
        let at_first = if group == METADATA_GROUP { self.promises.founders } else { REPLICATION_FACTOR };
        let voters = self.committed.voters(group, at_first);
        let entry = (index, logged.term);
        let Some(held_by) = self.holdings.holders(group, entry, must_be_synced, heard_of) else { return };
        if (held_by.count_ones() as usize) <= voters / 2 {
            let text = format!(
                "node {}, group {group}: {index} of {} counts as committed, stored by the nodes {held_by:#b} only",
                place + 1,
                logged.term
            );
            self.accuse(text);
        }
    }

    fn on_installed(&mut self, place: Place, group: GroupId, index: Index, term: Term) {
        self.seen.installs += 1;
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        replica.log.install(index, term);
        replica.applied = index;
    }

    fn on_leader(&mut self, place: Place, group: GroupId, term: Term) {
        self.seen.elections += 1;
        let leader = *self.leaders.entry((group, term)).or_insert(place);
        if leader != place {
            let text =
                format!("group {group}: the nodes {} and {} both lead in {term}", leader + 1, place + 1);
            self.accuse(text);
        }
        let Some((index, logged)) = self.committed.last_before(group, term) else { return };
        let Some(replica) = self.replicas.get(&(place, group)) else { return };
        if !replica.log.holds(index, logged) {
            let text = format!(
                "node {}, group {group}: it leads in {term} without {index} of {}, which is committed",
                place + 1,
                logged.term
            );
            self.accuse(text);
        }
    }

    /// An election by every voter was won by the longest log: what nobody holds any more is no longer committed.
    fn on_unclean(&mut self, place: Place, group: GroupId) {
        self.seen.unclean += 1;
        if !self.promises.may_lose {
            let text = format!("node {}, group {group}: an unclean recovery where none is needed", place + 1);
            return self.accuse(text);
        }
        let Some(winner) = self.replicas.get(&(place, group)) else { return };
        for (index, logged) in self.committed.take_back(group, &winner.log) {
            let holder = self
                .replicas
                .iter()
                .find(|((_, of), replica)| *of == group && replica.log.holds(index, logged));
            if let Some(((holder, _), _)) = holder {
                let text = format!(
                    "node {}, group {group}: an unclean recovery loses {index} of {}, which node {} holds",
                    place + 1,
                    logged.term,
                    holder + 1
                );
                self.verdict.get_or_insert(text);
            }
        }
    }
}
