//! What a plugin answered to a fixed list of calls.

use std::{collections::BTreeMap, time::Duration};

use super::answer::{Call, Foreign, Refusal, StatusAnswer, Wrapped};

/// What Decrypt returned, compared with the plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The plaintext.
    Same,
    /// Other bytes, without an error.
    Other,
    /// An error.
    Refused(Refusal),
}

/// One Decrypt, and what was special about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What was changed, or how the call was made.
    pub what: String,
    /// How long the call took.
    pub took: Duration,
    /// The answer.
    pub opened: Opened,
}

/// One Encrypt of 32 bytes between two Status calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Which plaintext this was. Two pairs with one number have equal plaintexts.
    pub seed: usize,
    /// The key id of Status before it.
    pub before: Option<String>,
    /// The answer of Encrypt.
    pub wrap: Call<Wrapped>,
    /// The key id of Status after it.
    pub after: Option<String>,
    /// Where the plaintext can be read in the answer, such as `the ciphertext`.
    pub shown_in: Option<&'static str>,
}

/// Encrypt of an unusual number of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes of plaintext.
    pub bytes: usize,
    /// The length of the ciphertext in bytes, and what Decrypt made of it. Or the error of Encrypt.
    pub answer: Result<(usize, Opened), Refusal>,
}

/// A rotation of the key by the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The error of the command.
    pub hook: Result<(), String>,
    /// The key id before the rotation.
    pub old: String,
    /// The key ids that Status gave after the command, without repetitions of neighbours. The
    /// first is the id before the rotation.
    pub ids: Vec<String>,
    /// How long after the end of the command Status had a new id.
    pub after: Option<Duration>,
    /// How long Status was watched.
    pub watched: Duration,
    /// Status calls without an answer during this time.
    pub failed: Vec<Refusal>,
    /// Encrypt calls during this time, each between two Status calls.
    pub pairs: Vec<Pair>,
    /// Reads of what was wrapped before the rotation.
    pub old_reads: Vec<Trial>,
    /// Reads of what was wrapped after the rotation.
    pub new_reads: Vec<Trial>,
    /// An object with the key id of another version of the key.
    pub swapped: Vec<Trial>,
}

/// A restart of the plugin by the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarted {
    /// The error of the command.
    pub hook: Result<(), String>,
    /// How long after the end of the command Status was `ok`, on a new connection.
    pub after: Option<Duration>,
    /// The key id before and after it.
    pub ids: (String, Option<String>),
    /// Reads of what was wrapped before it.
    pub reads: Vec<Trial>,
}

/// Status until it is `ok`, then Encrypt and Decrypt, again and again until they work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// From the first try to the end of the last one.
    pub took: Duration,
    /// The last answer of Status.
    pub status: Result<StatusAnswer, Refusal>,
    /// The last answer of Encrypt: whether it hid the plaintext.
    pub hidden: Option<Result<bool, Refusal>>,
    /// The last answer of Decrypt.
    pub opened: Option<Opened>,
}

impl Preflight {
    /// Returns whether all three calls worked.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.opened == Some(Opened::Same)
    }
}

/// What the plugin did with unusual requests of HTTP/2 and gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// A method that does not exist.
    pub unknown_method: Call<()>,
    /// Status with a field that does not exist.
    pub unknown_field: Call<()>,
    /// Status with the authority of API servers before 1.32.
    pub old_authority: Result<(), String>,
    /// Bytes that are not HTTP/2.
    pub foreign: Vec<(&'static str, Result<Foreign, String>)>,
    /// Status with a deadline of one millisecond.
    pub hurried: Call<()>,
    /// A message of more than 4 MiB.
    pub huge: Call<()>,
}

/// The answers of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The deadline of each call: `timeout` of the `EncryptionConfiguration`.
    pub timeout: Duration,
    /// The permission bits of the socket's file. `None` for an abstract socket.
    pub mode: Option<u32>,
    /// The first calls, as OpenShift's preflight makes them.
    pub preflight: Preflight,
    /// A connection and Status on it.
    pub first: Call<StatusAnswer>,
    /// Status, many times on one connection.
    pub statuses: Vec<Call<StatusAnswer>>,
    /// Encrypt of 32 bytes, one after the other.
    pub pairs: Vec<Pair>,
    /// Decrypt of what Encrypt returned, one after the other.
    pub reads: Vec<Trial>,
    /// Changed ciphertexts.
    pub ciphertexts: Vec<Trial>,
    /// Changed key ids.
    pub key_ids: Vec<Trial>,
    /// Changed annotations.
    pub annotations: Vec<Trial>,
    /// Requests that are empty, too large, or with an unusual uid.
    pub empty: Vec<Trial>,
    /// Requests at and over the limits of the API server.
    pub large: Vec<Trial>,
    /// Requests with an unusual uid.
    pub uids: Vec<Trial>,
    /// Plaintexts of unusual sizes.
    pub sizes: Vec<Size>,
    /// Encrypt and then Decrypt of distinct plaintexts at once, on one connection.
    pub storm: Vec<Trial>,
    /// How long the unwraps of the storm took together.
    pub storm_took: Duration,
    /// Equal Decrypts at once.
    pub equal: Vec<Trial>,
    /// A read on each of many connections at once.
    pub connections: Vec<Trial>,
    /// Unusual requests of HTTP/2 and gRPC.
    pub transport: Transport,
    /// Status after each part that a plugin may not survive, by the name of the part.
    pub alive: BTreeMap<&'static str, Call<StatusAnswer>>,
    /// The rotation, if a hook was given.
    pub rotated: Option<Rotated>,
    /// The restart, if a hook was given.
    pub restarted: Option<Restarted>,
}

impl Record {
    /// Returns all Decrypts that were made to be refused.
    pub fn changed(&self) -> impl Iterator<Item = &Trial> {
        [&self.ciphertexts, &self.key_ids, &self.annotations, &self.empty, &self.large]
            .into_iter()
            .flatten()
    }

    /// Returns a wrapped seed to change, if there is one.
    #[must_use]
    pub fn wrapped(&self) -> Option<&Wrapped> {
        self.pairs.iter().find_map(|pair| pair.wrap.answer.as_ref().ok())
    }
}
