//! Looks up the versions of one key in a session.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use cryptoki::object::ObjectHandle;

use super::{
    key_objects::{self, Versions},
    meaning::Fault,
    pool::LiveSession,
    settings::KeyLabel,
};
use crate::domain::{
    error::{Code, KmsError},
    key::KekVersion,
};

/// Limits how often the versions are listed while a listing is in doubt, with a pause between. `SoftHSM`
/// omits objects for a moment while another process or thread reads or writes the token.
const LISTINGS: u32 = 5;
const BETWEEN_LISTINGS: Duration = Duration::from_millis(20);

/// Looks up the versions of the key with one label, and remembers which versions there are.
#[derive(Debug)]
pub(super) struct KeyLookup {
    pub(super) label: KeyLabel,
    seen: Mutex<BTreeSet<KekVersion>>,
}

impl KeyLookup {
    /// Makes the lookup of the key with this label.
    pub(super) fn new(label: KeyLabel) -> Self {
        Self { label, seen: Mutex::default() }
    }

    /// Lists the versions, and keeps their handles for the session. Lists them again before it reports a
    /// flaw or the loss of a version. Blocks.
    ///
    /// # Errors
    /// Returns `key-missing` when there are none, or the answer of the library.
    pub(super) fn list(&self, live: &mut LiveSession) -> Result<Versions, Fault> {
        for _ in 1..LISTINGS {
            match self.list_once(live) {
                Ok(found) if !self.is_doubtful(&found) => return Ok(self.keep(live, found)),
                Err(Fault::Known(error)) if !self.has_seen_any() => return Err(error.into()),
                Err(Fault::Library(error)) => return Err(error.into()),
                _ => thread::sleep(BETWEEN_LISTINGS),
            }
        }
        let found = self.list_once(live)?;
        Ok(self.keep(live, found))
    }

    /// Returns the objects of `version`. Lists the versions if the session does not know it. Blocks.
    ///
    /// # Errors
    /// Returns `version-not-yet` and `version-retired`, or the errors of [`KeyLookup::list`].
    pub(super) fn objects(
        &self,
        live: &mut LiveSession,
        version: KekVersion,
    ) -> Result<Vec<ObjectHandle>, Fault> {
        if let Some(objects) = live.handles.get(&version) {
            return Ok(objects.clone());
        }
        let found = self.list(live)?;
        let newest = found.identities.last_key_value().map(|(newest, _)| *newest);
        let objects = found.handles.get(&version).cloned();
        objects.ok_or_else(|| self.absent(version, newest).into())
    }

    fn absent(&self, version: KekVersion, newest: Option<KekVersion>) -> KmsError {
        let label = &self.label;
        if newest.is_some_and(|newest| version > newest) {
            return KmsError::new(
                Code::VersionNotYet,
                format!("the token has no version {version} of the key {label} yet"),
                "wait until the token has the newest versions; if it lasts, copy them to it",
            );
        }
        KmsError::new(
            Code::VersionRetired,
            format!("the token has no version {version} of the key {label} any more"),
            "restore that version on the token from a backup of it",
        )
    }

    fn list_once(&self, live: &LiveSession) -> Result<Versions, Fault> {
        let objects = key_objects::list(&live.session, &self.label)?;
        Ok(key_objects::versions(&objects, &self.label)?)
    }

    fn is_doubtful(&self, found: &Versions) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        found.flaw.is_some() || seen.iter().any(|version| !found.handles.contains_key(version))
    }

    fn has_seen_any(&self) -> bool {
        !self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn keep(&self, live: &mut LiveSession, found: Versions) -> Versions {
        let versions = found.handles.keys().copied().collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = versions;
        live.handles.clone_from(&found.handles);
        found
    }
}
