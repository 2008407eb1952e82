//! Dependencies point inward. This reads the imports, and fails on one that points outward.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each part may name: parts of this crate, and other crates. Longest prefix wins.
const RULES: &[(&str, &[&str], Crates)] = &[
    (
        "domain",
        &["domain", "ports"],
        Crates::Only(&["async_trait", "base64", "futures_util", "sha2", "subtle", "zeroize"]),
    ),
    ("ports", &["domain", "ports"], Crates::Only(&["async_trait", "futures_util"])),
    (
        "testkit",
        &["domain", "ports", "testkit", "kek_rules"],
        Crates::Only(&["async_trait", "tokio"]),
    ),
    (
        "adapters",
        &["domain", "ports", "adapters::SELF", "adapters::connections", "adapters::rfc3339"],
        Crates::Any,
    ),
    ("config", &["domain", "ports", "adapters", "config"], Crates::Any),
    ("cli", &["domain", "ports", "adapters", "config", "cli"], Crates::Any),
];

enum Crates {
    Any,
    Only(&'static [&'static str]),
}

/// Crates that the domain and the ports may only see in tests.
const TEST_ONLY: &[&str] = &["mockall", "proptest"];

struct Source {
    path: PathBuf,
    /// The part it belongs to, such as `domain` or `adapters::vault`.
    part: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if ["_tests.rs", "_model.rs"].iter().any(|end| path.to_str().unwrap().ends_with(end)) {
                continue;
            }
            let inside: Vec<_> =
                path.strip_prefix(&root).unwrap().iter().map(|p| p.to_str().unwrap()).collect();
            let part = match inside.as_slice() {
                ["adapters", adapter, _, ..] => format!("adapters::{adapter}"),
                [part, _, ..] => (*part).to_owned(),
                _ => continue, // lib.rs and main.rs name everything
            };
            let text = fs::read_to_string(&path).unwrap();
            sources.push(Source { path, part, text });
        }
    }
    assert!(sources.len() > 30, "the sources were not found");
    sources
}

/// The code of a file without comments, strings' content left in, and without what is for tests.
fn production_code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]").next().unwrap();
    code.lines()
        .map(|line| line.split("//").next().unwrap())
        .filter(|line| !line.contains("cfg_attr(test"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every path that begins at the crate's root, with groups spread out: `crate::{a::b, c}` gives
/// `a::b` and `c`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        spread("", rest, &mut paths);
    }
    paths
}

fn spread(prefix: &str, rest: &str, paths: &mut BTreeSet<String>) {
    let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    let full = format!("{prefix}{head}");
    let Some(group) = tail.strip_prefix('{') else {
        paths.insert(full);
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = group[start..index].trim();
                if !item.is_empty() {
                    spread(&full, item, paths);
                }
                start = index + 1;
                if c == '}' {
                    return;
                }
            }
            _ => (),
        }
    }
}

/// The other crates that `use` lines and paths with two segments name.
fn outer_crates(code: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices("::")
        .filter_map(|(at, _)| {
            let start = code[..at].rfind(|c| !word(c)).map_or(0, |before| before + 1);
            let inner = code[..start].ends_with("::");
            (!inner).then(|| code[start..at].to_owned())
        })
        .filter(|name| known.contains(name))
        .collect()
}

/// The crates of Cargo.toml, as code names them.
fn dependencies() -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let sections = text.split("\n[").filter(|section| {
        section.split(']').next().is_some_and(|title| title.ends_with("dependencies"))
    });
    let names = sections.flat_map(str::lines).filter_map(|line| line.split_once(" = "));
    let names = names.map(|(name, _)| name);
    names.map(|name| name.replace('-', "_")).collect()
}

#[test]
fn dependencies_point_inward() {
    let known = dependencies();
    assert!(known.contains("tokio") && known.contains("tonic"));
    let mut outward = Vec::new();
    for Source { path, part, text } in sources() {
        let layer = part.split("::").next().unwrap();
        let (_, parts, crates) =
            RULES.iter().find(|(name, ..)| *name == layer).unwrap_or_else(|| {
                panic!("{} is in no known part of the house", path.display());
            });
        let code = production_code(&text);
        let allowed = |named: &str| {
            parts.iter().any(|allowed| {
                let allowed = allowed.replace("adapters::SELF", &part);
                named == allowed || named.starts_with(&format!("{allowed}::"))
            })
        };
        for named in crate_paths(&code).iter().filter(|named| !allowed(named)) {
            outward.push(format!("{}: {part} names crate::{named}", path.display()));
        }
        if let Crates::Only(allowed) = crates {
            for outer in outer_crates(&code, &known) {
                if !allowed.contains(&outer.as_str()) && !TEST_ONLY.contains(&outer.as_str()) {
                    outward.push(format!("{}: {part} names the crate {outer}", path.display()));
                }
            }
        }
    }
    assert!(outward.is_empty(), "dependencies that point outward:\n{}", outward.join("\n"));
}

#[test]
fn the_domain_reads_no_clock_and_no_file() {
    for Source { path, part, text } in sources() {
        if part != "domain" && part != "ports" {
            continue;
        }
        let code = production_code(&text);
        for forbidden in
            ["std::fs", "std::net", "std::env", "std::thread", "std::io", "Instant", "SystemTime"]
        {
            assert!(!code.contains(forbidden), "{}: {forbidden}", path.display());
        }
    }
}

#[test]
fn the_reader_of_imports_finds_outward_ones() {
    let code = "use crate::{domain::{a::A, b}, adapters::vault};\nfn f() { crate::cli::run(); tokio::spawn(x) }";
    let paths = crate_paths(code);
    let expected = ["adapters::vault", "cli::run", "domain::a::A", "domain::b"];
    assert_eq!(paths.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    let known = BTreeSet::from(["tokio".to_owned()]);
    assert_eq!(outer_crates(code, &known).len(), 1);
    assert_eq!(production_code("a\n#[cfg(test)]\nmod tests { use tokio; }"), "a");
}

/// Nothing but the registry chooses a keeper, so that a keeper is added in one place.
#[test]
fn no_keeper_is_named_outside_its_folder_and_the_registry() {
    let mut named = Vec::new();
    for Source { path, part, text } in sources() {
        let path = path.display().to_string();
        let keeper = KEEPERS.iter().find(|keeper| {
            path.contains(&format!("adapters/{keeper}/"))
                || path.contains(&format!("config/keepers/{keeper}"))
        });
        if part == "testkit" || path.ends_with("config/keepers/mod.rs") {
            continue;
        }
        for other in KEEPERS.iter().filter(|name| Some(*name) != keeper) {
            // A path of modules, or the name as a value.
            let forms =
                [format!("adapters::{other}"), format!("keepers::{other}"), format!("\"{other}\"")];
            let code = production_code(&text);
            let lines = code.lines().filter(|line| forms.iter().any(|form| line.contains(form)));
            named.extend(lines.map(|line| format!("{path}: {}", line.trim())));
        }
    }
    named.retain(|line| !NAMED_ON_PURPOSE.iter().any(|(file, _)| line.contains(file)));
    assert!(named.is_empty(), "keepers named elsewhere:\n{}", named.join("\n"));
}

const KEEPERS: &[&str] = &["vault", "local", "pkcs11"];

/// Files that name one keeper, each with why.
const NAMED_ON_PURPOSE: &[(&str, &str)] = &[
    ("src/cli/dev.rs", "`dev` is the embedded keeper with a directory of its own"),
    ("src/cli/command.rs", "`dev` exists where that keeper does"),
    ("src/config/commands.rs", "the same"),
    ("src/cli/version.rs", "the adapter's TLS library says whether it is the validated one"),
];
