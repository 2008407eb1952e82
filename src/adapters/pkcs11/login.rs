//! Logs the user in. Never sends a refused PIN again, so that no number of calls locks the token.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cryptoki::{
    error::{Error, RvError},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::RawAuthPin,
};

use super::{
    library::Library,
    meaning::{self, Fault},
    pin::Pin,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::keeper::SessionView,
};

/// Remembers refused PINs, and how the last login went.
#[derive(Debug, Default)]
pub(super) struct Login {
    memory: Mutex<Memory>,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The last PIN that the token refused.
    refused: Option<Plaintext>,
    /// The PIN in the file when the token was first seen with one try left.
    held_back: Option<Plaintext>,
    /// The last failures that did not say whether the PIN was wrong.
    unclear: Option<Unclear>,
}

/// Records failures in a row with one PIN that did not say whether the PIN was wrong.
#[derive(Debug)]
struct Unclear {
    pin: Plaintext,
    times: u32,
    last: Monotonic,
    error: KmsError,
}

/// Limits the unclear failures in a row. Tokens lock after three wrong PINs or more.
const UNCLEAR_MAX: u32 = 2;

/// Separates two logins after an unclear failure, so that a short disturbance counts once.
const UNCLEAR_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Outcome {
    logins: u64,
    problem: Option<KmsError>,
}

/// Counts the tries that are left, as far as the flags of `CK_TOKEN_INFO` tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tries {
    /// All tries are left, or the token does not set the flags.
    All,
    /// A wrong PIN was sent since the last login (`CKF_USER_PIN_COUNT_LOW`).
    Fewer,
    /// One more wrong PIN locks it (`CKF_USER_PIN_FINAL_TRY`).
    One,
    /// The PIN is locked (`CKF_USER_PIN_LOCKED`).
    None,
}

impl Tries {
    /// Reads the flags of `token`.
    pub(super) fn of(token: &TokenInfo) -> Self {
        if token.user_pin_locked() {
            Self::None
        } else if token.user_pin_final_try() {
            Self::One
        } else if token.user_pin_count_low() {
            Self::Fewer
        } else {
            Self::All
        }
    }
}

impl Memory {
    /// Decides whether `pin` may be sent at `now` to a token that has `left` tries.
    ///
    /// # Errors
    /// Returns `login-refused` with the reason, or an unclear failure of a moment ago.
    fn allow(&mut self, left: Tries, pin: &Plaintext, now: Monotonic) -> Result<(), KmsError> {
        if self.refused.as_ref() == Some(pin) {
            return Err(refused("the token refused the PIN, which is not tried again", WRITE_PIN));
        }
        match &self.unclear {
            Some(unclear) if unclear.pin != *pin => self.unclear = None,
            Some(unclear) if unclear.times >= UNCLEAR_MAX => {
                return Err(refused(
                    format!(
                        "{}, twice, which may mean a wrong PIN, so the PIN is not tried again",
                        unclear.error.cause()
                    ),
                    "try the PIN by hand (pkcs11-tool --login); then restart this process, or write \
                     the right PIN to --pkcs11-pin-file",
                ));
            }
            Some(unclear) if now.since(unclear.last) < UNCLEAR_WAIT => {
                return Err(unclear.error.clone());
            }
            _ => (),
        }
        match left {
            Tries::None => Err(refused(
                "the user PIN of the token is locked",
                "have the security officer of the token set a new user PIN, and write it to \
                 --pkcs11-pin-file",
            )),
            // The operator wrote another PIN after the error, so the last try is the operator's.
            Tries::One if self.held_back.get_or_insert_with(|| pin.clone()) != pin => Ok(()),
            Tries::One => Err(refused(
                "one more wrong PIN would lock the token, so the PIN is not tried",
                "log in once by hand with the right PIN (pkcs11-tool --login), which gives the \
                 tries back, or write another PIN to --pkcs11-pin-file",
            )),
            Tries::Fewer | Tries::All => Ok(()),
        }
    }

    /// Records that a login with `pin` failed at `now` with `error`, which does not say whether the PIN
    /// was wrong.
    fn failed_unclearly(&mut self, pin: Plaintext, now: Monotonic, error: &KmsError) {
        let before = self.unclear.take().filter(|unclear| unclear.pin == pin);
        let times = before.map_or(0, |unclear| unclear.times).saturating_add(1);
        self.unclear = Some(Unclear { pin, times, last: now, error: error.clone() });
    }
}

impl Login {
    /// Logs the user in with `session`, unless another session did so: a login counts for all sessions
    /// of the process. Blocks. Lets one thread in at a time, so that two threads do not send one wrong
    /// PIN.
    ///
    /// # Errors
    /// Returns `login-refused`, `credential-unreadable`, or the answer of the library.
    pub(super) fn ensure(
        &self,
        library: &Library,
        slot: Slot,
        session: &Session,
        pin: &Pin,
        now: Monotonic,
    ) -> Result<(), Fault> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let done = attempt(&mut memory, library, slot, session, pin, now);
        let mut outcome = self.outcome();
        match &done {
            Ok(sent) => {
                outcome.logins = outcome.logins.saturating_add(u64::from(*sent));
                outcome.problem = None;
            }
            Err(Fault::Known(error)) => outcome.problem = Some(error.clone()),
            Err(Fault::Library(error)) => outcome.problem = Some(meaning::of(error)),
        }
        done.map(|_sent| ())
    }

    /// Returns the state of the login. Does not wait for a login in progress.
    pub(super) fn view(&self) -> SessionView {
        let outcome = self.outcome();
        let logins = (outcome.problem.is_none() && outcome.logins > 0).then_some(outcome.logins);
        let login = "the PIN of the token".to_owned();
        SessionView { login, logins, token_left: None, closed: outcome.problem.clone() }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs in if necessary. Returns whether this sent a PIN.
fn attempt(
    memory: &mut Memory,
    library: &Library,
    slot: Slot,
    session: &Session,
    pin: &Pin,
    now: Monotonic,
) -> Result<bool, Fault> {
    let state = session.get_session_info()?.session_state();
    if matches!(state, SessionState::RoUser | SessionState::RwUser) {
        return Ok(false);
    }
    let token = library.token(slot)?;
    if !token.login_required() {
        return Ok(false);
    }
    let pin = pin.clone()?;
    let before = Tries::of(&token);
    memory.allow(before, &pin, now)?;
    let sent = RawAuthPin::new(Box::new(pin.expose().to_vec()));
    match session.login_with_raw(UserType::User, &sent) {
        Ok(()) => {
            *memory = Memory::default();
            Ok(true)
        }
        Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(false),
        Err(error) => {
            let named = matches!(&error, Error::Pkcs11(code, _) if meaning::refuses_pin(code));
            // Some tokens answer a wrong PIN with a general error, but set their flags.
            let counted = || library.token(slot).is_ok_and(|now| Tries::of(&now) > before);
            if named || counted() {
                memory.refused = Some(pin);
                return Err(refused(meaning::of(&error).cause().to_owned(), WRITE_PIN).into());
            }
            if !meaning::is_of_device(&error) {
                let error = meaning::of(&error);
                memory.failed_unclearly(pin, now, &error);
                return Err(error.into());
            }
            Err(error.into())
        }
    }
}

const WRITE_PIN: &str = "write the right PIN to --pkcs11-pin-file";

fn refused(cause: impl Into<String>, remedy: &'static str) -> KmsError {
    KmsError::new(Code::LoginRefused, cause.into(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Plaintext {
        Plaintext::new(text.as_bytes().to_vec())
    }

    #[test]
    fn refuses_to_send_a_refused_pin_and_sends_another_one() {
        let mut memory = Memory { refused: Some(pin("1")), ..Memory::default() };
        for left in [Tries::All, Tries::Fewer, Tries::One, Tries::None] {
            assert_eq!(
                memory.allow(left, &pin("1"), Monotonic::default()).unwrap_err().code(),
                Code::LoginRefused
            );
        }
        assert_eq!(memory.allow(Tries::Fewer, &pin("2"), Monotonic::default()), Ok(()));
    }

    #[test]
    fn keeps_the_last_try_for_a_pin_that_is_written_after_the_error() {
        let mut memory = Memory::default();
        for _ in 0..3 {
            let error = memory.allow(Tries::One, &pin("1"), Monotonic::default()).unwrap_err();
            assert!(error.cause().contains("would lock the token"), "{error}");
        }
        assert_eq!(memory.allow(Tries::One, &pin("2"), Monotonic::default()), Ok(()));
        // A login by hand resets the flags.
        assert_eq!(memory.allow(Tries::All, &pin("1"), Monotonic::default()), Ok(()));
    }

    #[test]
    fn sends_a_pin_twice_if_the_token_does_not_say_what_is_wrong() {
        let mut memory = Memory::default();
        let error = KmsError::new(Code::KeeperFailed, "a general error", "wait");
        let at = |seconds| Monotonic::at(Duration::from_secs(seconds));
        memory.failed_unclearly(pin("1"), at(1), &error);
        assert_eq!(memory.allow(Tries::All, &pin("1"), at(1)), Err(error.clone()));
        assert_eq!(memory.allow(Tries::All, &pin("1"), at(2)), Ok(()));
        memory.failed_unclearly(pin("1"), at(2), &error);
        let refused = memory.allow(Tries::All, &pin("1"), at(9_999)).unwrap_err();
        assert_eq!(refused.code(), Code::LoginRefused, "{refused}");
        assert_eq!(memory.allow(Tries::All, &pin("2"), at(9_999)), Ok(()));
    }

    #[test]
    fn refuses_to_send_a_locked_pin() {
        let error =
            Memory::default().allow(Tries::None, &pin("1"), Monotonic::default()).unwrap_err();
        assert!(error.cause().contains("locked"), "{error}");
    }
}
