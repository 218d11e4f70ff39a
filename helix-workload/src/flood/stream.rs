//! One kind of traffic: how many connections, what they send, and how fast.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Connections that all do the same. Written `connections=6,in-flight=5,messages=100,bytes=1024,rate=0`, in any order; what is left
/// out has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// Connections, spread over the brokers.
    pub connections: u32,
    /// Requests that each connection has on their way at once.
    pub in_flight: u32,
    /// Messages in the one record batch of each request.
    pub messages: u32,
    /// Bytes of each message.
    pub bytes: u32,
    /// Requests per second of all connections together; 0 is as many as go.
    pub rate: u32,
}

impl Default for Stream {
    fn default() -> Self {
        Self { connections: 6, in_flight: 5, messages: 100, bytes: 1024, rate: 0 }
    }
}

impl Stream {
    /// Bytes of the values in one request.
    pub fn request_bytes(&self) -> u64 {
        u64::from(self.messages) * u64::from(self.bytes)
    }

    fn set(&mut self, name: &str, value: u32) -> Result<(), String> {
        let (place, least) = match name {
            "connections" => (&mut self.connections, 1),
            "in-flight" => (&mut self.in_flight, 1),
            "messages" => (&mut self.messages, 1),
            "bytes" => (&mut self.bytes, 0),
            "rate" => (&mut self.rate, 0),
            _ => return Err(format!("{name} is none of connections, in-flight, messages, bytes, rate")),
        };
        if value < least {
            return Err(format!("{name} must be at least {least}"));
        }
        *place = value;
        Ok(())
    }
}

impl FromStr for Stream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut stream = Self::default();
        for part in text.split(',') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part}: expected NAME=NUMBER"))?;
            let value = value.parse().map_err(|_| format!("{part}: {value} is no number"))?;
            stream.set(name, value)?;
        }
        Ok(stream)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, in_flight, messages, bytes, rate } = self;
        write!(f, "{connections} connections, {in_flight} in flight each, {messages} x {bytes} bytes")?;
        if *rate > 0 {
            write!(f, ", {rate} requests/s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let stream: Stream = "bytes=100,rate=50".parse().unwrap();
        assert_eq!(stream, Stream { bytes: 100, rate: 50, ..Stream::default() });
        assert_eq!(stream.request_bytes(), 10_000);
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        let refused = |text: &str| text.parse::<Stream>().unwrap_err();
        assert!(refused("connections=0").contains("at least 1"));
        assert!(refused("size=1").contains("connections, in-flight"));
        assert!(refused("bytes").contains("NAME=NUMBER"));
        assert!(refused("bytes=x").contains("no number"));
    }
}
