//! How often things happened.

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
    pub(crate) generations: u64,
    pub(crate) offset_commits: u64,
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
            generations,
            offset_commits,
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
        self.generations += generations;
        self.offset_commits += offset_commits;
    }
}
