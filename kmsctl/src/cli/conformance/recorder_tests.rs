//! A plugin in memory, with one flaw for each rule.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;

use super::*;
use crate::domain::conformance::{Foreign, Verdict, rules};

/// The plugin. Its flaw is the id of the rule that it breaks, or empty.
#[derive(Clone, Debug)]
struct Flawed {
    flaw: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    stored: BTreeMap<Wrapped, Vec<u8>>,
    reads: BTreeMap<Vec<u8>, usize>,
    statuses: usize,
    connections: usize,
    in_hand: usize,
    dead: bool,
    rotated: bool,
    restarted: Option<Instant>,
}

#[derive(Debug)]
struct Rotating(Flawed);

#[derive(Debug)]
struct Restarting(Flawed);

const QUICK: Duration = Duration::from_micros(10);

fn refused<T>(code: &str) -> Result<T, Refusal> {
    Err(Refusal { code: code.into(), text: "a test".into() })
}

impl Flawed {
    fn new(flaw: &'static str) -> Self {
        Self { flaw, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn key_id(&self) -> String {
        let state = self.state();
        match self.flaw {
            "status-key-id" => String::new(),
            "status-key-id-stable" => format!("key-{}", state.statuses),
            "status-key-id-printable" => "key\n1".into(),
            "rotation-once" if state.rotated && state.statuses % 6 < 3 => "key-1".into(),
            "restart-key-id" if state.restarted.is_some() => "key-x".into(),
            _ if state.rotated => "key-2".into(),
            _ => "key-1".into(),
        }
    }

    fn wrap(&self, plaintext: &[u8]) -> Result<Wrapped, Refusal> {
        let (mut ciphertext, length) = (random().unwrap().to_vec(), plaintext.len());
        let mut annotations = BTreeMap::from([("format.example".to_owned(), b"1".to_vec())]);
        let mut key_id = self.key_id();
        match (self.flaw, length) {
            ("encrypt-empty", 0) => ciphertext.clear(),
            (_, 0 | 1025..) | ("encrypt-32", 32) => return refused("InvalidArgument"),
            ("preflight", _) => ciphertext = plaintext.to_vec(),
            ("encrypt-ciphertext", _) => ciphertext.resize(1025, 0),
            ("encrypt-key-id", _) => key_id.clear(),
            ("encrypt-annotation-names", _) => {
                annotations.insert("kms.example.io/audit-id".into(), Vec::new());
            }
            ("encrypt-annotation-size", _) => {
                annotations.insert("size.example".into(), vec![0; 40_000]);
            }
            ("encrypt-hides", _) => {
                annotations.insert("hint.example".into(), STANDARD.encode(plaintext).into());
            }
            ("encrypt-distinct", _) => ciphertext = vec![7; 32],
            ("encrypt-fresh", _) => ciphertext = plaintext.iter().map(|byte| !byte).collect(),
            ("encrypt-sizes", 512) => ciphertext.resize(1100, 0),
            ("encrypt-small", _) => {
                annotations.insert("size.example".into(), vec![0; 600]);
            }
            ("rotation-encrypt", _) if self.state().rotated => key_id = "key-9".into(),
            ("rotation-new-id", _) => key_id = "key-1".into(),
            _ => {}
        }
        let wrapped = Wrapped { ciphertext, key_id, annotations };
        self.state().stored.insert(wrapped.clone(), plaintext.to_vec());
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &Wrapped, uid: &str) -> Result<Vec<u8>, Refusal> {
        let mut state = self.state();
        let reads = state.reads.entry(wrapped.ciphertext.clone()).or_default();
        *reads += 1;
        let reads = *reads;
        let is_large = wrapped.annotations.values().any(|value| value.len() > 30_000);
        match self.flaw {
            "encrypt-uid" if uid.len() > 1000 => state.dead = true,
            "decrypt-limits" if is_large => state.dead = true,
            "status-tells-the-truth" => return refused("PermissionDenied"),
            "decrypt-exact" if reads == 2 => return Ok(vec![0; 32]),
            "decrypt-equal" if reads > 40 => return refused("ResourceExhausted"),
            "storm" if state.in_hand > 32 => return refused("ResourceExhausted"),
            "decrypt-empty" if wrapped.ciphertext.is_empty() => return Ok(Vec::new()),
            "rotation-old-data" if state.rotated && wrapped.key_id == "key-1" => {
                return refused("NotFound");
            }
            _ => {}
        }
        let found = state.stored.iter().find(|(stored, _)| match self.flaw {
            "decrypt-ciphertext-bound" => wrapped.ciphertext.starts_with(&stored.ciphertext),
            "decrypt-key-id-bound" | "rotation-key-id-bound" => {
                stored.ciphertext == wrapped.ciphertext
            }
            "decrypt-annotations-bound" => {
                stored.ciphertext == wrapped.ciphertext && stored.key_id == wrapped.key_id
            }
            _ => *stored == wrapped,
        });
        match (found, self.flaw) {
            (Some((_, plaintext)), _) => Ok(plaintext.clone()),
            (None, "decrypt-never-wrong") => Ok(vec![0; 32]),
            (None, "error-codes") => refused("Unknown"),
            (None, "error-texts") => {
                Err(Refusal { code: "NotFound".into(), text: "one\ntwo".into() })
            }
            (None, _) => refused("InvalidArgument"),
        }
    }
}

#[async_trait]
impl Plugin for Flawed {
    async fn status(&self) -> Call<StatusAnswer> {
        let (number, is_new, rotated) = {
            let mut state = self.state();
            state.statuses += 1;
            let is_new = state.restarted.is_some_and(|at| at.elapsed().as_secs() < 70);
            (state.statuses, is_new, state.rotated)
        };
        let took = if self.flaw == "status-fast" { Duration::from_secs(2) } else { QUICK };
        let version = match self.flaw {
            "status-version" => "v1",
            "status-version-stable" if number % 2 == 0 => "v2beta1",
            _ => "v2",
        };
        let healthz = match self.flaw {
            "status-healthz" | "status-healthz-without-key-id" => "OK",
            "restart-soon" if is_new => "starting",
            _ => "ok",
        };
        let answer = match self.flaw {
            _ if self.state().dead => refused(Refusal::NO_ANSWER),
            "status-answers" if number % 10 == 0 => refused("Unavailable"),
            "rotation-answers" if rotated && number % 10 == 0 => refused("Unavailable"),
            _ => Ok(StatusAnswer {
                version: version.into(),
                healthz: healthz.into(),
                key_id: self.key_id(),
            }),
        };
        Call { took, answer }
    }

    async fn encrypt(&self, plaintext: &[u8], uid: &str) -> Call<Wrapped> {
        let took = if self.flaw == "encrypt-fast" { Duration::from_millis(200) } else { QUICK };
        if self.flaw == "cancelled" && uid == "cancelled" {
            self.state().dead = true;
        }
        Call { took, answer: self.wrap(plaintext) }
    }

    async fn decrypt(&self, wrapped: &Wrapped, uid: &str) -> Call<Vec<u8>> {
        let took = if self.flaw == "decrypt-fast" { Duration::from_millis(50) } else { QUICK };
        self.state().in_hand += 1;
        tokio::task::yield_now().await;
        let answer = self.unwrap(wrapped, uid);
        self.state().in_hand -= 1;
        Call { took, answer }
    }

    async fn call(&self, path: &'static str, extra: Vec<u8>, deadline: Duration) -> Call<()> {
        let is_hurried = deadline == Duration::from_millis(1);
        let slow = self.flaw == "deadline" && is_hurried;
        let took = if slow { Duration::from_mins(1) } else { QUICK };
        let answer = match (self.flaw, path) {
            ("unknown-method", UNKNOWN) | ("huge-message", DECRYPT) => Ok(()),
            (_, UNKNOWN) => refused("Unimplemented"),
            (_, DECRYPT) => refused("OutOfRange"),
            ("unknown-field", _) if !extra.is_empty() => refused("Internal"),
            _ => Ok(()),
        };
        Call { took, answer }
    }
}

#[async_trait]
impl Socket for Flawed {
    async fn connect(&self) -> Result<Box<dyn Plugin>, String> {
        let mut state = self.state();
        state.connections += 1;
        match self.flaw {
            "connect" if state.connections == 2 => Err("refused".into()),
            "connections" if state.connections > 10 => Err("refused".into()),
            _ => Ok(Box::new(self.clone())),
        }
    }

    async fn mode(&self) -> Option<u32> {
        Some(if self.flaw == "socket-mode" { 0o777 } else { 0o770 })
    }

    async fn old_authority(&self) -> Result<(), String> {
        if self.flaw == "old-authority" { Err("reset".into()) } else { Ok(()) }
    }

    async fn foreign(&self, _: &'static [u8]) -> Result<Foreign, String> {
        Ok(if self.flaw == "foreign-bytes" { Foreign::Open } else { Foreign::Closed })
    }
}

#[async_trait]
impl Hook for Rotating {
    async fn run(&self) -> Result<(), String> {
        self.0.state().rotated = self.0.flaw != "rotation-seen";
        Ok(())
    }
}

#[async_trait]
impl Hook for Restarting {
    async fn run(&self) -> Result<(), String> {
        self.0.state().restarted = Some(Instant::now());
        if self.0.flaw == "restart-data" {
            self.0.state().stored.clear();
        }
        Ok(())
    }
}

async fn recorded(flaw: &'static str, with_hooks: bool) -> Record {
    let plugin = Flawed::new(flaw);
    let rotate: Box<dyn Hook> = Box::new(Rotating(plugin.clone()));
    let restart: Box<dyn Hook> = Box::new(Restarting(plugin.clone()));
    let plan = Plan {
        timeout: Duration::from_secs(3),
        wait: Duration::ZERO,
        storm: 100,
        rotate: with_hooks.then_some((rotate, Duration::from_secs(10))),
        restart: with_hooks.then_some(restart),
    };
    record(&plugin, &plan, &|_| ()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_right_plugin_breaks_no_rule() {
    let record = recorded("", true).await;
    for rule in rules() {
        let verdict = (rule.judge)(&record);
        assert!(matches!(verdict, Verdict::Holds(_)), "{}: {verdict:?}", rule.id);
    }
}

#[tokio::test(start_paused = true)]
async fn each_rule_sees_its_flaw() {
    for rule in rules() {
        let verdict = (rule.judge)(&recorded(rule.id, true).await);
        assert!(matches!(verdict, Verdict::Broken(_)), "{}: {verdict:?}", rule.id);
    }
}

#[tokio::test(start_paused = true)]
async fn without_hooks_their_rules_are_skipped() {
    let record = recorded("", false).await;
    for rule in rules() {
        let needs_hook = rule.id.starts_with("rotation-") || rule.id.starts_with("restart-");
        let verdict = (rule.judge)(&record);
        assert_eq!(matches!(verdict, Verdict::Skipped(_)), needs_hook, "{}: {verdict:?}", rule.id);
    }
}

#[tokio::test]
async fn a_dead_plugin_is_no_answer() {
    let plugin = Flawed::new("");
    plugin.state().dead = true;
    let wait = Duration::ZERO;
    let plan = Plan { timeout: wait, wait, storm: 1, rotate: None, restart: None };
    let problem = record(&plugin, &plan, &|_| ()).await.unwrap_err();
    assert_eq!(problem.code, "plugin-unreachable");
}
