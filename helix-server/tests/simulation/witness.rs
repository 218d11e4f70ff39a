//! Sees everything that happens to every replica, and knows what must never happen: two leaders in one term, two entries in one
//! place, a committed entry that changes, a leader without what is committed, a log that comes back shorter than it was said to be
//! stored, a commit that too few have stored or that counts copies of an entry of an earlier term, a vote that is given twice or
//! forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use helix_raft::{
    Body, Durability, Entry, GroupId, HardState, Incarnation, Index, Membership, ReplicaId, Role, Term,
};
use helix_server::controller::commands::METADATA_GROUP;
use helix_server::entry::Command;
use helix_server::env::{Event, Observer};
use helix_wal::disk::Crash;
use parking_lot::Mutex;

use super::network::Place;
use super::shadow::{Digest, Logged, Shadow};

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
    /// The terms and votes that were said to be stored.
    promised: BTreeMap<(Place, GroupId), HardState>,
    /// Every entry that was ever appended anywhere.
    entries: Entries,
    /// Who has lost an entry again, and with which start.
    lost: HashMap<(GroupId, Index, Term), Vec<Loss>>,
    /// Who runs where.
    identities: BTreeMap<Place, (ReplicaId, Incarnation)>,
    committed: BTreeMap<GroupId, BTreeMap<Index, Logged>>,
    /// Up to where somebody has said that a log is committed.
    counted: BTreeMap<GroupId, Index>,
    leaders: HashMap<(GroupId, Term), Place>,
    memberships: BTreeMap<GroupId, Membership>,
    /// From which offset on unclean recoveries have taken records.
    losses: BTreeMap<GroupId, u64>,
    /// Nodes whose disks are bad: replicas there may give up.
    may_fail: BTreeSet<Place>,
    failed: BTreeSet<Place>,
    seen: Seen,
}

/// How often things happened, to show that a schedule was not idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) elections: u64,
    pub(crate) commits: u64,
    pub(crate) recovering: u64,
    pub(crate) sound: u64,
    pub(crate) unclean: u64,
    pub(crate) installs: u64,
    pub(crate) membership_changes: u64,
    pub(crate) damaged: u64,
    pub(crate) retired: u64,
    pub(crate) crashes: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        let Self {
            elections,
            commits,
            recovering,
            sound,
            unclean,
            installs,
            membership_changes,
            damaged,
            retired,
            crashes,
        } = other;
        self.elections += elections;
        self.commits += commits;
        self.recovering += recovering;
        self.sound += sound;
        self.unclean += unclean;
        self.installs += installs;
        self.membership_changes += membership_changes;
        self.damaged += damaged;
        self.retired += retired;
        self.crashes += crashes;
    }
}

/// One entry, wherever it lies.
struct Known {
    digest: Digest,
    prev_term: Term,
    /// The nodes that have stored it, a bit each: in the page cache, and synced.
    cached: u32,
    synced: u32,
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
            promised: BTreeMap::new(),
            entries: HashMap::new(),
            lost: HashMap::new(),
            identities: BTreeMap::new(),
            committed: BTreeMap::new(),
            counted: BTreeMap::new(),
            leaders: HashMap::new(),
            memberships: BTreeMap::new(),
            losses: BTreeMap::new(),
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

    pub(crate) fn seen(&self) -> Seen {
        self.inner.lock().seen
    }

    /// From which offset on unclean recoveries have taken records of a group.
    pub(crate) fn lost_from(&self, group: GroupId) -> Option<u64> {
        self.inner.lock().losses.get(&group).copied()
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
        inner.promised.retain(|(at, _), _| *at != place);
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
        let inner = self.inner.lock();
        let known = inner.memberships.get(&group);
        known.map_or_else(|| founders.contains(&replica), |membership| membership.contains(replica))
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
            let last = inner.committed.get(group).and_then(|log| log.keys().next_back().copied());
            let last = last.unwrap_or(Index::ZERO);
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

    fn observe(&mut self, place: Place, group: GroupId, event: &Event<'_>) {
        self.events += 1;
        let [kind, one, two] = mark(event);
        for part in [place as u64, group.0, kind, one, two] {
            self.fingerprint = (self.fingerprint.rotate_left(5) ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        tracing::trace!(node = place + 1, %group, "{}", Brief(event));
        match *event {
            Event::Opened { last, applied, recovering, promised, me, incarnation, .. } => {
                self.identities.insert(place, (me, incarnation));
                self.on_opened(place, group, last, applied, recovering);
                self.on_promise_found(place, group, promised);
            }
            Event::Promised(state) => self.on_promised(place, group, state),
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
                    self.unmark_lost(place, group, before, |_, _| false);
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
                self.promised.remove(&(place, group));
            }
        }
    }

    /// What a node does not hold any more does not count as stored there.
    fn unmark_lost(
        &mut self,
        place: Place,
        group: GroupId,
        before: Vec<(Index, Logged)>,
        holds: impl Fn(Index, Logged) -> bool,
    ) {
        let Some((replica, incarnation)) = self.identities.get(&place).copied() else { return };
        for (index, logged) in before {
            let key = (group, index, logged.term);
            if !holds(index, logged)
                && let Some(known) = self.entries.get_mut(&key)
                && (known.cached | known.synced) & (1 << place) != 0
            {
                known.cached &= !(1 << place);
                known.synced &= !(1 << place);
                self.lost.entry(key).or_default().push((place, replica, incarnation));
            }
        }
    }

    /// A term and vote are stored: within a term a vote is given once.
    fn on_promised(&mut self, place: Place, group: GroupId, state: HardState) {
        let known = self.promised.entry((place, group)).or_insert(state);
        let before = std::mem::replace(known, state);
        if !state.covers(&before) || contradicts(before, state) {
            self.accuse(format!(
                "node {}, group {group}: it has promised {before:?}, and then {state:?}",
                place + 1
            ));
        }
    }

    /// A replica was opened: what it has promised stands.
    fn on_promise_found(&mut self, place: Place, group: GroupId, found: HardState) {
        let Some(known) = self.promised.get(&(place, group)).copied() else { return };
        if !self.deleted.contains(&group) && (!found.covers(&known) || contradicts(known, found)) {
            self.accuse(format!(
                "node {}, group {group}: it has promised {known:?}, and came back with {found:?}",
                place + 1
            ));
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
        let counted = self.counted.entry(group).or_default();
        let news = replica.log.between(*counted, through);
        *counted = through.max(*counted);
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
        self.unmark_lost(place, group, before, |index, logged| {
            !recovering && now.get(&index) == Some(&logged)
        });
        if let Some(replica) = self.replicas.get(&(place, group))
            && !recovering
        {
            // What was on its way when the process died may have arrived; it counts like everything else that is there.
            mark_held(&mut self.entries, place, group, &replica.log);
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
            let digest = Digest::of(&entry.body);
            let fresh = || Known { digest, prev_term: entry.prev_term, cached: 0, synced: 0 };
            let known = self.entries.entry((group, entry.index, entry.term)).or_insert_with(fresh);
            if known.digest != digest || known.prev_term != entry.prev_term {
                let text = format!(
                    "node {}, group {group}: two different entries at {} of {}",
                    place + 1,
                    entry.index,
                    entry.term
                );
                self.accuse(text);
            }
            logged.push((entry.index, Logged { term: entry.term, digest }));
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
                mark_stored(&mut self.entries, place, group, index, logged.term, durability);
            }
        }
    }

    fn on_sound(&mut self, place: Place, group: GroupId) {
        self.seen.sound += 1;
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        replica.recovering = false;
        mark_held(&mut self.entries, place, group, &replica.log);
    }

    fn on_applied(&mut self, place: Place, group: GroupId, index: Index, term: Term, body: &Body<Command>) {
        let digest = Digest::of(body);
        let Some(replica) = self.replicas.get_mut(&(place, group)) else { return };
        if index != replica.applied.next() {
            let text =
                format!("node {}, group {group}: {index} is applied after {}", place + 1, replica.applied);
            return self.accuse(text);
        }
        replica.applied = index;
        let logged = Logged { term, digest };
        let committed = self.committed.entry(group).or_default();
        match committed.get(&index) {
            Some(other) if *other != logged => {
                let text = format!(
                    "node {}, group {group}: {index} is committed with {other:?} and applied with {logged:?}",
                    place + 1
                );
                self.accuse(text);
            }
            Some(_) => {}
            None => {
                committed.insert(index, logged);
                self.on_first_commit(place, group, index, term, body);
            }
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
        if !self.entries.contains_key(&(group, index, term)) {
            self.accuse(format!(
                "node {}, group {group}: {index} of {term} is applied, and nobody has appended it",
                place + 1
            ));
        }
        if let Body::Membership(membership) = body {
            self.seen.membership_changes += 1;
            self.memberships.insert(group, membership.clone());
        }
    }

    /// What counts as committed is stored by a majority, as durably as it has to be.
    ///
    /// What a replica has said that it holds counts until whoever counts has heard that it has started again since: it may have said so just
    /// before it lost it.
    fn check_stored(
        &mut self,
        place: Place,
        group: GroupId,
        index: Index,
        logged: Logged,
        heard_of: &[(ReplicaId, Incarnation)],
    ) {
        let must_be_synced = self.promises.synced || group == METADATA_GROUP || logged.digest.is_membership();
        let at_first = if group == METADATA_GROUP { self.promises.founders } else { REPLICATION_FACTOR };
        let voters = self.memberships.get(&group).map_or(at_first, |membership| membership.voters.len());
        let Some(known) = self.entries.get(&(group, index, logged.term)) else { return };
        let held_by = if must_be_synced { known.synced } else { known.cached | known.synced };
        let lost_unheard = |at: &&Loss| {
            heard_of.iter().any(|(replica, incarnation)| *replica == at.1 && *incarnation < at.2)
        };
        let lost = self.lost.get(&(group, index, logged.term)).into_iter().flatten();
        let held_by = lost.filter(lost_unheard).fold(held_by, |held_by, (at, ..)| held_by | 1 << at);
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
        let earlier = self.committed.get(&group).and_then(|log| {
            log.iter().rev().find(|(_, logged)| logged.term < term).map(|(index, logged)| (*index, *logged))
        });
        let Some((index, logged)) = earlier else { return };
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
        let committed = self.committed.entry(group).or_default();
        let lost: Vec<(Index, Logged)> = committed
            .iter()
            .filter(|(index, logged)| !winner.log.holds(**index, **logged))
            .map(|(index, logged)| (*index, *logged))
            .collect();
        if let (Some((first, _)), Some(counted)) = (lost.first(), self.counted.get_mut(&group)) {
            *counted = first.prev().min(*counted);
        }
        for (index, logged) in &lost {
            committed.remove(index);
            let holder = self
                .replicas
                .iter()
                .find(|((_, of), replica)| *of == group && replica.log.holds(*index, *logged));
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
        let from_offset = lost.iter().filter_map(|(_, logged)| logged.digest.base_offset()).min();
        if let Some(from_offset) = from_offset {
            let known = self.losses.entry(group).or_insert(from_offset);
            *known = from_offset.min(*known);
        }
    }
}

/// Where an entry was lost, of which replica, and by which start of it.
type Loss = (Place, ReplicaId, Incarnation);
type Entries = HashMap<(GroupId, Index, Term), Known>;

/// Whether two states that one replica has promised can't both be kept.
fn contradicts(before: HardState, after: HardState) -> bool {
    before.term == after.term && before.vote.is_some() && before.vote != after.vote
}

/// Notes who has stored everything that a log holds.
fn mark_held(entries: &mut Entries, place: Place, group: GroupId, log: &Shadow) {
    for (durability, held) in log.held() {
        for (index, logged) in held {
            mark_stored(entries, place, group, index, logged.term, durability);
        }
    }
}

fn mark_stored(
    entries: &mut Entries,
    place: Place,
    group: GroupId,
    index: Index,
    term: Term,
    durability: Durability,
) {
    if let Some(known) = entries.get_mut(&(group, index, term)) {
        match durability {
            Durability::PageCache => known.cached |= 1 << place,
            Durability::Synced => known.synced |= 1 << place,
        }
    }
}

/// An event in three numbers.
fn mark(event: &Event<'_>) -> [u64; 3] {
    match event {
        Event::Opened { last, applied, .. } => [1, last.0.0, applied.0],
        Event::Appended(entries) => entries.last().map_or([2, 0, 0], |last| [2, last.index.0, last.term.0]),
        Event::Stored { index, term, .. } => [3, index.0, term.0],
        Event::Applied { index, term, .. } => [4, index.0, term.0],
        Event::Installed { index, term } => [5, index.0, term.0],
        Event::LogStartMoved { index } => [6, index.0, 0],
        Event::Role { role, term } => [7, *role as u64, term.0],
        Event::Serving { term } => [8, term.0, 0],
        Event::UncleanRecovery => [9, 0, 0],
        Event::Sound => [10, 0, 0],
        Event::Failed(_) => [11, 0, 0],
        Event::Deleted => [12, 0, 0],
        Event::GivenUp => [13, 0, 0],
        Event::Installing { index, term } => [16, index.0, term.0],
        Event::Promised(HardState { term, vote }) => [14, term.0, vote.map_or(0, |vote| vote.0)],
        Event::Committed { through, .. } => [15, through.0, 0],
    }
}

/// An event in a line.
struct Brief<'a>(&'a Event<'a>);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Event::Appended(entries) => {
                let ends = entries.first().zip(entries.last());
                let Some((first, last)) = ends else { return Ok(()) };
                write!(f, "appended {}..={} of {}", first.index, last.index, last.term)
            }
            Event::Applied { index, term, .. } => write!(f, "applied {index} of {term}"),
            Event::Committed { through, .. } => write!(f, "committed through {through}"),
            other => write!(f, "{other:?}"),
        }
    }
}
