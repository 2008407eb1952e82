//! Implements the ports `Kek` and `Keeper` for a key on a token.

use std::sync::Arc;

use super::{
    check, cipher, key_lookup::KeyLookup, key_objects, meaning::Fault, pool::Pool,
    settings::Pkcs11Settings,
};
use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion, KeyWarning},
        key_id::Lineage,
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        abilities::Abilities,
        clock::Clock,
        file::TextFile,
        finding::Report,
        keeper::{Keeper, KeeperView, Task},
        kek::{Kek, Unwrap, Wrapped},
    },
};
use async_trait::async_trait;

/// Warns of a key that the token may export.
const EXPORTABLE: KeyWarning = KeyWarning::new(
    "CKA_EXTRACTABLE, or CKA_SENSITIVE=false,",
    "the key can be read out of the token in clear",
    "it cannot be unset: make a version that stays on the token with `pkcs11 rotate`",
);

/// Keeps a key on a PKCS#11 token.
#[derive(Debug)]
pub struct Pkcs11Keeper {
    pool: Arc<Pool>,
    key: Arc<KeyLookup>,
    clock: Arc<dyn Clock>,
}

impl Pkcs11Keeper {
    /// Makes the keeper of the key that `settings` name, with the user PIN from `pin`. Loads the library,
    /// and calls it only later. A process must have only one keeper of one library, because a restart
    /// of the library ends the sessions of the whole process.
    ///
    /// # Errors
    /// Returns `keeper-unreachable` when the library cannot be loaded.
    pub fn new(
        settings: &Pkcs11Settings,
        pin: Arc<dyn TextFile>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KmsError> {
        let pool = Arc::new(Pool::new(settings, pin, Arc::clone(&clock), false)?);
        let key = Arc::new(KeyLookup::new(settings.key_label.clone()));
        Ok(Self { pool, key, clock })
    }
}

#[async_trait]
impl Keeper for Pkcs11Keeper {
    fn kek(self: Arc<Self>) -> Arc<dyn Kek> {
        self
    }

    /// Derives the lineage from the label of the key. Clones of a token differ in their serial numbers,
    /// and may differ in their labels.
    fn lineage(&self) -> Lineage {
        Lineage::of_place("pkcs11", &[self.key.label.as_str()])
    }

    fn tasks(&self) -> Vec<(&'static str, Task)> {
        let pool = Arc::clone(&self.pool);
        vec![("PIN file", Box::pin(async move { pool.pin.watch().await }))]
    }

    fn view(&self) -> KeeperView {
        KeeperView::new(Some(self.pool.login.view()), Vec::new())
    }

    async fn check(&self, report: &mut Report) -> bool {
        check::check(&self.pool, &*self.clock, report).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[async_trait]
impl Kek for Pkcs11Keeper {
    /// Takes as many concurrent calls as there are sessions.
    fn abilities(&self) -> Abilities {
        Abilities::default().with_calls(usize::try_from(self.pool.size()).unwrap_or(1))
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        let key = Arc::clone(&self.key);
        let found = self.pool.run(deadline, move |live| key.list(live)).await?;
        let warnings = Vec::from_iter(found.exportable.then_some(EXPORTABLE));
        Ok(KekSnapshot::new(found.identities).with_flaw(found.flaw).with_warnings(warnings))
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let (key, plaintext) = (Arc::clone(&self.key), plaintext.clone());
        let associated_data = associated_data.clone();
        let sealed =
            self.pool.run(deadline, move |live| match key.objects(live, version)?.as_slice() {
                [object] => cipher::seal(
                    &live.session,
                    *object,
                    plaintext.expose(),
                    associated_data.as_bytes(),
                ),
                _ => Err(key_objects::ambiguous(version, &key.label).into()),
            });
        Ok(Wrapped::new(cipher::ciphertext(version, &sealed.await?)?, version))
    }

    /// Tries each object if several objects claim to be the version.
    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let (version, bytes) = cipher::parse(sealed.ciphertext)?;
        let (key, associated_data) = (Arc::clone(&self.key), sealed.associated_data.clone());
        let opened = self.pool.run(deadline, move |live| {
            let mut refusal = cipher::rejected().into();
            for object in key.objects(live, version)? {
                match cipher::open(live, object, &bytes, associated_data.as_bytes()) {
                    Err(Fault::Known(error)) if error.code() == Code::CiphertextRejected => {
                        refusal = Fault::Known(error);
                    }
                    ended => return ended,
                }
            }
            Err(refusal)
        });
        opened.await
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        cipher::parse(ciphertext).map(|(version, _)| version)
    }
}
