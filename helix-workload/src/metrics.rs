//! Reads Prometheus text from `/metrics`, and health from `/health/...`.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than any node's metrics; bounds what a wrong address can make us read.
const LARGEST_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// An HTTP endpoint did not answer as expected.
#[derive(Debug, thiserror::Error)]
#[error("http://{address}{path}: {reason}")]
pub struct HttpError {
    /// `HOST:PORT`.
    pub address: String,
    /// Path.
    pub path: String,
    /// What went wrong.
    pub reason: String,
}

/// Status code and body of `GET http://address/path`.
pub fn get(address: &str, path: &str) -> Result<(u16, String), HttpError> {
    let failed = |reason: String| HttpError { address: address.to_owned(), path: path.to_owned(), reason };
    exchange(address, path).map_err(|error| failed(error.to_string())).and_then(|answer| {
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed("no HTTP answer".into()))?;
        let status = head.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or_else(|| failed("no HTTP status".into()))?, body.to_owned()))
    })
}

fn exchange(address: &str, path: &str) -> std::io::Result<String> {
    let resolved = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&resolved, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends where the connection ends, and nothing is chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LARGEST_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The samples of one node, or of several added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// By name, with and without labels: `a_total{api="x"}` and the sum over all labels, `a_total`.
    by_name: HashMap<String, f64>,
}

impl Samples {
    /// Asks `http://address/metrics`.
    pub fn fetch(address: &str) -> Result<Self, HttpError> {
        let (status, body) = get(address, "/metrics")?;
        if status == 200 {
            return Ok(Self::parse(&body));
        }
        Err(HttpError {
            address: address.to_owned(),
            path: "/metrics".into(),
            reason: format!("status {status}"),
        })
    }

    /// Adds up several nodes.
    pub fn fetch_all(addresses: &[String]) -> Result<Self, HttpError> {
        let mut all = Self::default();
        for address in addresses {
            for (name, value) in Self::fetch(address)?.by_name {
                *all.by_name.entry(name).or_default() += value;
            }
        }
        Ok(all)
    }

    /// Reads the Prometheus text format; lines that are no samples are passed over.
    pub fn parse(text: &str) -> Self {
        let mut by_name: HashMap<String, f64> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name_end = line.find(['{', ' ']).unwrap_or(line.len());
            let labels_end = line.rfind('}').map_or(name_end, |at| at + 1);
            let value = line[labels_end..].split_ascii_whitespace().next().map(str::parse::<f64>);
            let Some(Ok(value)) = value else { continue };
            *by_name.entry(line[..name_end].to_owned()).or_default() += value;
            if labels_end > name_end {
                *by_name.entry(line[..labels_end].to_owned()).or_default() += value;
            }
        }
        Self { by_name }
    }

    /// The value of `name`, or of `name{label="value"}`; `None` if no node has it.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.by_name.get(name).copied()
    }

    /// How much `name` grew since `earlier`.
    pub fn growth(&self, earlier: &Self, name: &str) -> Option<f64> {
        Some(self.value(name)? - earlier.value(name).unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_with_their_labels_and_summed_over_them() {
        let samples = Samples::parse(
            "# HELP a_total things {x}\n# TYPE a_total counter\na_total{api=\"x y\"} 3\na_total{api=\"z}\"} 4.5 1700000\n\
             b 7\nbroken\n# EOF\n",
        );
        assert_eq!(samples.value("a_total"), Some(7.5));
        assert_eq!(samples.value("a_total{api=\"x y\"}"), Some(3.0));
        assert_eq!(samples.value("b"), Some(7.0));
        assert_eq!(samples.value("broken"), None);
    }

    #[test]
    fn growth_is_the_difference() {
        let before = Samples::parse("a 3\n");
        let after = Samples::parse("a 10\n");
        assert_eq!(after.growth(&before, "a"), Some(7.0));
        assert_eq!(after.growth(&before, "b"), None);
    }
}
