//! Hostile variables and files end in settings or in errors of one line, each with the name of
//! what is wrong.
#![no_main]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use vault_kube_kms::config::{
    catalogue::Catalogue,
    settings::{self, Settings},
    sources::Sources,
};

/// A directory of this process for the file that is read.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory for the file");
    directory.keep().join("config.toml")
});

/// What vault-kube-kms can be told, made once.
static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(Catalogue::built_in()));

fuzz_target!(|input: (Vec<(u8, String)>, Vec<(u8, String)>, String)| {
    let (flags, variables, file) = input;
    let given: usize = flags.iter().chain(&variables).map(|(_, value)| value.len()).sum();
    let mut args: Vec<_> = flags.into_iter().map(|(which, value)| flag(which, value)).collect();
    let content = file.trim().to_owned();
    if !file.is_empty() {
        fs::write(&*FILE, file).expect("a file to read");
        args.push(format!("--config={}", FILE.display()));
    }
    let variables = variables.into_iter().map(|(which, value)| {
        (format!("VAULT_KUBE_KMS_{}", name(which).to_uppercase().replace('-', "_")), value)
    });
    let sources = Sources::of(&CATALOGUE, &args, variables);
    let mut errors = sources.errors.clone();
    errors.extend(Settings::read(&sources).err().into_iter().flatten());
    for command in CATALOGUE.keeper_commands() {
        errors.extend(settings::work(&sources, command).err().into_iter().flatten());
    }
    for error in errors {
        let text = error.to_string();
        assert!(text.starts_with("--") && text.chars().count() < 700, "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
        // Longer than any word of the error's own, and than what it repeats of flags and variables.
        let repeats = content.len() >= 100 && given < 16 && text.contains(&content);
        assert!(!repeats, "{text}");
    }
});

fn name(which: u8) -> &'static str {
    let count = CATALOGUE.all().count();
    let named = CATALOGUE.all().nth(usize::from(which) % count).map_or("", |flag| flag.name);
    // No file but ours: a path of chance may be a terminal or a pipe.
    if named == "config" { "listen-address" } else { named }
}

/// A flag of ours with a value, or anything.
fn flag(which: u8, value: String) -> String {
    let foreign = which == u8::MAX && !value.trim_start_matches('-').starts_with("config");
    if foreign { value } else { format!("--{}={value}", name(which)) }
}
