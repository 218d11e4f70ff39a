//! Who a node is and where it listens: the settings that have flags of their own.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::address::{HostPort, Peer, parse_node_id, parse_peers};
use super::value::read_word;
use super::{BrokerConfig, ConfigError};
use crate::ids::NodeId;

/// What a success of `acks=all` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteDurability {
    /// In the page cache of a majority: survives the crash of every process, and of any minority of machines.
    ReplicationOnly,
    /// Synced to disk by a majority: also survives a power loss of every machine at once.
    Fsync,
}

impl WriteDurability {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplicationOnly => "replication-only",
            Self::Fsync => "fsync",
        }
    }
}

/// The names of the two modes.
const DURABILITIES: &[(&str, WriteDurability)] =
    &[("replication-only", WriteDurability::ReplicationOnly), ("fsync", WriteDurability::Fsync)];

/// Everything a server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `--node-id`.
    pub node_id: NodeId,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--listen`.
    pub listen: HostPort,
    /// `--advertise`; the listening address if that was not given. Port 0 stands for the port that listening chose.
    pub advertise: HostPort,
    /// `--peer-listen`; if that was not given, this node's own address in the list of peers, if there is a list.
    pub peer_listen: Option<HostPort>,
    /// `--peers` in ascending order of ids, this node included; empty for a single node.
    pub peers: Vec<Peer>,
    /// `--http-listen`.
    pub http_listen: HostPort,
    /// `--rack`.
    pub rack: Option<String>,
    /// `--write-durability`.
    pub write_durability: WriteDurability,
    /// The properties.
    pub broker: BrokerConfig,
    /// Names of the settings and properties that were given.
    pub given: BTreeSet<&'static str>,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Name of its flag, without the dashes.
    pub name: &'static str,
    /// What the value looks like.
    pub value_name: &'static str,
    /// Its default, in words.
    pub default: &'static str,
    /// What it does, in Markdown.
    pub doc: &'static str,
    pub(super) set: fn(&mut RawSettings, &str) -> Result<(), String>,
}

/// Settings that were given so far.
#[derive(Debug, Default)]
pub(super) struct RawSettings {
    node_id: Option<NodeId>,
    data_dir: Option<PathBuf>,
    listen: Option<HostPort>,
    advertise: Option<HostPort>,
    peer_listen: Option<HostPort>,
    peers: Option<Vec<Peer>>,
    http_listen: Option<HostPort>,
    rack: Option<String>,
    write_durability: Option<WriteDurability>,
}

fn read_address(text: &str) -> Result<Option<HostPort>, String> {
    text.parse().map(Some).map_err(|error: super::AddressError| error.to_string())
}

fn read_nonempty(text: &str) -> Result<&str, String> {
    if text.trim().is_empty() { Err("it must not be empty".to_owned()) } else { Ok(text) }
}

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "node-id",
        value_name: "N",
        default: "1",
        doc: "Number of this node, 0 or more: the broker id that clients see. It never changes.",
        set: |raw, text| {
            raw.node_id = Some(parse_node_id(text).map_err(|error| error.to_string())?);
            Ok(())
        },
    },
    Setting {
        name: "data-dir",
        value_name: "DIR",
        default: "./helix-data",
        doc: "Where everything is stored. One node alone may use it.",
        set: |raw, text| {
            raw.data_dir = Some(read_nonempty(text)?.into());
            Ok(())
        },
    },
    Setting {
        name: "listen",
        value_name: "HOST:PORT",
        default: "127.0.0.1:9092",
        doc: "Where Kafka clients connect.",
        set: |raw, text| {
            raw.listen = read_address(text)?;
            Ok(())
        },
    },
    Setting {
        name: "advertise",
        value_name: "HOST:PORT",
        default: "the address of `--listen`",
        doc: "The address that clients are told to connect to. Needed when `--listen` is 0.0.0.0 or [::].",
        set: |raw, text| {
            raw.advertise = read_address(text)?;
            Ok(())
        },
    },
    Setting {
        name: "peer-listen",
        value_name: "HOST:PORT",
        default: "this node's address in `--peers`",
        doc: "Where the other nodes of the cluster connect. Keep it inside your network: it has no access control.",
        set: |raw, text| {
            raw.peer_listen = read_address(text)?;
            Ok(())
        },
    },
    Setting {
        name: "peers",
        value_name: "ID@HOST:PORT,...",
        default: "none: a single node",
        doc: "The nodes that found the cluster, this one included; the same list on every node.",
        set: |raw, text| {
            raw.peers = Some(parse_peers(text).map_err(|error| error.to_string())?);
            Ok(())
        },
    },
    Setting {
        name: "http-listen",
        value_name: "HOST:PORT",
        default: "127.0.0.1:9644",
        doc: "Where `/metrics`, `/health/live` and `/health/ready` are served.",
        set: |raw, text| {
            raw.http_listen = read_address(text)?;
            Ok(())
        },
    },
    Setting {
        name: "rack",
        value_name: "NAME",
        default: "none",
        doc: "The rack or zone of this node: replicas are spread over racks, and clients are told.",
        set: |raw, text| {
            raw.rack = Some(read_nonempty(text)?.to_owned());
            Ok(())
        },
    },
    Setting {
        name: "write-durability",
        value_name: "replication-only|fsync",
        default: "replication-only",
        doc: "What an acknowledgement of `acks=all` means: in the page cache of a majority of replicas, or synced to \
              disk by a majority.",
        set: |raw, text| {
            raw.write_durability = Some(read_word(text, DURABILITIES)?);
            Ok(())
        },
    },
];

/// The setting of that name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl RawSettings {
    /// Fills in defaults and checks how the settings fit together.
    pub(super) fn resolve(
        self,
        broker: BrokerConfig,
        given: BTreeSet<&'static str>,
    ) -> Result<ServerConfig, ConfigError> {
        let node_id = self.node_id.unwrap_or(NodeId(1));
        let listen = self.listen.unwrap_or_else(|| HostPort::new("127.0.0.1", 9092));
        let peers = self.peers.unwrap_or_default();
        let own_peer = peers.iter().find(|peer| peer.node == node_id);
        if own_peer.is_none() && !peers.is_empty() {
            return Err(ConfigError::Contradiction(format!(
                "--peers does not list this node: add {node_id}@HOST:PORT to it, or set --node-id to one of its ids"
            )));
        }
        Ok(ServerConfig {
            node_id,
            data_dir: self.data_dir.unwrap_or_else(|| "./helix-data".into()),
            advertise: advertised(self.advertise, &listen)?,
            listen,
            peer_listen: self.peer_listen.or_else(|| own_peer.map(|peer| peer.address.clone())),
            peers,
            http_listen: self.http_listen.unwrap_or_else(|| HostPort::new("127.0.0.1", 9644)),
            rack: self.rack,
            write_durability: self.write_durability.unwrap_or(WriteDurability::ReplicationOnly),
            broker,
            given,
        })
    }
}

fn advertised(given: Option<HostPort>, listen: &HostPort) -> Result<HostPort, ConfigError> {
    let advertised = given.unwrap_or_else(|| listen.clone());
    if advertised.is_unspecified() {
        return Err(ConfigError::Contradiction(format!(
            "clients can't connect to {advertised}: set --advertise HOST:PORT to an address that they can reach"
        )));
    }
    Ok(advertised)
}
