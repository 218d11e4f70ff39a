//! What a node concludes from its state file when it starts. Pure; [`super::state_file`] does the writing.

use helix_raft::planted;
use thiserror::Error;

use super::founded::Founding;
use super::recovering::Recovering;
use super::state::{BootId, NodeState, WriteMode};
use crate::ids::{Incarnation, METADATA_GROUP, NodeId, ReplicaId};

/// What the node knows about itself and its surroundings before it reads its state.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// What `--node-id` says.
    pub node: NodeId,
    /// What `--write-durability` says.
    pub mode: WriteMode,
    /// This boot of the machine; `None` if it can't be told.
    pub boot: Option<BootId>,
    /// Whether the data directory lies on a file system whose page cache outlives the process.
    pub page_cache_outlives_process: bool,
    /// A random number, used as the identity of a blank disk.
    pub fresh_replica: ReplicaId,
}

/// Why every log on this node is suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspectReason {
    /// The machine has crashed or lost power: it booted again, and the node had not stopped cleanly.
    MachineCrash,
    /// The node had not stopped cleanly, and whether the machine crashed can't be told.
    BootUnknown,
    /// The node had not stopped cleanly, and its file system may have lost what was written.
    UntrustedFileSystem,
}

/// The conclusion. `state` has to be on disk before anything else is written or sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartDecision {
    /// The new state.
    pub state: NodeState,
    /// Whether the data directory was blank.
    pub blank: bool,
    /// Whether everything that the last process wrote is certainly there: a torn tail of the WAL can only be its
    /// very last write.
    pub writes_intact: bool,
    /// Set when this start made every log suspect.
    pub suspect: Option<SuspectReason>,
}

/// A data directory that belongs to another node.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the data directory belongs to node {recorded}, but --node-id says {asked}: \
     start with --node-id {recorded}, or name another --data-dir"
)]
pub struct WrongNode {
    recorded: NodeId,
    asked: NodeId,
}

/// Decides what the state file must say while the node runs.
///
/// The clean mark goes, every group is marked suspect if entries may have been lost, the boot and the incarnation
/// are renewed. All of it is ONE atomic replacement of the file, so no crash can leave the new boot id without the
/// marks that the old one demanded.
///
/// # Errors
/// When the directory belongs to another node.
pub fn decide(previous: Option<NodeState>, around: &Surroundings) -> Result<StartDecision, WrongNode> {
    let Some(mut state) = previous else {
        return Ok(first_start(around));
    };
    if state.node != around.node {
        return Err(WrongNode { recorded: state.node, asked: around.node });
    }
    let doubt = doubt_about_page_cache(&state, around);
    let suspect = match state.written_in {
        _ if state.clean => None,
        WriteMode::Fsync => None,
        WriteMode::ReplicationOnly => doubt,
    };
    if planted("recovering-forgotten") {
        state.recovering = Recovering::Nothing;
    }
    if suspect.is_some() {
        // Group 0 acknowledges nothing before it is synced, in both modes: a crash of the machine takes nothing from it that counts.
        let metadata_is_sound = !state.recovering.contains(METADATA_GROUP);
        state.recovering = Recovering::all();
        if metadata_is_sound && !planted("metadata-is-suspect") {
            state.recovering.mark_sound([METADATA_GROUP]);
        }
    }
    let writes_intact = state.clean || doubt.is_none();
    state.clean = false;
    state.boot = around.boot;
    state.incarnation = Incarnation(state.incarnation.get() + 1);
    Ok(StartDecision { state, blank: false, writes_intact, suspect })
}

fn doubt_about_page_cache(state: &NodeState, around: &Surroundings) -> Option<SuspectReason> {
    match (state.boot, around.boot) {
        _ if !around.page_cache_outlives_process => Some(SuspectReason::UntrustedFileSystem),
        (Some(then), Some(now)) if then == now => None,
        (Some(_), Some(_)) => Some(SuspectReason::MachineCrash),
        _ => Some(SuspectReason::BootUnknown),
    }
}

fn first_start(around: &Surroundings) -> StartDecision {
    let state = NodeState {
        node: around.node,
        replica: if planted("blank-disk-keeps-its-id") {
            ReplicaId(around.node.get().unsigned_abs().into())
        } else {
            around.fresh_replica
        },
        incarnation: Incarnation(1),
        boot: around.boot,
        clean: false,
        written_in: around.mode,
        recovering: Recovering::Nothing,
        founding: Founding::Blank,
    };
    StartDecision { state, blank: true, writes_intact: true, suspect: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::state::tests::example;
    use crate::ids::GroupId;

    const OLD_BOOT: BootId = BootId([3; 16]);
    const NEW_BOOT: BootId = BootId([4; 16]);

    fn around(boot: Option<BootId>) -> Surroundings {
        Surroundings {
            node: NodeId(2),
            mode: WriteMode::ReplicationOnly,
            boot,
            page_cache_outlives_process: true,
            fresh_replica: ReplicaId(77),
        }
    }

    #[test]
    fn a_blank_directory_gets_an_identity() {
        let decision = decide(None, &around(Some(OLD_BOOT))).unwrap();
        assert!(decision.blank && decision.writes_intact && decision.suspect.is_none());
        assert_eq!(decision.state.replica, ReplicaId(77));
        assert_eq!(decision.state.incarnation, Incarnation(1));
        assert_eq!(decision.state.founding, Founding::Blank);
        assert!(!decision.state.clean);
    }

    #[test]
    fn another_node_id_is_refused() {
        let mut other = around(None);
        other.node = NodeId(5);
        let error = decide(Some(example()), &other).unwrap_err().to_string();
        assert!(error.contains("belongs to node 2") && error.contains("--node-id says 5"), "{error}");
    }

    #[test]
    fn the_table_of_starts() {
        use SuspectReason::{BootUnknown, MachineCrash, UntrustedFileSystem};
        use WriteMode::{Fsync, ReplicationOnly};
        // boot now, trusted file system, clean, mode that wrote => writes intact, suspect
        let table = [
            (Some(OLD_BOOT), true, false, ReplicationOnly, true, None),
            (Some(OLD_BOOT), true, false, Fsync, true, None),
            (Some(NEW_BOOT), true, false, ReplicationOnly, false, Some(MachineCrash)),
            (Some(NEW_BOOT), true, false, Fsync, false, None),
            (Some(NEW_BOOT), true, true, ReplicationOnly, true, None),
            (None, true, false, ReplicationOnly, false, Some(BootUnknown)),
            (None, true, true, ReplicationOnly, true, None),
            (Some(OLD_BOOT), false, false, ReplicationOnly, false, Some(UntrustedFileSystem)),
            (Some(OLD_BOOT), false, false, Fsync, false, None),
            (Some(OLD_BOOT), false, true, ReplicationOnly, true, None),
        ];
        for (boot, trusted, clean, written_in, intact, suspect) in table {
            let mut state = example();
            state.clean = clean;
            state.written_in = written_in;
            let mut around = around(boot);
            around.page_cache_outlives_process = trusted;
            let decision = decide(Some(state.clone()), &around).unwrap();
            let case = format!("{boot:?} {trusted} {clean} {written_in:?}");
            assert_eq!((decision.writes_intact, decision.suspect), (intact, suspect), "{case}");
            assert_eq!(decision.state.boot, boot, "{case}");
            assert_eq!(decision.state.incarnation, Incarnation(42), "{case}");
            assert_eq!(decision.state.replica, state.replica, "{case}");
            assert!(!decision.state.clean && !decision.blank, "{case}");
            let recovering = &decision.state.recovering;
            let all = matches!(recovering, Recovering::AllBut(sound) if sound.iter().eq([&METADATA_GROUP]));
            assert_eq!(all, suspect.is_some(), "{case}");
            assert!(all || *recovering == state.recovering, "{case}");
        }
    }

    #[test]
    fn a_second_crash_does_not_forget_the_first() {
        let mut state = example();
        state.recovering = Recovering::Nothing;
        let crashed = decide(Some(state), &around(Some(NEW_BOOT))).unwrap();
        // The process dies right after its start; the boot is the same now.
        let again = decide(Some(crashed.state), &around(Some(NEW_BOOT))).unwrap();
        assert_eq!(again.suspect, None);
        assert!(again.state.recovering.contains(GroupId(1)));
    }

    #[test]
    fn a_crash_of_the_machine_makes_metadata_suspect_only_if_it_was() {
        let mut state = example();
        state.recovering = Recovering::Groups([METADATA_GROUP].into());
        let crashed = decide(Some(state), &around(Some(NEW_BOOT))).unwrap();
        assert!(crashed.state.recovering.contains(METADATA_GROUP));
        assert!(crashed.state.recovering.contains(GroupId(1)));
    }

    #[test]
    fn the_mode_of_the_data_is_not_the_mode_asked_for() {
        let mut asked = around(Some(NEW_BOOT));
        asked.mode = WriteMode::Fsync;
        let decision = decide(Some(example()), &asked).unwrap();
        assert_eq!(decision.state.written_in, WriteMode::ReplicationOnly);
        assert_eq!(decision.suspect, Some(SuspectReason::MachineCrash));
    }
}
