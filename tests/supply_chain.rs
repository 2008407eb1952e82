//! Compares the documents about the program's dependencies with Cargo's own lists.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

const PROVIDER: &str = "vault-kube-kms";
const CTL: &str = "vault-kube-kmsctl";

/// Returns the crates that are linked into a program of this workspace on Linux or run during its
/// build, with all features.
fn used(package: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["tree", "--locked", "--quiet", "--all-features", "--edges=normal,build"]);
    cargo.args(["--package", package, "--prefix=none", "--format={p}"]);
    cargo.args(["--target=x86_64-unknown-linux-gnu"]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| !["kms-keeper", PROVIDER, CTL].contains(name)).map(str::to_owned).collect()
}

/// Returns the tables of `supply-chain/README.md`: of the provider, and of what only the second
/// program links.
fn tables() -> [String; 2] {
    let text = read("supply-chain/README.md");
    let (provider, ctl) =
        text.split_once("\n## Crates that only vault-kube-kmsctl links\n").unwrap();
    [provider.to_owned(), ctl.to_owned()]
}

/// Returns each crate of a table in `supply-chain/README.md`, with its owner. A row is
/// `| owner | crates | why |`.
fn trusted(table: &str) -> BTreeMap<String, String> {
    let mut trusted = BTreeMap::new();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    for row in rows.filter(|row| !row.starts_with("owner ") && !row.starts_with("---")) {
        let cells: Vec<_> = row.split(" | ").collect();
        let [owner, crates, why] = cells.as_slice() else {
            panic!("{row:?} does not have three cells")
        };
        assert!(!owner.is_empty() && why.len() > 10, "{row:?} gives no reason");
        for name in crates.split(' ') {
            let before = trusted.insert(name.to_owned(), (*owner).to_owned());
            assert_eq!(before, None, "{name} is in two rows");
        }
    }
    trusted
}

/// Requires a row for each crate of `used`, and no further row.
fn require_trusted(used: &BTreeSet<String>, table: &str) {
    let listed: BTreeSet<_> = trusted(table).into_keys().collect();
    let (unknown, unused) = (used.difference(&listed), listed.difference(used));
    let (unknown, unused): (Vec<_>, Vec<_>) = (unknown.collect(), unused.collect());
    assert!(
        unknown.is_empty() && unused.is_empty(),
        "a table of supply-chain/README.md lacks {unknown:?}, and has {unused:?}, which are not used"
    );
}

#[test]
fn each_crate_of_the_provider_is_trusted_for_a_reason() {
    let used = used(PROVIDER);
    assert!(used.len() > 100, "{used:?}");
    require_trusted(&used, &tables()[0]);
}

#[test]
fn each_further_crate_of_the_second_program_is_trusted_for_a_reason() {
    let further = &used(CTL) - &used(PROVIDER);
    assert!(further.len() > 30, "{further:?}");
    require_trusted(&further, &tables()[1]);
}

/// Returns the names of the crates in `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = read(manifest);
    let (_, rest) = text.split_once("\n[dependencies]\n").unwrap();
    let section = rest.split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split([' ', '.', '=']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

/// The second program talks to etcd and to API servers. No crate that it needs for that, and no
/// crate behind it, may reach the provider.
#[test]
fn the_provider_links_no_crate_that_is_of_the_second_program() {
    let provider = used(PROVIDER);
    let own = &dependencies("kmsctl/Cargo.toml") - &dependencies("Cargo.toml");
    let own: BTreeSet<_> = own.into_iter().filter(|name| name != PROVIDER).collect();
    for name in ["clap", "indicatif", "k8s-openapi", "kube", "serde-saphyr"] {
        assert!(own.contains(name), "{name} is a dependency of the provider, or of neither");
    }
    let both: Vec<_> = own.intersection(&provider).collect();
    assert!(both.is_empty(), "the provider links {both:?}");
    assert!(!used(CTL).is_subset(&provider) && !provider.contains("kube-client"));
}

#[test]
#[should_panic(expected = "is in two rows")]
fn each_crate_has_one_owner() {
    trusted("| a | x y | a good reason |\n| b | y | another good reason |\n");
}

/// The newest version of `name` in Cargo.lock.
fn locked(name: &str) -> Option<String> {
    let lock = read("Cargo.lock");
    let (_, rest) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// The shape is that of the OpenVEX specification 0.2.0.
#[test]
fn the_vex_document_is_valid_and_of_this_version() {
    let vex: Value = serde_json::from_str(&read("supply-chain/openvex.json")).unwrap();
    assert_eq!(vex["@context"], "https://openvex.dev/ns/v0.2.0");
    for field in ["@id", "author"] {
        assert!(vex[field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    assert!(vex["version"].as_u64().is_some_and(|version| version >= 1));
    humantime::parse_rfc3339(vex["timestamp"].as_str().unwrap()).unwrap();
    let statements = vex["statements"].as_array().unwrap();
    assert!(!statements.is_empty());
    for statement in statements {
        let name = statement["vulnerability"]["name"].as_str().unwrap();
        assert!(
            ["RUSTSEC-", "CVE-", "GHSA-"].iter().any(|start| name.starts_with(start)),
            "{name}"
        );
        let text = |field: &str| statement[field].as_str().is_some_and(|text| !text.is_empty());
        match statement["status"].as_str().unwrap() {
            "not_affected" => {
                const JUSTIFICATIONS: &[&str] = &[
                    "component_not_present",
                    "vulnerable_code_not_present",
                    "vulnerable_code_not_in_execute_path",
                    "vulnerable_code_cannot_be_controlled_by_adversary",
                    "inline_mitigations_already_exist",
                ];
                let given = statement["justification"].as_str();
                assert!(given.is_none_or(|given| JUSTIFICATIONS.contains(&given)), "{given:?}");
                assert!(given.is_some() || text("impact_statement"), "{name} gives no reason");
            }
            "affected" => assert!(text("action_statement"), "{name} gives no action"),
            "fixed" | "under_investigation" => (),
            status => panic!("{name}: {status} is not a valid status of OpenVEX"),
        }
        let products = statement["products"].as_array().unwrap();
        assert!(!products.is_empty(), "{name} names no product");
        for product in products {
            let here = concat!("pkg:cargo/vault-kube-kms@", env!("CARGO_PKG_VERSION"));
            assert_eq!(product["@id"], here, "{name}");
            for part in product["subcomponents"].as_array().into_iter().flatten() {
                let id = part["@id"].as_str().unwrap();
                let (part, version) =
                    id.strip_prefix("pkg:cargo/").and_then(|id| id.split_once('@')).unwrap();
                assert_eq!(locked(part).as_deref(), Some(version), "{name}: {part}");
            }
        }
    }
}
