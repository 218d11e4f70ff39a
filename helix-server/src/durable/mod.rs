//! What a node keeps on its disk besides the WAL: where things lie, who the node is, and how it voted.

pub mod founded;
pub mod layout;
pub mod recovering;
pub mod start;
pub mod state;
pub mod state_file;
pub mod vote_slot;
pub mod vote_writer;
pub mod votes;
