//! Uses a key of the Transit engine as the KEK.

mod batch;
mod snapshot;

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::snapshot::snapshot;
use super::{
    client::{CallPolicy, VaultClient},
    key_path::{KeyPath, Namespace},
    refusal::{Asked, enterprise_required},
    servers::{Answer, Expected, Failure, Request, json, unreadable},
    session::VaultSession,
    wire::{Data, DecryptBody, DecryptData, EncryptBody, EncryptData, KeyData},
};
use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        key_id::Lineage,
        secret::{Plaintext, RequestId},
        time::Monotonic,
    },
    ports::{
        abilities::Abilities,
        kek::{Kek, Unwrap, Wrapped},
        telemetry::KeeperOperation,
    },
};

/// The place of the key, and the demands on its server.
#[derive(Clone, Debug)]
pub struct TransitSettings {
    /// The mount and the name of the key.
    pub key: KeyPath,
    /// The mount's namespace (`--vault-namespace`).
    pub namespace: Namespace,
    /// The namespace of the login and its token (`--vault-auth-namespace`).
    pub auth_namespace: Namespace,
    /// Whether to refuse servers without a Vault Enterprise licence (`--require-enterprise`).
    pub require_enterprise: bool,
}

impl TransitSettings {
    /// Returns the lineage for the key's namespace, mount and name.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        let mount = self.key.mount.to_string();
        Lineage::of_place("transit", &[self.namespace.as_str(), &mount, &self.key.key])
    }
}

/// The longest plaintext, in bytes, whose ciphertext is within the limit of [`Ciphertext`] for
/// every key type.
const ALWAYS_FITS: usize = 512;

/// A key of the Transit engine.
#[derive(Debug)]
pub struct TransitKek {
    client: Arc<VaultClient>,
    session: Arc<VaultSession>,
    settings: TransitSettings,
    describe_path: String,
    wrap_path: String,
    unwrap_path: String,
    licensed: OnceCell<()>,
}

impl TransitKek {
    /// Creates the KEK for the key in `settings`. Sends requests through `client` with the tokens
    /// of `session`.
    #[must_use]
    pub fn new(
        client: Arc<VaultClient>,
        session: Arc<VaultSession>,
        settings: TransitSettings,
    ) -> Self {
        let KeyPath { mount, key } = &settings.key;
        Self {
            describe_path: format!("{mount}/keys/{key}"),
            wrap_path: format!("{mount}/encrypt/{key}"),
            unwrap_path: format!("{mount}/decrypt/{key}"),
            client,
            session,
            settings,
            licensed: OnceCell::new(),
        }
    }

    /// Sends `request` with the token of the session. If the keeper refuses the token, sends it
    /// once more with the next token.
    async fn send<T: Expected>(
        &self,
        operation: KeeperOperation,
        request: Request<'_>,
        deadline: Monotonic,
    ) -> Result<Answer<T>, Failure> {
        let policy = CallPolicy::new(operation, deadline);
        let mut held = self.session.token(deadline).await.map_err(Failure::Unsent)?;
        let mut again = true;
        loop {
            let request = Request { token: Some(&held.token), ..request.clone() };
            match self.client.send(&request, policy).await {
                Err(Failure::Refused(refusal)) if again && refusal.is_dead_token() => {
                    let newer = self.session.newer_than(held.generation, deadline).await;
                    held = newer.map_err(Failure::Unsent)?;
                    again = false;
                }
                result => return result,
            }
        }
    }

    async fn post<T: Expected>(
        &self,
        path: &str,
        body: Bytes,
        deadline: Monotonic,
    ) -> Result<Answer<T>, Failure> {
        let namespace = &self.settings.namespace;
        let request =
            Request { method: Method::POST, path, namespace, token: None, body: Some(body) };
        self.send(KeeperOperation::Write, request, deadline).await
    }

    async fn get<T: Expected>(
        &self,
        asked: Asked<'_>,
        request: Request<'_>,
        deadline: Monotonic,
    ) -> Result<Answer<T>, KmsError> {
        let answer = self.send(KeeperOperation::Read, request, deadline).await;
        answer.map_err(|failure| failure.into_error(asked))
    }

    /// Checks the form of the ciphertext and returns the body of its decrypt request. The domain has
    /// checked it before, in [`Kek::version_of`]; other users of the port need not. The check of a
    /// wrapped seed takes 65 ns of the 123 µs of a lone Decrypt (docs/performance.md).
    fn decrypt_body<'a>(&self, sealed: Unwrap<'a>) -> Result<DecryptBody<'a>, KmsError> {
        self.version_of(sealed.ciphertext)?;
        Ok(DecryptBody {
            ciphertext: std::str::from_utf8(sealed.ciphertext.as_bytes())
                .map_err(|_source| not_transit())?,
            associated_data: STANDARD.encode(sealed.associated_data.as_bytes()),
            reference: String::new(),
        })
    }

    /// Returns the path of unwrap requests.
    fn unwrap_path(&self) -> &str {
        &self.unwrap_path
    }

    /// Checks that the server has a licence, if one is required. Asks until the first success.
    async fn check_licence(&self, deadline: Monotonic) -> Result<(), KmsError> {
        if !self.settings.require_enterprise {
            return Ok(());
        }
        self.licensed
            .get_or_try_init(|| async {
                let request = read("sys/license/status", &self.settings.auth_namespace);
                let licence = self.get::<Data<Option<Licence>>>(Asked::License, request, deadline);
                licence.await?.value.data.map(drop).ok_or_else(enterprise_required)
            })
            .await
            .copied()
    }
}

#[async_trait]
impl Kek for TransitKek {
    fn abilities(&self) -> Abilities {
        Abilities::default().with_batches(batch::ITEMS_MAX).counting_requests()
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.check_licence(deadline).await?;
        let request = read(&self.describe_path, &self.settings.namespace);
        let held = self.session.token(deadline).await?;
        let alone = Request { token: Some(&held.token), ..request.clone() };
        let policy = CallPolicy::new(KeeperOperation::Read, deadline);
        let first = self.get(Asked::Describe(&self.describe_path), request, deadline);
        let (first, others) = self.client.with_secondaries(first, alone, policy).await;
        let first: Answer<Data<KeyData>> = first?;
        let mut newest = described(&first)?;
        let mut showed = vec![(first.endpoint, newest.latest)];
        for answer in others {
            if let Ok(snapshot) = described(&answer) {
                showed.push((answer.endpoint, snapshot.latest));
                newest = newest.newer(snapshot);
            }
        }
        self.client.compare(&showed, newest.latest);
        Ok(newest)
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let body = json(&EncryptBody {
            plaintext: STANDARD.encode(plaintext.expose()),
            key_version: version.get(),
            associated_data: STANDARD.encode(associated_data.as_bytes()),
        })?;
        let path = &self.wrap_path;
        let answer = self.post::<Data<EncryptData>>(path, body, deadline).await;
        let answer = answer.map_err(|failure| failure.into_error(Asked::Wrap(path)))?;
        let Data { data, request_id } = answer.value;
        // A ciphertext that is too long is the caller's fault if the plaintext was long.
        let may_be_too_long = plaintext.len() > ALWAYS_FITS && !data.ciphertext.is_empty();
        let ciphertext = Ciphertext::new(data.ciphertext.into_bytes()).map_err(|error| {
            if may_be_too_long { error } else { unreadable("it has no ciphertext") }
        })?;
        let written =
            self.version_of(&ciphertext).map_err(|_source| unreadable("it has no ciphertext"))?;
        let named = data.key_version.map_or(Some(written), KekVersion::new);
        if named != Some(written) {
            return Err(unreadable("it names two different key versions"));
        }
        Ok(Wrapped::new(ciphertext, written).with_request_id(request_id.map(RequestId::from)))
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let body = json(&self.decrypt_body(sealed)?)?;
        let path = &self.unwrap_path;
        let answer = self.post::<Data<DecryptData>>(path, body, deadline).await;
        let answer = answer.map_err(|failure| failure.into_error(Asked::Unwrap(path)))?;
        let Data { data, request_id } = answer.value;
        Ok(plaintext(&data.plaintext)?.with_request_id(request_id.map(RequestId::from)))
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        batch::unwrap_many(self, sealed, deadline).await
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        version_in(ciphertext)
    }
}

/// Returns the key version in `ciphertext`. Accepts only the canonical spelling.
///
/// # Errors
/// Returns [`Code::CiphertextRejected`] for any other text.
pub fn version_in(ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
    std::str::from_utf8(ciphertext.as_bytes())
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_graphic()))
        .and_then(|text| text.strip_prefix("vault:v")?.split_once(':'))
        // Servers accept several base64 spellings of the same bytes. Only one is accepted here.
        .filter(|(_, body)| !body.is_empty() && STANDARD.decode(body).is_ok())
        .and_then(|(number, _)| KekVersion::parse(number))
        .ok_or_else(not_transit)
}

/// Decodes a plaintext from its wire form, base64.
fn plaintext(encoded: &str) -> Result<Plaintext, KmsError> {
    let mut plaintext = Zeroizing::new(
        STANDARD
            .decode(encoded)
            .map_err(|_source| unreadable("its plaintext is not valid base64"))?,
    );
    Ok(Plaintext::new(std::mem::take(&mut *plaintext)))
}

/// The content of a licence. It is not read, because any licence is enough.
type Licence = serde_json::Map<String, serde_json::Value>;

/// Returns a read request for `path`, without a token.
const fn read<'a>(path: &'a str, namespace: &'a Namespace) -> Request<'a> {
    Request { method: Method::GET, path, namespace, token: None, body: None }
}

fn described(answer: &Answer<Data<KeyData>>) -> Result<KekSnapshot, KmsError> {
    snapshot(&answer.value.data, answer.date)
}

fn not_transit() -> KmsError {
    KmsError::new(
        Code::CiphertextRejected,
        "the ciphertext is not in the form of the Transit engine",
        "the stored object was changed or was written with another provider",
    )
}
