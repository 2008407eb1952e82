//! Runs all test suites. Suites that need fewer tools run first.

use std::{fs, path::Path, process::Command};

use prost::Message as _;

use crate::{
    author,
    control_plane::{self, KUBERNETES},
    debian, deploy, node, package, release,
    run::{Failure, can_run, root, run, say, target},
    spire,
    tools::{self, missing},
};

/// The options of `cargo xtask test`.
pub(crate) struct Choice<'a> {
    /// Whether tests of many minutes run too.
    long: bool,
    /// The release of kube-apiserver.
    kubernetes: &'a str,
}

impl<'a> Choice<'a> {
    /// Reads `--long` and `--kubernetes RELEASE`.
    pub(crate) fn read(flags: &[&'a str]) -> Result<Self, Failure> {
        let mut choice = Self { long: false, kubernetes: KUBERNETES };
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            match *flag {
                "--long" => choice.long = true,
                "--kubernetes" => {
                    choice.kubernetes = flags.next().ok_or("--kubernetes needs a release")?;
                }
                _ => return Err(format!("test has no flag {flag}").into()),
            }
        }
        Ok(choice)
    }

    /// Adds to `suite` the flag that selects tests of many minutes.
    fn lasting<'c>(&self, suite: &'c mut Command) -> &'c mut Command {
        if self.long { suite.env("LONG", "1") } else { suite }
    }
}

/// Runs all suites. Stops at the first failure.
pub(crate) fn all(choice: &Choice<'_>) -> Result<(), Failure> {
    let bao = tools::openbao()?;
    // This comes first, because the suites in Go take the program that was built last.
    pkcs11(choice)?;
    say("Rust: units, contract suite, provider, architecture");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["test", "--locked", "--workspace", "--features", "testkit"]);
    run(&mut cargo)?;
    if !can_run(Command::new("go").arg("version")) {
        return missing("GO", "install Go 1.26 to test with the API server and its own client")
            .map(|_: Option<()>| ());
    }
    api_server(bao.as_deref())?;
    logins(bao.as_deref())?;
    author::test()?;
    field(bao.as_deref())?;
    hostile(bao.as_deref())?;
    pages(bao.as_deref())?;
    deploy::all(bao.as_deref())?;
    node::test(bao.as_deref())?;
    package::test(bao.as_deref())?;
    faults(bao.as_deref(), choice)?;
    e2e(bao.as_deref(), choice)
}

/// Tests the keeper on a PKCS#11 token, which has a feature of its own, over `SoftHSM`.
fn pkcs11(choice: &Choice<'_>) -> Result<(), Failure> {
    let packages = [("softhsm2", "2.6.1-2.1"), ("opensc", "0.23.0-0.3+deb12u2")];
    let Some(()) = debian::packages(&packages)? else { return Ok(()) };
    say("Rust: the keeper on a PKCS#11 token, over SoftHSM");
    for tests in [&["--lib", "pkcs11"][..], &["--test", "pkcs11"]] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["test", "--locked", "--features", "testkit,pkcs11"]);
        run(cargo.args(tests))?;
    }
    if !can_run(Command::new("go").arg("version")) {
        return missing("GO", "install Go 1.26 to call it with the API server's own client")
            .map(|_: Option<()>| ());
    }
    say("Go: the same, with the API server's own client");
    run(&mut suite("token", "5m", None))?;
    let parts = control_plane::build(choice.kubernetes)?;
    say(&format!("Go: the same, in a control plane with kube-apiserver {}", choice.kubernetes));
    let mut go = suite("e2e", "5m", None);
    go.args(["-run", "OnAToken$"]).env("TOKEN", "1");
    run(go.env("KUBERNETES", parts.kubernetes).env("ETCD", parts.etcd))
}

/// Runs the API server's own client code against the binary that the Rust suites were built with.
fn api_server(bao: Option<&Path>) -> Result<(), Failure> {
    let descriptor = target().join("kms_v2.descriptor");
    fs::write(
        &descriptor,
        protox::compile(["kms_v2.proto"], [root().join("proto")])?.encode_to_vec(),
    )?;
    // The suite also runs a program of another author. The Rust suites built only the tests of it.
    run(Command::new(env!("CARGO")).current_dir(root()).args([
        "build",
        "--locked",
        "--quiet",
        "--features",
        "testkit",
        "--example",
        "custom_keeper",
    ]))?;
    say("Go: the API server's own client (the first build takes two minutes)");
    run(suite("api_server", "15m", bao).env("DESCRIPTOR", descriptor))
}

/// Tests each method of logging in against each fault of a login, and prints the healing times.
fn logins(bao: Option<&Path>) -> Result<(), Failure> {
    let spire = spire::built()?;
    say("Go: each method of logging in, and its faults");
    run(suite("logins", "10m", bao).arg("-v").env("SPIRE", spire))
}

/// Reproduces problems that users of Vault, of its clients and of KMS plugins reported. Uses the
/// shipped binary, because a panic aborts it.
fn field(bao: Option<&Path>) -> Result<(), Failure> {
    let shipped = release::binary()?;
    say("Go: what users reported, rebuilt, against the release binary");
    run(suite("field", "10m", bao).env("PROVIDER", shipped))
}

/// Runs floods, slow clients and a scan of the memory against the shipped binary. Prints the cost
/// of each flood.
pub(crate) fn hostile(bao: Option<&Path>) -> Result<(), Failure> {
    let shipped = release::binary()?;
    say("Go: floods, slow clients and what stays in memory, against the release binary");
    run(suite("hostile", "15m", bao).arg("-v").env("PROVIDER", shipped))
}

/// Tests the page `/statusz` in a browser. The pictures go to `target/screens`.
fn pages(bao: Option<&Path>) -> Result<(), Failure> {
    if debian::packages(&[("chromium", "156.0.8078.108-1~deb12u1")])?.is_none() {
        return Ok(());
    }
    say("Go: the status page in Chromium");
    let screens = target().join("screens");
    run(suite("pages", "10m", bao).env("CHROMIUM", "/usr/bin/chromium").env("SCREENS", screens))
}

/// Runs OpenBao on three nodes with faults.
fn faults(bao: Option<&Path>, choice: &Choice<'_>) -> Result<(), Failure> {
    say("Go: faults of an OpenBao of three nodes");
    run(choice.lasting(&mut suite("faults", "30m", bao)))
}

/// Tests the whole path of a Secret through a real API server.
fn e2e(bao: Option<&Path>, choice: &Choice<'_>) -> Result<(), Failure> {
    let parts = control_plane::build(choice.kubernetes)?;
    say(&format!("Go: a control plane with kube-apiserver {}", choice.kubernetes));
    let mut go = suite("e2e", "30m", bao);
    go.env("KUBERNETES", parts.kubernetes).env("ETCD", parts.etcd);
    run(choice.lasting(&mut go))
}

/// Returns the command of a Go suite, which uses the debug binary.
pub(crate) fn suite(name: &str, bound: &str, bao: Option<&Path>) -> Command {
    let mut go = Command::new("go");
    go.current_dir(root().join("tests"))
        .args(["test", "-count=1"])
        .arg(format!("-timeout={bound}"))
        .arg(format!("./{name}"))
        .env("PROVIDER", target().join("debug/vault-kube-kms"));
    if let Some(bao) = bao {
        go.env("BAO", bao);
    }
    go
}
