//! Invalid input, made from a seed.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::requests::valid_requests;

/// Numbers that make careless decoders allocate, loop, overflow or underflow.
const CRAFTED: [i32; 16] = [
    i32::MAX,
    i32::MIN,
    -1,
    -2,
    0,
    1,
    127,
    128,
    0x7FFF,
    0xFFFF,
    100 * 1024 * 1024,
    100 * 1024 * 1024 + 1,
    0x0FFF_FFFF,
    0x1000_0000,
    0x3FFF_FFFF,
    0x7FFF_FFFE,
];

/// Which socket the input is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Socket {
    Kafka,
    Peers,
    Http,
}

/// Makes one input after another.
pub(crate) struct Inputs {
    random: SmallRng,
    valid: Vec<(Vec<u8>, usize)>,
}

impl Inputs {
    pub(crate) fn new(random: SmallRng) -> Self {
        Self { random, valid: valid_requests() }
    }

    pub(crate) fn next(&mut self) -> (Socket, Vec<u8>) {
        match self.random.random_range(0..100) {
            0..4 => (Socket::Peers, self.random_frame()),
            4..6 => (Socket::Http, self.http()),
            6..12 => (Socket::Kafka, self.random_bytes()),
            12..18 => (Socket::Kafka, self.random_frame()),
            18..24 => (Socket::Kafka, self.length_alone()),
            24..36 => (Socket::Kafka, self.truncated()),
            36..56 => (Socket::Kafka, self.flipped()),
            56..76 => (Socket::Kafka, self.crafted_number()),
            76..86 => (Socket::Kafka, self.crafted_varint()),
            86..92 => (Socket::Kafka, self.unknown_api()),
            92..96 => (Socket::Kafka, self.padded()),
            _ => (Socket::Kafka, self.several()),
        }
    }

    fn valid(&mut self) -> (Vec<u8>, usize) {
        self.valid.choose(&mut self.random).expect("there are served APIs").clone()
    }

    fn random_bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(0..600)];
        self.random.fill(bytes.as_mut_slice());
        bytes
    }

    /// Random bytes behind a length that fits.
    fn random_frame(&mut self) -> Vec<u8> {
        let bytes = self.random_bytes();
        framed(&bytes)
    }

    /// A length that promises more than will come, or what no frame can have.
    fn length_alone(&mut self) -> Vec<u8> {
        let length = *CRAFTED.choose(&mut self.random).expect("the list is not empty");
        let mut bytes = length.to_be_bytes().to_vec();
        let (request, _) = self.valid();
        bytes.extend_from_slice(&request[..self.random.random_range(0..request.len())]);
        bytes
    }

    /// A request cut short, with the length of the whole or of the part.
    fn truncated(&mut self) -> Vec<u8> {
        let (request, _) = self.valid();
        let part = &request[..self.random.random_range(0..request.len())];
        if self.random.random() {
            framed(part)
        } else {
            [&(request.len() as i32).to_be_bytes(), part].concat()
        }
    }

    fn flipped(&mut self) -> Vec<u8> {
        let (mut request, body_at) = self.valid();
        for _ in 0..self.random.random_range(1..8) {
            let at = self.place(&request, body_at, 1);
            request[at] = self.random.random();
        }
        framed(&request)
    }

    /// Four bytes anywhere become a number that is interesting as a length.
    fn crafted_number(&mut self) -> Vec<u8> {
        let (mut request, body_at) = self.valid();
        if request.len() < body_at + 4 {
            return framed(&request);
        }
        let at = self.place(&request, body_at, 4);
        let number = *CRAFTED.choose(&mut self.random).expect("the list is not empty");
        request[at..at + 4].copy_from_slice(&number.to_be_bytes());
        framed(&request)
    }

    /// A byte anywhere becomes a variable-length number: lengths of flexible versions and of records.
    fn crafted_varint(&mut self) -> Vec<u8> {
        let (mut request, body_at) = self.valid();
        let at = self.place(&request, body_at, 1);
        let mut number = self.random.random::<u64>() >> self.random.random_range(0..64);
        let mut varint = Vec::new();
        while number >= 0x80 && varint.len() < 11 {
            varint.push(number as u8 | 0x80);
            number >>= 7;
        }
        varint.push(number as u8);
        request.splice(at..=at, varint);
        framed(&request)
    }

    fn unknown_api(&mut self) -> Vec<u8> {
        let (mut request, _) = self.valid();
        let api: i16 =
            if self.random.random() { self.random.random_range(0..100) } else { self.random.random() };
        let version: i16 =
            if self.random.random() { self.random.random_range(-1..30) } else { self.random.random() };
        if self.random.random() {
            request[..2].copy_from_slice(&api.to_be_bytes());
        }
        request[2..4].copy_from_slice(&version.to_be_bytes());
        framed(&request)
    }

    /// A valid request with more behind it than belongs there.
    fn padded(&mut self) -> Vec<u8> {
        let (mut request, _) = self.valid();
        request.extend(self.random_bytes());
        framed(&request)
    }

    /// Valid requests with an invalid one behind or between them.
    fn several(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let (request, _) = self.valid();
            bytes.extend(framed(&request));
        }
        bytes.extend(self.flipped());
        bytes
    }

    fn http(&mut self) -> Vec<u8> {
        let mut bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n".to_vec();
        let keep = self.random.random_range(0..=bytes.len());
        bytes.truncate(keep);
        bytes.extend(self.random_bytes());
        bytes
    }

    /// Mostly in the body, sometimes in the header, so that `size` bytes fit.
    fn place(&mut self, request: &[u8], body_at: usize, size: usize) -> usize {
        let last = request.len() - size;
        let first = if body_at <= last && self.random.random_bool(0.9) { body_at } else { 0 };
        self.random.random_range(first..=last)
    }
}

/// Puts the length in front.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes(), bytes].concat()
}
