//! Clients without sockets: their requests enter where a connection's do once their frames are read. For simulations.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use tokio::time::Instant;

use crate::api::{self, Outcome, Request, table};
use crate::broker::Broker;
use crate::env::watch;

/// One client of a node.
pub struct DirectClient {
    broker: Arc<Broker>,
    /// Gone when the client is; see [`Request::reading`].
    reading: watch::Sender<()>,
}

impl DirectClient {
    /// A client of this node.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, reading: watch::Sender::new(()) }
    }

    /// Starts a request, given its body without a header. What must happen in the order of arrival has happened when this
    /// returns; the future that it returns gives the answer, its header with the correlation id 0 first. `None` where a
    /// connection would be closed.
    pub async fn request(
        &self,
        api_key: ApiKey,
        version: i16,
        body: Bytes,
    ) -> Option<BoxFuture<'static, Outcome>> {
        let served = table::served(api_key as i16)?;
        if !(served.min..=served.max).contains(&version) {
            return None;
        }
        let request = Request {
            api_key,
            version,
            correlation_id: 0,
            client: None,
            body,
            permits: Vec::new(),
            after_rejection: false,
            hold_until: Instant::now(),
            reading: self.reading.subscribe(),
        };
        match api::start(&self.broker, request).await {
            Ok(pending) => Some(pending),
            Err(error) => {
                tracing::warn!(?api_key, version, %error, "a request that is none");
                None
            }
        }
    }
}
