//! What documents say of the sources is true.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use vault_kube_kms::domain::error::Code;

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

/// The names behind `Tests:` or `Tests**:`, up to the end of the paragraph.
fn named_tests(document: &str) -> Vec<&str> {
    let paragraphs = document.split("\n\n").filter_map(|text| {
        text.strip_prefix("Tests:").or_else(|| Some(text.split_once("- **Tests**:")?.1))
    });
    paragraphs.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The tests that `document` names and that are nowhere in the sources.
fn missing_tests(document: &str) -> Vec<&str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let exists = |name: &str| {
        let (rust, go) = (format!("fn {name}("), format!("func {name}("));
        texts.iter().any(|text| text.contains(&rust) || text.contains(&go))
    };
    named_tests(document).into_iter().filter(|name| !exists(name)).collect()
}

#[test]
fn each_test_that_the_threat_model_names_exists() {
    let document = read("docs/threat-model.md");
    let sections = document.matches("\n## ").count();
    assert_eq!(document.matches("\nTests: ").count(), sections, "a threat without tests");
    let missing = missing_tests(&document);
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(named_tests(&document).len() > 40);
}

/// `/statusz` and the alerts link to these headings.
#[test]
fn each_code_and_each_alert_has_its_failure_mode() {
    let document = read("docs/failure-modes.md");
    let headings: Vec<_> =
        document.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let rules = read("deploy/monitoring/rules.yaml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let codes = Code::ALL.iter().map(|code| code.as_str());
    let expected: Vec<_> = codes.chain(alerts).map(str::to_owned).collect();
    let lacking: Vec<_> = expected.iter().filter(|name| !headings.contains(name)).collect();
    assert!(lacking.is_empty(), "no heading for {lacking:?}");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let link = format!("runbook_url: docs/failure-modes.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert}");
    }
    assert_eq!(missing_tests(&document), Vec::<&str>::new());
    for part in ["Seen", "Cause", "Still works", "Type", "Tests"] {
        let line = format!("\n- **{part}**: ");
        assert_eq!(document.matches(&line).count(), headings.len(), "{part}");
    }
}

/// Alerts choose by code; a code that does not exist would never fire.
#[test]
fn alerts_name_codes_that_exist() {
    let rules = read("deploy/monitoring/rules.yaml");
    let lists = rules.split("code=").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let named: Vec<_> = lists.flat_map(|list| list.split('|')).collect();
    assert!(named.len() > 8, "{named:?}");
    for code in named {
        assert!(Code::ALL.iter().any(|known| known.as_str() == code), "{code}");
    }
}
