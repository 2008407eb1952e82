//! Makes versions of the key for the commands `pkcs11 init` and `pkcs11 rotate`.

use std::{sync::Arc, time::Duration};

use super::{
    key_objects::{self, Versions},
    meaning::Fault,
    object_id::ObjectId,
    pool::{LiveSession, Pool},
    settings::{KeyLabel, Pkcs11Settings},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        key::KekVersion,
        time::UnixTime,
    },
    ports::{clock::Clock, file::TextFile},
};

/// Limits the time of a command. Some devices need seconds to make a key.
const COMMAND: Duration = Duration::from_mins(1);

/// Makes keys on the token.
#[derive(Debug)]
pub struct Operator {
    pool: Arc<Pool>,
    label: KeyLabel,
    clock: Arc<dyn Clock>,
}

impl Operator {
    /// Prepares work on the key that `settings` name, with the user PIN from `pin`. Loads the library.
    ///
    /// # Errors
    /// Returns `keeper-unreachable` when the library cannot be loaded.
    pub fn new(
        settings: &Pkcs11Settings,
        pin: Arc<dyn TextFile>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KmsError> {
        let pool = Arc::new(Pool::new(settings, pin, Arc::clone(&clock), true)?);
        Ok(Self { pool, label: settings.key_label.clone(), clock })
    }

    /// Makes version 1 of the key. Ends within a minute.
    ///
    /// # Errors
    /// Returns `key-unusable` when the key exists or somebody else makes it at the same time, or the
    /// errors of login and token.
    pub async fn init(&self) -> Result<KekVersion, KmsError> {
        self.add(|found, label| match found {
            Err(error) if error.code() == Code::KeyMissing => Ok(KekVersion::FIRST),
            Err(error) => Err(error),
            Ok(_) => Err(KmsError::new(
                Code::KeyUnusable,
                format!("the token has an AES key with the label {label} already"),
                "add a version with `vault-kube-kms pkcs11 rotate`, or choose another \
                 --pkcs11-key-label",
            )),
        })
        .await
    }

    /// Adds a version to the key, and returns its number. Ends within a minute.
    ///
    /// # Errors
    /// Returns `key-missing` without a key, `key-unusable` when the key has a flaw or somebody else adds
    /// a version at the same time, or the errors of login and token.
    pub async fn rotate(&self) -> Result<KekVersion, KmsError> {
        self.add(|found, _| {
            let found = found?;
            match (found.flaw, found.identities.last_key_value()) {
                (Some(flaw), _) => Err(flaw),
                (None, newest) => Ok(newest.map_or(KekVersion::FIRST, |(newest, _)| newest.next())),
            }
        })
        .await
    }

    async fn add(
        &self,
        next: fn(Result<Versions, KmsError>, &KeyLabel) -> Result<KekVersion, KmsError>,
    ) -> Result<KekVersion, KmsError> {
        let created = UnixTime::from_secs(self.clock.wall().secs());
        let label = self.label.clone();
        let made = self.pool.run_once(self.clock.now().after(COMMAND), move |live| {
            let version = next(list(live, &label)?, &label)?;
            make(live, &label, ObjectId { version, created })
        });
        let made = made.await;
        self.pool.close().await;
        made
    }
}

fn list(live: &LiveSession, label: &KeyLabel) -> Result<Result<Versions, KmsError>, Fault> {
    Ok(key_objects::versions(&key_objects::list(&live.session, label)?, label))
}

/// Makes the version `id`. Deletes it again if somebody else made a version meanwhile. Of two commands
/// that run at the same time on one token, at least one sees the version of the other.
fn make(live: &LiveSession, label: &KeyLabel, id: ObjectId) -> Result<KekVersion, Fault> {
    let ours = key_objects::generate(&live.session, label, id)?;
    let alone = list(live, label).and_then(|found| {
        let found = found?;
        let of_ours = found.handles.get(&id.version).map_or(0, Vec::len);
        let newest = found.handles.last_key_value().map(|(newest, _)| *newest);
        Ok(of_ours == 1 && newest == Some(id.version))
    });
    if matches!(alone, Ok(true)) {
        return Ok(id.version);
    }
    live.session.destroy_object(ours)?;
    alone?;
    Err(KmsError::new(
        Code::KeyUnusable,
        format!("another version of the key {label} was made at the same time, so this command deleted its own"),
        "run it again if no other command succeeded",
    )
    .into())
}
