//! Records what the keeper sees of its clients.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use vault_kube_kms::domain::error::Code;

use crate::invariants::REFUSAL_LASTS;

const MINUTE: Duration = Duration::from_mins(1);

/// Times within the last minute.
#[derive(Default)]
struct LastMinute(VecDeque<Instant>);

impl LastMinute {
    /// Records the present time, and returns the number of times within a minute.
    fn note(&mut self) -> usize {
        let now = Instant::now();
        self.0.push_back(now);
        while self.0.front().is_some_and(|at| now - *at >= MINUTE) {
            self.0.pop_front();
        }
        self.0.len()
    }
}

/// The records of one client.
#[derive(Default)]
struct Client {
    in_flight: usize,
    connections: usize,
    login_requests: LastMinute,
    logins: LastMinute,
    /// When each pair was last refused, and the client was told.
    refused: BTreeMap<String, Instant>,
    /// The time of the keeper's last refusal with each code.
    said: BTreeMap<Code, Instant>,
    /// The time of the last answer with the key's metadata.
    key_read: Option<Instant>,
    /// The time of the last granted login.
    logged_in: Option<Instant>,
    /// The number of successive answers that the key does not exist, and the time of the last
    /// one.
    missing: Option<(u32, Instant)>,
    /// The time of the last granted request for the key.
    granted: Option<Instant>,
    /// The time of the first granted request for the key since the last refusal.
    granted_again: Option<Instant>,
    /// The time of the first granted request for the key. From then on the client knows its
    /// cluster.
    first_granted: Option<Instant>,
    /// The names whose server has identified itself as foreign, each with the time.
    foreign: BTreeMap<usize, Instant>,
    /// The time of the last move of each name, and of the first request to its former server
    /// after that.
    moved: BTreeMap<usize, (Instant, Instant)>,
}

/// The maximum of each number.
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
    /// The number of requests by the plaintext that they wrap or the ciphertext that they unwrap.
    by_content: HashMap<(usize, String), u32>,
    pub peaks: Peaks,
}

impl Measures {
    fn client(&mut self, client: usize) -> &mut Client {
        self.clients.entry(client).or_default()
    }

    /// Records the begin of a request, and returns the number of open requests of this client.
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

    /// Records a login request, and returns the number within a minute.
    pub fn login_asked(&mut self, client: usize) -> usize {
        let within = self.client(client).login_requests.note();
        let most = &mut self.peaks.login_requests_per_minute;
        *most = within.max(*most);
        within
    }

    /// Returns the time since `pair` was refused, if it was.
    pub fn refused_ago(&mut self, client: usize, pair: &str) -> Option<Duration> {
        self.client(client).refused.get(pair).map(Instant::elapsed)
    }

    /// Records a granted login, and returns the number within a minute.
    pub fn login_granted(&mut self, client: usize) -> usize {
        let within = self.client(client).logins.note();
        self.peaks.logins_per_minute = self.peaks.logins_per_minute.max(within);
        within
    }

    pub fn login_refused(&mut self, client: usize, pair: &str) {
        self.client(client).refused.insert(pair.to_owned(), Instant::now());
    }

    /// Returns whether any pair was refused so far.
    pub fn has_refused(&self) -> bool {
        self.clients.values().any(|client| !client.refused.is_empty())
    }

    /// Records the keeper's answer to a request of `client` for `path`.
    pub fn answered(&mut self, client: usize, path: &str, status: u16) {
        let (now, of) = (Instant::now(), self.client(client));
        match (path, status) {
            ("auth/approle/login", 200) => of.logged_in = Some(now),
            ("auth/approle/login" | "sys/wrapping/lookup" | "sys/wrapping/unwrap", 400 | 403) => {
                of.said.insert(Code::LoginRefused, now);
            }
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
        if path.starts_with("transit/") && [400, 403, 404].contains(&status) {
            of.granted_again = None;
        }
        if of.granted == Some(now) {
            of.granted_again.get_or_insert(now);
            of.first_granted.get_or_insert(now);
            of.missing = None;
        }
    }

    /// Returns the time since which `client` knows that the key does not exist: several
    /// successive answers said so, and nothing was granted since.
    pub fn known_missing(&self, client: usize) -> Option<Instant> {
        let (times, at) = self.clients.get(&client)?.missing?;
        (times >= 3).then_some(at)
    }

    /// Returns the time at which `client` last got the key's metadata.
    pub fn key_read(&self, client: usize) -> Option<Instant> {
        self.clients.get(&client)?.key_read
    }

    /// Returns whether the keeper itself gave `client` the refusal `code`, recently or since its
    /// last grant. For the refusal of a pair, the grant is a login, and the refusal may be
    /// reported for some time after it.
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
                // The refusal of the key is told until the key is read again.
                _ => {
                    let lasts = |since: Instant| since.elapsed() < REFUSAL_LASTS;
                    lasts(*at) || of.granted_again.is_none_or(lasts)
                }
            }
        })
    }

    /// Records whether the server behind `name` identified itself to `client` as foreign.
    pub fn told_foreign(&mut self, client: usize, name: usize, foreign: bool) {
        let known = &mut self.client(client).foreign;
        if foreign {
            known.entry(name).or_insert_with(Instant::now);
        } else {
            known.remove(&name);
        }
    }

    /// Returns the time since which `client` knows that the server behind `name` belongs to
    /// another cluster than the one that granted its requests.
    pub fn known_foreign(&self, client: usize, name: usize) -> Option<Instant> {
        let of = self.clients.get(&client)?;
        Some(of.first_granted?.max(*of.foreign.get(&name)?))
    }

    /// Records a request of `client` to the former server of `name`, which moved at `at`. Returns
    /// the time of the first such request.
    pub fn asked_after_move(&mut self, client: usize, name: usize, at: Instant) -> Instant {
        let moved = self.client(client).moved.entry(name).or_insert((at, Instant::now()));
        if moved.0 != at {
            *moved = (at, Instant::now());
        }
        moved.1
    }

    /// Records a request of `client` that wraps or unwraps `content`.
    pub fn asked_for(&mut self, client: usize, content: &str) {
        *self.by_content.entry((client, content.to_owned())).or_default() += 1;
    }

    /// Forgets the requests for `content`.
    pub fn forget(&mut self, client: usize, content: &str) {
        self.by_content.remove(&(client, content.to_owned()));
    }

    /// Returns the number of requests for `content` since then.
    pub fn take_asked_for(&mut self, client: usize, content: &str) -> u32 {
        let asked = self.by_content.remove(&(client, content.to_owned())).unwrap_or(0);
        self.peaks.requests_per_call = self.peaks.requests_per_call.max(asked);
        asked
    }
}
