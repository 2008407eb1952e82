//! The changed forms of a wrapped seed that a plugin must refuse. Each has a name for the evidence.

use std::collections::BTreeMap;

use vault_kube_kms::domain::{
    envelope::{ANNOTATIONS_MAX, CIPHERTEXT_MAX},
    key_id::KEY_ID_MAX,
};

use crate::domain::conformance::Wrapped;

/// How many places of a ciphertext are changed.
const PLACES: usize = 16;

/// Returns forms with another ciphertext: flipped bits, shorter, and longer.
pub(super) fn changed_ciphertexts(wrapped: &Wrapped) -> Vec<(String, Wrapped)> {
    let with = |ciphertext: Vec<u8>| Wrapped { ciphertext, ..wrapped.clone() };
    let length = wrapped.ciphertext.len();
    let mut forms = Vec::new();
    for place in (0..length).step_by(length.div_ceil(PLACES).max(1)) {
        let mut ciphertext = wrapped.ciphertext.clone();
        if let Some(byte) = ciphertext.get_mut(place) {
            *byte ^= 1;
        }
        forms.push((format!("a flipped bit in byte {place}"), with(ciphertext)));
    }
    let (mut shorter, mut half, mut longer) =
        (wrapped.ciphertext.clone(), wrapped.ciphertext.clone(), wrapped.ciphertext.clone());
    shorter.pop();
    half.truncate(length / 2);
    longer.push(b'A');
    forms.push(("without the last byte".into(), with(shorter)));
    forms.push(("without the second half".into(), with(half)));
    forms.push(("with a byte more".into(), with(longer)));
    forms
}

/// Returns forms with another key id.
pub(super) fn changed_key_ids(wrapped: &Wrapped) -> Vec<(String, Wrapped)> {
    let with = |key_id: String| Wrapped { key_id, ..wrapped.clone() };
    vec![
        ("a key id that was never given".into(), with("kmsctl-unknown-key".into())),
        ("a longer key id".into(), with(format!("{}x", wrapped.key_id))),
        ("no key id".into(), with(String::new())),
    ]
}

/// Returns forms with other annotations.
pub(super) fn changed_annotations(wrapped: &Wrapped) -> Vec<(String, Wrapped)> {
    let with = |annotations| Wrapped { annotations, ..wrapped.clone() };
    let mut more = wrapped.annotations.clone();
    more.insert("added.kmsctl.example".to_owned(), b"1".to_vec());
    let mut forms = vec![("an annotation more".to_owned(), with(more))];
    for (name, value) in &wrapped.annotations {
        let mut without = wrapped.annotations.clone();
        without.remove(name);
        let (mut other_value, mut other_name) = (without.clone(), without.clone());
        other_value.insert(name.clone(), [value, &b"x"[..]].concat());
        other_name.insert(format!("x{name}"), value.clone());
        forms.push((format!("without {name}"), with(without)));
        forms.push((format!("another value of {name}"), with(other_value)));
        forms.push((format!("another name for {name}"), with(other_name)));
    }
    forms
}

/// Returns forms that are empty.
pub(super) fn emptied(wrapped: &Wrapped) -> Vec<(String, Wrapped)> {
    let empty =
        Wrapped { ciphertext: Vec::new(), key_id: String::new(), annotations: BTreeMap::new() };
    let no_ciphertext = Wrapped { ciphertext: Vec::new(), ..wrapped.clone() };
    vec![("an empty ciphertext".into(), no_ciphertext), ("an empty request".into(), empty)]
}

/// Returns forms at the limits of the API server, and one byte over them.
pub(super) fn enlarged(wrapped: &Wrapped) -> Vec<(String, Wrapped)> {
    let with = |name: &str, size: usize| {
        let mut changed = wrapped.clone();
        match name {
            "ciphertext" => changed.ciphertext.resize(size, b'A'),
            "key id" => changed.key_id = "k".repeat(size),
            _ => {
                let name = "added.kmsctl.example".to_owned();
                let value = vec![b'A'; size.saturating_sub(name.len())];
                changed.annotations = BTreeMap::from([(name, value)]);
            }
        }
        (format!("{name} of {size} bytes"), changed)
    };
    [("ciphertext", CIPHERTEXT_MAX), ("key id", KEY_ID_MAX), ("annotations", ANNOTATIONS_MAX)]
        .into_iter()
        .flat_map(|(name, most)| [with(name, most), with(name, most.saturating_add(1))])
        .collect()
}
