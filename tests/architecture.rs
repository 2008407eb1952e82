//! Dependencies point inward. This reads the imports, and fails on one that points outward.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The parts of this crate, and the other crates, that each part may name. The longest prefix
/// decides.
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

struct Source {
    path: PathBuf,
    /// The part it belongs to, such as `domain` or `adapters::vault`.
    part: String,
    /// The paths of its modules from the crate's root, such as `adapters::vault::client`.
    module: Vec<String>,
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
            let inside = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Vec<_> =
                inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            let part = match module.as_slice() {
                [adapters, adapter, _, ..] if adapters == "adapters" => {
                    format!("adapters::{adapter}")
                }
                [part, _, ..] => part.clone(),
                _ => continue, // The roots of the crates name everything.
            };
            module.retain(|name| name != "mod");
            let text = fs::read_to_string(&path).unwrap();
            sources.push(Source { path, part, module, text });
        }
    }
    assert!(sources.len() > 30, "the sources were not found");
    sources
}

/// The paths that production code names: those of this crate from its root, and other crates.
#[derive(Default)]
struct Named {
    module: Vec<String>,
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
    /// Texts and identifiers, to find forbidden ones.
    words: BTreeSet<String>,
}

impl Named {
    fn by(source: &Source) -> Self {
        let mut named = Self { module: source.module.clone(), ..Self::default() };
        named.visit_file(&syn::parse_file(&source.text).unwrap());
        named
    }

    fn note(&mut self, path: &[String]) {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let (mut full, rest) = match path.first().map(String::as_str) {
            Some("crate") => (Vec::new(), &path[1..]),
            Some("self") => (self.module.clone(), &path[1..]),
            Some("super") => (self.module[..self.module.len() - ups].to_vec(), &path[ups..]),
            Some(first) if path.len() > 1 => {
                self.others.insert(first.to_owned());
                return;
            }
            _ => return,
        };
        full.extend(rest.iter().cloned());
        self.ours.insert(full.join("::"));
    }

    fn note_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.note_tree(prefix, tree));
            }
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(prefix),
        }
    }

    /// Records the paths within the arguments of a macro, which the parser does not read.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons < 2 {
                        self.note(&std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.note(&std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.note_tokens(group.stream()),
                        TokenTree::Literal(text) => drop(self.words.insert(text.to_string())),
                        _ => (),
                    }
                }
            }
        }
        self.note(&path);
    }
}

/// Returns whether an item is only for tests.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            _ => String::new(),
        };
        tokens.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
    })
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(&path.segments.iter().map(|part| part.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.note_tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.words.insert(format!("{:?}", text.value()));
    }

    fn visit_ident(&mut self, ident: &'ast syn::Ident) {
        self.words.insert(ident.to_string());
    }
}

/// Returns the crates of both manifests, as code names them.
fn dependencies() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifests = ["Cargo.toml", "kms-keeper/Cargo.toml"];
    let texts =
        manifests.map(|manifest| fs::read_to_string(root.join(manifest)).unwrap()).join("\n");
    let sections = texts.split("\n[").filter(|section| {
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
    for source in sources() {
        let (path, part) = (source.path.display(), &source.part);
        let layer = part.split("::").next().unwrap();
        let Some((_, parts, crates)) = RULES.iter().find(|(name, ..)| *name == layer) else {
            panic!("{path} belongs to no part of the list");
        };
        let allowed = |named: &str| {
            parts.iter().any(|allowed| {
                let allowed = allowed.replace("adapters::SELF", part);
                named == allowed || named.starts_with(&format!("{allowed}::"))
            })
        };
        let named = Named::by(&source);
        for named in named.ours.iter().filter(|named| !allowed(named)) {
            outward.push(format!("{path}: {part} names crate::{named}"));
        }
        if let Crates::Only(allowed) = crates {
            for outer in named.others.intersection(&known) {
                if !allowed.contains(&outer.as_str()) {
                    outward.push(format!("{path}: {part} names the crate {outer}"));
                }
            }
        }
    }
    assert!(outward.is_empty(), "these dependencies point outward:\n{}", outward.join("\n"));
}

#[test]
fn the_domain_reads_no_clock_and_no_file() {
    for source in sources().iter().filter(|source| ["domain", "ports"].contains(&&*source.part)) {
        let named = Named::by(source).words;
        for forbidden in ["fs", "net", "env", "thread", "io", "Instant", "SystemTime"] {
            assert!(!named.contains(forbidden), "{}: {forbidden}", source.path.display());
        }
    }
}

/// Only the registry chooses a keeper, so that a new keeper needs a change in one place.
#[test]
fn no_keeper_is_named_outside_its_folder_and_the_registry() {
    let mut elsewhere = Vec::new();
    for source in sources() {
        let path = source.path.to_str().unwrap();
        if NAMED_ON_PURPOSE.iter().any(|(file, _)| path.ends_with(file)) {
            continue;
        }
        let named = Named::by(&source);
        for keeper in KEEPERS {
            let folders = [format!("adapters::{keeper}"), format!("config::keepers::{keeper}")];
            let is_of = |path: &str, folder: &String| {
                path == folder || path.starts_with(&format!("{folder}::"))
            };
            let own = source.module.join("::");
            if folders.iter().any(|folder| is_of(&own, folder)) {
                continue;
            }
            let paths = named.ours.iter().filter(|path| folders.iter().any(|f| is_of(path, f)));
            let words = named.words.iter().filter(|word| **word == format!("\"{keeper}\""));
            elsewhere.extend(paths.chain(words).map(|name| format!("{path}: {name}")));
        }
    }
    assert!(elsewhere.is_empty(), "other files name keepers:\n{}", elsewhere.join("\n"));
}

const KEEPERS: &[&str] = &["vault", "local", "pkcs11"];

/// Files that name one keeper, each with the reason.
const NAMED_ON_PURPOSE: &[(&str, &str)] = &[
    ("src/config/keepers/mod.rs", "the registry"),
    ("src/cli/version.rs", "the adapter's TLS library says whether it is the validated one"),
];

#[test]
fn the_reader_finds_outward_paths_in_all_their_forms() {
    let text = "
        use super::super::vault; use crate::{domain::{a::A, b}, adapters::c};
        #[cfg(test)] mod tests { use crate::for_tests; }
        fn after() { crate::cli::run(\"http://x\"); tokio::spawn(x); info!(\"{}\", crate::config::D); }
        mod inner { use super::super::e; }";
    let module = ["adapters", "grpc", "socket"].map(str::to_owned).to_vec();
    let path = PathBuf::new();
    let source = Source { path, part: String::new(), module, text: text.to_owned() };
    let named = Named::by(&source);
    let expected = [
        "adapters::c",
        "adapters::grpc::e",
        "adapters::vault",
        "cli::run",
        "config::D",
        "domain::a::A",
        "domain::b",
    ];
    assert_eq!(named.ours.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert!(named.others.contains("tokio"));
}
