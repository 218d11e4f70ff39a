//! How nodes reach each other: connections that carry bytes in order until they break. TCP, unless simulated.

use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// A connection between two nodes.
pub type PeerStream = Box<dyn PeerConnection>;

/// What a connection between nodes can do. Small writes leave at once.
pub trait PeerConnection: AsyncRead + AsyncWrite + Send + Unpin {
    /// Who is at the other end, for messages.
    fn peer(&self) -> String;

    /// The same connection, served by another runtime from here on.
    ///
    /// # Errors
    /// When that runtime can't take it.
    fn move_to(self: Box<Self>, runtime: &Handle) -> io::Result<PeerStream>;
}

/// Where other nodes connect. Bound, so that an address that is taken is an error of the start.
pub trait PeerListener: Send {
    /// The next connection. Served by the runtime that calls this first.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<PeerStream>>;
}

impl PeerConnection for TcpStream {
    fn peer(&self) -> String {
        self.peer_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
    }

    fn move_to(self: Box<Self>, runtime: &Handle) -> io::Result<PeerStream> {
        let stream = self.into_std()?;
        let _inside = runtime.enter();
        Ok(Box::new(Self::from_std(stream)?))
    }
}

enum TcpPeers {
    /// Not yet known to a runtime. `None` only if a runtime could not take it.
    Bound(Option<std::net::TcpListener>),
    Listening(TcpListener),
}

/// Takes connections on a bound socket.
///
/// # Errors
/// When the socket can't be used.
pub fn tcp_listener(bound: std::net::TcpListener) -> io::Result<Box<dyn PeerListener>> {
    bound.set_nonblocking(true)?;
    Ok(Box::new(TcpPeers::Bound(Some(bound))))
}

impl TcpPeers {
    async fn next(&mut self) -> io::Result<PeerStream> {
        if let Self::Bound(bound) = self {
            let bound = bound.take().ok_or(io::ErrorKind::NotConnected)?;
            *self = Self::Listening(TcpListener::from_std(bound)?);
        }
        let Self::Listening(listener) = self else { return Err(io::ErrorKind::NotConnected.into()) };
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

impl PeerListener for TcpPeers {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<PeerStream>> {
        Box::pin(self.next())
    }
}

pub(super) async fn dial_tcp(address: &str) -> io::Result<PeerStream> {
    let stream = TcpStream::connect(address).await?;
    // Buffers are left to the system: Linux sizes them by the round trip that it sees, a fixed size would stop that.
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
