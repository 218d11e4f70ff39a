//! The kinds of faults.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// kill -9 of the node that leads most partitions.
    LeaderKilled,
    /// kill -9 of the node that leads fewest.
    FollowerKilled,
    /// SIGSTOP: its connections stay open and nothing is answered.
    NodePaused,
    /// Nothing passes between a node and the others, either way.
    NodeCutOff,
    /// Nothing passes from a node to the others; what they say arrives.
    OneWayCut,
    /// A node's links are slow and narrow.
    SlowLinks,
    /// A node's links are cut and healed many times a second or two.
    FlappingLinks,
    /// A node's file system has no byte left.
    DiskFull,
    /// Every fsync and fdatasync of a node fails.
    SyncFails,
    /// kill -9 of a node and everything that it stored is gone; it starts blank.
    DiskWiped,
    /// kill -9 of all nodes at once.
    AllKilled,
    /// A node's machine is started again: whatever it had not synced may be missing, and it does not know what.
    MachineRestarted,
    /// The machines of all nodes are, at once: nobody is sure of anything.
    AllMachinesRestarted,
    /// SIGTERM of one node after the other.
    RollingRestart,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// Those that lead most.
    Leaders,
    /// Those that lead fewest.
    Followers,
    /// Any minority.
    Any,
    /// The node whose file system can be filled.
    SmallDisk,
    /// All of them.
    All,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::LeaderKilled,
        Self::FollowerKilled,
        Self::NodePaused,
        Self::NodeCutOff,
        Self::OneWayCut,
        Self::SlowLinks,
        Self::FlappingLinks,
        Self::DiskFull,
        Self::SyncFails,
        Self::DiskWiped,
        Self::AllKilled,
        Self::MachineRestarted,
        Self::AllMachinesRestarted,
        Self::RollingRestart,
    ];

    /// What it is called on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeaderKilled => "leader-killed",
            Self::FollowerKilled => "follower-killed",
            Self::NodePaused => "node-paused",
            Self::NodeCutOff => "node-cut-off",
            Self::OneWayCut => "one-way-cut",
            Self::SlowLinks => "slow-links",
            Self::FlappingLinks => "flapping-links",
            Self::DiskFull => "disk-full",
            Self::SyncFails => "sync-fails",
            Self::DiskWiped => "disk-wiped",
            Self::AllKilled => "all-killed",
            Self::MachineRestarted => "machine-restarted",
            Self::AllMachinesRestarted => "all-machines-restarted",
            Self::RollingRestart => "rolling-restart",
        }
    }

    /// Which nodes it strikes.
    pub const fn victims(self) -> Victims {
        match self {
            Self::LeaderKilled => Victims::Leaders,
            Self::FollowerKilled => Victims::Followers,
            Self::NodePaused
            | Self::NodeCutOff
            | Self::OneWayCut
            | Self::SlowLinks
            | Self::FlappingLinks
            | Self::SyncFails
            | Self::DiskWiped
            | Self::MachineRestarted => Victims::Any,
            Self::DiskFull => Victims::SmallDisk,
            Self::AllKilled | Self::AllMachinesRestarted | Self::RollingRestart => Victims::All,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// There is no such fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault {name:?}; there are {}", Fault::ALL.map(Fault::name).join(", "))]
pub struct UnknownFault {
    name: String,
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == name)
            .ok_or_else(|| UnknownFault { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name_and_no_other() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        let error = "leader-kiled".parse::<Fault>().unwrap_err().to_string();
        assert!(
            error.contains("leader-kiled") && error.contains("leader-killed, follower-killed"),
            "{error}"
        );
    }
}
