//! The `helix-server` program.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use helix_server::cli::{self, CliError, Command};
use helix_server::config::ServerConfig;
use helix_server::durable::layout::WAL_DIRECTORY;
use helix_server::env::{Env, watch};
use helix_server::node;
use helix_server::ops::recovery;
use helix_wal::disk::RealDisk;
use helix_wal::inspect::{self, DumpOptions, VerifyReport};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Run(config)) => run(*config),
        Ok(Command::WalDump { data_dir, json: false }) => look_into(&data_dir, Look::Dump),
        Ok(Command::WalDump { data_dir, json: true }) => look_into(&data_dir, Look::DumpJson),
        Ok(Command::WalVerify { data_dir }) => look_into(&data_dir, Look::Verify),
        Ok(Command::Recover { http, request }) => {
            match recovery::run(&http, &request, &mut std::io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => fail(&error),
            }
        }
        Err(CliError::Usage(usage)) => usage.exit(),
        Err(CliError::Config(error)) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("helix-server: {error}");
    ExitCode::FAILURE
}

fn run(config: ServerConfig) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours are for eyes: in a file they get in the way of every search.
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("helix").build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let result = runtime.block_on(async {
        let stop = stop_on_signal()?;
        node::run(Env::real(), config, stop).await.map_err(std::io::Error::other)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Tells when the process is asked to end: SIGTERM, or SIGINT from a terminal.
fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        // The signal stays told for as long as anybody can ask.
        sender.closed().await;
    });
    Ok(receiver)
}

#[derive(Clone, Copy)]
enum Look {
    Dump,
    DumpJson,
    Verify,
}

fn look_into(data_dir: &Path, look: Look) -> ExitCode {
    let disk = match RealDisk::new(data_dir.join(WAL_DIRECTORY)) {
        Ok(disk) => Arc::new(disk),
        Err(error) => return fail(&error),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let printed = |result: std::io::Result<()>, mut out: BufWriter<StdoutLock<'_>>| match result
        .and_then(|()| out.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    };
    match look {
        Look::Dump => printed(inspect::dump(&*disk, DumpOptions::default(), &mut out), out),
        Look::DumpJson => printed(inspect::dump_json(&*disk, &mut out), out),
        Look::Verify => match inspect::verify(&*disk) {
            Ok(report) => show(&report, &mut out),
            Err(error) => fail(&error),
        },
    }
}

fn show(report: &VerifyReport, out: &mut dyn Write) -> ExitCode {
    let VerifyReport { segments, frames, bytes, problems, notes } = report;
    let mut text = format!("{segments} segment(s), {frames} record(s), {bytes} bytes\n");
    for note in notes {
        text += &format!("note: {note}\n");
    }
    for problem in problems {
        text += &format!("problem: {problem}\n");
    }
    text += if problems.is_empty() {
        "the write-ahead log is whole\n"
    } else {
        "the write-ahead log is damaged\n"
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}
