//! Virtual API servers. Each writes seeds, reads the seeds of all, and restarts at times with
//! many reads at once. Every plaintext is checked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use vault_kube_kms::{
    domain::{
        envelope::{Annotations, Ciphertext},
        error::KmsError,
        secret::Plaintext,
    },
    ports::kms::{KeyManagement as _, Sealed},
};

use super::{
    chance::Chance,
    fault_log::{FaultLog, Moment},
    invariants::{
        BLAMES_THE_KEEPER, BUDGET, ENDS_BY_ITS_DEADLINE, FEW_REQUESTS, KEEPS_SECRETS, LATENESS,
        NO_WRONG_PLAINTEXT, ONLY_THE_KEEPERS_WORD, RECOVERS, REQUESTS_MAX, TELLS_ITS_CAUSE,
        is_of_an_outage,
    },
    model::NODES,
    plugin::Plugin,
};

/// The number of unwraps at once when an API server starts.
const BURST: usize = 200;

/// The number of seeds that each API server keeps.
const STORED_MAX: usize = 150;

struct Stored {
    seed: [u8; 32],
    sealed: Sealed,
}

/// What one API server wrote.
#[derive(Default)]
struct Written {
    stored: Vec<Arc<Stored>>,
    number: usize,
}

/// The numbers of calls and failures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub calls: u64,
    pub failed: u64,
}

/// The load of all plugins.
pub struct Load {
    /// The factor of each pause.
    slowness: u32,
    /// By the API server that wrote it.
    etcd: Mutex<[Written; NODES]>,
    tally: Mutex<Tally>,
}

/// The API server of one plugin.
#[derive(Clone)]
pub struct ApiServer {
    load: Arc<Load>,
    pub plugin: Arc<Plugin>,
    pub fault_log: Arc<FaultLog>,
    /// The time since which it reads one object after the other.
    quiet_from: Arc<Mutex<Instant>>,
}

impl Load {
    pub fn new(slowness: u32) -> Self {
        Self { slowness, etcd: Mutex::default(), tally: Mutex::default() }
    }

    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap()
    }

    /// Starts an API server that uses `plugin` until `tasks` end.
    pub fn begin(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        fault_log: &Arc<FaultLog>,
        seed: u64,
        tasks: &mut JoinSet<()>,
    ) {
        let (load, plugin, fault_log) = (self.clone(), plugin.clone(), fault_log.clone());
        let quiet_from = Arc::new(Mutex::new(Instant::now()));
        let server = ApiServer { load, plugin, fault_log, quiet_from };
        tasks.spawn(server.clone().write(Chance::new(seed ^ 2)));
        tasks.spawn(server.clone().read(Chance::new(seed ^ 3)));
        tasks.spawn(server.clone().ask_status(Chance::new(seed ^ 5)));
        tasks.spawn(server.start_anew(Chance::new(seed ^ 4)));
    }
}

impl ApiServer {
    async fn write(self, mut chance: Chance) {
        loop {
            self.pause(&mut chance, 1_000, 4_000).await;
            self.encrypt(&mut chance).await;
            if chance.once_in(8) {
                self.encrypt_elsewhere(&mut chance);
            }
        }
    }

    /// Another plugin, which binds nothing, writes a seed with the same key.
    fn encrypt_elsewhere(&self, chance: &mut Chance) {
        let seed = any_seed(chance);
        let transit = &self.plugin.network.cluster.state().transit;
        let ciphertext = Ciphertext::new(transit.encrypt_unbound(&seed, chance)).unwrap();
        let annotations = Annotations::default();
        let sealed = Sealed { ciphertext, key_id: "1".to_owned(), annotations };
        self.store(seed, sealed);
    }

    async fn read(self, mut chance: Chance) {
        loop {
            self.pause(&mut chance, 200, 1_500).await;
            if let Some(stored) = self.some(&mut chance) {
                self.decrypt_alone(&stored).await;
            }
        }
    }

    /// Some of the objects that are read at once are equal.
    async fn start_anew(self, mut chance: Chance) {
        loop {
            self.pause(&mut chance, 20_000, 90_000).await;
            let few: Vec<_> = (0..5).filter_map(|_| self.some(&mut chance)).collect();
            let mut reads = JoinSet::new();
            *self.quiet_from.lock().unwrap() = Instant::now() + Duration::from_hours(1);
            for number in 0..BURST {
                let equal = number % 4 == 0 && !few.is_empty();
                let stored = if equal {
                    Some(few[number % few.len()].clone())
                } else {
                    self.some(&mut chance)
                };
                if let Some(stored) = stored {
                    let server = self.clone();
                    reads.spawn(async move { server.decrypt(&stored).await });
                }
            }
            reads.join_all().await;
            // Open calls end by the last deadline.
            *self.quiet_from.lock().unwrap() = Instant::now() + BUDGET;
        }
    }

    pub async fn pause(&self, chance: &mut Chance, least_ms: u64, most_ms: u64) {
        let pause = Duration::from_millis(least_ms + chance.below(most_ms - least_ms));
        sleep(pause * self.load.slowness).await;
    }

    fn some(&self, chance: &mut Chance) -> Option<Arc<Stored>> {
        let etcd = self.load.etcd.lock().unwrap();
        let stored = &etcd[chance.below(NODES as u64) as usize].stored;
        let count = stored.len() as u64;
        (count > 0).then(|| stored[chance.below(count) as usize].clone())
    }

    /// Writes a seed. Returns the key id that it is stored under.
    pub async fn encrypt(&self, chance: &mut Chance) -> Option<String> {
        let seed = any_seed(chance);
        let moment = self.fault_log.now();
        let deadline = self.plugin.clock.now().after(BUDGET);
        let outcome = self.plugin.service.encrypt(Plaintext::new(seed.to_vec()), deadline).await;
        self.check("encrypt", moment, outcome.as_ref().err());
        self.check_requests("encrypt", &STANDARD.encode(seed));
        let answer = outcome.ok()?;
        let (ciphertext, annotations) = (answer.ciphertext, answer.annotations);
        let key_id = answer.key_id.as_str().to_owned();
        self.store(seed, Sealed { ciphertext, key_id: key_id.clone(), annotations });
        Some(key_id)
    }

    fn store(&self, seed: [u8; 32], sealed: Sealed) {
        let written = &mut self.load.etcd.lock().unwrap()[self.plugin.index];
        let at = written.number % STORED_MAX;
        written.number += 1;
        let stored = Arc::new(Stored { seed, sealed });
        if at < written.stored.len() {
            written.stored[at] = stored;
        } else {
            written.stored.push(stored);
        }
    }

    /// Reads one object, and counts its requests if nothing else is read at the same time.
    async fn decrypt_alone(&self, stored: &Stored) {
        let content = String::from_utf8_lossy(stored.sealed.ciphertext.as_bytes());
        let network = &self.plugin.network;
        network.cluster.state().measures.forget(network.client, &content);
        let before = *self.quiet_from.lock().unwrap();
        let alone = before <= Instant::now();
        self.decrypt(stored).await;
        if alone && *self.quiet_from.lock().unwrap() == before {
            self.check_requests("decrypt", &content);
        }
    }

    async fn decrypt(&self, stored: &Stored) {
        let moment = self.fault_log.now();
        let deadline = self.plugin.clock.now().after(BUDGET);
        let outcome = self.plugin.service.decrypt(stored.sealed.clone(), deadline).await;
        self.check("decrypt", moment, outcome.as_ref().err());
        if outcome.is_ok_and(|plaintext| plaintext.expose() != stored.seed) {
            let what = format_args!("plugin {} reads another seed", self.plugin.index);
            self.plugin.network.cluster.journal.violated(&NO_WRONG_PLAINTEXT, what);
        }
    }

    fn check_requests(&self, call: &str, content: &str) {
        let cluster = &self.plugin.network.cluster;
        let asked = cluster.state().measures.take_asked_for(self.plugin.index, content);
        if asked > REQUESTS_MAX {
            let what = format_args!("{call} of plugin {} cost {asked}", self.plugin.index);
            cluster.journal.violated(&FEW_REQUESTS, what);
        }
    }

    pub fn check(&self, call: &str, moment: Moment, error: Option<&KmsError>) {
        let (index, journal) = (self.plugin.index, &self.plugin.network.cluster.journal);
        let took = moment.begun.elapsed();
        if took > BUDGET + LATENESS {
            let what = format_args!("{call} of plugin {index} took {took:?}");
            journal.violated(&ENDS_BY_ITS_DEADLINE, what);
        }
        let mut tally = self.load.tally.lock().unwrap();
        tally.calls += 1;
        let Some(error) = error else { return };
        tally.failed += 1;
        drop(tally);
        let excused = self.fault_log.excuses(moment);
        let is_said = self.plugin.network.cluster.state().measures.is_said(index, error.code());
        journal.say(format_args!("plugin {index}: {call} fails after {took:?}: {error}"));
        let text = error.to_string();
        for (fine, rule) in [
            (excused, &RECOVERS),
            (is_of_an_outage(error.code()), &BLAMES_THE_KEEPER),
            (is_said, &ONLY_THE_KEEPERS_WORD),
            (!error.cause().is_empty() && !error.code().as_str().is_empty(), &TELLS_ITS_CAUSE),
            (!text.contains("canary") && !text.contains("vault:v"), &KEEPS_SECRETS),
        ] {
            if !fine {
                journal.violated(rule, format_args!("{call} of plugin {index}: {text}"));
            }
        }
    }
}

fn any_seed(chance: &mut Chance) -> [u8; 32] {
    let mut seed = [0; 32];
    seed.iter_mut().for_each(|byte| *byte = chance.below(256) as u8);
    seed
}
