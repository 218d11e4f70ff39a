//! Gives damaged segment files the checksums that their bytes should have, so that what lies behind the checksums is
//! reached. The layout is in `docs/wal-format.md`.

const SEGMENT_HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 96;
const FRAME_MARK: u8 = 0xF5;
const RUN_BYTES: usize = 112;
const ENTRY_BYTES: usize = 48;
const TRAILER_BYTES: usize = 72;

/// Corrects every checksum of a segment with this number.
pub(crate) fn correct(file: &mut [u8], segment: u64) {
    if file.starts_with(b"HELIXWAL") && file.len() >= SEGMENT_HEADER_BYTES {
        let checksum = crc32fast::hash(&file[12..SEGMENT_HEADER_BYTES]);
        put_u32(file, 8, checksum);
    }
    let mut position = SEGMENT_HEADER_BYTES;
    while position + FRAME_HEADER_BYTES <= file.len() {
        position += correct_frame(file, segment, position).unwrap_or(8);
    }
    let _ = correct_footer(file);
}

/// Returns the size of the frame, if there is one.
fn correct_frame(file: &mut [u8], segment: u64, position: usize) -> Option<usize> {
    let header = &file[position..position + FRAME_HEADER_BYTES];
    if header[15] != FRAME_MARK {
        return None;
    }
    let payload_from = position + FRAME_HEADER_BYTES;
    let payload_to = payload_from + usize::try_from(u32_at(file, position + 4)?).ok()?;
    let payload_checksum = crc32fast::hash(file.get(payload_from..payload_to)?);
    put_u32(file, position + 8, payload_checksum);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&(position as u64).to_le_bytes());
    hasher.update(&file[position + 4..payload_from]);
    put_u32(file, position, hasher.finalize());
    Some((payload_to - position).next_multiple_of(8))
}

fn correct_footer(file: &mut [u8]) -> Option<()> {
    let trailer = file.len().checked_sub(TRAILER_BYTES)?;
    if !file[trailer..].starts_with(b"HELIXEND") {
        return None;
    }
    let directory = usize::try_from(u64_at(file, trailer + 24)?).ok()?;
    for run in 0..u32_at(file, trailer + 48)? as usize {
        let run = directory.checked_add(run.checked_mul(RUN_BYTES)?)?;
        let from = usize::try_from(u64_at(file, run.checked_add(88)?)?).ok()?;
        let count = usize::try_from(u64_at(file, run + 16)?).ok()?;
        if let Some(entries) = file.get(from..from.checked_add(count.checked_mul(ENTRY_BYTES)?)?) {
            let checksum = crc32fast::hash(entries);
            if run + 100 <= trailer {
                put_u32(file, run + 96, checksum);
            }
        }
    }
    let checksum = crc32fast::hash(file.get(directory..trailer)?);
    put_u32(file, trailer + 60, checksum);
    let checksum = crc32fast::hash(&file[trailer..trailer + TRAILER_BYTES - 4]);
    put_u32(file, trailer + TRAILER_BYTES - 4, checksum);
    Some(())
}

fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
