//! What the keeper sees of its clients.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use vault_kube_kms::domain::error::Code;

use crate::invariants::REFUSAL_LASTS;

const MINUTE: Duration = Duration::from_mins(1);

/// Moments of the last minute.
#[derive(Default)]
struct LastMinute(VecDeque<Instant>);

impl LastMinute {
    /// Notes one now; how many there were within a minute.
    fn note(&mut self) -> usize {
        let now = Instant::now();
        self.0.push_back(now);
        while self.0.front().is_some_and(|at| now - *at >= MINUTE) {
            self.0.pop_front();
        }
        self.0.len()
    }
}

/// What one client did.
#[derive(Default)]
struct Client {
    in_flight: usize,
    connections: usize,
    login_requests: LastMinute,
    logins: LastMinute,
    /// When each pair was last refused, and the client was told.
    refused: BTreeMap<String, Instant>,
    /// When the keeper last refused with each of these codes.
    said: BTreeMap<Code, Instant>,
    /// When it last told of the key.
    key_read: Option<Instant>,
    /// When it last granted a login.
    logged_in: Option<Instant>,
    /// How often in a row it answered a read of the key that there is none, and when it last did.
    missing: Option<(u32, Instant)>,
    /// When it last granted anything to do with the key.
    granted: Option<Instant>,
    /// The names whose server was told to be foreign by its own answer, and since when.
    foreign: BTreeMap<usize, Instant>,
    /// When each name last moved, and the first request to its former server after that.
    moved: BTreeMap<usize, (Instant, Instant)>,
}

/// The most that was seen of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peaks {
    pub requests: u64,
    pub in_flight: usize,
    pub connections: usize,
    pub logins_per_minute: usize,
    pub login_requests_per_minute: usize,
    pub requests_per_call: u32,
}

#[derive(Default)]
pub struct Measures {
    clients: BTreeMap<usize, Client>,
    /// Requests for one thing: by the plaintext that they wrap or the ciphertext that they unwrap.
    by_content: HashMap<(usize, String), u32>,
    pub peaks: Peaks,
}

impl Measures {
    fn client(&mut self, client: usize) -> &mut Client {
        self.clients.entry(client).or_default()
    }

    /// A request begins; how many of this client are out.
    pub fn enter(&mut self, client: usize) -> usize {
        let of = self.client(client);
        of.in_flight += 1;
        let out = of.in_flight;
        self.peaks.requests += 1;
        self.peaks.in_flight = self.peaks.in_flight.max(out);
        out
    }

    pub fn leave(&mut self, client: usize) {
        self.client(client).in_flight -= 1;
    }

    pub fn connected(&mut self, client: usize) -> usize {
        let of = self.client(client);
        of.connections += 1;
        let open = of.connections;
        self.peaks.connections = self.peaks.connections.max(open);
        open
    }

    pub fn disconnected(&mut self, client: usize) {
        self.client(client).connections -= 1;
    }

    pub fn connections(&self, client: usize) -> usize {
        self.clients.get(&client).map_or(0, |of| of.connections)
    }

    /// A login is asked for: how many were within a minute.
    pub fn login_asked(&mut self, client: usize) -> usize {
        let within = self.client(client).login_requests.note();
        let most = &mut self.peaks.login_requests_per_minute;
        *most = within.max(*most);
        within
    }

    /// How long ago `pair` was refused, if it was.
    pub fn refused_ago(&mut self, client: usize, pair: &str) -> Option<Duration> {
        self.client(client).refused.get(pair).map(Instant::elapsed)
    }

    /// A login was granted: how many were within a minute.
    pub fn login_granted(&mut self, client: usize) -> usize {
        let within = self.client(client).logins.note();
        self.peaks.logins_per_minute = self.peaks.logins_per_minute.max(within);
        within
    }

    pub fn login_refused(&mut self, client: usize, pair: &str) {
        self.client(client).refused.insert(pair.to_owned(), Instant::now());
    }

    /// Whether any pair was refused so far.
    pub fn has_refused(&self) -> bool {
        self.clients.values().any(|client| !client.refused.is_empty())
    }

    /// The keeper answers a request of `client` for `path`.
    pub fn answered(&mut self, client: usize, path: &str, status: u16) {
        let (now, of) = (Instant::now(), self.client(client));
        match (path, status) {
            ("auth/approle/login", 200) => of.logged_in = Some(now),
            ("auth/approle/login", 400 | 403) => drop(of.said.insert(Code::LoginRefused, now)),
            (_, 400) => drop(of.said.insert(Code::CiphertextRejected, now)),
            (_, 403) => drop(of.said.insert(Code::PermissionDenied, now)),
            (path, 404) => {
                of.said.insert(Code::KeyMissing, now);
                if path == "transit/keys/k1" {
                    of.missing = Some((of.missing.map_or(1, |(times, _)| times + 1), now));
                }
            }
            ("transit/keys/k1", 200) => (of.key_read, of.granted) = (Some(now), Some(now)),
            (_, 200) if path.starts_with("transit/") => of.granted = Some(now),
            _ => (),
        }
        if of.granted == Some(now) {
            of.missing = None;
        }
    }

    /// Since when `client` has known that there is no such key: it was told so again and again, and
    /// nothing was granted since.
    pub fn known_missing(&self, client: usize) -> Option<Instant> {
        let (times, at) = self.clients.get(&client)?.missing?;
        (times >= 3).then_some(at)
    }

    /// When `client` was last told of the key.
    pub fn key_read(&self, client: usize) -> Option<Instant> {
        self.clients.get(&client)?.key_read
    }

    /// Whether the keeper's own word to `client` is behind `code`, if it is a refusal: lately, or
    /// since it last granted anything: a login where the refusal was of a pair, which is told for a
    /// while after that too.
    pub fn is_said(&self, client: usize, code: Code) -> bool {
        let codes = [
            Code::LoginRefused,
            Code::CiphertextRejected,
            Code::PermissionDenied,
            Code::KeyMissing,
        ];
        if !codes.contains(&code) {
            return true;
        }
        let Some(of) = self.clients.get(&client) else { return false };
        of.said.get(&code).is_some_and(|at| {
            let is_over = |granted: Instant| granted > *at && granted.elapsed() > REFUSAL_LASTS;
            match code {
                Code::LoginRefused => !of.logged_in.is_some_and(is_over),
                _ => at.elapsed() < REFUSAL_LASTS || of.granted.is_none_or(|it| it < *at),
            }
        })
    }

    /// The server behind `name` says to `client` whether it is of another cluster.
    pub fn told_foreign(&mut self, client: usize, name: usize, foreign: bool) {
        let known = &mut self.client(client).foreign;
        if foreign {
            known.entry(name).or_insert_with(Instant::now);
        } else {
            known.remove(&name);
        }
    }

    /// Since when `client` has known that the server behind `name` is of another cluster.
    pub fn known_foreign(&self, client: usize, name: usize) -> Option<Instant> {
        self.clients.get(&client)?.foreign.get(&name).copied()
    }

    /// A request of `client` arrives at the former server of `name`, which moved at `at`. Returns when
    /// the first such request came.
    pub fn asked_after_move(&mut self, client: usize, name: usize, at: Instant) -> Instant {
        let moved = self.client(client).moved.entry(name).or_insert((at, Instant::now()));
        if moved.0 != at {
            *moved = (at, Instant::now());
        }
        moved.1
    }

    /// A request of `client` arrives that wraps or unwraps `content`.
    pub fn asked_for(&mut self, client: usize, content: &str) {
        *self.by_content.entry((client, content.to_owned())).or_default() += 1;
    }

    /// Forgets the requests that there were for `content`.
    pub fn forget(&mut self, client: usize, content: &str) {
        self.by_content.remove(&(client, content.to_owned()));
    }

    /// How many requests there were for `content` since then.
    pub fn take_asked_for(&mut self, client: usize, content: &str) -> u32 {
        let asked = self.by_content.remove(&(client, content.to_owned())).unwrap_or(0);
        self.peaks.requests_per_call = self.peaks.requests_per_call.max(asked);
        asked
    }
}
