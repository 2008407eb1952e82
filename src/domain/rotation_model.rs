//! Compares the key ring with a model, for random sequences of answers of a keeper.

use proptest::{collection::vec, prelude::*};

use super::{
    super::{error::Code, key::KekSnapshot, key_id::Lineage},
    *,
};

const DELAY: Duration = Duration::from_mins(1);
const START: i64 = 1_000_000;

/// One step of a random sequence: a change of the key, or a read from a current or a lagging node.
#[derive(Clone, Debug)]
enum Step {
    /// This number of seconds passes.
    Wait(u8),
    /// The operator rotates the key.
    Rotate,
    /// The operator sets the minimum versions for decryption and encryption.
    Minimums(u8, u8),
    /// The process reads the key. The answer is this number of states old.
    Read(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..40_u8).prop_map(Step::Wait),
        2 => Just(Step::Rotate),
        1 => (0..4_u8, 0..4_u8).prop_map(|(d, e)| Step::Minimums(d, e)),
        4 => Just(Step::Read(0)),
        1 => (1..3_u8).prop_map(Step::Read),
    ];
    vec(step, 1..80)
}

/// The real state of the key: the creation time of each version, and the minimum versions.
#[derive(Clone)]
struct Truth {
    created: Vec<u64>,
    min_decryption: u32,
    min_encryption: u32,
}

impl Truth {
    fn snapshot(&self) -> KekSnapshot {
        let numbered = (1_u32..).zip(&self.created);
        let versions = numbered
            .filter(|(number, _)| *number >= self.min_decryption)
            .map(|(number, created)| (version(number), at(*created).into()));
        KekSnapshot::new(versions)
            .with_min_decryption(version(self.min_decryption))
            .with_min_encryption(KekVersion::new(self.min_encryption))
    }

    /// The writer rule of docs/design.md section 3, as it is written there.
    fn writer(&self, now: u64) -> u32 {
        let floor = self.min_decryption.max(self.min_encryption).max(1);
        let allowed = || (1_u32..).zip(&self.created).filter(|(number, _)| *number >= floor);
        let is_aged = |created: u64| now.saturating_sub(created) >= DELAY.as_secs();
        let aged = allowed().filter(|(_, created)| is_aged(**created));
        aged.map(|(number, _)| number).max().unwrap_or_else(|| allowed().next().unwrap().0)
    }
}

fn version(number: u32) -> KekVersion {
    KekVersion::new(number).unwrap()
}

fn at(second: u64) -> UnixTime {
    UnixTime::from_secs(START).after(Duration::from_secs(second))
}

fn ring() -> KeyRing {
    let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
    KeyRing::new(identity, DELAY, BTreeMap::new())
}

proptest! {
    #[test]
    fn the_ring_agrees_with_the_model(steps in steps()) {
        let mut ring = ring();
        let mut now = 1_000_u64;
        let mut history = vec![Truth { created: vec![900], min_decryption: 1, min_encryption: 0 }];
        let mut known: Option<Truth> = None;
        let mut ids = BTreeMap::new();
        for step in steps {
            let truth = history.last().unwrap().clone();
            let latest = u32::try_from(truth.created.len()).unwrap();
            match step {
                Step::Wait(seconds) => now = now.saturating_add(seconds.into()),
                Step::Rotate => {
                    let mut rotated = truth;
                    rotated.created.push(now);
                    history.push(rotated);
                }
                Step::Minimums(decryption, encryption) => {
                    let min_decryption = u32::from(decryption).clamp(1, latest);
                    let min_encryption = match u32::from(encryption) {
                        0 => 0,
                        encryption => encryption.clamp(min_decryption, latest.max(min_decryption)),
                    };
                    history.push(Truth { min_decryption, min_encryption, ..truth });
                }
                Step::Read(age) => {
                    let index = history.len().saturating_sub(1).saturating_sub(age.into());
                    let answer = history[index].clone();
                    let monotonic = Monotonic::at(Duration::from_secs(now));
                    ring.observe(answer.snapshot(), monotonic, at(now));
                    let behind = known.as_ref().is_some_and(|k| k.created.len() > answer.created.len());
                    if !behind {
                        known = Some(answer);
                    }
                }
            }
            let writer = ring.writer(Monotonic::at(Duration::from_secs(now)));
            match (&known, writer) {
                (None, writer) => prop_assert_eq!(writer.unwrap_err().code(), Code::Starting),
                // The ring cannot distinguish a rollback from 60 s of lagging answers.
                (Some(_), Err(error)) => prop_assert_eq!(error.code(), Code::KeyRolledBack),
                (Some(known), Ok(writer)) => {
                    prop_assert_eq!(writer.version.get(), known.writer(now));
                    let id = writer.key_id.as_str().to_owned();
                    prop_assert_eq!(ring.resolve(&id), Resolution::Known(writer.version));
                    let before = *ids.entry(id).or_insert(writer.version);
                    prop_assert_eq!(before, writer.version, "an id always names the same version");
                }
            }
        }
    }

    /// All nodes that know a version switch to it at the same moment, whenever they polled.
    #[test]
    fn nodes_switch_at_the_same_moment(polls in vec(0..59_u64, 2..5)) {
        let truth = Truth { created: vec![0, 10_000], min_decryption: 1, min_encryption: 0 };
        let before = Truth { created: vec![0], ..truth.clone() };
        for poll in polls {
            let mut ring = ring();
            ring.observe(before.snapshot(), Monotonic::at(Duration::from_secs(9_990)), at(9_990));
            let seen = 10_000_u64.saturating_add(poll);
            ring.observe(truth.snapshot(), Monotonic::at(Duration::from_secs(seen)), at(seen));
            for (millis, expected) in [(10_059_999, 1), (10_060_000, 2)] {
                let writer = ring.writer(Monotonic::at(Duration::from_millis(millis))).unwrap();
                prop_assert_eq!(writer.version.get(), expected);
            }
        }
    }
}
