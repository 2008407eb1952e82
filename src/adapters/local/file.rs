//! Reads the key file strictly and writes it atomically.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    adapters::{
        atomic_file,
        system::bounded_file::{self, Kinds, ReadError},
    },
    domain::{
        error::{Code, KmsError},
        key::KekVersion,
        time::UnixTime,
    },
};

/// The length of AES-256 keys, in bytes.
pub(super) const KEY_BYTES: usize = 32;

/// The only format so far.
const FORMAT: u32 = 1;

/// Most versions in one file, and most bytes of one file.
const VERSIONS_MAX: usize = 1_000;
const FILE_MAX: u64 = 262_144;

const CHECK_FILE: &str =
    "check --local-key-file, and that the uid of this process owns the file and its directory";

/// One version of the key.
#[derive(Clone)]
pub(super) struct KeyVersion {
    pub(super) created: UnixTime,
    pub(super) key: Zeroizing<[u8; KEY_BYTES]>,
}

/// The content of a key file.
#[derive(Clone)]
pub struct KeyFile {
    id: String,
    pub(super) versions: BTreeMap<KekVersion, KeyVersion>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: u32,
    id: String,
    versions: Vec<WireVersion>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct WireVersion {
    version: u32,
    created: i64,
    key: String,
}

impl KeyFile {
    /// Reads and checks the key file at `path`.
    ///
    /// # Errors
    /// Returns [`Code::KeyMissing`] when there is no file. Returns [`Code::KeyUnusable`] when other
    /// users can read it, when it is malformed or not a plain file, and when it cannot be read.
    pub fn load(path: &Path) -> Result<Self, KmsError> {
        let read = bounded_file::read_with_metadata(path, FILE_MAX, Kinds::Plain);
        let (text, metadata) = read.map_err(|error| match error {
            ReadError::Missing(_) => missing(path),
            ReadError::Unreadable(problem) => KmsError::new(
                Code::KeyUnusable,
                format!("the key file {} {problem}", path.display()),
                CHECK_FILE,
            ),
        })?;
        if metadata.mode() & 0o077 != 0 {
            return Err(KmsError::new(
                Code::KeyUnusable,
                format!("users other than its owner can read the key file {}", path.display()),
                "set its mode to 0600, and rotate the key if another user may have read it",
            ));
        }
        Self::parse(text.expose()).ok_or_else(|| {
            KmsError::new(
                Code::KeyUnusable,
                format!("the key file {} is malformed", path.display()),
                "restore it from a backup; this program did not write its present content",
            )
        })
    }

    /// Creates a key with one version and writes it to `path`. Fails when a file is there already.
    ///
    /// # Errors
    /// Returns [`Code::KeyUnusable`] when a file is at `path` or it cannot be written.
    pub fn create(path: &Path, now: UnixTime) -> Result<Self, KmsError> {
        let _lock = lock(path)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(KmsError::new(
                Code::KeyUnusable,
                format!("the file {} exists already", path.display()),
                "rotate it with `vault-kube-kms local rotate`, or choose another --local-key-file",
            ));
        }
        let mut id = [0; 16];
        fill(&mut id)?;
        let id = format!("{:032x}", u128::from_be_bytes(id));
        let mut file = Self { id, versions: BTreeMap::new() };
        file.add(now)?;
        file.store(path)?;
        Ok(file)
    }

    /// Adds a version to the file at `path` and returns its number.
    ///
    /// # Errors
    /// Returns the errors of [`KeyFile::load`], and [`Code::KeyUnusable`] when the file is full or
    /// cannot be written.
    pub fn rotate(path: &Path, now: UnixTime) -> Result<KekVersion, KmsError> {
        let _lock = lock(path)?;
        let mut file = Self::load(path)?;
        if file.versions.len() >= VERSIONS_MAX {
            return Err(KmsError::new(
                Code::KeyUnusable,
                format!("the key file has {VERSIONS_MAX} versions already"),
                "start a second provider with a new key file, and move the data to it (docs/moving.md)",
            ));
        }
        let version = file.add(now)?;
        file.store(path)?;
        Ok(version)
    }

    /// Returns the identity of the key, which was created with the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn add(&mut self, now: UnixTime) -> Result<KekVersion, KmsError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill(&mut *key)?;
        let newest = self.versions.last_key_value().map(|(version, _)| version.next());
        let version = newest.unwrap_or(KekVersion::FIRST);
        let created = UnixTime::from_secs(now.secs());
        self.versions.insert(version, KeyVersion { created, key });
        Ok(version)
    }

    /// Parses the text of a key file. Returns `None` when it is malformed.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(text).ok()?;
        let well_formed = wire.format == FORMAT
            && wire.id.len() == 32
            && wire.id.bytes().all(|b| b.is_ascii_hexdigit())
            && (1..=VERSIONS_MAX).contains(&wire.versions.len());
        if !well_formed {
            return None;
        }
        let mut versions = BTreeMap::new();
        for entry in &wire.versions {
            let bytes = Zeroizing::new(STANDARD.decode(&entry.key).ok()?);
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            if bytes.len() != KEY_BYTES {
                return None;
            }
            key.copy_from_slice(&bytes);
            let version = KeyVersion { created: UnixTime::from_secs(entry.created), key };
            if versions.insert(KekVersion::new(entry.version)?, version).is_some() {
                return None;
            }
        }
        Some(Self { id: wire.id, versions })
    }

    /// Replaces the file at `path` in one step, and syncs it and its name to the disk.
    fn store(&self, path: &Path) -> Result<(), KmsError> {
        let versions = self.versions.iter().map(|(version, entry)| WireVersion {
            version: version.get(),
            created: entry.created.secs(),
            key: STANDARD.encode(entry.key.as_slice()),
        });
        let wire = Wire { format: FORMAT, id: self.id.clone(), versions: versions.collect() };
        let mut text = Zeroizing::new(Vec::with_capacity(8_192));
        let mut write = || -> io::Result<()> {
            serde_json::to_writer_pretty(&mut *text, &wire)?;
            text.push(b'\n');
            atomic_file::replace(path, &text)?;
            File::open(directory(path))?.sync_all()
        };
        write().map_err(|error| cannot("write", path, &error))
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("id", &self.id)
            .field("versions", &self.versions.len())
            .finish_non_exhaustive()
    }
}

/// Locks the directory, so that only one process writes. The file itself is replaced, so a lock on
/// it would not help.
fn lock(path: &Path) -> Result<File, KmsError> {
    let directory = directory(path);
    let open = File::open(directory).map_err(|error| cannot("lock", directory, &error))?;
    rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| cannot("lock", directory, &error.into()))?;
    Ok(open)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), KmsError> {
    rand::fill(bytes).map_err(|_unspecified| {
        KmsError::new(
            Code::Internal,
            "the random number generator of the system failed",
            "report this",
        )
    })
}

fn missing(path: &Path) -> KmsError {
    KmsError::new(
        Code::KeyMissing,
        format!("the key file {} does not exist", path.display()),
        "restore it from a backup; for a new cluster create one with `vault-kube-kms local init`",
    )
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> KmsError {
    KmsError::new(
        Code::KeyUnusable,
        format!("cannot {what} {}: {error}", path.display()),
        CHECK_FILE,
    )
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

    use super::*;

    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("key.json")
    }

    #[test]
    fn creates_a_private_file_and_keeps_every_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let first = KeyFile::create(&path, UnixTime::from_secs(10)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(KeyFile::rotate(&path, UnixTime::from_secs(20)).unwrap().get(), 2);
        let both = KeyFile::load(&path).unwrap();
        assert_eq!((both.id(), both.versions.len()), (first.id(), 2));
        assert!(both.versions[&KekVersion::FIRST].key == first.versions[&KekVersion::FIRST].key);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn never_overwrites_an_existing_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        KeyFile::create(&path, UnixTime::from_secs(10)).unwrap();
        let before = fs::read(&path).unwrap();
        let error = KeyFile::create(&path, UnixTime::from_secs(10)).unwrap_err();
        assert_eq!((error.code(), fs::read(&path).unwrap()), (Code::KeyUnusable, before));
    }

    /// Opening a pipe without a writer would wait for ever.
    #[test]
    fn rejects_at_once_what_is_not_a_plain_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [path.as_path(), directory.path(), Path::new("/dev/zero")] {
            let error = KeyFile::load(path).unwrap_err();
            assert_eq!(error.code(), Code::KeyUnusable, "{error}");
            assert!(error.cause().ends_with(", not a plain file"), "{error}");
        }
    }

    #[test]
    fn a_link_to_nothing_is_not_a_missing_key() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("not-mounted/key", path(&directory)).unwrap();
        let error = KeyFile::load(&path(&directory)).unwrap_err();
        assert_eq!(error.code(), Code::KeyUnusable, "{error}");
        assert!(error.cause().contains("whose target does not exist"), "{error}");
    }

    #[test]
    fn rejects_a_file_that_others_can_read_or_that_is_malformed() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        assert_eq!(KeyFile::load(&path).unwrap_err().code(), Code::KeyMissing);
        KeyFile::create(&path, UnixTime::from_secs(10)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(KeyFile::load(&path).unwrap_err().remedy().contains("0600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            good.chars().take(good.len() / 2).collect(),
            good.replace("\"format\": 1", "\"format\": 2"),
            good.replace("\"version\": 1", "\"version\": 0"),
            good.replace("\"key\": \"", "\"key\": \"AAAA"),
            good.replace("\"created\"", "\"else\": 1, \"created\""),
        ] {
            fs::write(&path, &bad).unwrap();
            assert_eq!(KeyFile::load(&path).unwrap_err().code(), Code::KeyUnusable, "{bad}");
        }
    }
}
