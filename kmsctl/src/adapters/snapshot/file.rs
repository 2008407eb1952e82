//! The bytes of the file, and the digest at its end.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use bytes::Bytes;

use crate::domain::problem::Problem;

/// etcd takes the end of a file for a digest when the rest is a multiple of this
/// (`etcdutl/snapshot`). The pages of a database are multiples of it.
pub(super) const SECTOR: u64 = 512;

/// The length of the digest at the end of a snapshot file.
const DIGEST_LENGTH: u64 = 32;

/// The number of bytes that are read at once for the digest.
const CHUNK: usize = 1 << 20;

/// `O_NONBLOCK` of Linux: opening a named pipe returns at once.
const NONBLOCKING: i32 = 0o4000;

/// What the digest at the end of the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// It fits: the file is what `etcdctl snapshot save` wrote.
    Fits,
    /// There is none, as in a copy of `member/snap/db`. Nothing shows that the file is whole.
    Absent,
    /// It does not fit: the file was changed or cut after `etcdctl` wrote it.
    Differs,
}

/// What a snapshot file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The path, as it was given.
    pub name: String,
    /// The size of the whole file in bytes.
    pub size: u64,
    /// The SHA-256 of the whole file, as `sha256sum` prints it.
    pub sha256: String,
    /// What the digest at the end says.
    pub digest: Digest,
}

/// A file that is open for reading.
#[derive(Debug)]
pub(super) struct ReadFile {
    file: File,
    facts: Facts,
    /// The length of the database in bytes, without the digest.
    length: u64,
}

impl ReadFile {
    /// Opens the file and computes its digests.
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let name = path.display().to_string();
        let unreadable = |error: &dyn std::fmt::Display| {
            Problem::new(
                "snapshot-unreadable",
                format!("cannot read {name}: {error}"),
                "give the path of a file of `etcdctl snapshot save` that this user may read",
            )
        };
        let open = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().read(true).custom_flags(NONBLOCKING).open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            Ok((file, metadata.len()))
        };
        let (file, size) = open().map_err(|error| unreadable(&error))?;
        let has_digest = size % SECTOR == DIGEST_LENGTH;
        let length = if has_digest { size.saturating_sub(DIGEST_LENGTH) } else { size };
        let (sha256, fits) = digests(&file, length, size).map_err(|error| unreadable(&error))?;
        let digest = match (has_digest, fits) {
            (false, _) => Digest::Absent,
            (true, true) => Digest::Fits,
            (true, false) => Digest::Differs,
        };
        Ok(Self { file, facts: Facts { name, size, sha256, digest }, length })
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns the length of the database in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads `length` bytes of the database at `offset`. The caller bounds `length`.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Bytes, Problem> {
        let end = u64::try_from(length).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > self.length) {
            return Err(self.damaged(
                offset,
                format!(
                    "{length} bytes are needed here, and the database ends at byte {}",
                    self.length
                ),
            ));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| {
            Problem::new(
                "snapshot-unreadable",
                format!("cannot read {} at byte {offset}: {error}", self.facts.name),
                "read the file from a disk that works",
            )
        })?;
        Ok(bytes.into())
    }

    /// Returns the error of a file that is damaged at `offset`.
    pub(super) fn damaged(&self, offset: u64, what: impl std::fmt::Display) -> Problem {
        Problem::new(
            "snapshot-damaged",
            format!("{} is damaged at byte {offset}: {what}", self.facts.name),
            "use another snapshot, and take snapshots with `etcdctl snapshot save`",
        )
    }
}

/// Returns the SHA-256 of all `size` bytes in hex, and whether the bytes after `length` are the
/// SHA-256 of those before.
fn digests(mut file: &File, length: u64, size: u64) -> io::Result<(String, bool)> {
    let mut whole = Context::new(&SHA256);
    absorb(&mut whole, file.take(length), length)?;
    let database = whole.clone().finish();
    let mut rest = Vec::with_capacity(SHA256_OUTPUT_LEN);
    let left = size.saturating_sub(length);
    if Read::by_ref(&mut file).take(left).read_to_end(&mut rest)? != SHA256_OUTPUT_LEN && left > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    whole.update(&rest);
    let mut sha256 = String::new();
    for byte in whole.finish().as_ref() {
        write!(sha256, "{byte:02x}").map_err(io::Error::other)?;
    }
    Ok((sha256, database.as_ref() == rest.as_slice()))
}

/// Adds all `length` bytes of `from` to a digest.
fn absorb(digest: &mut Context, mut from: impl Read, length: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut seen = 0_u64;
    loop {
        let read = from.read(&mut chunk)?;
        digest.update(chunk.get(..read).unwrap_or_default());
        if read == 0 {
            break;
        }
        seen = seen.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    if seen == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
