//! Runs the contract suite. Each rule runs in a process of its own, because SoftHSM reads its
//! configuration from a variable of the process. All rules share one token, and each has its own key.

use std::{
    env, fs,
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use async_trait::async_trait;
use vault_kube_kms::{
    adapters::{
        pkcs11::{
            keeper::Pkcs11Keeper,
            settings::{KeyLabel, Pkcs11Settings, TokenName},
        },
        system::{clock::SystemClock, watched_file::WatchedFile},
    },
    domain::key::KekVersion,
    ports::{clock::Clock, keeper::Keeper as _, kek::Kek},
    testkit::{Hook, Subject},
};

use super::token::{LABEL, Token, succeeds};

/// Names the key of the rule. A process that has this variable runs one rule.
const KEY: &str = "PKCS11_TEST_KEY";

/// Name the directory of the token and the library.
const ROOT: &str = "PKCS11_TEST_ROOT";
const LIBRARY: &str = "PKCS11_TEST_LIBRARY";

/// Lists the rules with a token of their own: they take it away, or use tools that fail while another
/// process writes to the token.
const ALONE: [&str; 4] = [
    "an_outage_is_told_and_ends",
    "a_call_that_hangs_ends_by_its_deadline",
    "a_retired_version_is_told_apart",
    "a_replaced_key_is_noticed",
];

/// Holds the token of the other rules that run now.
static TOKEN: Mutex<Weak<Token>> = Mutex::new(Weak::new());

fn token(rule: &str) -> Option<Arc<Token>> {
    if ALONE.contains(&rule) {
        return Token::behind_a_stand_in().map(Arc::new);
    }
    let mut shared = TOKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(token) = shared.upgrade() {
        return Some(token);
    }
    let token = Arc::new(Token::make()?);
    *shared = Arc::downgrade(&token);
    Some(token)
}

/// Holds the keeper of one key, in the process of one rule.
struct Held {
    keeper: Arc<Pkcs11Keeper>,
    clock: Arc<SystemClock>,
    token: Token,
    label: String,
}

impl Held {
    /// Returns the subject of the rule that this process runs. The process that runs all tests has none:
    /// it starts another process for the test at `spot`, and returns `None`.
    fn of(spot: &str) -> Option<Self> {
        match [KEY, ROOT, LIBRARY].map(|name| env::var(name).ok()) {
            [Some(label), Some(root), Some(library)] => {
                Some(Self::make(label, Token::attach(root.into(), library.into())))
            }
            _ => {
                run_in_another_process(spot);
                None
            }
        }
    }

    fn make(label: String, token: Token) -> Self {
        let clock = Arc::new(SystemClock::new());
        let settings = Pkcs11Settings {
            module: token.module().to_owned(),
            token: TokenName::label(LABEL).unwrap(),
            key_label: KeyLabel::parse(&label).unwrap(),
            pin_file: token.pin_file(),
            sessions: 8,
        };
        let pin = Arc::new(WatchedFile::new(token.pin_file(), 1_024));
        let with = Arc::<SystemClock>::clone(&clock);
        let keeper = Arc::new(Pkcs11Keeper::new(&settings, pin, with).unwrap());
        let held = Self { keeper, clock, token, label };
        held.operate("init");
        held
    }

    /// Runs `pkcs11 init` or `pkcs11 rotate`, as an operator does.
    fn operate(&self, word: &str) {
        let label = format!("--pkcs11-key-label={}", self.label);
        succeeds(&mut self.token.program(&["pkcs11", word], &[&label]));
    }

    /// Deletes the objects of the key whose `CKA_ID`, in hex, is wanted.
    fn delete(&self, is_wanted: impl Fn(&str) -> bool) {
        let listed = self.token.tool_logged_in(&["--list-objects", "--type", "secrkey"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        let value = |line: &str, name: &str| {
            line.trim().strip_prefix(name).map(|value| value.trim().to_owned())
        };
        let mut label = String::new();
        for line in listed.lines() {
            label = value(line, "label:").unwrap_or(label);
            let id = value(line, "ID:").filter(|id| label == self.label && is_wanted(id));
            if let Some(id) = id {
                let wanted = ["--label", &self.label, "--id", &id];
                let delete = ["--delete-object", "--type", "secrkey"];
                self.token.tool_logged_in(&[&delete[..], &wanted].concat());
            }
        }
    }
}

/// Closes the keeper, as the program does: a thread inside the library at the exit can crash the process.
impl Drop for Held {
    fn drop(&mut self) {
        let keeper = Arc::clone(&self.keeper);
        let closing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(keeper.close());
        });
        closing.join().unwrap();
    }
}

/// Runs the rule whose test is at `spot` in a process of its own.
fn run_in_another_process(spot: &str) {
    let test = spot.split_once("::").unwrap().1.split("::{{").next().unwrap();
    let name = test.rsplit("::").next().unwrap();
    let Some(token) = token(name) else { return };
    let mut rule = Command::new(env::current_exe().unwrap());
    rule.args(["--exact", test, "--nocapture"])
        .env(KEY, name)
        .env(ROOT, token.at(""))
        .env(LIBRARY, token.module());
    token.prepare(&mut rule);
    let output = succeeds(&mut rule);
    let [text, skipped] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(text.contains("test result: ok. 1 passed"), "{text}");
    assert!(!skipped.contains("NOT RUN"), "{skipped}");
}

#[async_trait]
impl Subject for Held {
    fn kek(&self) -> Arc<dyn Kek> {
        Arc::<Pkcs11Keeper>::clone(&self.keeper).kek()
    }

    async fn rotate(&self) {
        self.operate("rotate");
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<SystemClock>::clone(&self.clock)
    }

    async fn outage(&self, away: bool) -> Hook {
        let (tokens, elsewhere) = (self.token.at("tokens"), self.token.at("away"));
        if away {
            fs::rename(self.token.files(), elsewhere).unwrap();
        } else {
            fs::rename(elsewhere, tokens.join("back")).unwrap();
        }
        Hook::Done
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        let of_version = format!("564b4b01{:08x}", version.get());
        self.delete(|id| id.starts_with(&of_version));
        Hook::Done
    }

    async fn replace(&self) -> Hook {
        self.delete(|_| true);
        self.operate("init");
        Hook::Done
    }

    async fn hang(&self, hangs: bool) -> Hook {
        self.token.switch("hang", hangs);
        Hook::Done
    }
}

vault_kube_kms::kek_contract!({
    fn spot() {}
    match Held::of(std::any::type_name_of_val(&spot)) {
        Some(held) => held,
        None => return,
    }
});
