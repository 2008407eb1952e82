//! The files of `deploy/` are what the program and its neighbours take.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use vault_kube_kms::config::{environment, settings, sources::Sources};

/// The most exposure that `systemd-analyze security` may find, in tenths (0 to 100).
const EXPOSURE_MAX: &str = "20";

const UNITS: [&str; 2] = ["vault-kube-kms.service", "vault-kube-kms@.service"];

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// Whether this machine has `systemd-analyze`. A test that cannot run says so, and fails on CI.
fn has_systemd() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !found {
        assert!(env::var_os("CI").is_none(), "systemd-analyze is missing; install systemd");
        eprintln!("SKIPPED: SYSTEMD-ANALYZE IS MISSING; install systemd");
    }
    found
}

/// A root directory with the units and what they start.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in UNITS {
        fs::copy(deploy("systemd").join(unit), units.join(unit)).unwrap();
    }
    for program in ["usr/local/bin/vault-kube-kms", "bin/kill"] {
        let path = root.path().join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_vault-kube-kms"), path).unwrap();
    }
    root
}

#[test]
fn the_environment_file_names_every_flag_with_its_default() {
    let path = deploy("systemd/vault-kube-kms.env");
    let expected = environment::file();
    if env::var_os("DEPLOY_UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shipped, expected, "run DEPLOY_UPDATE=1 cargo test --test deploy");
}

#[test]
fn the_policy_is_what_the_program_prints() {
    let path = deploy("vault/policy.hcl");
    let flags = ["--vault-key-path=transit/keys/kubernetes".to_owned()];
    let expected = settings::policy(&Sources::collect(&flags, [])).unwrap();
    if env::var_os("DEPLOY_UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shipped, expected, "run DEPLOY_UPDATE=1 cargo test --test deploy");
}

#[test]
fn a_policy_needs_only_what_names_the_key() {
    let of = |flags: &[&str]| {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        settings::policy(&Sources::collect(&flags, []))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let wide = of(&["--transit-key=k", "--vault-namespace=admin", "--require-enterprise"]).unwrap();
    for text in ["namespace admin", "path \"transit/encrypt/k\"", "path \"sys/license/status\""] {
        assert!(wide.contains(text), "{wide}");
    }
    assert!(of(&[]).unwrap_err()[0].starts_with("--vault-key-path (not given)"));
    assert_eq!(of(&["--keeper=local"]).unwrap_err().len(), 1);
}

/// Whoever uncomments a line changes nothing by that alone.
#[test]
fn each_line_of_the_environment_file_is_a_variable_of_ours() {
    let file = environment::file();
    let variables = file.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let variables: Vec<_> = variables.filter(|(name, _)| !name.starts_with(' ')).collect();
    assert!(variables.len() > 30, "{variables:?}");
    for (name, value) in variables {
        let value = value.trim_matches('"').to_owned();
        let sources = Sources::collect(&[], [(name.to_owned(), value)]);
        assert!(sources.errors.is_empty(), "{name}: {:?}", sources.errors);
    }
}

#[test]
fn systemd_takes_the_units_without_a_complaint() {
    if !has_systemd() {
        return;
    }
    let root = root();
    for unit in ["vault-kube-kms.service", "vault-kube-kms@one.service"] {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]);
        let verify = verify.arg(format!("--root={}", root.path().display())).arg(unit).output();
        let verify = verify.unwrap();
        let told = String::from_utf8_lossy(&verify.stderr);
        assert!(verify.status.success() && told.is_empty(), "{unit}: {told}");
    }
}

#[test]
fn the_units_expose_little() {
    if !has_systemd() {
        return;
    }
    for unit in UNITS {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]);
        security.arg(format!("--threshold={EXPOSURE_MAX}")).arg(deploy("systemd").join(unit));
        let found = security.output().unwrap();
        assert!(found.status.success(), "{unit}: {}", String::from_utf8_lossy(&found.stdout));
    }
}
