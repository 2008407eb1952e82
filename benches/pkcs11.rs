//! Measures 2,000 unwraps over `SoftHSM`: 64 at a time through the layers, and by a bare client of the
//! library with as many sessions.
//! `cargo bench --features testkit,pkcs11 --bench pkcs11`
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    clippy::future_not_send,
    reason = "a benchmark"
)]

use std::{
    env,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::{Mechanism, aead::GcmParams},
    object::Attribute,
    session::UserType,
    types::AuthPin,
};
use vault_kube_kms::{
    adapters::{
        layers,
        pkcs11::{
            keeper::Pkcs11Keeper,
            settings::{KeyLabel, Pkcs11Settings, TokenName},
        },
        system::{clock::SystemClock, watched_file::WatchedFile},
    },
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        key::KekVersion,
        secret::Plaintext,
    },
    ports::{
        clock::Clock,
        keeper::Keeper as _,
        kek::{Kek, Unwrap},
        telemetry::{Event, Telemetry},
    },
};

#[path = "../tests/pkcs11/token.rs"]
mod token;

use token::{CONFIGURATION, LABEL, MODULE, PIN, Token};

const SEEDS: usize = 2_000;
const WIDTH: usize = 64;
const SESSIONS: u32 = 8;
const ROUNDS: usize = 5;

/// Names the file of the PIN. The process that has this variable measures.
const PIN_FILE: &str = "PKCS11_BENCH_PIN_FILE";

#[derive(Debug)]
struct Silent;

impl Telemetry for Silent {
    fn record(&self, _: Event<'_>) {}
}

fn main() {
    if let Ok(pin_file) = env::var(PIN_FILE) {
        return measure(&pin_file);
    }
    let Some(token) = Token::make() else { return };
    token.init();
    let mut again = Command::new(env::current_exe().unwrap());
    again.env(CONFIGURATION, token.configuration()).env(PIN_FILE, token.pin_file());
    assert!(again.status().unwrap().success());
}

fn measure(pin_file: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let telemetry: Arc<dyn Telemetry> = Arc::new(Silent);
    let settings = Pkcs11Settings {
        module: MODULE.into(),
        token: TokenName::label(LABEL).unwrap(),
        key_label: KeyLabel::parse("kube-kms").unwrap(),
        pin_file: pin_file.into(),
        sessions: SESSIONS,
    };
    let pin = Arc::new(WatchedFile::new(pin_file.into(), 1_024));
    let keeper = Arc::new(Pkcs11Keeper::new(&settings, pin, Arc::clone(&clock)).unwrap());
    let kek = layers::around(keeper.kek(), &clock, &telemetry);
    let bound = AssociatedData::binding("v1.x", &Annotations::ours());
    let sealed: Arc<Vec<Ciphertext>> = Arc::new(runtime.block_on(async {
        let mut sealed = Vec::with_capacity(SEEDS);
        for number in 0..SEEDS {
            let until = clock.now().after(Duration::from_secs(10));
            let seed = Plaintext::new(seed(number));
            let wrapped = kek.wrap(KekVersion::FIRST, &seed, &bound, until).await.unwrap();
            sealed.push(wrapped.ciphertext);
        }
        sealed
    }));
    // The rounds alternate, so that a drift of the machine changes both figures.
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_rate(&sealed, &bound));
        ours.push(runtime.block_on(our_rate(&kek, &clock, &sealed, &bound)));
    }
    let (bare, ours) = (median(bare), median(ours));
    println!(
        "2,000 unwraps over SoftHSM, {SESSIONS} sessions: bare {bare:.0}/s, ours, {WIDTH} at a time, {ours:.0}/s, ratio {:.2}",
        ours / bare
    );
}

fn seed(number: usize) -> Vec<u8> {
    let mut seed = vec![7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    seed
}

async fn our_rate(
    kek: &Arc<dyn Kek>,
    clock: &Arc<dyn Clock>,
    sealed: &Arc<Vec<Ciphertext>>,
    bound: &AssociatedData,
) -> f64 {
    let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let callers = (0..WIDTH).map(|_| {
        let (kek, clock, sealed) = (Arc::clone(kek), Arc::clone(clock), Arc::clone(sealed));
        let (next, bound) = (Arc::clone(&next), bound.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(ciphertext) = sealed.get(number) else { return };
                let until = clock.now().after(Duration::from_secs(10));
                let unwrap = Unwrap { ciphertext, associated_data: &bound };
                assert_eq!(kek.unwrap(unwrap, until).await.unwrap().expose(), seed(number));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    SEEDS as f64 / started.elapsed().as_secs_f64()
}

/// Runs one thread for each session, and only the calls of the library.
fn bare_rate(sealed: &[Ciphertext], bound: &AssociatedData) -> f64 {
    let client = Pkcs11::new(MODULE).unwrap();
    drop(client.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)));
    let slots = client.get_slots_with_initialized_token().unwrap();
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let session = client.open_ro_session(slots[0]).unwrap();
            drop(session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned()))));
            let wanted = [Attribute::Label(b"kube-kms".to_vec())];
            let key = session.find_objects(&wanted).unwrap()[0];
            (session, key)
        })
        .collect();
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for (session, key) in sessions {
            let next = &next;
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(ciphertext) = sealed.get(number) else { return };
                    let text = ciphertext.as_bytes().strip_prefix(b"pkcs11:v1:").unwrap();
                    let mut bytes = STANDARD.decode(text).unwrap();
                    let (nonce, body) = bytes.split_at_mut(12);
                    let params = GcmParams::new(nonce, bound.as_bytes(), 128.into()).unwrap();
                    let opened = session.decrypt(&Mechanism::AesGcm(params), key, body).unwrap();
                    assert_eq!(opened, seed(number));
                }
            });
        }
    });
    SEEDS as f64 / started.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
