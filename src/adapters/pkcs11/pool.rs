//! Keeps the sessions with the token, and runs the calls into the library on blocking threads.
//!
//! A permit is the right to be inside the library. The thread holds it, not the caller: a call that
//! hangs keeps its permit, so the number of threads inside the library never exceeds the number of
//! permits. The holder of all permits is alone with the library, and may finalise it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use cryptoki::{context::Pkcs11, error::Error, object::ObjectHandle, session::Session, slot::Slot};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{
    library::Library,
    login::Login,
    meaning::Fault,
    pin::{Pin, PinFile},
    settings::{Pkcs11Settings, TokenName},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        key::KekVersion,
        time::Monotonic,
    },
    ports::{clock::Clock, file::TextFile},
};

/// Limits how often work is tried in a new session before its error counts, with a pause between. `SoftHSM`
/// answers wrongly for a moment while another process writes to the token: a handle is invalid, a
/// key does not have a mechanism, or an attribute is missing.
const NEW_SESSIONS: u32 = 3;
const BETWEEN_SESSIONS: Duration = Duration::from_millis(10);

/// Separates two restarts of the library. The wait doubles with each restart that does not help, up to
/// the maximum.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(250);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);

/// Limits how long a call waits for the next restart to be due.
const RESTART_DUE_WITHIN: Duration = Duration::from_millis(500);

/// Limits how long a restart waits for the calls inside the library.
const EXCLUSIVE_WITHIN: Duration = Duration::from_secs(1);

/// Holds a session that is logged in, and the object handles that it has looked up.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) session: Session,
    pub(super) handles: BTreeMap<KekVersion, Vec<ObjectHandle>>,
    client: Pkcs11,
    slot: Slot,
}

impl LiveSession {
    /// Opens another session of the same login. Blocks.
    ///
    /// # Errors
    /// Returns the answer of the library.
    pub(super) fn open_another(&self) -> Result<Session, Error> {
        self.client.open_ro_session(self.slot)
    }
}

/// Pools the sessions with one token.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) library: Library,
    pub(super) token: TokenName,
    pub(super) login: Login,
    pub(super) pin: PinFile,
    /// True if sessions may make keys.
    writes: bool,
    size: u32,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<LiveSession>>,
    clock: Arc<dyn Clock>,
    restarts: Mutex<Restarts>,
}

/// Records the restarts of the library.
#[derive(Clone, Copy, Debug)]
struct Restarts {
    /// The number of restarts.
    count: u64,
    /// The time from which the next restart is allowed.
    due: Monotonic,
    /// The wait after the next restart.
    wait: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { count: 0, due: Monotonic::default(), wait: RESTART_WAIT_MIN }
    }
}

impl Pool {
    /// Makes a pool without sessions, and loads the library. Sessions that `writes` allows make keys.
    ///
    /// # Errors
    /// Returns `keeper-unreachable` when the library cannot be loaded.
    pub(super) fn new(
        settings: &Pkcs11Settings,
        pin: Arc<dyn TextFile>,
        clock: Arc<dyn Clock>,
        writes: bool,
    ) -> Result<Self, KmsError> {
        Ok(Self {
            library: Library::load(Path::new(&settings.module))?,
            token: settings.token.clone(),
            login: Login::default(),
            pin: PinFile::new(pin),
            writes,
            size: settings.sessions,
            permits: Arc::new(Semaphore::new(usize::try_from(settings.sessions).unwrap_or(1))),
            idle: Mutex::default(),
            clock,
            restarts: Mutex::default(),
        })
    }

    /// Returns the limit of concurrent sessions.
    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// Runs `work` in a session, and returns its result by `deadline`. Repeats the work in a new session
    /// after an outage in an old one. Restarts the library after an outage in a new session, and
    /// repeats the work once more; restarts that do not help become rare, down to one in 5 s.
    ///
    /// # Errors
    /// Returns `keeper-timeout` at the deadline, or the errors of login and work.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Monotonic,
        work: impl Fn(&mut LiveSession) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<T, KmsError> {
        let work = Arc::new(work);
        let calls = async {
            loop {
                let seen = self.restarts().count;
                let pin = self.pin.current().await;
                match self.attempt(pin, Arc::clone(&work)).await {
                    Err(error) if may_end_by_restart(error.code()) => {
                        if !self.restart(seen).await {
                            return Err(error);
                        }
                    }
                    ended => {
                        self.restarts().wait = RESTART_WAIT_MIN;
                        return ended;
                    }
                }
            }
        };
        self.by_deadline(deadline, calls).await
    }

    /// Runs `work` in a session and never repeats it. Returns its result by `deadline`.
    ///
    /// # Errors
    /// Returns the same errors as [`Pool::run`].
    pub(super) async fn run_once<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Monotonic,
        work: impl FnOnce(&mut LiveSession) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, KmsError> {
        self.run(deadline, |_live| Ok(())).await?;
        let pin = self.pin.current().await;
        self.by_deadline(
            deadline,
            self.on_thread(1, move |pool| {
                let kept = pool.idle().pop();
                let mut live = match kept {
                    Some(live) => live,
                    None => pool.open(&pin)?,
                };
                Ok(work(&mut live)?)
            }),
        )
        .await
    }

    /// Runs `ask`, which needs no session. Returns its result by `deadline`.
    ///
    /// # Errors
    /// Returns `keeper-timeout` at the deadline, or the errors of `ask`.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Monotonic,
        ask: impl FnOnce(&Self) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, KmsError> {
        let inside = move |pool: &Self| Ok(ask(pool)?);
        self.by_deadline(deadline, self.on_thread(1, inside)).await
    }

    /// Waits until no call is inside the library, closes all sessions and finalises it. Later calls
    /// fail.
    pub(super) async fn close(self: &Arc<Self>) {
        let ended = self.on_thread(self.size, |pool| {
            pool.shut_down();
            Ok(())
        });
        drop(ended.await);
        self.permits.close();
    }

    async fn by_deadline<T: Send>(
        &self,
        deadline: Monotonic,
        calls: impl Future<Output = Result<T, KmsError>> + Send,
    ) -> Result<T, KmsError> {
        let left = deadline.since(self.clock.now());
        tokio::select! {
            biased;
            ended = calls => ended,
            () = self.clock.sleep(left) => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> KmsError {
        let cause = if self.permits.available_permits() == 0 {
            "all sessions with the token are in use, and none came free in time"
        } else {
            "the PKCS#11 module did not answer in time"
        };
        let remedy = "check the token, the network to it and its load; where the module never \
                      answers again, restart this process";
        KmsError::new(Code::KeeperTimeout, cause, remedy)
    }

    /// Runs `work` on a blocking thread that holds `permits` permits. The thread returns the permits when
    /// it ends, even if the caller has gone.
    async fn on_thread<T: Send + 'static>(
        self: &Arc<Self>,
        permits: u32,
        work: impl FnOnce(&Self) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let permits = Arc::clone(&self.permits).acquire_many_owned(permits).await;
        let permits: OwnedSemaphorePermit = permits.map_err(|_closed| stopping())?;
        let pool = Arc::clone(self);
        let inside = move || {
            let ended = work(&pool);
            drop(permits);
            ended
        };
        spawn_blocking(inside).await.map_err(|_cancelled| stopping())?
    }

    /// Runs `work` in an idle session, and in new sessions after answers of the library that may be
    /// momentary.
    async fn attempt<T: Send + 'static>(
        self: &Arc<Self>,
        pin: Pin,
        work: Arc<impl Fn(&mut LiveSession) -> Result<T, Fault> + Send + Sync + 'static>,
    ) -> Result<T, KmsError> {
        self.on_thread(1, move |pool| {
            let kept = pool.idle().pop();
            if let Some(mut live) = kept {
                match work(&mut live) {
                    Err(Fault::Library(_)) => (),
                    ended => {
                        pool.idle().push(live);
                        return Ok(ended?);
                    }
                }
            }
            for _ in 1..NEW_SESSIONS {
                match pool.in_new_session(&pin, &*work) {
                    Err(Fault::Library(_)) => thread::sleep(BETWEEN_SESSIONS),
                    ended => return Ok(ended?),
                }
            }
            Ok(pool.in_new_session(&pin, &*work)?)
        })
        .await
    }

    /// Runs `work` in a new session, and keeps the session unless the library failed. Blocks.
    fn in_new_session<T>(
        &self,
        pin: &Pin,
        work: &impl Fn(&mut LiveSession) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut live = self.open(pin)?;
        let ended = work(&mut live);
        if !matches!(ended, Err(Fault::Library(_))) {
            self.idle().push(live);
        }
        ended
    }

    /// Opens a session and logs in. Blocks.
    fn open(&self, pin: &Pin) -> Result<LiveSession, Fault> {
        let (slot, _) = self.library.find(&self.token)?;
        let session = self.library.open(slot, self.writes)?;
        let now = self.clock.now();
        self.login.ensure(&self.library, slot, &session, pin, now)?;
        let client = self.library.client().clone();
        Ok(LiveSession { session, handles: BTreeMap::new(), client, slot })
    }

    /// Closes all sessions and finalises the library; the next call initialises it. Does nothing if
    /// another caller restarted it since there were `seen` restarts. Returns false if the next
    /// restart is not due soon, or if a call stays inside the library.
    async fn restart(self: &Arc<Self>, seen: u64) -> bool {
        let left = self.restarts().due.since(self.clock.now());
        if left > RESTART_DUE_WITHIN {
            return false;
        }
        self.clock.sleep(left).await;
        {
            let (mut restarts, now) = (self.restarts(), self.clock.now());
            if restarts.count != seen {
                return true;
            }
            let wait = restarts.wait;
            let next = wait.saturating_mul(2).min(RESTART_WAIT_MAX);
            *restarts =
                Restarts { count: seen.saturating_add(1), due: now.after(wait), wait: next };
        }
        let alone = self.on_thread(self.size, |pool| {
            pool.shut_down();
            Ok(())
        });
        tokio::select! {
            biased;
            ended = alone => ended.is_ok(),
            () = self.clock.sleep(EXCLUSIVE_WITHIN) => false,
        }
    }

    /// Closes all sessions and finalises the library. Blocks. The calling thread holds all permits.
    fn shut_down(&self) {
        // A session that is dropped later could close a new session of the same number.
        self.idle().clear();
        self.library.finalise();
    }

    fn restarts(&self) -> MutexGuard<'_, Restarts> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<LiveSession>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a restart of the library may end errors of this code. Some libraries list tokens only
/// when they are initialised. Some show a removed token as one without PIN or keys.
const fn may_end_by_restart(code: Code) -> bool {
    matches!(
        code,
        Code::KeeperUnreachable
            | Code::KeeperFailed
            | Code::KeeperSealed
            | Code::KeeperAnswer
            | Code::KeyMissing
    )
}

fn stopping() -> KmsError {
    KmsError::new(Code::Starting, "this process is stopping", "send the call to its successor")
}
