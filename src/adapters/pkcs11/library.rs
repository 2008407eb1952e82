//! Loads the PKCS#11 library, initialises it before its first use, and finalises it on request.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    session::Session,
    slot::{Slot, TokenInfo},
};

use super::{meaning::Fault, settings::TokenName};
use crate::domain::error::{Code, KmsError};

/// Holds the loaded library.
#[derive(Debug)]
pub(super) struct Library {
    client: Pkcs11,
    is_initialised: Mutex<bool>,
}

impl Library {
    /// Loads the library at `path`. Calls no function of PKCS#11 but `C_GetFunctionList`.
    ///
    /// # Errors
    /// Returns `keeper-unreachable` with the message of the dynamic linker.
    pub(super) fn load(path: &Path) -> Result<Self, KmsError> {
        match Pkcs11::new(path) {
            Ok(client) => Ok(Self { client, is_initialised: Mutex::default() }),
            Err(error) => Err(KmsError::new(
                Code::KeeperUnreachable,
                format!("--pkcs11-module: cannot load {}: {error}", path.display()),
                "name the PKCS#11 library of the token, such as /usr/lib/softhsm/libsofthsm2.so",
            )),
        }
    }

    /// Initialises the library, unless it is initialised. Blocks.
    ///
    /// # Errors
    /// Returns the answer of the library.
    pub(super) fn initialise(&self) -> Result<(), Error> {
        let mut is_initialised = self.state();
        if *is_initialised {
            return Ok(());
        }
        match self.client.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                *is_initialised = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Finalises the library, so that the next use lists the tokens again. Blocks. The caller closes all
    /// sessions first, and makes sure that no other thread is inside the library.
    pub(super) fn finalise(&self) {
        let mut is_initialised = self.state();
        if *is_initialised {
            *is_initialised = false;
            // A library that refuses this stays initialised, and `initialise` accepts that.
            drop(self.client.clone().finalize());
        }
    }

    fn state(&self) -> MutexGuard<'_, bool> {
        self.is_initialised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns name, version and manufacturer of the library. Blocks.
    ///
    /// # Errors
    /// Returns the answer of the library.
    pub(super) fn description(&self) -> Result<String, Fault> {
        self.initialise()?;
        let info = self.client.get_library_info()?;
        let version = info.library_version();
        let (name, maker) = (info.library_description(), info.manufacturer_id());
        Ok(format!("{name:?} {version} of {maker:?}"))
    }

    /// Finds the slot of the token `name`, and what the token says about itself. Blocks.
    ///
    /// # Errors
    /// Returns `keeper-unreachable` when no such token is present, `key-unusable` when there are
    /// several, or the answer of the library.
    pub(super) fn find(&self, name: &TokenName) -> Result<(Slot, TokenInfo), Fault> {
        self.initialise()?;
        let slots = self.client.get_slots_with_token()?;
        // A token that cannot be read is another one, or was just removed.
        let tokens = slots.into_iter().filter_map(|slot| Some((slot, self.token(slot).ok()?)));
        let mut found = tokens.filter(|(_, token)| match name {
            TokenName::Label(label) => token.label().trim_end() == label,
            TokenName::Serial(serial) => token.serial_number().trim_end() == serial,
        });
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(absent(name).into()),
            (Some(_), Some(_)) => Err(KmsError::new(
                Code::KeyUnusable,
                format!("there is more than one {name}"),
                "name the token by --pkcs11-token-serial",
            )
            .into()),
        }
    }

    /// Returns what the token in `slot` says about itself. Blocks.
    ///
    /// # Errors
    /// Returns the answer of the library.
    pub(super) fn token(&self, slot: Slot) -> Result<TokenInfo, Error> {
        self.client.get_token_info(slot)
    }

    /// Returns the loaded library.
    pub(super) const fn client(&self) -> &Pkcs11 {
        &self.client
    }

    /// Opens a session with the token in `slot`. A session that `writes` may make keys. Blocks.
    ///
    /// # Errors
    /// Returns the answer of the library.
    pub(super) fn open(&self, slot: Slot, writes: bool) -> Result<Session, Error> {
        if writes { self.client.open_rw_session(slot) } else { self.client.open_ro_session(slot) }
    }
}

fn absent(name: &TokenName) -> KmsError {
    KmsError::new(
        Code::KeeperUnreachable,
        format!("the PKCS#11 module finds no {name}"),
        "connect the token, or check --pkcs11-token-label, --pkcs11-token-serial and the \
         configuration of the module; the keeper looks for the token again by itself",
    )
}
