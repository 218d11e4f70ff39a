//! Cutting stored payloads into whole record batches, without copying a record.
//!
//! A stored payload is one or more record batches laid end to end over a chain of chunks. Its bytes were validated
//! before they got an offset, so a batch that does not add up here is damage and ends the slice.

use bytes::Bytes;
use helix_wal::Payload;

/// Bytes in front of a record batch that its length field does not count: base offset and the length itself.
const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the last offset delta ends within a batch.
const PEEK_BYTES: usize = 27;

/// Record batches for one partition of a fetch response.
#[derive(Debug, Default, Clone)]
pub struct Slice {
    /// The batches' bytes, in order.
    pub chunks: Vec<Bytes>,
    /// Their total length.
    pub bytes: usize,
    /// More is there behind them, which a limit left out.
    pub cut: bool,
}

/// Appends to `out` the batches of `payload` that end after `offset`, until `max_bytes` would be exceeded.
///
/// If `out` is empty and `at_least_one`, the first batch is taken whatever its size (KIP-74). Returns whether more may be taken.
pub fn take_batches(
    payload: &Payload,
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
    out: &mut Slice,
) -> bool {
    let mut cursor = ChunkCursor::new(payload.chunks());
    if let Some(first) = cursor.peek_batch()
        && first.base_offset >= offset
        && out.bytes + payload.len() <= max_bytes
    {
        out.chunks.extend(payload.chunks().iter().cloned());
        out.bytes += payload.len();
        return true;
    }
    while let Some(batch) = cursor.peek_batch() {
        if batch.last_offset < offset {
            cursor.skip(batch.bytes);
            continue;
        }
        let first = out.bytes == 0 && at_least_one;
        if !first && out.bytes + batch.bytes > max_bytes {
            out.cut = true;
            return false;
        }
        cursor.take(batch.bytes, &mut out.chunks);
        out.bytes += batch.bytes;
    }
    out.bytes < max_bytes
}

/// The batches of a payload, each as one contiguous buffer (copied only where a batch spans chunks).
pub fn batches(payload: &Payload) -> impl Iterator<Item = Bytes> {
    let mut cursor = ChunkCursor::new(payload.chunks());
    std::iter::from_fn(move || {
        let batch = cursor.peek_batch()?;
        let mut chunks = Vec::with_capacity(2);
        cursor.take(batch.bytes, &mut chunks);
        Some(if chunks.len() == 1 { chunks.remove(0) } else { Bytes::from(chunks.concat()) })
    })
}

/// The first `N` bytes of every batch of a payload, gathered without touching the rest.
pub fn headers<const N: usize>(payload: &Payload) -> impl Iterator<Item = [u8; N]> {
    let mut cursor = ChunkCursor::new(payload.chunks());
    std::iter::from_fn(move || {
        let batch = cursor.peek_batch()?;
        let header = cursor.peek::<N>()?;
        cursor.skip(batch.bytes);
        Some(header)
    })
}

/// What the start of a batch says of it.
struct BatchPeek {
    base_offset: i64,
    last_offset: i64,
    bytes: usize,
}

/// A position in a chain of chunks.
struct ChunkCursor<'a> {
    chunks: &'a [Bytes],
    at: usize,
    remaining: usize,
}

impl<'a> ChunkCursor<'a> {
    fn new(chunks: &'a [Bytes]) -> Self {
        Self { chunks, at: 0, remaining: chunks.iter().map(Bytes::len).sum() }
    }

    fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        if self.remaining < N {
            return None;
        }
        let mut out = [0; N];
        let mut filled = 0;
        let mut at = self.at;
        for chunk in self.chunks {
            let part = &chunk[at..];
            let n = part.len().min(N - filled);
            out[filled..filled + n].copy_from_slice(&part[..n]);
            filled += n;
            at = 0;
            if filled == N {
                break;
            }
        }
        Some(out)
    }

    fn peek_batch(&self) -> Option<BatchPeek> {
        let head = self.peek::<PEEK_BYTES>()?;
        let base_offset = i64::from_be_bytes(head[..8].try_into().ok()?);
        let length = i32::from_be_bytes(head[8..12].try_into().ok()?);
        let last_offset_delta = i32::from_be_bytes(head[23..27].try_into().ok()?);
        let bytes = LENGTH_PREFIX_BYTES + usize::try_from(length).ok()?;
        (bytes >= PEEK_BYTES && bytes <= self.remaining).then(|| BatchPeek {
            base_offset,
            last_offset: base_offset + i64::from(last_offset_delta),
            bytes,
        })
    }

    fn skip(&mut self, mut bytes: usize) {
        self.remaining -= bytes;
        while bytes > 0 {
            let left = self.chunks[0].len() - self.at;
            if bytes < left {
                self.at += bytes;
                return;
            }
            bytes -= left;
            self.chunks = &self.chunks[1..];
            self.at = 0;
        }
    }

    fn take(&mut self, mut bytes: usize, out: &mut Vec<Bytes>) {
        self.remaining -= bytes;
        while bytes > 0 {
            let left = self.chunks[0].len() - self.at;
            let n = bytes.min(left);
            if n > 0 {
                out.push(self.chunks[0].slice(self.at..self.at + n));
            }
            bytes -= n;
            self.at += n;
            if self.at == self.chunks[0].len() {
                self.chunks = &self.chunks[1..];
                self.at = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(base_offset: i64, records: i32, body: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; 61 + body];
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&((49 + body) as i32).to_be_bytes());
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes
    }

    fn chop(bytes: &[u8], cuts: &[usize]) -> Payload {
        let bytes = Bytes::copy_from_slice(bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        Payload::from_chunks(cuts.windows(2).map(|w| bytes.slice(w[0]..w[1])).collect())
    }

    proptest! {
        #[test]
        fn slices_hold_whole_batches_from_the_offset_on(
            sizes in prop::collection::vec((1i32..5, 0usize..200), 1..6),
            cuts in prop::collection::vec(0usize..2000, 0..6),
            from in 0i64..20,
            max in 0usize..1500,
            at_least_one: bool,
        ) {
            let mut bytes = Vec::new();
            let mut all = Vec::new();
            let mut base = 0;
            for (records, body) in sizes {
                let b = batch(base, records, body);
                bytes.extend_from_slice(&b);
                base += i64::from(records);
                all.push((base - 1, b));
            }
            let payload = chop(&bytes, &cuts);
            prop_assert_eq!(batches(&payload).collect::<Vec<_>>().concat(), bytes);
            prop_assert_eq!(headers::<61>(&payload).count(), all.len());

            let mut expected: Vec<u8> = Vec::new();
            for (last, b) in all.iter().filter(|(last, _)| *last >= from) {
                let first = expected.is_empty() && at_least_one;
                if !first && expected.len() + b.len() > max { break; }
                expected.extend_from_slice(b);
                prop_assert!(*last >= from);
            }
            let mut out = Slice::default();
            take_batches(&payload, from, max, at_least_one, &mut out);
            prop_assert_eq!(out.chunks.concat(), expected);
            prop_assert_eq!(out.bytes, out.chunks.iter().map(Bytes::len).sum::<usize>());
        }
    }
}
