//! Makes the calls, and records the answers.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::rand;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use futures_util::{StreamExt as _, future, stream};
use tokio::time::{self, Instant};

use super::forms;
use crate::{
    domain::{
        conformance::{
            Call, OK, Opened, Pair, Preflight, Record, Refusal, Restarted, Rotated, Size,
            StatusAnswer, Transport, Trial, Wrapped,
        },
        problem::Problem,
    },
    ports::plugin::{Hook, Plugin, Socket},
};

/// A seed, as API servers since 1.29 send it.
type Seed = [u8; 32];

/// How often Status is called, and how many seeds are wrapped one after the other.
const STATUSES: usize = 50;
const SEEDS: usize = 20;

/// How often the first seed is wrapped again.
const REPEATED: usize = 3;

/// How many calls are under way at once in a storm, how many equal ones, and how many connections.
const WIDE: usize = 64;
const CONNECTIONS: usize = 16;

/// How many calls are cancelled.
const CANCELLED: usize = 100;

/// The sizes of unusual plaintexts, in bytes.
const SIZES: [usize; 8] = [0, 1, 16, 31, 33, 64, 512, 1 << 20];

/// The size of a message over the limit of gRPC, in bytes.
const HUGE: usize = 5 << 20;

/// The wait before the next try of the preflight. OpenShift's has 2 s. This one also measures how
/// long a plugin takes to start.
const PREFLIGHT_EVERY: Duration = Duration::from_millis(20);

/// How long Status is watched after the key id has changed.
const SETTLING: Duration = Duration::from_secs(5);

/// How long a restarted plugin may take, and how often it is called.
const RESTARTED_MAX: Duration = Duration::from_mins(2);
const POLLED_EVERY: Duration = Duration::from_millis(250);

const STATUS: &str = "/v2.KeyManagementService/Status";
const DECRYPT: &str = "/v2.KeyManagementService/Decrypt";
const UNKNOWN: &str = "/v2.KeyManagementService/Rotate";

/// What to send that is not HTTP/2. Both are longer than the preface of HTTP/2, so that a plugin
/// waits for no more.
const FOREIGN: [(&str, &[u8]); 2] = [
    ("HTTP/1.1", b"GET /v2.KeyManagementService/Status HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("other bytes", &[0xa5; 256]),
];

/// How a plugin is tried.
#[derive(Debug)]
pub(super) struct Plan {
    /// The deadline of each call.
    pub timeout: Duration,
    /// How long Status may take to become ok.
    pub wait: Duration,
    /// How many seeds the storm has.
    pub storm: usize,
    /// The command that rotates the key, and how long Status may take to show it.
    pub rotate: Option<(Box<dyn Hook>, Duration)>,
    /// The command that restarts the plugin.
    pub restart: Option<Box<dyn Hook>>,
}

/// Calls the plugin behind `socket` as `plan` says. `tell` gets the name of each part.
///
/// # Errors
/// When nothing answers at the socket.
pub(super) async fn record(
    socket: &dyn Socket,
    plan: &Plan,
    tell: &(dyn Fn(&'static str) + Send + Sync),
) -> Result<Record, Problem> {
    tell("Status until it is ok");
    let (plugin, preflight) = preflight(socket, plan.wait).await?;
    let plugin = plugin.as_ref();
    tell("Status");
    let first = first(socket).await;
    let mut statuses = Vec::new();
    for _ in 0..STATUSES {
        statuses.push(plugin.status().await);
    }
    tell("Encrypt and Decrypt");
    let mut seeds = Vec::new();
    for _ in 0..SEEDS {
        seeds.push(random()?);
    }
    let mut pairs = Vec::new();
    for number in (0..SEEDS).chain([0; REPEATED]) {
        let seed = seeds.get(number).copied().unwrap_or_default();
        pairs.push(pair(plugin, number, &seed).await);
    }
    let stored: Vec<_> = pairs
        .iter()
        .filter_map(|pair| Some((pair.wrap.answer.clone().ok()?, *seeds.get(pair.seed)?)))
        .collect();
    let mut reads = read(plugin, "a read", &stored).await;
    let other = socket.connect().await;
    if let Ok(other) = &other {
        let backwards: Vec<_> = stored.iter().rev().cloned().collect();
        reads.extend(read(other.as_ref(), "a read in another order", &backwards).await);
    }
    let mut alive = BTreeMap::new();
    let sample = stored.first();
    tell("changed and unusual requests");
    let ciphertexts = try_all(plugin, sample, forms::changed_ciphertexts).await;
    let key_ids = try_all(plugin, sample, forms::changed_key_ids).await;
    let annotations = try_all(plugin, sample, forms::changed_annotations).await;
    let empty = try_all(plugin, sample, forms::emptied).await;
    let large = try_all(plugin, sample, forms::enlarged).await;
    alive.insert("large requests", plugin.status().await);
    let sizes = sizes(plugin).await?;
    let uids = uids(plugin, sample).await;
    alive.insert("unusual uids", plugin.status().await);
    tell("many calls at once");
    let (storm, storm_took) = storm(plugin, plan.storm).await?;
    let equal = match sample {
        Some((wrapped, seed)) => {
            let calls = (0..WIDE).map(|_| open(plugin, "an equal call".into(), wrapped, seed));
            future::join_all(calls).await
        }
        None => Vec::new(),
    };
    let connections = connections(socket, sample).await;
    for _ in 0..CANCELLED {
        let seed = random()?;
        // The end of the wait drops the call, which resets its stream.
        drop(time::timeout(Duration::from_micros(200), plugin.encrypt(&seed, "cancelled")).await);
    }
    alive.insert("cancelled calls", plugin.status().await);
    tell("the transport");
    let transport = transport(socket, plugin, plan.timeout, &mut alive).await;
    let (mut rotated, mut restarted) = (None, None);
    if let Some((hook, limit)) = &plan.rotate {
        tell("a rotation");
        rotated = Some(rotation(plugin, hook.as_ref(), *limit, &stored).await?);
    }
    if let Some(hook) = &plan.restart {
        tell("a restart");
        restarted = Some(restart(socket, plugin, hook.as_ref(), &stored).await);
    }
    Ok(Record {
        timeout: plan.timeout,
        mode: socket.mode().await,
        preflight,
        first,
        statuses,
        pairs,
        reads,
        ciphertexts,
        key_ids,
        annotations,
        empty,
        large,
        uids,
        sizes,
        storm,
        storm_took,
        equal,
        connections,
        transport,
        alive,
        rotated,
        restarted,
    })
}

fn unreachable(error: &str) -> Problem {
    Problem::new(
        "plugin-unreachable",
        format!("no KMS v2 plugin answers at the socket: {error}"),
        "start the plugin, give the path of its socket, and run this program as a user who may connect",
    )
}

fn random() -> Result<Seed, Problem> {
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|error| {
        Problem::new("no-randomness", error, "check the random numbers of this system")
    })?;
    Ok(seed)
}

/// Makes the calls of OpenShift's preflight until they work, or until `wait` is over. Returns the
/// connection too.
async fn preflight(
    socket: &dyn Socket,
    wait: Duration,
) -> Result<(Box<dyn Plugin>, Preflight), Problem> {
    let (began, seed) = (Instant::now(), random()?);
    loop {
        let tried = match socket.connect().await {
            Ok(plugin) => Ok((round_trip(plugin.as_ref(), began, &seed).await, plugin)),
            Err(error) => Err(error),
        };
        let is_late = began.elapsed() >= wait;
        match tried {
            Err(error) if is_late => return Err(unreachable(&error)),
            Ok((Preflight { status: Err(refusal), .. }, _)) if is_late && refusal.is_silence() => {
                return Err(unreachable(&refusal.text));
            }
            Ok((preflight, plugin)) if is_late || preflight.has_passed() => {
                return Ok((plugin, preflight));
            }
            _ => time::sleep(PREFLIGHT_EVERY).await,
        }
    }
}

async fn round_trip(plugin: &dyn Plugin, began: Instant, seed: &Seed) -> Preflight {
    let status = plugin.status().await.answer;
    let is_ok = matches!(&status, Ok(answer) if answer.healthz == OK);
    let (mut hidden, mut opened) = (None, None);
    if is_ok {
        let wrap = plugin.encrypt(seed, &uid(0)).await.answer;
        hidden =
            Some(wrap.as_ref().map(|wrapped| wrapped.ciphertext != seed).map_err(Clone::clone));
        if let Ok(wrapped) = wrap {
            opened = Some(open(plugin, String::new(), &wrapped, seed).await.opened);
        }
    }
    Preflight { took: began.elapsed(), status, hidden, opened }
}

async fn first(socket: &dyn Socket) -> Call<StatusAnswer> {
    let began = Instant::now();
    let answer = match socket.connect().await {
        Ok(plugin) => plugin.status().await.answer,
        Err(text) => Err(Refusal { code: Refusal::NO_ANSWER.into(), text }),
    };
    Call { took: began.elapsed(), answer }
}

/// Encrypts `seed` between two Status calls.
async fn pair(plugin: &dyn Plugin, number: usize, seed: &Seed) -> Pair {
    let key_id = |call: Call<StatusAnswer>| call.answer.ok().map(|answer| answer.key_id);
    let before = key_id(plugin.status().await);
    let wrap = plugin.encrypt(seed, &uid(number)).await;
    let after = key_id(plugin.status().await);
    let shown_in = wrap.answer.as_ref().ok().and_then(|wrapped| shown_in(wrapped, seed));
    Pair { seed: number, before, wrap, after, shown_in }
}

/// Returns a uid in the form that API servers send.
fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// Returns where the seed can be read in an answer.
fn shown_in(wrapped: &Wrapped, seed: &Seed) -> Option<&'static str> {
    let hex = seed.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    // The last character of base64 depends on what follows. The others are the same in both forms.
    let encoded = [STANDARD.encode(seed), URL_SAFE.encode(seed)];
    let encoded = encoded.iter().filter_map(|text| text.get(..42)).map(str::as_bytes);
    let forms: Vec<&[u8]> = encoded.chain([&seed[..], hex.as_bytes()]).collect();
    let shows =
        |place: &[u8]| forms.iter().any(|form| place.windows(form.len()).any(|part| part == *form));
    if shows(&wrapped.ciphertext) {
        Some("the ciphertext")
    } else if shows(wrapped.key_id.as_bytes()) {
        Some("the key id")
    } else if wrapped.annotations.iter().any(|(name, value)| shows(name.as_bytes()) || shows(value))
    {
        Some("an annotation")
    } else {
        None
    }
}

/// Opens `wrapped`, and compares the answer with `seed`.
async fn open(plugin: &dyn Plugin, what: String, wrapped: &Wrapped, seed: &[u8]) -> Trial {
    opened(plugin, what, wrapped, seed, &uid(0)).await
}

async fn opened(
    plugin: &dyn Plugin,
    what: String,
    wrapped: &Wrapped,
    seed: &[u8],
    uid: &str,
) -> Trial {
    let call = plugin.decrypt(wrapped, uid).await;
    let opened = match call.answer {
        Ok(plaintext) if plaintext == seed => Opened::Same,
        Ok(_) => Opened::Other,
        Err(refusal) => Opened::Refused(refusal),
    };
    Trial { what, took: call.took, opened }
}

/// Opens all that was wrapped, one after the other.
async fn read(plugin: &dyn Plugin, what: &str, stored: &[(Wrapped, Seed)]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (wrapped, seed) in stored {
        trials.push(open(plugin, what.into(), wrapped, seed).await);
    }
    trials
}

/// Opens each of the changed forms of `sample`.
async fn try_all(
    plugin: &dyn Plugin,
    sample: Option<&(Wrapped, Seed)>,
    forms: fn(&Wrapped) -> Vec<(String, Wrapped)>,
) -> Vec<Trial> {
    let Some((wrapped, seed)) = sample else { return Vec::new() };
    let mut trials = Vec::new();
    for (what, changed) in forms(wrapped) {
        trials.push(open(plugin, what, &changed, seed).await);
    }
    trials
}

async fn sizes(plugin: &dyn Plugin) -> Result<Vec<Size>, Problem> {
    let mut sizes = Vec::new();
    for bytes in SIZES {
        let mut plaintext = vec![0; bytes];
        let fill = random()?;
        plaintext.iter_mut().zip(fill.iter().cycle()).for_each(|(to, from)| *to = *from);
        let answer = match plugin.encrypt(&plaintext, &uid(bytes)).await.answer {
            Err(refusal) => Err(refusal),
            Ok(wrapped) => {
                let trial = open(plugin, String::new(), &wrapped, &plaintext).await;
                Ok((wrapped.ciphertext.len(), trial.opened))
            }
        };
        sizes.push(Size { bytes, answer });
    }
    Ok(sizes)
}

async fn uids(plugin: &dyn Plugin, sample: Option<&(Wrapped, Seed)>) -> Vec<Trial> {
    let Some((wrapped, seed)) = sample else { return Vec::new() };
    let mut trials = Vec::new();
    for (what, uid) in [
        ("an empty uid", String::new()),
        ("a uid with line breaks", "one\r\ntwo\n{\"level\":\"error\"}".into()),
        ("a uid of 10,000 bytes", "u".repeat(10_000)),
    ] {
        trials.push(opened(plugin, what.into(), wrapped, seed, &uid).await);
    }
    trials
}

/// Wraps `count` seeds, and then unwraps them. Returns the unwraps, and how long they took together.
async fn storm(plugin: &dyn Plugin, count: usize) -> Result<(Vec<Trial>, Duration), Problem> {
    let seeds = (0..count).map(|_| random()).collect::<Result<Vec<_>, _>>()?;
    let wraps = stream::iter(seeds.into_iter().enumerate())
        .map(|(number, seed)| async move { (plugin.encrypt(&seed, &uid(number)).await, seed) });
    let wraps: Vec<_> = wraps.buffered(WIDE).collect().await;
    let began = Instant::now();
    let trials = stream::iter(wraps).map(|(wrap, seed)| async move {
        match wrap.answer {
            Ok(wrapped) => open(plugin, "a Decrypt".into(), &wrapped, &seed).await,
            Err(refusal) => Trial {
                what: "an Encrypt".into(),
                took: wrap.took,
                opened: Opened::Refused(refusal),
            },
        }
    });
    let trials = trials.buffered(WIDE).collect().await;
    Ok((trials, began.elapsed()))
}

async fn connections(socket: &dyn Socket, sample: Option<&(Wrapped, Seed)>) -> Vec<Trial> {
    let Some((wrapped, seed)) = sample else { return Vec::new() };
    let opened = future::join_all((0..CONNECTIONS).map(|_| socket.connect())).await;
    let reads = opened.into_iter().enumerate().map(|(number, connection)| async move {
        let what = format!("connection {number}");
        match connection {
            Ok(plugin) => open(plugin.as_ref(), what, wrapped, seed).await,
            Err(text) => Trial {
                what,
                took: Duration::ZERO,
                opened: Opened::Refused(Refusal { code: Refusal::NO_ANSWER.into(), text }),
            },
        }
    });
    future::join_all(reads).await
}

/// Sends unusual requests. Adds Status after each of them to `alive`.
async fn transport(
    socket: &dyn Socket,
    plugin: &dyn Plugin,
    timeout: Duration,
    alive: &mut BTreeMap<&'static str, Call<StatusAnswer>>,
) -> Transport {
    let hurried = plugin.call(STATUS, Vec::new(), Duration::from_millis(1)).await;
    alive.insert("a short deadline", plugin.status().await);
    let unknown_method = plugin.call(UNKNOWN, Vec::new(), timeout).await;
    alive.insert("an unknown method", plugin.status().await);
    let unknown_field = plugin.call(STATUS, vec![1], timeout).await;
    let old_authority = socket.old_authority().await;
    let huge = plugin.call(DECRYPT, vec![0; HUGE], timeout).await;
    alive.insert("a huge message", plugin.status().await);
    let mut foreign = Vec::new();
    for (name, bytes) in FOREIGN {
        foreign.push((name, socket.foreign(bytes).await));
    }
    alive.insert("foreign bytes", plugin.status().await);
    Transport { unknown_method, unknown_field, old_authority, foreign, hurried, huge }
}

/// Rotates the key, and watches Status and Encrypt until `limit` is over, or until the new key id
/// has been there for some time.
async fn rotation(
    plugin: &dyn Plugin,
    hook: &dyn Hook,
    limit: Duration,
    stored: &[(Wrapped, Seed)],
) -> Result<Rotated, Problem> {
    let old = plugin.status().await.answer.map(|answer| answer.key_id).unwrap_or_default();
    let done = hook.run().await;
    let began = Instant::now();
    let mut rotated = Rotated {
        hook: done,
        ids: vec![old.clone()],
        old,
        after: None,
        watched: Duration::ZERO,
        failed: Vec::new(),
        pairs: Vec::new(),
        old_reads: Vec::new(),
        new_reads: Vec::new(),
        swapped: Vec::new(),
    };
    let mut new = Vec::new();
    while rotated.hook.is_ok() {
        let call = plugin.status().await;
        match call.answer {
            Ok(answer) if rotated.ids.last() != Some(&answer.key_id) => {
                rotated.after.get_or_insert(began.elapsed());
                rotated.ids.push(answer.key_id);
            }
            Ok(_) => {}
            Err(refusal) => rotated.failed.push(refusal),
        }
        let seed = random()?;
        let made = pair(plugin, rotated.pairs.len(), &seed).await;
        if let (Ok(wrapped), true) = (&made.wrap.answer, rotated.after.is_some()) {
            new.push((wrapped.clone(), seed));
        }
        rotated.pairs.push(made);
        rotated.watched = began.elapsed();
        let settled = rotated.after.map(|after| after.saturating_add(SETTLING));
        if rotated.watched >= settled.unwrap_or(limit) {
            break;
        }
        time::sleep(POLLED_EVERY).await;
    }
    rotated.old_reads = read(plugin, "a read of older data", stored).await;
    rotated.new_reads = read(plugin, "a read of newer data", &new).await;
    if let (Some((older, seed)), Some((newer, new_seed))) = (stored.first(), new.last()) {
        let swapped = Wrapped { key_id: newer.key_id.clone(), ..older.clone() };
        let what = "older data under the new key id".into();
        rotated.swapped.push(open(plugin, what, &swapped, seed).await);
        let swapped = Wrapped { key_id: older.key_id.clone(), ..newer.clone() };
        let what = "newer data under the old key id".into();
        rotated.swapped.push(open(plugin, what, &swapped, new_seed).await);
    }
    Ok(rotated)
}

async fn restart(
    socket: &dyn Socket,
    plugin: &dyn Plugin,
    hook: &dyn Hook,
    stored: &[(Wrapped, Seed)],
) -> Restarted {
    let old = plugin.status().await.answer.map(|answer| answer.key_id).unwrap_or_default();
    let done = hook.run().await;
    let began = Instant::now();
    let mut restarted = Restarted { hook: done, after: None, ids: (old, None), reads: Vec::new() };
    while restarted.hook.is_ok() && began.elapsed() < RESTARTED_MAX {
        if let Ok(plugin) = socket.connect().await
            && let Ok(answer) = plugin.status().await.answer
            && answer.healthz == OK
        {
            restarted.after = Some(began.elapsed());
            restarted.ids.1 = Some(answer.key_id);
            restarted.reads = read(plugin.as_ref(), "a read of older data", stored).await;
            break;
        }
        time::sleep(POLLED_EVERY).await;
    }
    restarted
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
