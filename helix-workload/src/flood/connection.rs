//! One connection: keeps its window of requests full, or its pace, and notes what comes back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::stream::Stream;
use crate::wire::{self, Template};

/// What has come back to all connections of a stream.
#[derive(Debug)]
pub(super) struct Tally {
    /// Requests answered with success.
    pub(super) requests: u64,
    /// Requests answered with an error, and the last such error code.
    pub(super) failed: u64,
    pub(super) error_code: Option<i16>,
    /// From the moment that the request was due to its answer.
    pub(super) latency_us: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        // Up to ten minutes, at three digits: within the bounds of the library.
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
        Self { requests: 0, failed: 0, error_code: None, latency_us }
    }

    fn answered(&mut self, error_code: i16, took: Duration) {
        if error_code == 0 {
            self.requests += 1;
            self.latency_us.saturating_record(took.as_micros() as u64);
        } else {
            self.failed += 1;
            self.error_code = Some(error_code);
        }
    }
}

/// What a connection needs to know.
pub(super) struct Orders {
    pub(super) address: String,
    /// One for each partition that it writes to, in turn.
    pub(super) templates: Vec<Template>,
    pub(super) stream: Stream,
    /// Which of the stream's connections it is.
    pub(super) number: u32,
    pub(super) tally: Arc<Mutex<Tally>>,
    /// Becomes true when no more is to be sent.
    pub(super) stop: watch::Receiver<bool>,
}

/// A request on its way: its number, and when it was due.
type Owed = (i32, Instant);

/// Sends until told to stop, then waits for the answers that are owed.
pub(super) async fn run(orders: Orders) -> io::Result<()> {
    let socket = TcpStream::connect(&orders.address).await?;
    socket.set_nodelay(true)?;
    let (from_broker, to_broker) = socket.into_split();
    let window = Semaphore::new(orders.stream.in_flight as usize);
    let (owe, owed) = mpsc::unbounded_channel();
    let tally = Arc::clone(&orders.tally);
    let sending = send(orders, to_broker, &window, owe);
    tokio::try_join!(sending, receive(from_broker, &window, owed, &tally)).map(|_| ())
}

/// Returns the half that was sent on, so that the connection stays open as long as answers are owed.
async fn send(
    mut orders: Orders,
    mut to_broker: OwnedWriteHalf,
    window: &Semaphore,
    owe: mpsc::UnboundedSender<Owed>,
) -> io::Result<OwnedWriteHalf> {
    let pace = Pace::of(&orders.stream, orders.number);
    for correlation_id in 0.. {
        let due = pace.due(correlation_id);
        let turn = async {
            if let Some(due) = due {
                sleep_until(due).await;
            }
            window.acquire().await
        };
        tokio::select! {
            biased;
            stopped = orders.stop.wait_for(|stop| *stop) => {
                stopped.map_err(io::Error::other)?;
                break;
            }
            permit = turn => permit.map_err(io::Error::other)?.forget(),
        }
        owe.send((correlation_id, due.unwrap_or_else(Instant::now))).map_err(io::Error::other)?;
        let template = correlation_id as usize % orders.templates.len();
        let (head, tail) = orders.templates[template].numbered(correlation_id);
        to_broker.write_all_buf(&mut Buf::chain(head, tail)).await?;
    }
    Ok(to_broker)
}

async fn receive(
    from_broker: OwnedReadHalf,
    window: &Semaphore,
    mut owed: mpsc::UnboundedReceiver<Owed>,
    tally: &Mutex<Tally>,
) -> io::Result<()> {
    let mut from_broker = BufReader::new(from_broker);
    while let Some((correlation_id, due)) = owed.recv().await {
        let mut prefix = [0; 4];
        from_broker.read_exact(&mut prefix).await?;
        let mut answer = BytesMut::zeroed(wire::answer_length(prefix)?);
        from_broker.read_exact(&mut answer).await?;
        let error_code = wire::produce_outcome(answer.freeze(), correlation_id)?;
        tally.lock().answered(error_code, due.elapsed());
        window.add_permits(1);
    }
    Ok(())
}

/// When each request of a connection is due, if the stream has a rate.
struct Pace {
    begun: Instant,
    /// Seconds from one request of this connection to its next, and before its first.
    interval_s: Option<(f64, f64)>,
}

impl Pace {
    /// The connections of a stream take turns.
    fn of(stream: &Stream, number: u32) -> Self {
        let rate = f64::from(stream.rate);
        let interval_s =
            (stream.rate > 0).then(|| (f64::from(stream.connections) / rate, f64::from(number) / rate));
        Self { begun: Instant::now(), interval_s }
    }

    fn due(&self, request: i32) -> Option<Instant> {
        let (interval_s, first_s) = self.interval_s?;
        Some(self.begun + Duration::from_secs_f64(first_s + interval_s * f64::from(request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_of_a_stream_take_turns() {
        let stream = Stream { connections: 4, rate: 8, ..Stream::default() };
        let pace = Pace::of(&stream, 3);
        let due = |request| (pace.due(request).unwrap() - pace.begun).as_secs_f64();
        assert_eq!((due(0), due(1), due(2)), (0.375, 0.875, 1.375));
        assert!(Pace::of(&Stream { rate: 0, ..stream }, 3).due(1).is_none());
    }
}
