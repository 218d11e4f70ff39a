//! `helix-workload`: load and checks for any Kafka-compatible cluster.

mod arguments;
mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match commands::run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("helix-workload: {error}");
            ExitCode::FAILURE
        }
    }
}
