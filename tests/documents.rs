//! Tests that statements of the documents about the sources are true.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use vault_kube_kms::{adapters::vault::vocabulary, domain::error::Code};

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

/// Returns the names behind `Tests:` or `Tests**:`, up to the end of the paragraph.
fn named_tests(document: &str) -> Vec<&str> {
    let paragraphs = document.split("\n\n").filter_map(|text| {
        text.strip_prefix("Tests:").or_else(|| Some(text.split_once("- **Tests**:")?.1))
    });
    paragraphs.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the tests that `document` names and that the sources do not have.
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
    assert_eq!(document.matches("\nTests: ").count(), sections, "a threat has no tests");
    let missing = missing_tests(&document);
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    assert!(named_tests(&document).len() > 40);
}

/// Returns the codes of every keeper, and those of Vault.
fn all_codes() -> impl Iterator<Item = Code> {
    Code::ALL.into_iter().chain(vocabulary::labels().codes.iter().copied())
}

/// `/statusz` and the alerts link to these headings.
#[test]
fn each_code_and_each_alert_has_its_failure_mode() {
    let document = read("docs/failure-modes.md");
    let headings: Vec<_> =
        document.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let rules = read("deploy/monitoring/rules.yaml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let codes = all_codes().map(|code| code.as_str().to_owned());
    let expected: Vec<_> = codes.chain(alerts.map(str::to_owned)).collect();
    let lacking: Vec<_> = expected.iter().filter(|name| !headings.contains(name)).collect();
    assert!(lacking.is_empty(), "no heading for {lacking:?}");
    // The text that the command in the first lines of the rules replaces.
    let (_, place) = rules.split_once("sed -i 's|").unwrap();
    let place = place.split('|').next().unwrap();
    assert!(place.starts_with("https://"), "{place}");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let link = format!("runbook_url: {place}/failure-modes.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert}");
    }
    assert_eq!(rules.matches("runbook_url: ").count(), rules.matches("- alert: ").count());
    assert_eq!(missing_tests(&document), Vec::<&str>::new());
    for part in ["Seen", "Cause", "Still works", "Type", "Tests"] {
        let line = format!("\n- **{part}**: ");
        assert_eq!(document.matches(&line).count(), headings.len(), "{part}");
    }
}

/// Alerts choose by code. An alert for a code that does not exist never fires.
#[test]
fn alerts_name_codes_that_exist() {
    let rules = read("deploy/monitoring/rules.yaml");
    let lists = rules.split("code=").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let named: Vec<_> = lists.flat_map(|list| list.split('|')).collect();
    assert!(named.len() > 8, "{named:?}");
    for code in named {
        assert!(all_codes().any(|known| known.as_str() == code), "{code}");
    }
}

#[test]
fn each_test_that_the_documents_for_operators_name_exists() {
    for document in ["docs/install.md", "docs/operations.md"] {
        let text = read(document);
        // These documents name tests within paragraphs and tables.
        let quoted = text.split('`').skip(1).step_by(2);
        let is_test = |name: &&str| {
            let rest = name.strip_prefix("Test").unwrap_or_default();
            rest.starts_with(char::is_uppercase) && rest.chars().all(char::is_alphanumeric)
        };
        let names: Vec<_> = quoted.filter(is_test).map(|name| format!("`{name}`")).collect();
        assert!(names.len() > 5, "{document}: {names:?}");
        let named = format!("Tests: {}", names.join(", "));
        assert_eq!(missing_tests(&named), Vec::<&str>::new(), "{document}");
    }
}

/// The last column of the table names the test of each difference.
#[test]
fn each_test_of_a_difference_between_servers_exists() {
    let document = read("docs/compatibility.md");
    let (_, table) = document.split_once("## Where the servers differ").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let names: Vec<_> = rows.map(|row| row.rsplit('|').nth(1).unwrap().trim()).collect();
    assert!(names.len() > 5, "{names:?}");
    let named = format!("Tests: {}", names.join(", "));
    assert_eq!(missing_tests(&named), Vec::<&str>::new());
}

/// A link within the repository leads to a file, and to a heading of it.
#[test]
fn each_link_of_a_document_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("deploy/README.md")];
    documents.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut links = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(document).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found =
                    text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{}: {link}", document.display());
            }
        }
    }
    assert!(links > 40, "{links}");
}

/// Returns the anchor of a heading in Markdown.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
