//! The rules that show through KMS v2 itself: identity, binding and rotation over the keeper.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Subject, deadline};
use crate::{
    domain::{
        envelope::{Annotations, AssociatedData},
        error::{Code, KmsError},
        health::OutagePolicy,
        key_id::{KeyIdentity, Lineage},
        rotation::KeyRing,
        secret::Plaintext,
        service::KeyService,
        watch::KeyWatch,
    },
    ports::{
        Ports,
        kms::{Encrypted, KeyManagement, Sealed},
        telemetry::{Event, Telemetry},
    },
};

const SEED: &[u8; 32] = b"another seed of 32 bytes in all.";

#[derive(Debug)]
struct Silence;

impl Telemetry for Silence {
    fn record(&self, _: Event<'_>) {}
}

/// A node: the use cases over the subject's keeper, with a rotation delay of its own.
pub(super) struct Node {
    watch: Arc<KeyWatch>,
    pub(super) kms: KeyService,
}

impl Node {
    pub(super) async fn start(subject: &dyn Subject, rotation_delay: Duration) -> Self {
        let ports =
            Ports { kek: subject.kek(), clock: subject.clock(), telemetry: Arc::new(Silence) };
        let identity = KeyIdentity::new(Lineage::of_place("testkit", &["key"]), 0);
        let ring = KeyRing::new(identity, rotation_delay, BTreeMap::new());
        let grace = Duration::from_secs(30);
        let watch = Arc::new(KeyWatch::new(ports, ring, OutagePolicy::StopWrites, grace));
        let node = Self { kms: KeyService::new(Arc::clone(&watch), true), watch };
        node.look().await;
        node
    }

    pub(super) async fn look(&self) {
        self.watch.read_metadata().await;
        self.watch.prove(Duration::MAX).await;
    }

    pub(super) fn key_id(&self) -> String {
        self.kms.status().expect("healthy").key_id.as_str().to_owned()
    }

    pub(super) async fn write(&self, subject: &dyn Subject) -> Sealed {
        let seed = Plaintext::new(SEED.to_vec());
        let answer = self.kms.encrypt(seed, deadline(subject)).await.expect("a wrap");
        assert_eq!(answer.key_id.as_str(), self.key_id(), "Status and Encrypt agree");
        let Encrypted { ciphertext, key_id, annotations, .. } = answer;
        Sealed { ciphertext, key_id: key_id.as_str().to_owned(), annotations }
    }

    pub(super) async fn read(
        &self,
        subject: &dyn Subject,
        sealed: Sealed,
    ) -> Result<Plaintext, KmsError> {
        self.kms.decrypt(sealed, deadline(subject)).await
    }

    pub(super) async fn refuses(&self, subject: &dyn Subject, sealed: Sealed, code: Code) {
        let error = self.read(subject, sealed.clone()).await.expect_err("it must be refused");
        assert_eq!(error.code(), code, "{sealed:?}: {error}");
    }
}

/// Two nodes, and one that was started later, announce one key id.
pub async fn every_node_gives_one_key_id(subject: &dyn Subject) {
    let first = Node::start(subject, Duration::from_mins(1)).await;
    let second = Node::start(subject, Duration::from_mins(1)).await;
    let third = Node::start(subject, Duration::from_mins(1)).await;
    assert_eq!(first.key_id(), second.key_id());
    assert_eq!(first.key_id(), third.key_id());
}

/// What one node wrote another reads, and the version is proven before.
pub async fn a_seed_goes_and_comes_back_through_the_use_cases(subject: &dyn Subject) {
    let writer = Node::start(subject, Duration::from_mins(1)).await;
    let reader = Node::start(subject, Duration::from_mins(1)).await;
    let sealed = writer.write(subject).await;
    let opened = reader.read(subject, sealed).await.expect("readable");
    assert_eq!(opened.expose(), SEED);
}

/// Key id, ciphertext and annotations belong together.
pub async fn fields_cannot_be_swapped_between_objects(subject: &dyn Subject) {
    let node = Node::start(subject, Duration::ZERO).await;
    let one = node.write(subject).await;
    subject.rotate().await;
    node.look().await;
    let two = node.write(subject).await;
    assert_ne!(one.key_id, two.key_id, "each version has an id of its own");
    let id_of_two = Sealed { key_id: two.key_id.clone(), ..one.clone() };
    node.refuses(subject, id_of_two, Code::CiphertextRejected).await;
    let body_of_two = Sealed { ciphertext: two.ciphertext.clone(), ..one.clone() };
    node.refuses(subject, body_of_two, Code::CiphertextRejected).await;
    let mut entries = Annotations::ours().into_entries();
    entries.insert("added.example".to_owned(), b"x".to_vec());
    for annotations in [BTreeMap::new(), entries] {
        let annotations = Annotations::new(annotations).expect("within limits");
        let changed = Sealed { annotations, ..one.clone() };
        node.refuses(subject, changed, Code::CiphertextRejected).await;
    }
    for sealed in [one, two] {
        assert!(node.read(subject, sealed).await.is_ok(), "unchanged, both are read");
    }
}

/// An id that names no version of this key is refused, and the node stays healthy.
pub async fn unknown_key_ids_are_refused(subject: &dyn Subject) {
    let node = Node::start(subject, Duration::from_mins(1)).await;
    let good = node.write(subject).await;
    for key_id in ["1", "v1.AAAAAAAAAAAAAAAAAAAAAA", "v999.AAAAAAAAAAAAAAAAAAAAAA", "\u{0}"] {
        let foreign = Sealed { key_id: key_id.to_owned(), ..good.clone() };
        node.refuses(subject, foreign, Code::KeyIdUnknown).await;
    }
    assert_eq!(node.key_id(), good.key_id);
}

/// The bridge: wrapped without associated data under any id, as other plugins do.
pub async fn what_was_written_without_binding_is_read_as_such(subject: &dyn Subject) {
    let node = Node::start(subject, Duration::from_mins(1)).await;
    let version = subject.kek().describe(deadline(subject)).await.expect("described").latest;
    let (seed, unbound) = (Plaintext::new(SEED.to_vec()), AssociatedData::none());
    let wrapped =
        subject.kek().wrap(version, &seed, &unbound, deadline(subject)).await.expect("a wrap");
    let annotations = Annotations::default();
    let foreign =
        Sealed { ciphertext: wrapped.ciphertext, key_id: "theirs".to_owned(), annotations };
    let opened = node.read(subject, foreign.clone()).await.expect("readable");
    assert_eq!(opened.expose(), SEED);
    let disguised = Sealed { annotations: Annotations::ours(), ..foreign };
    node.refuses(subject, disguised, Code::KeyIdUnknown).await;
}

/// A new version only reads until it is as old as the delay; then it writes, also on a node that
/// learnt of it late.
pub async fn a_rotation_takes_over_at_one_instant(subject: &dyn Subject) {
    let patient = Node::start(subject, Duration::from_hours(1)).await;
    let hasty = Node::start(subject, Duration::ZERO).await;
    let before = patient.key_id();
    assert_eq!(before, hasty.key_id());
    subject.rotate().await;
    hasty.look().await;
    assert_ne!(hasty.key_id(), before, "no delay: the new version writes at once");
    let written = hasty.write(subject).await;
    // The patient one has not looked since; the object's id makes it look.
    let opened = patient.read(subject, written).await.expect("a peer's newer version is read");
    assert_eq!(opened.expose(), SEED);
    // A version that is not proven does not write, so it is proven first.
    patient.look().await;
    assert_eq!(patient.key_id(), before, "reading with a version does not make it write");
}
