//! Replaces parts of the TLS settings while the program runs: the certificate authorities and the
//! client certificate. Each comes from files that are followed, or from another source that calls
//! [`Servers::present`].

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Dial, ServerSettings, Servers, transport::Network};
use crate::{
    adapters::vault::{
        bundle,
        client_pair::{ClientPair, PairFiles},
        tls::{Identity, TlsSettings, Trust},
        vocabulary,
    },
    domain::time::UnixTime,
    ports::{file::TextFile, telemetry::Expiring},
};

/// A part of the TLS settings that can be replaced.
trait Part: PartialEq + Send + Sized {
    /// The name of the part in the log.
    const NAME: &'static str;
    /// What holds while the part is not available.
    const WITHOUT: &'static str;
    /// What the part reports when it expires.
    const EXPIRING: Expiring;

    /// Returns the part of `settings`.
    fn of(settings: &mut TlsSettings) -> &mut Self;

    /// Returns the value of a part that is not available. `why` names the source.
    fn unavailable(why: String) -> Self;

    /// Returns why the part is not available. `None` if it is.
    fn why_unavailable(&self) -> Option<&str>;
}

impl Part for Trust {
    const NAME: &'static str = "authorities";
    const WITHOUT: &'static str = "no server is trusted until the file can be used";
    const EXPIRING: Expiring = vocabulary::AUTHORITIES;

    fn of(settings: &mut TlsSettings) -> &mut Self {
        &mut settings.trust
    }

    fn unavailable(why: String) -> Self {
        Self::BundleUnavailable(why)
    }

    fn why_unavailable(&self) -> Option<&str> {
        match self {
            Self::BundleUnavailable(why) => Some(why),
            Self::System | Self::Bundle(_) | Self::InsecureSkipVerify => None,
        }
    }
}

impl Part for Identity {
    const NAME: &'static str = "client certificate";
    const WITHOUT: &'static str = "no connection is made until the files can be used";
    const EXPIRING: Expiring = vocabulary::CLIENT_CERTIFICATE;

    fn of(settings: &mut TlsSettings) -> &mut Self {
        &mut settings.identity
    }

    fn unavailable(why: String) -> Self {
        Self::Unavailable { why, remedy: Self::WRITE_THE_FILES }
    }

    fn why_unavailable(&self) -> Option<&str> {
        match self {
            Self::Unavailable { why, .. } => Some(why),
            Self::None | Self::Pair(_) => None,
        }
    }
}

/// A valid part that was read from its files.
struct Found<P> {
    part: P,
    /// The problems that do not prevent its use.
    warnings: Vec<String>,
    /// When the part expires, if that is known.
    end: Option<UnixTime>,
}

/// The files of a part.
#[async_trait]
trait Source<P>: Sync {
    /// Returns the flag and the path, which begin each line of the log.
    fn place(&self) -> String;

    /// Waits until the files may have changed.
    async fn changed(&self);

    /// Reads the part. An error names the flag, the path and the problem.
    async fn read(&self) -> Result<Found<P>, String>;
}

/// The file of the authorities.
struct BundleFile(Arc<dyn TextFile>);

#[async_trait]
impl Source<Trust> for BundleFile {
    fn place(&self) -> String {
        format!("--tls-ca-file: {}", self.0.place())
    }

    async fn changed(&self) {
        self.0.changed().await;
    }

    async fn read(&self) -> Result<Found<Trust>, String> {
        let told = |problem| format!("{} {problem}", self.place());
        let bytes = self.0.read().await.map_err(told)?;
        let read = bundle::read(bytes.expose()).map_err(told)?;
        let part = Trust::Bundle(bytes.expose().to_vec());
        Ok(Found { part, warnings: read.warnings, end: read.first_end })
    }
}

#[async_trait]
impl Source<Identity> for PairFiles {
    fn place(&self) -> String {
        format!("--tls-client-cert-file: {}", self.certificate.place())
    }

    async fn changed(&self) {
        Self::changed(self).await;
    }

    async fn read(&self) -> Result<Found<Identity>, String> {
        Self::read(self).await.map(found)
    }
}

fn found(pair: ClientPair) -> Found<Identity> {
    let end = pair.end();
    Found { part: Identity::Pair(pair), warnings: Vec::new(), end }
}

impl Servers {
    /// Loads each new bundle of authorities in `file` and keeps the last valid one. Never returns.
    /// Without any valid bundle, no server is trusted. Running requests finish on their
    /// connections. All later requests use new connections, which are verified with the new bundle.
    /// Safe to cancel.
    pub async fn follow_authorities(&self, file: Arc<dyn TextFile>) {
        self.follow(&BundleFile(file)).await;
    }

    /// Loads each new client certificate in `files` and keeps the last valid pair, for example while
    /// only one of two files is replaced. Never returns. Running requests finish on their
    /// connections. All later requests use new connections, which present the new certificate. Safe
    /// to cancel.
    pub async fn follow_client_pair(&self, files: PairFiles) {
        self.follow(&files).await;
    }

    /// Presents `pair` on all new connections. Running requests finish on their connections. Use
    /// this for a pair that does not come from files, such as an X.509-SVID of the SPIFFE Workload
    /// API. Until the first pair, set [`Identity::Unavailable`] in the settings. Returns whether the
    /// pair is a new one.
    ///
    /// # Errors
    /// Returns why TLS cannot be set up; see [`TlsSettings::client_config`].
    pub fn present(&self, pair: ClientPair) -> Result<bool, String> {
        let found = found(pair);
        self.replace(found.part, found.end, vocabulary::X509_SVID)
    }

    /// Returns a receiver of the client certificate that new connections present: the SHA-256 of its
    /// chain, or `None` while there is no certificate. For a login that depends on the certificate.
    #[must_use]
    pub fn presents(&self) -> watch::Receiver<Option<[u8; 32]>> {
        self.presents.subscribe()
    }

    /// Returns the settings of new connections. Waits for at most `most` for a client certificate that
    /// is not known yet.
    pub async fn current_settings(&self, most: Duration) -> ServerSettings {
        let now = || self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if now().identity.why_unavailable().is_some() {
            let mut presents = self.presents();
            let arrives = async { drop(presents.wait_for(Option::is_some).await) };
            drop(tokio::time::timeout(most, arrives).await);
        }
        ServerSettings { tls: now(), ..self.settings.clone() }
    }

    async fn follow<P: Part>(&self, source: &impl Source<P>) {
        let at_start = P::of(&mut self.settings.tls.clone()).why_unavailable().map(str::to_owned);
        if let Some(why) = at_start {
            tracing::warn!("{why}; {}", P::WITHOUT);
        }
        loop {
            source.changed().await;
            let (place, name) = (source.place(), P::NAME);
            let replaced = source.read().await.and_then(|Found { part, warnings, end }| {
                let is_new = self
                    .replace(part, end, P::EXPIRING)
                    .map_err(|why| format!("{place}: {why}"))?;
                Ok(is_new.then_some(warnings))
            });
            match replaced {
                Ok(None) => (),
                Ok(Some(warnings)) => {
                    tracing::info!("{place}: new connections use the new {name} from now on");
                    for warning in warnings {
                        tracing::warn!("{place}: {warning}");
                    }
                }
                Err(problem) => self.keep::<P>(&problem),
            }
        }
    }

    /// Uses `part`, which expires at `end`, for all new connections. Returns `false` if it is in use
    /// already. `what` names it to observers.
    fn replace<P: Part>(
        &self,
        part: P,
        end: Option<UnixTime>,
        what: Expiring,
    ) -> Result<bool, String> {
        let mut current = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if *P::of(&mut current) == part {
            return Ok(false);
        }
        let mut tls = current.clone();
        *P::of(&mut tls) = part;
        let settings = ServerSettings { tls, ..self.settings.clone() };
        let network: Arc<dyn Dial> =
            Arc::new(Network::new(&settings, Arc::clone(&self.certificates))?);
        self.connections.set_dial(&network);
        let digest = settings.tls.identity.digest();
        *current = settings.tls;
        drop(current);
        self.presents.send_if_modified(|known| std::mem::replace(known, digest) != digest);
        self.expires(what, end);
        Ok(true)
    }

    /// Logs why a new part cannot be used, and keeps the previous one. Without a previous one,
    /// `problem` becomes the cause of each failed connection.
    fn keep<P: Part>(&self, problem: &str) {
        let is_missing = {
            let mut current = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
            P::of(&mut current).why_unavailable().is_some()
        };
        if !is_missing {
            tracing::warn!("{problem}; this process still uses the previous {}", P::NAME);
            return;
        }
        tracing::warn!("{problem}; {}", P::WITHOUT);
        if let Err(why) = self.replace(P::unavailable(problem.to_owned()), None, P::EXPIRING) {
            tracing::warn!("{problem}: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rcgen::{CertificateParams, KeyPair};
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        adapters::vault::{address::VaultAddress, client_pair::PairParts},
        domain::secret::Plaintext,
        ports::{
            clock::MockClock,
            telemetry::{Event, MockTelemetry},
        },
    };

    /// A file whose changes the test makes.
    #[derive(Debug)]
    struct File {
        text: Mutex<Option<String>>,
        change: Notify,
        /// How often a change was waited for.
        waits: watch::Sender<u32>,
    }

    impl File {
        fn new() -> Arc<Self> {
            let (waits, _) = watch::channel(0);
            Arc::new(Self { text: Mutex::new(None), change: Notify::new(), waits })
        }

        /// Replaces the content, and waits until the follower has read it and waits again.
        async fn put(&self, text: Option<&str>) {
            let mut waits = self.waits.subscribe();
            let before = *waits.wait_for(|count| *count > 0).await.unwrap();
            *self.text.lock().unwrap() = text.map(str::to_owned);
            self.change.notify_one();
            waits.wait_for(|count| *count > before).await.unwrap();
        }
    }

    #[async_trait]
    impl TextFile for File {
        fn place(&self) -> String {
            "/file".to_owned()
        }

        async fn read(&self) -> Result<Plaintext, String> {
            let text = self.text.lock().unwrap().clone();
            text.map(|text| Plaintext::new(text.into())).ok_or("cannot be read".to_owned())
        }

        async fn changed(&self) {
            self.waits.send_modify(|count| *count += 1);
            self.change.notified().await;
        }
    }

    /// Returns the certificate and the key of a new pair.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn servers(reported: &Arc<Mutex<Vec<(&'static str, bool)>>>) -> Servers {
        let unavailable =
            Identity::Unavailable { why: "it is missing".to_owned(), remedy: "write it" };
        let settings = ServerSettings {
            addresses: vec![VaultAddress::parse("https://127.0.0.1:1").unwrap()],
            tls: TlsSettings {
                trust: Trust::InsecureSkipVerify,
                identity: unavailable,
                server_name: None,
                require_pq: false,
            },
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
        };
        let (mut telemetry, reported) = (MockTelemetry::new(), Arc::clone(reported));
        telemetry.expect_record().returning(move |event| {
            if let Event::Expires { what, at } = event {
                reported.lock().unwrap().push((what.label, at.is_some()));
            }
        });
        Servers::new(settings, Arc::new(MockClock::new()), Arc::new(telemetry)).unwrap()
    }

    #[tokio::test]
    async fn keeps_the_last_pair_whose_halves_fit() {
        let reported = Arc::default();
        let servers = Arc::new(servers(&reported));
        let (certificate, key) = (File::new(), File::new());
        let files: PairFiles = PairParts {
            certificate: Arc::<File>::clone(&certificate),
            key: Some(Arc::<File>::clone(&key)),
            password: None,
        };
        let following = tokio::spawn({
            let servers = Arc::clone(&servers);
            async move { servers.follow_client_pair(files).await }
        });
        let presents = servers.presents();
        let digest = || *presents.borrow();
        let (first, second) = (pair(), pair());

        certificate.put(Some(&first.0)).await;
        assert_eq!(digest(), None, "the key is missing");
        key.put(Some(&first.1)).await;
        let of_first = digest();
        assert!(of_first.is_some());

        certificate.put(Some(&second.0)).await;
        assert_eq!(digest(), of_first, "the key does not fit yet");
        key.put(Some(&second.1)).await;
        let of_second = digest();
        assert!(of_second.is_some() && of_second != of_first);

        for unusable in [None, Some("hello"), Some("")] {
            certificate.put(unusable).await;
            assert_eq!(digest(), of_second, "{unusable:?}");
        }
        certificate.put(Some(&second.0)).await;
        assert_eq!(digest(), of_second);
        following.abort();
        // Without a pair, its expiry is withdrawn. The same pair is reported once.
        let (known, unknown) = (("client-certificate", true), ("client-certificate", false));
        assert_eq!(*reported.lock().unwrap(), [unknown, known, known]);
    }

    #[tokio::test]
    async fn presents_a_pair_that_does_not_come_from_files() {
        let servers = servers(&Arc::default());
        let mut presents = servers.presents();
        let (certificate, key) = pair();
        let parts = PairParts {
            certificate: certificate.as_bytes(),
            key: Some(key.as_bytes()),
            password: None,
        };
        let pair = ClientPair::read(&parts).unwrap();
        assert_eq!(servers.present(pair.clone()), Ok(true));
        assert_eq!(*presents.borrow_and_update(), Some(pair.digest()));
        assert_eq!(servers.present(pair), Ok(false), "it is in use already");
        assert!(!presents.has_changed().unwrap());
    }
}
