//! A keeper in memory that keeps every rule, except the one that its fault breaks.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task,
    time::{sleep, timeout},
};
use vault_kube_kms::{
    adapters::system::clock::SystemClock,
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{Fingerprint, KekSnapshot, KekVersion, VersionIdentity},
        secret::Plaintext,
        time::{Monotonic, UnixTime},
    },
    ports::{
        abilities::Abilities,
        clock::Clock,
        kek::{Kek, Unwrap, Wrapped},
    },
};

use super::{
    faults::{Fault, Method},
    state::{State, Version, Way, random},
};

/// Longer than any pause that the suite accepts, and than its wait for a blocked thread.
const BLOCKS: Duration = Duration::from_millis(400);
const BLOCKS_FOR_GOOD: Duration = Duration::from_secs(6);

/// The number of cancelled calls that uses up the permits of
/// [`Fault::LosesAPermitWhenCancelled`].
const PERMITS: usize = 32;

/// The prefix of each ciphertext. The version, the nonce and the sealed bytes follow.
const MARK: u8 = 0xc1;

#[derive(Debug)]
pub struct MemoryKek {
    pub fault: Option<Fault>,
    pub knows_times: bool,
    pub clock: Arc<SystemClock>,
    state: Mutex<State>,
    pub way: watch::Sender<Way>,
    /// The state of a keeper with such a fault.
    was_away: AtomicBool,
    cached: Mutex<Option<KekSnapshot>>,
    permits_lost: AtomicUsize,
    buffer: Mutex<Vec<u8>>,
    wrapped: Mutex<Vec<Vec<u8>>>,
    own_task: mpsc::Sender<oneshot::Sender<()>>,
}

impl MemoryKek {
    /// A key of one version, and the task that a keeper with such a fault calls.
    pub fn new(fault: Option<Fault>, clock: Arc<SystemClock>) -> Self {
        let (own_task, mut calls) = mpsc::channel::<oneshot::Sender<()>>(64);
        tokio::spawn(async move {
            while let Some(reply) = calls.recv().await {
                thread::sleep(BLOCKS);
                let _unheard = reply.send(());
            }
        });
        Self {
            fault,
            knows_times: true,
            state: Mutex::new(State::new(&*clock)),
            clock,
            way: watch::Sender::new(Way::Open),
            was_away: AtomicBool::new(false),
            cached: Mutex::default(),
            permits_lost: AtomicUsize::new(0),
            buffer: Mutex::default(),
            wrapped: Mutex::default(),
            own_task,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Passes every call to the server.
    async fn reach(&self, method: Method, deadline: Monotonic) -> Result<(), KmsError> {
        if self.has(Fault::BlocksIn(method)) {
            thread::sleep(BLOCKS);
        }
        match self.fault {
            Some(Fault::BlocksInPlace) => task::block_in_place(|| ()),
            Some(Fault::BlocksInATaskOfItsOwn) => {
                let (reply, done) = oneshot::channel();
                self.own_task.send(reply).await.unwrap();
                done.await.unwrap();
            }
            Some(Fault::IgnoresDeadlinesFor400Ms) if method == Method::Wrap => sleep(BLOCKS).await,
            Some(Fault::LosesAPermitWhenCancelled) => {
                if self.permits_lost.fetch_add(1, Ordering::SeqCst) >= PERMITS {
                    return Err(error(Code::KeeperOverloaded, "no permit is left"));
                }
                task::yield_now().await;
                self.permits_lost.fetch_sub(1, Ordering::SeqCst);
            }
            _ => (),
        }
        self.pass(method, deadline).await?;
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(error(Code::KeeperFailed, "the session is gone"));
        }
        Ok(())
    }

    async fn pass(&self, method: Method, deadline: Monotonic) -> Result<(), KmsError> {
        let mut way = self.way.subscribe();
        if *way.borrow() == Way::Hangs && self.has(Fault::BlocksWhileItHangs) {
            thread::sleep(BLOCKS_FOR_GOOD);
        }
        let answers = way.wait_for(|way| *way != Way::Hangs);
        let left = match self.fault {
            Some(Fault::HangsForEver) => Duration::MAX,
            _ => deadline.since(self.clock.now()),
        };
        let Ok(answered) = timeout(left, answers).await else {
            let is_internal = self.has(Fault::AnswersATimeOutWithInternal);
            let code = if is_internal { Code::Internal } else { Code::KeeperTimeout };
            return Err(error(code, "the server does not answer"));
        };
        let is_away = *answered.unwrap() == Way::Away;
        if is_away {
            self.was_away.store(true, Ordering::SeqCst);
        }
        match self.fault {
            Some(Fault::DescribesFromMemoryInAnOutage) if method == Method::Describe => Ok(()),
            Some(Fault::AnswersAnOutageWithKeyMissing) if is_away => {
                Err(error(Code::KeyMissing, "the server lists no key"))
            }
            Some(Fault::NeverHeals) if self.was_away.load(Ordering::SeqCst) => Err(unreachable()),
            _ if is_away => Err(unreachable()),
            _ => Ok(()),
        }
    }

    /// Returns the version to use, if `state` has it.
    fn version(&self, state: &State, version: KekVersion) -> Result<Version, KmsError> {
        match state.versions.get(&version) {
            Some(found) if version >= state.min_decryption => Ok(found.clone()),
            None if version > state.latest() => {
                let as_missing = self.has(Fault::AnswersNotYetWithKeyMissing);
                let code = if as_missing { Code::KeyMissing } else { Code::VersionNotYet };
                Err(error(code, "no such version yet"))
            }
            _ if self.has(Fault::AnswersRetiredWithRejected) => Err(rejected()),
            _ => Err(error(Code::VersionRetired, "the version is retired")),
        }
    }

    fn bound(&self, associated_data: &AssociatedData) -> Vec<u8> {
        let bytes = associated_data.as_bytes();
        match self.fault {
            Some(Fault::IgnoresAssociatedData | Fault::BindsNothingAndSaysSo) => Vec::new(),
            Some(Fault::BindsTheFirstFiftyBytes) => bytes[..bytes.len().min(50)].to_vec(),
            _ => bytes.to_vec(),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<(KekVersion, [u8; 12], Vec<u8>), KmsError> {
        let parts = || {
            let (mark, rest) = bytes.split_first()?;
            let (version, rest) = rest.split_first_chunk::<4>()?;
            let (nonce, body) = rest.split_first_chunk::<12>()?;
            let good = *mark == MARK || self.has(Fault::IgnoresTheFirstByte);
            let version = KekVersion::new(u32::from_be_bytes(*version))?;
            good.then(|| (version, *nonce, body.to_vec()))
        };
        parts().ok_or_else(|| match self.fault {
            Some(Fault::PanicsOnNonsense) => panic!("this is nonsense"),
            Some(Fault::AnswersNonsenseWithKeeperAnswer) => error(Code::KeeperAnswer, "what?"),
            _ => rejected(),
        })
    }

    /// Returns the bytes that a faulty keeper reads in place of the given ciphertext.
    fn taken_for(&self, bytes: &[u8]) -> Vec<u8> {
        let wrapped = self.wrapped.lock().unwrap();
        let known = wrapped.iter().find(|known| match self.fault {
            Some(Fault::AcceptsACutTag) => {
                known.starts_with(bytes) && bytes.len() + 4 >= known.len()
            }
            Some(Fault::IgnoresTrailingBytes) => bytes.starts_with(known),
            _ => false,
        });
        known.map_or(bytes, Vec::as_slice).to_vec()
    }

    fn open(&self, sealed: Unwrap<'_>) -> Result<Plaintext, KmsError> {
        let bytes = self.taken_for(sealed.ciphertext.as_bytes());
        let (number, nonce, body) = self.parse(&bytes)?;
        let (state, bound) = (self.state(), self.bound(sealed.associated_data));
        let version = match self.fault {
            Some(Fault::UnwrapsWithRetiredVersions) if state.versions.contains_key(&number) => {
                state.versions[&number].clone()
            }
            Some(Fault::ListsVersionsThatDoNotUnwrap) if number < state.latest() => {
                return Err(error(Code::VersionRetired, "the version is lost"));
            }
            _ => self.version(&state, number)?,
        };
        let others: Vec<_> = match self.fault {
            Some(Fault::IgnoresTheVersionMarker) => state.versions.values().cloned().collect(),
            Some(Fault::UnwrapsWithTheFormerKey) => state.former.clone(),
            _ => Vec::new(),
        };
        let mut keys = std::iter::once(version).chain(others);
        let opened = keys.find_map(|key| {
            let unbound = || match self.fault {
                Some(Fault::OpensUnboundUnderAnyAssociatedData) => key.open(nonce, &[], &body),
                _ => None,
            };
            key.open(nonce, &bound, &body).or_else(unbound)
        });
        opened.map(Plaintext::new).ok_or_else(|| match self.fault {
            Some(Fault::AnswersAForgeryWithAnOutage) => error(Code::KeeperFailed, "general error"),
            _ => rejected(),
        })
    }

    /// Returns the plaintext to wrap, through the shared buffer if there is one.
    async fn taken_in(&self, plaintext: &Plaintext) -> Vec<u8> {
        let bytes = plaintext.expose();
        match self.fault {
            Some(Fault::LosesBytesBeyond32) => bytes[..bytes.len().min(32)].to_vec(),
            Some(Fault::SharesOneBuffer) => {
                *self.buffer.lock().unwrap() = bytes.to_vec();
                task::yield_now().await;
                self.buffer.lock().unwrap().clone()
            }
            _ => bytes.to_vec(),
        }
    }

    fn snapshot(&self) -> KekSnapshot {
        let mut state = self.state();
        state.described += 1;
        let shown = |created: UnixTime| match self.fault {
            Some(Fault::CreationTimesMove) => UnixTime::from_secs(created.secs() - state.described),
            Some(Fault::BornAtZero) => UnixTime::from_secs(0),
            Some(Fault::BornIn1970) => UnixTime::from_secs(1),
            Some(Fault::BornInAnHour) => created.after(Duration::from_secs(3_600)),
            _ => created,
        };
        let lowest = match self.fault {
            Some(Fault::ListsRetiredVersions) => KekVersion::FIRST,
            _ => state.min_decryption,
        };
        let min_decryption = match self.fault {
            Some(Fault::MinDecryptionIsTheLatest) => state.latest(),
            _ => lowest,
        };
        let identity = |version: &Version| match self.knows_times {
            true => VersionIdentity::Created(shown(version.created)),
            false => VersionIdentity::Fingerprint(Fingerprint::of(&version.name)),
        };
        let versions = state.versions.range(lowest..).map(|(number, v)| (*number, identity(v)));
        KekSnapshot::new(versions).with_min_decryption(min_decryption)
    }
}

#[async_trait]
impl Kek for MemoryKek {
    fn abilities(&self) -> Abilities {
        let abilities = Abilities::default().with_batches(64);
        match self.fault {
            Some(Fault::BindsNothingAndSaysSo) => abilities.without_binding(),
            Some(Fault::PinsNothingAndSaysSo) => abilities.without_pinning(),
            _ => abilities,
        }
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.reach(Method::Describe, deadline).await?;
        let snapshot = self.snapshot();
        if self.has(Fault::DescribesFromACacheForEver) {
            return Ok(self.cached.lock().unwrap().get_or_insert(snapshot).clone());
        }
        Ok(snapshot)
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        self.reach(Method::Wrap, deadline).await?;
        let bytes = self.taken_in(plaintext).await;
        let state = self.state();
        let (used, claimed) = match self.fault {
            Some(Fault::WrapsWithTheLatest) => (state.latest(), state.latest()),
            Some(Fault::WrapsWithTheLatestAndClaimsTheOther) => (state.latest(), version),
            Some(Fault::PinsNothingAndSaysSo) if self.version(&state, version).is_ok() => {
                (state.latest(), state.latest())
            }
            Some(Fault::ClaimsAnotherVersion) => (version, version.next()),
            _ => (version, version),
        };
        let key = match self.fault {
            Some(Fault::WrapsWithRetiredVersions) => Ok(state.versions[&used].clone()),
            _ => self.version(&state, used),
        };
        let key = key.map_err(|refused| match self.fault {
            Some(Fault::PutsThePlaintextIntoErrors) => error(refused.code(), format!("{bytes:?}")),
            Some(Fault::GivesNoRemedy) => KmsError::new(refused.code(), "no", ""),
            _ => refused,
        })?;
        let bound = self.bound(associated_data);
        if bound.is_empty() && self.has(Fault::RefusesToWrapUnbound) {
            return Err(error(Code::InvalidRequest, "associated data is missing"));
        }
        let nonce = if self.has(Fault::UsesOneNonce) { [7; 12] } else { random() };
        let body = key.seal(nonce, &bound, &bytes);
        let sealed = [&[MARK][..], &used.get().to_be_bytes(), &nonce, &body].concat();
        self.wrapped.lock().unwrap().push(sealed.clone());
        Ok(Wrapped::new(Ciphertext::new(sealed)?, claimed))
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        self.reach(Method::Unwrap, deadline).await?;
        self.open(sealed)
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        if let Err(error) = self.reach(Method::UnwrapMany, deadline).await {
            return sealed.iter().map(|_| Err(error.clone())).collect();
        }
        let mut results: Vec<_> = sealed.iter().map(|item| self.open(*item)).collect();
        match self.fault {
            Some(Fault::MixesUpItemsAfter32) if results.len() > 33 => results.swap(32, 33),
            Some(Fault::DropsTheLastItem) => drop(results.pop()),
            Some(Fault::AnswersItemsInReverse) => results.reverse(),
            Some(Fault::OneBadItemFailsAll) if results.iter().any(Result::is_err) => {
                results.fill(Err(rejected()));
            }
            _ => (),
        }
        results
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        let parsed = self.parse(ciphertext.as_bytes());
        let (version, ..) = parsed.map_err(|rejected| match self.fault {
            Some(Fault::VersionOfPanicsOnNonsense) => panic!("this is nonsense"),
            Some(Fault::VersionOfAnswersNonsenseWithKeeperAnswer) => {
                error(Code::KeeperAnswer, "what?")
            }
            _ => rejected,
        })?;
        Ok(if self.has(Fault::VersionOfIsAlwaysOne) { KekVersion::FIRST } else { version })
    }
}

fn error(code: Code, cause: impl Into<std::borrow::Cow<'static, str>>) -> KmsError {
    KmsError::new(code, cause, "nothing: this is a test")
}

fn rejected() -> KmsError {
    error(Code::CiphertextRejected, "not wrapped so by this key")
}

fn unreachable() -> KmsError {
    error(Code::KeeperUnreachable, "the server is away")
}
