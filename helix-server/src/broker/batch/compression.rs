//! Reads the records of a batch through its compression, and writes them into another, as a stream.

use std::io::{self, BufReader, Cursor, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};

use super::{BatchError, Compression, StoredCompression};

/// First bytes of the framing that snappy-java (and so the Java client) puts around snappy blocks.
pub(super) const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic is followed by two version numbers of 4 bytes each.
const XERIAL_HEADER_BYTES: usize = 16;

/// No snappy block grows by more: its densest element makes 64 bytes of 3. What claims more is not decompressed, so that a few
/// bytes can't ask for [`MAX_DECOMPRESSED_BYTES`](super::MAX_DECOMPRESSED_BYTES).
const MAX_SNAPPY_GROWTH: usize = 22;

/// The decompressed records as a buffered stream.
pub(super) fn open<'a>(
    compression: Compression,
    records: &'a [u8],
    limit_bytes: u64,
) -> Result<Box<dyn Read + 'a>, BatchError> {
    Ok(match compression {
        Compression::None => Box::new(records),
        Compression::Gzip => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(records))),
        Compression::Lz4 => Box::new(BufReader::new(lz4_flex::frame::FrameDecoder::new(records))),
        Compression::Zstd => Box::new(BufReader::new(
            zstd::stream::read::Decoder::with_buffer(records)
                .map_err(|error| BatchError::Decompress { reason: error.to_string() })?,
        )),
        Compression::Snappy if records.starts_with(&XERIAL_MAGIC) => Box::new(XerialReader {
            rest: records.get(XERIAL_HEADER_BYTES..).unwrap_or_default(),
            block: Cursor::new(Vec::new()),
            limit_bytes,
        }),
        Compression::Snappy => Box::new(Cursor::new(
            snappy_block(records, limit_bytes)
                .map_err(|error| BatchError::Decompress { reason: error.to_string() })?,
        )),
    })
}

fn snappy_block(block: &[u8], limit_bytes: u64) -> io::Result<Vec<u8>> {
    let invalid = |error: snap::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let length = snap::raw::decompress_len(block).map_err(invalid)?;
    if length as u64 > limit_bytes || length > block.len().saturating_mul(MAX_SNAPPY_GROWTH) {
        let reason = format!(
            "a snappy block of {} bytes claims to hold {length} bytes, more than it can or than {limit_bytes}",
            block.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(invalid)
}

/// The framing of snappy-java: blocks, each with its compressed length in 4 bytes.
struct XerialReader<'a> {
    rest: &'a [u8],
    block: Cursor<Vec<u8>>,
    limit_bytes: u64,
}

impl XerialReader<'_> {
    fn next_block(&mut self) -> io::Result<()> {
        let cut =
            || io::Error::new(io::ErrorKind::UnexpectedEof, "snappy framing ends in the middle of a block");
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        self.block = Cursor::new(snappy_block(block, self.limit_bytes)?);
        Ok(())
    }
}

impl Read for XerialReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(out)?;
            if read > 0 || out.is_empty() || self.rest.is_empty() {
                return Ok(read);
            }
            self.next_block()?;
        }
    }
}

/// Uncompressed bytes in a snappy block, as Kafka writes them.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
/// The two version numbers behind the magic of snappy-java.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

/// Compresses what is written to it.
pub(super) enum Encoder<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Snappy(XerialWriter<W>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(compression: StoredCompression, mut out: W) -> io::Result<Self> {
        Ok(match compression {
            StoredCompression::AsProduced | StoredCompression::Uncompressed => Self::Plain(out),
            StoredCompression::Gzip(level) => {
                Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::new(level)))
            }
            StoredCompression::Snappy => {
                out.write_all(&XERIAL_MAGIC)?;
                out.write_all(&XERIAL_VERSIONS)?;
                Self::Snappy(XerialWriter { out, block: Vec::with_capacity(SNAPPY_BLOCK_BYTES) })
            }
            StoredCompression::Lz4 => {
                let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
                Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(info, out)))
            }
            StoredCompression::Zstd(level) => Self::Zstd(zstd::stream::write::Encoder::new(out, level)?),
        })
    }

    /// Writes what is left, and gives back where everything was written to.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Snappy(writer) => writer.finish(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Snappy(writer) => writer.write_all(bytes),
            Self::Lz4(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }
}

/// Writes the framing of snappy-java.
pub(super) struct XerialWriter<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> XerialWriter<W> {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(SNAPPY_BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == SNAPPY_BLOCK_BYTES {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        let compressed = snap::raw::Encoder::new().compress_vec(&self.block).map_err(io::Error::other)?;
        self.out.write_all(&(compressed.len() as u32).to_be_bytes())?;
        self.out.write_all(&compressed)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(self.out)
    }
}
