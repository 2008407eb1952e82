//! Dependencies point inward. This reads the imports, and fails on one that points outward.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The sources of one crate, with the rules that they obey.
struct Tree {
    folder: &'static str,
    /// The fewest files that must be found.
    files_min: usize,
    rules: &'static [Rule],
}

/// A part, the parts that it may name, and the other crates that it may name. The longest prefix
/// decides. `vault_kube_kms` is the provider's crate, as the second program names it.
type Rule = (&'static str, &'static [&'static str], Crates);

const PROVIDER: Tree = Tree {
    folder: "src",
    files_min: 30,
    rules: &[
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
            &[
                "domain",
                "ports",
                "adapters::SELF",
                "adapters::atomic_file",
                "adapters::connections",
                "adapters::rfc3339",
                "adapters::system::bounded_file",
                "adapters::system::file_thread",
            ],
            Crates::Any,
        ),
        ("config", &["domain", "ports", "adapters", "config"], Crates::Any),
        ("cli", &["domain", "ports", "adapters", "config", "cli"], Crates::Any),
    ],
};

/// The second program, `vault-kube-kmsctl`.
const CTL: Tree = Tree {
    folder: "kmsctl/src",
    files_min: 5,
    rules: &[
        (
            "domain",
            &["domain", "vault_kube_kms::domain"],
            Crates::Only(&[
                "aws_lc_rs",
                "base64",
                "bytes",
                "maud",
                "prost",
                "serde",
                "serde_json",
                "sha2",
                "thiserror",
                "zeroize",
            ]),
        ),
        (
            "ports",
            &["domain", "ports", "vault_kube_kms::domain", "vault_kube_kms::ports"],
            Crates::Only(&["async_trait", "bytes"]),
        ),
        (
            "installation",
            &["domain", "installation", "vault_kube_kms::config", "vault_kube_kms::domain"],
            Crates::Only(&["k8s_openapi", "serde", "serde_json", "serde_saphyr"]),
        ),
        (
            "adapters",
            &["domain", "installation", "ports", "adapters::SELF", "vault_kube_kms"],
            Crates::Any,
        ),
        (
            "cli",
            &["domain", "installation", "ports", "adapters", "cli", "vault_kube_kms"],
            Crates::Any,
        ),
    ],
};

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

fn sources(tree: &Tree) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(tree.folder);
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let tests = ["_tests.rs", "/tests.rs", "_model.rs"];
            let is_rust = path.extension().is_some_and(|end| end == "rs");
            if !is_rust || tests.iter().any(|end| path.to_str().unwrap().ends_with(end)) {
                continue;
            }
            let inside = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Vec<_> =
                inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            let part = match module.as_slice() {
                [adapters, adapter, ..] if adapters == "adapters" && adapter != "mod" => {
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
    assert!(sources.len() >= tree.files_min, "the sources were not found in {}", tree.folder);
    sources
}

/// The paths that production code names: those of its crate from the root, those of the provider
/// from `vault_kube_kms`, and other crates.
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
            Some("vault_kube_kms") => (Vec::new(), path),
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

/// Returns the crates of all manifests, as code names them.
fn dependencies() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifests = ["Cargo.toml", "kms-keeper/Cargo.toml", "kmsctl/Cargo.toml"];
    let texts =
        manifests.map(|manifest| fs::read_to_string(root.join(manifest)).unwrap()).join("\n");
    let sections = texts.split("\n[").filter(|section| {
        section.split(']').next().is_some_and(|title| title.ends_with("dependencies"))
    });
    let names = sections.flat_map(str::lines).filter_map(|line| line.split_once(" = "));
    let names = names.map(|(name, _)| name);
    names.map(|name| name.replace('-', "_")).collect()
}

/// Returns a line for each path of `source` that its rule does not allow.
fn outward(source: &Source, rules: &[Rule], known: &BTreeSet<String>) -> Vec<String> {
    let (path, part) = (source.path.display(), &source.part);
    let layer = part.split("::").next().unwrap();
    let Some((_, parts, crates)) = rules.iter().find(|(name, ..)| *name == layer) else {
        panic!("{path} belongs to no part of the list");
    };
    let allowed = |named: &str| {
        parts.iter().any(|allowed| {
            let allowed = allowed.replace("adapters::SELF", part);
            named == allowed || named.starts_with(&format!("{allowed}::"))
        })
    };
    let named = Named::by(source);
    let ours = named.ours.iter().filter(|named| !allowed(named));
    let mut outward: Vec<_> = ours.map(|named| format!("{path}: {part} names {named}")).collect();
    if let Crates::Only(allowed) = crates {
        let others = named.others.intersection(known);
        let others = others.filter(|outer| !allowed.contains(&outer.as_str()));
        outward.extend(others.map(|outer| format!("{path}: {part} names the crate {outer}")));
    }
    outward
}

#[test]
fn dependencies_point_inward() {
    let known = dependencies();
    assert!(["tokio", "tonic", "kube"].iter().all(|name| known.contains(*name)));
    let of = |tree: &Tree| -> Vec<_> {
        sources(tree).iter().flat_map(|source| outward(source, tree.rules, &known)).collect()
    };
    let outward = [of(&PROVIDER), of(&CTL)].concat();
    assert!(outward.is_empty(), "these dependencies point outward:\n{}", outward.join("\n"));
}

/// One invented file for each rule of the second program, which breaks it.
#[test]
fn each_rule_of_the_second_program_finds_what_breaks_it() {
    let known = dependencies();
    for (file, text, found) in [
        ("domain", "use crate::ports::objects::Object;", "ports::objects::Object"),
        ("domain", "use crate::adapters::etcd::Etcd;", "adapters::etcd::Etcd"),
        ("domain", "use vault_kube_kms::adapters::grpc;", "vault_kube_kms::adapters::grpc"),
        ("domain", "fn f() { kube::Client::try_default(); }", "the crate kube"),
        ("ports", "use crate::cli::run;", "cli::run"),
        ("ports", "use tokio::fs;", "the crate tokio"),
        ("adapters::etcd", "use super::snapshot::Pages;", "adapters::snapshot::Pages"),
        ("adapters::etcd", "use crate::cli::outcome;", "cli::outcome"),
    ] {
        let module = file.split("::").chain(["file"]).map(str::to_owned).collect::<Vec<_>>();
        let module = if file == "adapters::etcd" { module[..2].to_vec() } else { module };
        let (path, part, text) = (PathBuf::new(), file.to_owned(), text.to_owned());
        let outward = outward(&Source { path, part, module, text }, CTL.rules, &known);
        assert!(matches!(&*outward, [line] if line.ends_with(found)), "{file}: {outward:?}");
    }
}

#[test]
fn the_domain_reads_no_clock_and_no_file() {
    let all = [PROVIDER, CTL].into_iter().flat_map(|tree| sources(&tree));
    for source in all.filter(|source| ["domain", "ports"].contains(&&*source.part)) {
        let named = Named::by(&source).words;
        for forbidden in ["fs", "net", "env", "thread", "io", "Instant", "SystemTime"] {
            assert!(!named.contains(forbidden), "{}: {forbidden}", source.path.display());
        }
    }
}

/// Only the registry chooses a keeper, so that a new keeper needs a change in one place.
#[test]
fn no_keeper_is_named_outside_its_folder_and_the_registry() {
    let mut elsewhere = Vec::new();
    for source in sources(&PROVIDER) {
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

/// How a request reaches a server of Vault does not depend on the choice of the server, nor on the
/// purpose of the request.
#[test]
fn the_servers_of_vault_name_nothing_that_uses_them() {
    let vault = "adapters::vault";
    let of = |source: &Source| source.module.join("::").starts_with(&format!("{vault}::servers"));
    let servers: Vec<_> = sources(&PROVIDER).into_iter().filter(of).collect();
    assert!(servers.len() > 5, "the sources were not found");
    for source in &servers {
        let named = Named::by(source).ours;
        for user in
            ["capabilities", "check", "client", "keeper", "login", "session", "settings", "transit"]
        {
            let user = format!("{vault}::{user}");
            let found =
                named.iter().find(|path| **path == user || path.starts_with(&format!("{user}::")));
            assert_eq!(found, None, "{}", source.path.display());
        }
    }
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
