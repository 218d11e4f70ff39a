//! Where those come in who are no nodes: Kafka clients, and operators over HTTP.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::net::TcpListener;
use tracing::error;

use super::watch;
use crate::broker::Broker;
use crate::config::{HostPort, ServerConfig};
use crate::net::listener;
use crate::ops::http::{self, HttpState};

/// A port is taken or an address does not exist.
#[derive(Debug, Error)]
#[error("can't listen on {address} ({what}): {source}")]
pub struct OpenDoorsError {
    /// The address.
    pub address: String,
    /// The flag that it was given with.
    pub what: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// The open doors of a node. Each is served once.
pub trait Doors: Send {
    /// The port that Kafka clients connect to.
    ///
    /// # Errors
    /// When the system can't tell.
    fn kafka_port(&self) -> io::Result<u16>;

    /// Serves metrics and health until `stop` says so, or its sender is gone.
    fn serve_http(&mut self, state: HttpState, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()>;

    /// Serves Kafka clients until `stop` says so.
    fn serve_kafka(&mut self, broker: Arc<Broker>, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()>;
}

/// Sockets, bound before anything else happens.
pub(super) struct TcpDoors {
    kafka: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl TcpDoors {
    pub(super) async fn open(config: &ServerConfig) -> Result<Self, OpenDoorsError> {
        Ok(Self {
            kafka: Some(bind(&config.listen, "--listen").await?),
            http: Some(bind(&config.http_listen, "--http-listen").await?),
        })
    }
}

async fn bind(address: &HostPort, what: &'static str) -> Result<TcpListener, OpenDoorsError> {
    TcpListener::bind((address.host.as_str(), address.port)).await.map_err(|source| OpenDoorsError {
        address: address.to_string(),
        what,
        source,
    })
}

impl Doors for TcpDoors {
    fn kafka_port(&self) -> io::Result<u16> {
        let listener = self.kafka.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(listener.local_addr()?.port())
    }

    fn serve_http(&mut self, state: HttpState, mut stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let listener = self.http.take();
        Box::pin(async move {
            let stopped = async move {
                let _told_or_gone = stop.wait_for(|stop| *stop).await;
            };
            if let Some(listener) = listener
                && let Err(error) = http::serve(listener, state, stopped).await
            {
                error!(%error, "the HTTP server failed");
            }
        })
    }

    fn serve_kafka(&mut self, broker: Arc<Broker>, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let listener = self.kafka.take();
        Box::pin(async move {
            if let Some(listener) = listener {
                listener::run(listener, broker, stop).await;
            }
        })
    }
}
