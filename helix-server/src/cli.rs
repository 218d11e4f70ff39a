//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use thiserror::Error;

use crate::config::{
    ConfigError, Given, HostPort, ServerConfig, Source, parse_assignment, read_file, resolve,
};
use crate::ops::recovery::{RecoverRequest, Selection};

/// What the program was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run a server.
    Run(Box<ServerConfig>),
    /// Print the write-ahead log of a stopped server.
    WalDump {
        /// Where it is stored.
        data_dir: PathBuf,
        /// As lines of JSON.
        json: bool,
    },
    /// Check the write-ahead log of a stopped server.
    WalVerify {
        /// Where it is stored.
        data_dir: PathBuf,
    },
    /// Ask a running server about groups that wait for a leader.
    Recover {
        /// Its HTTP address.
        http: HostPort,
        /// What is asked.
        request: RecoverRequest,
    },
}

/// Why nothing is done.
#[derive(Debug, Error)]
pub enum CliError {
    /// Wrong usage, or a request for help or the version: `clap::Error::exit` does the right thing with each.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

#[derive(Debug, Parser)]
#[command(
    name = "helix-server",
    version,
    about = "A Kafka-wire-compatible distributed log broker. Without arguments: a single node on 127.0.0.1:9092.",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Number of this node, 0 or more: the broker id that clients see [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    node_id: Option<String>,
    /// Where everything is stored [default: ./helix-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where Kafka clients connect [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The address that clients are told to connect to [default: that of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where the other nodes connect [default: this node's address in --peers]
    #[arg(long, value_name = "HOST:PORT")]
    peer_listen: Option<String>,
    /// The nodes that found the cluster, this one included; the same list on every node
    #[arg(long, value_name = "ID@HOST:PORT,...")]
    peers: Option<String>,
    /// Where metrics and health are served [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// The rack or zone of this node
    #[arg(long, value_name = "NAME")]
    rack: Option<String>,
    /// What acks=all means: in the page cache, or synced to disk, of a majority [default: replication-only]
    #[arg(long, value_name = "replication-only|fsync")]
    write_durability: Option<String>,
    /// A file with any of these settings and properties
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Set a property, for instance num.partitions=3; can be repeated. docs/configuration.md lists them all
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Look into the write-ahead log of a stopped server
    Wal {
        #[command(subcommand)]
        action: WalAction,
    },
    /// Show which groups of a running node wait for a leader, and let them go on without lost voters
    #[command(long_about = RECOVER_HELP)]
    Recover(RecoverArgs),
}

const RECOVER_HELP: &str = "\
Shows which groups of a running node wait for a leader. After a power loss, too few voters may be sound to elect one: then every voter has \
to answer, and a group whose voter is lost for good would wait for ever.

With --force an election is won by a plain majority of the voters, recovering ones included. What only the missing voters hold is LOST, \
acknowledged or not. Run it on the node whose log holds the most (compare the last term, then the last index, that each node shows); \
where another replica that runs holds more, it refuses its vote and nothing happens. A majority of the voters has to run in any case.

Exit code: 0 if none of the groups waits for a leader in the end, 1 otherwise.";

#[derive(Debug, Args)]
struct RecoverArgs {
    /// Force elections where there is no leader: what only missing voters hold is lost
    #[arg(long)]
    force: bool,
    /// Where the node serves HTTP
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    http: String,
    /// The partitions of this topic
    #[arg(long, value_name = "NAME", conflicts_with_all = ["all", "metadata"])]
    topic: Option<String>,
    /// Of that topic, only this partition
    #[arg(long, value_name = "N", requires = "topic")]
    partition: Option<i32>,
    /// Every group of the node, the default without --force
    #[arg(long, conflicts_with = "metadata")]
    all: bool,
    /// The cluster's metadata
    #[arg(long)]
    metadata: bool,
}

impl RecoverArgs {
    fn into_command(self) -> Result<Command, CliError> {
        let Self { force, http, topic, partition, all, metadata } = self;
        let groups = match topic {
            Some(name) => Selection::Topic { name, partition },
            None if metadata => Selection::Metadata,
            None if all || !force => Selection::All,
            None => {
                let missing = "--force needs one of --topic, --metadata and --all";
                let error = Cli::command().error(ErrorKind::MissingRequiredArgument, missing);
                return Err(CliError::Usage(error));
            }
        };
        let http = http
            .parse()
            .map_err(|error| Cli::command().error(ErrorKind::ValueValidation, format!("--http: {error}")))?;
        Ok(Command::Recover { http, request: RecoverRequest { groups, force } })
    }
}

#[derive(Debug, Subcommand)]
enum WalAction {
    /// Print what it holds
    Dump {
        #[command(flatten)]
        log: WalArgs,
        /// One JSON object per record, for programs that compare logs
        #[arg(long)]
        json: bool,
    },
    /// Check that it is whole
    Verify(WalArgs),
}

#[derive(Debug, Args)]
struct WalArgs {
    /// Where the server stores everything
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Reads the command line, the program's name first, and the configuration file if it names one.
///
/// # Errors
/// When the usage or the configuration is wrong, and when help or the version is asked for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, CliError> {
    let cli = Cli::try_parse_from(args)?;
    Ok(match cli.command {
        Some(Sub::Wal { action: WalAction::Dump { log, json } }) => {
            Command::WalDump { data_dir: log.data_dir, json }
        }
        Some(Sub::Wal { action: WalAction::Verify(args) }) => Command::WalVerify { data_dir: args.data_dir },
        Some(Sub::Recover(args)) => args.into_command()?,
        None => Command::Run(Box::new(resolve(cli.run.into_given()?)?)),
    })
}

impl RunArgs {
    fn into_given(self) -> Result<Vec<Given>, ConfigError> {
        let mut given = match &self.config {
            Some(path) => read_file(path)?,
            None => Vec::new(),
        };
        for text in &self.set {
            given.push(parse_assignment(text)?);
        }
        let flags = [
            ("node-id", self.node_id),
            ("data-dir", self.data_dir),
            ("listen", self.listen),
            ("advertise", self.advertise),
            ("peer-listen", self.peer_listen),
            ("peers", self.peers),
            ("http-listen", self.http_listen),
            ("rack", self.rack),
            ("write-durability", self.write_durability),
        ];
        for (name, value) in flags {
            given.extend(value.map(|value| Given { source: Source::Flag, name: name.to_owned(), value }));
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SETTINGS, WriteDurability};

    fn parsed(line: &str) -> Result<Command, CliError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        for setting in SETTINGS {
            let known = Cli::command().get_arguments().any(|arg| arg.get_long() == Some(setting.name));
            assert!(known, "--{} has no flag", setting.name);
        }
    }

    #[test]
    fn no_arguments_run_a_server() {
        let Command::Run(config) = parsed("helix-server").expect("valid") else { panic!("it runs") };
        assert_eq!(config.listen.port, 9092);
    }

    #[test]
    fn flags_and_properties_are_read() {
        let line =
            "helix-server --node-id 3 --write-durability fsync --set num.partitions=4 --set helix.shards=2";
        let Command::Run(config) = parsed(line).expect("valid") else { panic!("it runs") };
        assert_eq!(config.node_id.get(), 3);
        assert_eq!(config.write_durability, WriteDurability::Fsync);
        assert_eq!((config.broker.num_partitions, config.broker.shards), (4, 2));
    }

    #[test]
    fn the_log_can_be_inspected() {
        let data_dir = PathBuf::from("d");
        let dump = parsed("helix-server wal dump --data-dir d").expect("valid");
        assert_eq!(dump, Command::WalDump { data_dir: data_dir.clone(), json: false });
        let dump = parsed("helix-server wal dump --data-dir d --json").expect("valid");
        assert_eq!(dump, Command::WalDump { data_dir: data_dir.clone(), json: true });
        let verify = parsed("helix-server wal verify --data-dir d").expect("valid");
        assert_eq!(verify, Command::WalVerify { data_dir });
    }

    #[test]
    fn a_recovery_is_forced_only_for_groups_that_are_named() {
        let request = |line: &str| match parsed(line) {
            Ok(Command::Recover { request, http }) => (request, http.port),
            other => panic!("{other:?}"),
        };
        let all = RecoverRequest { groups: Selection::All, force: false };
        assert_eq!(request("helix-server recover"), (all.clone(), 9644));
        assert_eq!(
            request("helix-server recover --force --all --http localhost:1"),
            (RecoverRequest { force: true, ..all }, 1)
        );
        let one = Selection::Topic { name: "t".to_owned(), partition: Some(3) };
        let forced = "helix-server recover --force --topic t --partition 3";
        assert_eq!(request(forced).0, RecoverRequest { groups: one, force: true });
        assert_eq!(request("helix-server recover --metadata").0.groups, Selection::Metadata);
        for refused in [
            "helix-server recover --force",
            "helix-server recover --partition 3",
            "helix-server recover --all --metadata",
            "helix-server recover --http nowhere",
        ] {
            assert!(parsed(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn wrong_usage_is_explained() {
        let error = |line| parsed(line).expect_err("refused").to_string();
        assert!(error("helix-server --node-di 3").contains("--node-id"));
        assert!(error("helix-server --set num.partitions").contains("name=value"));
        assert!(error("helix-server --node-id -1").contains("is not a node id"));
        assert!(error("helix-server --version").contains(env!("CARGO_PKG_VERSION")));
    }
}
