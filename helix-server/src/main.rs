//! The `helix-server` program.
fn main() {}
