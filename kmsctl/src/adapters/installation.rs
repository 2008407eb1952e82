//! The files of an installation on this node, and the socket of its provider.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use vault_kube_kms::adapters::{
    grpc::{address::SocketAddress, client, wire::StatusRequest},
    system::bounded_file::{Kinds, read_in_time},
};

use crate::{
    domain::problem::Problem,
    installation::{File, Known, Status},
};

/// The longest time for Status. kube-apiserver waits for 3 s by default.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Writes `files` into the new directory `directory`, which only its owner may enter.
///
/// # Errors
/// `directory-exists`, or `directory-unwritable`.
pub fn write(directory: &Path, files: &[File]) -> Result<(), Problem> {
    let fails = |error: io::Error| {
        let shown = directory.display();
        if error.kind() == io::ErrorKind::AlreadyExists {
            Problem::new(
                "directory-exists",
                format!("{shown} exists, and nothing in it is overwritten"),
                "name a new directory with --out",
            )
        } else {
            let cause = format!("{shown} cannot be written: {error}");
            Problem::new("directory-unwritable", cause, "name another directory with --out")
        }
    };
    fs::DirBuilder::new().mode(0o700).create(directory).map_err(fails)?;
    for file in files {
        let path = directory.join(file.path);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(fails)?;
        }
        let mode = if file.is_program { 0o700 } else { 0o600 };
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(fails)?;
        out.write_all(file.text.as_bytes()).map_err(fails)?;
    }
    Ok(())
}

/// The files of a node below a root directory, which is `/` except in a test or a mounted image.
#[derive(Clone, Debug)]
pub struct NodeFiles {
    root: PathBuf,
}

impl NodeFiles {
    /// Returns the files below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns whether something is at `path`.
    ///
    /// # Errors
    /// When that cannot be found out, in words.
    pub fn has(&self, path: &str) -> Known<bool> {
        self.place(path).try_exists().map_err(|error| format!("{path}: {error}"))
    }

    /// Reads a file of at most 1 MiB. Returns `None` when it does not exist.
    ///
    /// # Errors
    /// When it cannot be read, in words.
    pub fn read(&self, path: &str) -> Known<Option<String>> {
        if !self.has(path)? {
            return Ok(None);
        }
        let read = read_in_time(&self.place(path), FILE_MAX, Kinds::Plain);
        let read = read.map_err(|why| format!("{path} {why}"))?;
        String::from_utf8(read.expose().to_vec())
            .map(Some)
            .map_err(|_source| format!("{path} is not text"))
    }

    /// Asks the provider at `socket` for Status.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn status(&self, socket: &str) -> Result<Status, String> {
        let address = SocketAddress::File(self.place(socket));
        let ask = async {
            let mut client = client::connect(&address).await.map_err(|error| error.to_string())?;
            let status =
                client.status(StatusRequest {}).await.map_err(|error| error.to_string())?;
            let status = status.into_inner();
            let line = |text: String| text.replace(char::is_control, " ");
            Ok(Status { healthz: line(status.healthz), key_id: line(status.key_id) })
        };
        tokio::time::timeout(STATUS_TIMEOUT, ask)
            .await
            .unwrap_or_else(|_elapsed| Err(format!("none within {} s", STATUS_TIMEOUT.as_secs())))
    }
}
