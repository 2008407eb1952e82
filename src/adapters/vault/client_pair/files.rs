//! The files of a client certificate, its key and the key's password.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::select_all;
use tokio::task::spawn_blocking;

use super::ClientPair;
use crate::{domain::secret::Plaintext, ports::file::TextFile};

/// One of the files of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairFile {
    /// The file of the chain.
    Certificate,
    /// The file of the key, which may be the file of the chain.
    Key,
    /// The file of the key's password.
    Password,
}

/// A problem with a file. The text continues a sentence that starts with the file's path.
pub type Problem = (PairFile, String);

/// Why files give no pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairFailure {
    /// A file cannot be read. It may be mounted later.
    Unreadable(Problem),
    /// The files can be read and hold no pair. Lists each problem.
    Unusable(Vec<Problem>),
}

/// One value for each file of a pair: its path, the open file or its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairParts<F> {
    /// The chain (`--tls-client-cert-file`).
    pub certificate: F,
    /// The key (`--tls-client-key-file`). `None` if it is in the file of the chain.
    pub key: Option<F>,
    /// The key's password (`--tls-client-key-password-file`). `None` if none is configured.
    pub password: Option<F>,
}

/// The paths of the files.
pub type PairPaths = PairParts<PathBuf>;

/// The files, which are read again when they change.
pub type PairFiles = PairParts<Arc<dyn TextFile>>;

impl<F> PairParts<F> {
    /// Returns the value of each file that is configured.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        [Some(&self.certificate), self.key.as_ref(), self.password.as_ref()].into_iter().flatten()
    }

    /// Returns the flag that names `file`, without its dashes, and the value of `file`.
    pub const fn named(&self, file: PairFile) -> (&'static str, &F) {
        match (file, &self.key, &self.password) {
            (PairFile::Key, Some(key), _) => ("tls-client-key-file", key),
            (PairFile::Password, _, Some(password)) => ("tls-client-key-password-file", password),
            _ => ("tls-client-cert-file", &self.certificate),
        }
    }

    /// Applies `change` to each value.
    pub fn map<'a, T>(&'a self, mut change: impl FnMut(&'a F) -> T) -> PairParts<T> {
        PairParts {
            certificate: change(&self.certificate),
            key: self.key.as_ref().map(&mut change),
            password: self.password.as_ref().map(&mut change),
        }
    }
}

impl PairParts<Result<Plaintext, String>> {
    fn pair(self) -> Result<ClientPair, PairFailure> {
        let unreadable = |file| move |text| PairFailure::Unreadable((file, text));
        let certificate = self.certificate.map_err(unreadable(PairFile::Certificate))?;
        let key = self.key.transpose().map_err(unreadable(PairFile::Key))?;
        let password = self.password.transpose().map_err(unreadable(PairFile::Password))?;
        let content = PairParts { certificate, key, password };
        ClientPair::read(&content.map(Plaintext::expose)).map_err(PairFailure::Unusable)
    }
}

impl PairPaths {
    /// Reads each file with `read` and parses the pair. For code that runs before the async runtime
    /// starts, because it may take seconds.
    ///
    /// # Errors
    /// Returns the first file that `read` could not read, or each problem with the content.
    pub fn load(
        &self,
        read: impl Fn(&Path) -> Result<Plaintext, String>,
    ) -> Result<ClientPair, PairFailure> {
        self.map(|path| read(path)).pair()
    }
}

impl PairFiles {
    /// Waits until one of the files may have changed. Safe to cancel.
    pub(in crate::adapters::vault) async fn changed(&self) {
        select_all(self.iter().map(|file| file.changed())).await;
    }

    /// Reads the files and parses the pair on a thread that may block.
    ///
    /// # Errors
    /// Returns the problem, which starts with the flag and the path.
    pub(in crate::adapters::vault) async fn read(&self) -> Result<ClientPair, String> {
        let contents = PairParts {
            certificate: self.certificate.read().await,
            key: read(self.key.as_ref()).await,
            password: read(self.password.as_ref()).await,
        };
        let pair = spawn_blocking(move || contents.pair()).await;
        pair.map_err(|_panicked| "--tls-client-cert-file: the pair cannot be parsed".to_owned())?
            .map_err(|failure| self.told(failure))
    }

    fn told(&self, failure: PairFailure) -> String {
        let problems = match failure {
            PairFailure::Unreadable(problem) => vec![problem],
            PairFailure::Unusable(problems) => problems,
        };
        let told = problems.iter().map(|(file, text)| {
            let (flag, file) = self.named(*file);
            format!("--{flag}: {} {text}", file.place())
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

async fn read(file: Option<&Arc<dyn TextFile>>) -> Option<Result<Plaintext, String>> {
    match file {
        Some(file) => Some(file.read().await),
        None => None,
    }
}
