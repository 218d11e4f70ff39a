//! The operating system.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;

use super::doors::TcpDoors;
use super::transport;
use super::{Doors, OpenDoorsError, Outside, PeerListener, PeerStream};
use crate::config::{HostPort, ServerConfig};
use crate::durable::layout::{self, DataDir, OpenDataDirError};
use crate::durable::state::BootId;

/// The world of a node in production.
#[derive(Clone, Copy, Debug)]
pub struct RealOutside;

impl Outside for RealOutside {
    fn unix_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    fn random_u64(&self) -> u64 {
        rand::random()
    }

    fn boot(&self) -> Option<BootId> {
        layout::current_boot()
    }

    fn open_data_dir(&self, path: &Path) -> Result<DataDir, OpenDataDirError> {
        DataDir::open(path)
    }

    fn listen_for_peers(&self, address: &HostPort) -> io::Result<Box<dyn PeerListener>> {
        let bound = std::net::TcpListener::bind((address.host.as_str(), address.port))?;
        transport::tcp_listener(bound)
    }

    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
        Box::pin(transport::dial_tcp(address))
    }

    fn open_doors<'a>(
        &'a self,
        config: &'a ServerConfig,
    ) -> BoxFuture<'a, Result<Box<dyn Doors>, OpenDoorsError>> {
        Box::pin(async move { Ok(Box::new(TcpDoors::open(config).await?) as Box<dyn Doors>) })
    }
}
