//! What documents say of the sources is true.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.to_str().is_some_and(|name| name.ends_with(".rs") || name.ends_with(".go")) {
            all.push(path);
        }
    }
}

/// The names behind `Tests:`, up to the end of the paragraph.
fn named_tests(document: &str) -> Vec<&str> {
    let paragraphs = document.split("\n\n").filter_map(|text| text.strip_prefix("Tests:"));
    paragraphs.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn each_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let document = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let sections = document.matches("\n## ").count();
    assert_eq!(document.matches("\nTests: ").count(), sections, "a threat without tests");
    let exists = |name: &str| {
        let (rust, go) = (format!("fn {name}("), format!("func {name}("));
        texts.iter().any(|text| text.contains(&rust) || text.contains(&go))
    };
    let missing: Vec<_> = named_tests(&document).into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(named_tests(&document).len() > 40);
}
