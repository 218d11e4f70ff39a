//! One request after the other over one connection.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire;

/// How long an answer may take that waits for nobody else.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
const FIND_COORDINATOR_VERSION: i16 = 3;

/// A connection to one broker.
pub(crate) struct Connection {
    socket: TcpStream,
    correlation_id: i32,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: &str) -> io::Result<Self> {
        let socket = timeout(CONNECT, TcpStream::connect(address)).await??;
        socket.set_nodelay(true)?;
        Ok(Self { socket, correlation_id: 0 })
    }

    /// Sends a request and waits for its answer; after an error the connection is of no use any more.
    pub(crate) async fn ask<T: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
        patience: Duration,
    ) -> io::Result<T> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let request = wire::numbered_request(api, version, request, self.correlation_id)?;
        let answer = timeout(patience, async {
            self.socket.write_all(&request).await?;
            let mut prefix = [0; 4];
            self.socket.read_exact(&mut prefix).await?;
            let mut answer = BytesMut::zeroed(wire::answer_length(prefix)?);
            self.socket.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(answer.freeze())
        });
        wire::answer_to(api, version, self.correlation_id, answer.await??)
    }

    /// Returns when the connection is of no use any more, while nothing is asked.
    pub(crate) async fn ended(&self) {
        // Nothing is owed, so whatever comes is the end, or something that nobody understands.
        let _ = self.socket.peek(&mut [0]).await;
    }
}

/// A node that coordinates a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coordinator {
    /// The broker's id.
    pub(crate) node: i32,
    /// `HOST:PORT`.
    pub(crate) address: String,
}

/// Asks one broker who coordinates a group.
pub(crate) async fn find_coordinator(bootstrap: &str, group: &str) -> io::Result<Coordinator> {
    let request =
        FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned())).with_key_type(0);
    let mut connection = Connection::open(bootstrap).await?;
    let found: FindCoordinatorResponse =
        connection.ask(ApiKey::FindCoordinator, FIND_COORDINATOR_VERSION, &request, ANSWER).await?;
    if found.error_code != 0 {
        return Err(io::Error::other(format!("FindCoordinator is answered with error {}", found.error_code)));
    }
    Ok(Coordinator { node: found.node_id.0, address: format!("{}:{}", found.host.as_str(), found.port) })
}
