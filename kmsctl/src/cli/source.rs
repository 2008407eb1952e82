//! The flags that say where the stored objects are: a live etcd, the manifest of an API server that
//! names it, or a snapshot.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use vault_kube_kms::{
    adapters::system::bounded_file::{Kinds, read_in_time},
    domain::secret::{Plaintext, Secret},
};

use crate::{
    adapters::{
        api_server_manifest::{self, EtcdFlags},
        etcd::{EtcdObjects, EtcdSettings, User},
    },
    domain::{place::DEFAULT_PREFIX, problem::Problem},
};

/// The largest file with certificates, a key or a password, in bytes.
const FILE_MAX: u64 = 1_048_576;

/// Where the stored objects are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// URLs of the members of etcd, with commas, as the API server's flag of this name has them.
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// The certificate of etcd's authority, as PEM.
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// The client certificate for etcd, as PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// The key of the client certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// The API server's --etcd-prefix. OpenShift has two: kubernetes.io and openshift.io.
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    etcd_prefix: Vec<String>,
    /// The user, when etcd has authentication of its own.
    #[arg(long, value_name = "NAME", requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// The file with the password of that user.
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
    /// The manifest of the API server's static Pod. Its --etcd flags are used; flags given here win.
    #[arg(long, value_name = "FILE")]
    api_server_manifest: Option<PathBuf>,
}

/// A source of stored objects that the flags name.
#[derive(Debug)]
pub(super) struct Source {
    args: SourceArgs,
    flags: EtcdFlags,
    /// The prefixes of all objects, with a slash at both ends.
    prefixes: Vec<String>,
}

impl SourceArgs {
    /// Returns whether a live etcd is named.
    pub(super) fn is_given(&self) -> bool {
        !self.etcd_servers.is_empty() || self.api_server_manifest.is_some()
    }

    /// Reads the manifest, if one is given.
    ///
    /// # Errors
    /// When no source is given, or the manifest cannot be read.
    pub(super) async fn source(&self) -> Result<Source, Problem> {
        let mut flags = match &self.api_server_manifest {
            Some(path) => api_server_manifest::read(path).await?,
            None => EtcdFlags::default(),
        };
        if !self.etcd_servers.is_empty() {
            flags.servers.clone_from(&self.etcd_servers);
        }
        flags.authority = self.etcd_cafile.clone().or(flags.authority);
        flags.certificate = self.etcd_certfile.clone().or(flags.certificate);
        flags.key = self.etcd_keyfile.clone().or(flags.key);
        if flags.servers.is_empty() {
            return Err(Problem::new(
                "no-source",
                "it is not said where etcd is",
                "give --etcd-servers, --api-server-manifest or --etcd-snapshot",
            ));
        }
        let prefixes = self.prefixes(flags.prefix.as_deref());
        Ok(Source { args: self.clone(), flags, prefixes })
    }

    /// Returns the prefixes of all objects, with a slash at both ends.
    pub(super) fn prefixes(&self, in_manifest: Option<&str>) -> Vec<String> {
        let given = self.etcd_prefix.iter().map(String::as_str);
        let mut prefixes: Vec<_> = given.map(with_slashes).collect();
        if prefixes.is_empty() {
            prefixes.push(with_slashes(in_manifest.unwrap_or(DEFAULT_PREFIX)));
        }
        prefixes
    }
}

impl Source {
    pub(super) fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Returns the API server's `--etcd-servers-overrides`: the resources that another etcd has.
    pub(super) fn overrides(&self) -> Option<&str> {
        self.flags.overrides.as_deref()
    }

    /// Opens the objects below `prefix` at `revision`, or at the newest one. Reads the files of TLS.
    ///
    /// # Errors
    /// When a file cannot be read or an address is not valid.
    pub(super) async fn open(
        &self,
        prefix: &str,
        revision: Option<i64>,
    ) -> Result<EtcdObjects, Problem> {
        let identity = match (&self.flags.certificate, &self.flags.key) {
            (Some(certificate), Some(key)) => Some((read(certificate).await?, read(key).await?)),
            _ => None,
        };
        let user = match (&self.args.etcd_user, &self.args.etcd_password_file) {
            (Some(name), Some(file)) => {
                Some(User { name: name.clone(), password: password(file).await? })
            }
            _ => None,
        };
        let authorities = match &self.flags.authority {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        let servers = self.flags.servers.clone();
        EtcdObjects::new(EtcdSettings { servers, authorities, identity, user }, prefix, revision)
    }
}

/// Returns a prefix with a slash at both ends, as the API server uses it.
pub(super) fn with_slashes(prefix: &str) -> String {
    match prefix.trim_matches('/') {
        "" => "/".to_owned(),
        name => format!("/{name}/"),
    }
}

/// Checks that the source `name` has objects below `prefix`. A source of which nothing is read would
/// need no version, and everything in it would be readable.
///
/// # Errors
/// `no-objects` when `counted`, the number of objects that were found there, is 0.
pub(super) fn check_prefix(name: &str, prefix: &str, counted: u64) -> Result<(), Problem> {
    if counted > 0 {
        return Ok(());
    }
    Err(Problem::new(
        "no-objects",
        format!("{name} has no objects below {prefix}"),
        "check --etcd-prefix, and that this is the etcd or the snapshot of this cluster",
    ))
}

async fn read(path: &Path) -> Result<Plaintext, Problem> {
    let file = path.to_owned();
    let read = spawn_blocking(move || read_in_time(&file, FILE_MAX, Kinds::PlainOrPipe)).await;
    read.unwrap_or_else(|error| Err(error.to_string())).map_err(|why| {
        Problem::new(
            "file-unreadable",
            format!("{} {why}", path.display()),
            "give a file that this user may read; the API server's files usually belong to root",
        )
    })
}

async fn password(path: &Path) -> Result<Secret, Problem> {
    let bytes = read(path).await?;
    let text = std::str::from_utf8(bytes.expose()).map_err(|_not_text| {
        Problem::new(
            "file-unreadable",
            format!("{} is not UTF-8 text", path.display()),
            "write the password alone into the file",
        )
    })?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_gets_its_slashes() {
        for (given, expected) in [
            ("/registry", "/registry/"),
            ("registry/", "/registry/"),
            ("kubernetes.io", "/kubernetes.io/"),
            ("/", "/"),
        ] {
            assert_eq!(with_slashes(given), expected);
        }
    }
}
