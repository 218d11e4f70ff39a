//! Members of consumer groups without a client library: a task and a connection each, so that thousands fit into one process, and
//! nothing is hidden: generations, assignments and errors are those of the coordinator's answers.
//!
//! * [`call`] asks one thing after the other over one connection, and finds coordinators;
//! * [`member`] joins, is assigned, heartbeats, commits and leaves;
//! * [`outside`] asks a coordinator about groups without being a member;
//! * [`crowd`] runs thousands of members and says when their groups are stable.

pub(crate) mod call;
pub(crate) mod crowd;
pub(crate) mod member;
pub(crate) mod outside;
