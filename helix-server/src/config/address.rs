//! Addresses and the list of peers.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::ids::NodeId;

/// A host name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port; 0 lets the system choose, where that is allowed.
    pub port: u16,
}

impl HostPort {
    /// An address of these parts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Whether it means all addresses of the machine, which no client can connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A text that is no address or no list of peers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No port.
    #[error("{0:?} has no port: write HOST:PORT")]
    NoPort(String),
    /// No host.
    #[error("{0:?} has no host: write HOST:PORT")]
    NoHost(String),
    /// The port is no port.
    #[error("{0:?} is not a port: it must be a number from 0 to 65535")]
    Port(String),
    /// An IPv6 address without brackets, or something worse.
    #[error("{0:?} is not a host: write a name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    /// A peer without a node id.
    #[error("{0:?} is not a peer: write ID@HOST:PORT, for instance 1@node1:19092")]
    NoNodeId(String),
    /// The id of a peer is no id.
    #[error("{0:?} is not a node id: it must be a number from 0 to 2147483647")]
    NodeId(String),
    /// A peer that nobody can connect to.
    #[error("{0} is not an address that the other nodes can connect to")]
    Unreachable(HostPort),
    /// Two peers with the same id.
    #[error("node {0} is listed twice")]
    RepeatedNode(NodeId),
    /// Two peers with the same address.
    #[error("address {0} is listed twice")]
    RepeatedAddress(HostPort),
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let port = port.parse().map_err(|_| AddressError::Port(port.to_owned()))?;
        let bad_host = || AddressError::Host(host.to_owned());
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or_else(bad_host)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
                inner
            }
            None if host.is_empty() => return Err(AddressError::NoHost(text.to_owned())),
            None if host.contains([':', '/', '@', ',', ']']) || host.contains(char::is_whitespace) => {
                return Err(bad_host());
            }
            None => host,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// A node of the cluster, as `--peers` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Where its `--peer-listen` can be reached.
    pub address: HostPort,
}

/// Reads a node id.
pub(super) fn parse_node_id(text: &str) -> Result<NodeId, AddressError> {
    match text.parse::<i32>() {
        Ok(id) if id >= 0 => Ok(NodeId(id)),
        _ => Err(AddressError::NodeId(text.to_owned())),
    }
}

/// Reads `1@HOST:PORT,2@HOST:PORT,...`, in ascending order of ids whatever the order in the text.
///
/// # Errors
/// When a part of it is no peer, or two parts are the same node or address.
pub fn parse_peers(text: &str) -> Result<Vec<Peer>, AddressError> {
    let mut peers = Vec::new();
    let (mut nodes, mut addresses) = (HashSet::new(), HashSet::new());
    for part in text.split(',').map(str::trim) {
        let (id, address) = part.split_once('@').ok_or_else(|| AddressError::NoNodeId(part.to_owned()))?;
        let node = parse_node_id(id.trim())?;
        let address: HostPort = address.trim().parse()?;
        if address.port == 0 || address.is_unspecified() {
            return Err(AddressError::Unreachable(address));
        }
        if !nodes.insert(node) {
            return Err(AddressError::RepeatedNode(node));
        }
        if !addresses.insert(address.clone()) {
            return Err(AddressError::RepeatedAddress(address));
        }
        peers.push(Peer { node, address });
    }
    peers.sort_by_key(|peer| peer.node);
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["127.0.0.1:9092", "node-1.example:1", "[::1]:9092", "localhost:0"] {
            assert_eq!(text.parse::<HostPort>().expect("an address").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        let error = |text: &str| text.parse::<HostPort>().expect_err("no address");
        assert_eq!(error("localhost"), AddressError::NoPort("localhost".into()));
        assert_eq!(error(":9092"), AddressError::NoHost(":9092".into()));
        assert_eq!(error("host:70000"), AddressError::Port("70000".into()));
        assert_eq!(error("::1:9092"), AddressError::Host("::1".into()));
        assert_eq!(error("[::1:9092"), AddressError::Host("[::1".into()));
        assert_eq!(error("http://host:9092"), AddressError::Host("http://host".into()));
    }

    #[test]
    fn peers_are_sorted_and_checked() {
        let peers = parse_peers("2@b:19092, 1@a:19092").expect("two peers");
        assert_eq!(peers.iter().map(|peer| peer.node.get()).collect::<Vec<_>>(), [1, 2]);
        let error = |text: &str| parse_peers(text).expect_err("no list of peers");
        assert_eq!(error("a:19092"), AddressError::NoNodeId("a:19092".into()));
        assert_eq!(error("x@a:19092"), AddressError::NodeId("x".into()));
        assert_eq!(error("-1@a:19092"), AddressError::NodeId("-1".into()));
        assert_eq!(error("1@a:1,1@b:1"), AddressError::RepeatedNode(NodeId(1)));
        assert_eq!(error("1@a:1,2@a:1"), AddressError::RepeatedAddress(HostPort::new("a", 1)));
        assert_eq!(error("1@0.0.0.0:1"), AddressError::Unreachable(HostPort::new("0.0.0.0", 1)));
        assert_eq!(error("1@a:1,"), AddressError::NoNodeId(String::new()));
    }
}
