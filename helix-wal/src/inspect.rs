//! Offline tools.
use crate::disk::Disk;
use std::io;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segments looked at.
    pub segments: u64,
    /// Frames that match their checksums.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// One line for each thing that is wrong. Empty if the log is whole.
    pub problems: Vec<String>,
    /// One line for each thing worth knowing that is normal after a crash (a torn tail, a missing footer).
    pub notes: Vec<String>,
}

/// What to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Only records of this group.
    pub group: Option<crate::GroupId>,
    /// Leave out the lines of single frames.
    pub summary: bool,
}

/// Prints every segment and frame. Reads only; the log should not be in use.
pub fn dump(disk: &dyn Disk, options: DumpOptions, out: &mut dyn io::Write) -> io::Result<()> {
    let _ = (disk, options, out);
    todo!()
}

/// Reads everything and checks it. Reads only; the log should not be in use.
pub fn verify(disk: &dyn Disk) -> io::Result<VerifyReport> {
    let _ = disk;
    todo!()
}
