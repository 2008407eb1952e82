//! Where etcd is, and how to reach it: the API server's `--etcd-*` flags.

use http::{Uri, uri::Scheme};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use vault_kube_kms::domain::secret::{Plaintext, Secret};

use super::members::CONNECT_TIMEOUT;
use crate::domain::problem::Problem;

/// The most endpoints that are used.
const ENDPOINTS_MAX: usize = 64;

/// The HTTP/2 window of one answer, in bytes. etcd sends so much without waiting.
const WINDOW: u32 = 8 * 1_024 * 1_024;

/// A user of etcd's own authentication.
#[derive(Debug)]
pub struct User {
    /// The name of the user.
    pub name: String,
    /// The password of the user.
    pub password: Secret,
}

/// How to reach etcd.
#[derive(Debug, Default)]
pub struct EtcdSettings {
    /// The URLs of the members, such as `https://127.0.0.1:2379`.
    pub servers: Vec<String>,
    /// The certificates of the authorities of etcd, as PEM.
    pub authorities: Option<Plaintext>,
    /// The client certificate and its key, as PEM.
    pub identity: Option<(Plaintext, Plaintext)>,
    /// The user, when etcd has authentication of its own.
    pub user: Option<User>,
}

impl EtcdSettings {
    /// Returns one channel for each server. The channels connect at their first use.
    pub(super) fn channels(&self) -> Result<Vec<(String, Channel)>, Problem> {
        if self.servers.is_empty() || self.servers.len() > ENDPOINTS_MAX {
            return Err(Problem::new(
                "etcd-address",
                format!("{} etcd servers are given", self.servers.len()),
                format!("give 1 to {ENDPOINTS_MAX} URLs with --etcd-servers"),
            ));
        }
        self.servers.iter().map(|server| Ok((server.clone(), self.channel(server)?))).collect()
    }

    fn channel(&self, server: &str) -> Result<Channel, Problem> {
        if server.contains('@') {
            return Err(Problem::new(
                "etcd-address",
                "an etcd server has a user or a password in its URL",
                "give them with --etcd-user and --etcd-password-file",
            ));
        }
        let invalid = |why: &str| {
            Problem::new(
                "etcd-address",
                format!("the etcd server {server:?} {why}"),
                "write it as in the API server's --etcd-servers, such as https://127.0.0.1:2379",
            )
        };
        let uri: Uri = server.parse().map_err(|_invalid| invalid("is not a valid URL"))?;
        if uri.port().is_none() || !matches!(uri.path(), "" | "/") {
            return Err(invalid("is not a URL with a port and without a path"));
        }
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        if !is_https && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(invalid("does not begin with https:// or http://"));
        }
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .tcp_nodelay(true);
        if !is_https {
            return Ok(endpoint.connect_lazy());
        }
        let endpoint = endpoint.tls_config(self.tls()?).map_err(|error| self.bad_files(&error))?;
        Ok(endpoint.connect_lazy())
    }

    fn tls(&self) -> Result<ClientTlsConfig, Problem> {
        let Some(authorities) = &self.authorities else {
            return Err(Problem::new(
                "etcd-tls-files",
                "an etcd server has https://, and no certificate of its authority is given",
                "give --etcd-cafile, as the API server has it",
            ));
        };
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities.expose()));
        Ok(match &self.identity {
            Some((certificate, key)) => {
                tls.identity(Identity::from_pem(certificate.expose(), key.expose()))
            }
            None => tls,
        })
    }

    /// Returns the error for files that the TLS library refuses. The text of the library can quote
    /// the file of a key, so it is not passed on.
    fn bad_files(&self, _error: &tonic::transport::Error) -> Problem {
        Problem::new(
            "etcd-tls-files",
            if self.identity.is_some() {
                "the files of --etcd-cafile, --etcd-certfile and --etcd-keyfile are not PEM \
                 certificates and the unencrypted PEM key of the client certificate"
            } else {
                "the file of --etcd-cafile has no PEM certificates"
            },
            "give the files that the API server uses; a key with a passphrase is not supported",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(servers: &[&str]) -> String {
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        EtcdSettings { servers, ..EtcdSettings::default() }.channels().unwrap_err().to_string()
    }

    #[tokio::test]
    async fn refuses_addresses_that_are_not_those_of_etcd() {
        for (server, expected) in [
            ("127.0.0.1:2379", "does not begin with https:// or http://"),
            ("https://127.0.0.1", "without a path"),
            ("unix://localhost:2379", "does not begin with"),
            ("https://127.0.0.1:2379/v3", "without a path"),
            ("https://a b:2379", "is not a valid URL"),
        ] {
            assert!(refused(&[server]).contains(expected), "{server}: {}", refused(&[server]));
        }
        assert!(refused(&[]).contains("0 etcd servers"));
        let with_password = refused(&["https://ann:topsecret@127.0.0.1:2379"]);
        assert!(with_password.contains("--etcd-user") && !with_password.contains("topsecret"));
        assert!(refused(&["https://127.0.0.1:2379"]).contains("--etcd-cafile"));
    }

    #[tokio::test]
    async fn refuses_files_that_are_not_pem() {
        let settings = EtcdSettings {
            servers: vec!["https://[::1]:2379".to_owned()],
            authorities: Some(Plaintext::new(b"-----BEGIN CERTIFICATE-----\nx\n".to_vec())),
            identity: Some((
                Plaintext::new(b"none".to_vec()),
                Plaintext::new(b"secret-key-text".to_vec()),
            )),
            user: None,
        };
        let problem = settings.channels().unwrap_err().to_string();
        assert!(problem.starts_with("etcd-tls-files: "), "{problem}");
        assert!(!problem.contains("secret-key-text"));
    }
}
