//! What an API server hands back may be anything: it is bounded, reading it is exact, and what
//! differs is bound to different associated data.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use vault_kube_kms::{
    adapters::vault::transit,
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        key_id::KeyId,
    },
};

type Sealed = (String, BTreeMap<String, Vec<u8>>);

fuzz_target!(|input: (u8, Vec<u8>, Sealed, Sealed)| {
    let (shape, bytes, one, other) = input;
    let bytes = match shape % 3 {
        0 => bytes,
        1 => [b"vault:v", bytes.as_slice()].concat(),
        _ => [b"vault:v7:", bytes.as_slice()].concat(),
    };
    if let Ok(ciphertext) = Ciphertext::new(bytes.clone()) {
        assert!((1..=1024).contains(&ciphertext.as_bytes().len()));
        if let Ok(version) = transit::version_in(&ciphertext) {
            // There is one spelling of a version.
            assert!(bytes.starts_with(format!("vault:v{version}:").as_bytes()));
            assert!(bytes.is_ascii());
        }
    }
    let id = if shape < 128 { one.0.clone() } else { format!("v1.{}", one.0) };
    if let Some(version) = KeyId::version_claimed(&id) {
        assert!(id.starts_with(&format!("v{version}.")));
    }
    if let (Ok(first), Ok(second)) =
        (Annotations::new(one.1.clone()), Annotations::new(other.1.clone()))
    {
        assert!(!first.are_ours() || first.claim_to_be_ours());
        let bound =
            AssociatedData::binding(&one.0, &first) == AssociatedData::binding(&other.0, &second);
        assert_eq!(bound, one == other);
        assert_eq!(first.into_entries(), one.1);
    }
});
