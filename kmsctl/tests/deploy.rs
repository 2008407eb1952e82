//! Compares the files of the second program in `deploy/package/kmsctl` with its command line.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap_complete::{Shell, generate};
use clap_mangen::Man;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Adds the manual page of a command, and of each command below it. A page names the version and no
/// commit, so that it changes only with the command line.
fn add_pages(command: &clap::Command, pages: &mut BTreeMap<String, String>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let version = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.clone().long_version(None))
        .title(name.to_uppercase())
        .date("$Mdocdate$")
        .section("8")
        .source(version)
        .manual("vault-kube-kms");
    let mut text = Vec::new();
    page.render_title(&mut text).unwrap();
    page.render_name_section(&mut text).unwrap();
    page.render_synopsis_section(&mut text).unwrap();
    page.render_description_section(&mut text).unwrap();
    if command.get_arguments().next().is_some() {
        page.render_options_section(&mut text).unwrap();
    }
    let shown = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    if command.get_subcommands().any(|command| shown(&command)) {
        page.render_subcommands_section(&mut text).unwrap();
    }
    // A blank line is a paragraph already, and mandoc warns of a break beside it.
    let text = String::from_utf8(text).unwrap().replace("\n.br\n\n.br\n", "\n\n");
    pages.insert(format!("{name}.8"), text);
    command.get_subcommands().filter(shown).for_each(|below| add_pages(below, pages));
}

/// Returns the names and the texts of the manual pages and of the completions.
fn generated() -> BTreeMap<String, String> {
    let mut command = vault_kube_kmsctl::cli::description();
    command.build();
    let mut files = BTreeMap::new();
    add_pages(&command, &mut files);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let mut text = Vec::new();
        generate(shell, &mut command, "vault-kube-kmsctl", &mut text);
        files.insert(format!("completion.{shell}"), String::from_utf8(text).unwrap());
    }
    files
}

#[test]
fn the_manual_pages_and_the_completions_are_those_of_the_command_line() {
    let folder = root().join("deploy/package/kmsctl");
    let expected = generated();
    let is_generated = |name: &str| name.ends_with(".8") || name.starts_with("completion.");
    let present = || -> BTreeMap<String, String> {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap()).filter(|name| is_generated(name));
        names.map(|name| (name.clone(), fs::read_to_string(folder.join(name)).unwrap())).collect()
    };
    if env::var_os("DEPLOY_UPDATE").is_some() {
        for gone in present().into_keys().filter(|name| !expected.contains_key(name)) {
            fs::remove_file(folder.join(gone)).unwrap();
        }
        for (name, text) in &expected {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    assert_eq!(present(), expected, "run DEPLOY_UPDATE=1 cargo test -p vault-kube-kmsctl");
}

/// Returns the version in a manifest.
fn version_of(manifest: &str) -> String {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let version = text.lines().find_map(|line| line.strip_prefix("version = \"")).unwrap();
    version.trim_end_matches('"').to_owned()
}

#[test]
fn both_programs_have_one_version_and_name_one_commit() {
    assert_eq!(version_of("kmsctl/Cargo.toml"), version_of("Cargo.toml"));
    let said = Command::new(env!("CARGO_BIN_EXE_vault-kube-kmsctl")).arg("--version").output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    let build = vault_kube_kms::cli::program::BUILD;
    assert!(build.starts_with(&format!("{} (commit ", env!("CARGO_PKG_VERSION"))), "{build}");
    assert_eq!(said, format!("vault-kube-kmsctl {build}\n"));
}
