//! Runs all test suites. Suites that need fewer tools run first.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message as _;

use crate::{
    author,
    control_plane::{self, KUBERNETES},
    debian, deploy, node, package, release,
    run::{Failure, can_run, root, run, say, target},
    spire,
    tools::{self, missing},
    vault::{RELEASES, Server},
};

/// The options of `cargo xtask test`.
pub(crate) struct Choice<'a> {
    /// Whether tests of many minutes run too.
    long: bool,
    /// The release of kube-apiserver.
    kubernetes: &'a str,
    /// The only server to test on. `None` runs every suite.
    keeper: Option<Server>,
}

impl<'a> Choice<'a> {
    /// Reads `--long`, `--kubernetes RELEASE` and `--keeper SERVER`.
    pub(crate) fn read(flags: &[&'a str]) -> Result<Self, Failure> {
        let mut choice = Self { long: false, kubernetes: KUBERNETES, keeper: None };
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            match *flag {
                "--long" => choice.long = true,
                "--kubernetes" => {
                    choice.kubernetes = flags.next().ok_or("--kubernetes needs a release")?;
                }
                "--keeper" => {
                    let keeper = flags.next().ok_or("--keeper needs a server")?;
                    choice.keeper = Some(Server::parse(keeper)?);
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
    if let Some(server) = choice.keeper {
        return on_server(server, bao.as_deref(), Extent::Whole);
    }
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
    if choice.long {
        for release in RELEASES {
            on_server(Server::Vault(release), bao.as_deref(), Extent::Whole)?;
        }
    } else {
        on_server(Server::Vault(RELEASES[0]), bao.as_deref(), Extent::Short)?;
    }
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

/// How much of the suites runs on another server than `OpenBao`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// The contract suite, and the tests where servers differ.
    Short,
    /// Also the suite of the API server's client, and faults of a cluster.
    Whole,
}

/// The tests of the contract suite that talk to a real server.
const OF_A_SERVER: [&str; 4] = ["answers::", "differences::", "settings::", "openbao::"];

/// The tests of the API server's client where servers may differ: logins, tokens, policies, batches,
/// rotations, and what `check` says.
const SHORT: &str = "TestServer|TestChecklist(16|41|42|53|57)|TestAWrappedSecretIDIs|TestASecretID|TestCheckOfAGood|TestCheckNames|TestSetup";

/// The faults of a tenant and of the nodes.
const FAULTS: &str = "Token|Role|SecretID|Policy|RateLimit|Mount|TestNodes";

/// Runs the suites that talk to a server on `server`.
fn on_server(server: Server, bao: Option<&Path>, extent: Extent) -> Result<(), Failure> {
    let program = server.program()?;
    let binds = server.enforces_associated_data();
    let run_on_it = |suite: &mut Command| {
        if let Some(program) = &program {
            suite.env("KEEPER_SERVER", program);
        }
        run(suite)
    };
    say(&format!("Rust: the contract suite on {server}"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root());
    cargo.args(["test", "--locked", "--features", "testkit", "--test", "contract", "--"]);
    run_on_it(cargo.args(if binds { &OF_A_SERVER[..] } else { &OF_A_SERVER[..3] }))?;
    if !binds {
        // The program does not write on such a server, so no other suite applies.
        return Ok(());
    }
    say(&format!("Go: the API server's own client on {server}"));
    let mut go = api_server_suite(bao)?;
    if extent == Extent::Short {
        run_on_it(go.args(["-run", SHORT]))?;
        say(&format!("Go: methods of logging in on {server}"));
        return run_on_it(
            logins_suite(bao)?.args(["-run", "TestTokenIsRevoked|TestRefusedCredential"]),
        );
    }
    run_on_it(&mut go)?;
    say(&format!("Go: each method of logging in on {server}"));
    run_on_it(&mut logins_suite(bao)?)?;
    say(&format!("Go: faults of three nodes of {server}"));
    run_on_it(suite("faults", "30m", bao).args(["-run", FAULTS]))
}

/// Runs the API server's own client code against the binary that the Rust suites were built with.
fn api_server(bao: Option<&Path>) -> Result<(), Failure> {
    say("Go: the API server's own client (the first build takes two minutes)");
    run(&mut api_server_suite(bao)?)
}

/// Returns the command of the suite of the API server's client.
fn api_server_suite(bao: Option<&Path>) -> Result<Command, Failure> {
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
    let mut go = suite("api_server", "15m", bao);
    go.env("DESCRIPTOR", descriptor()?);
    Ok(go)
}

/// Writes the descriptor of KMS v2, and returns its path.
fn descriptor() -> Result<PathBuf, Failure> {
    let descriptor = target().join("kms_v2.descriptor");
    let compiled = protox::compile(["kms_v2.proto"], [root().join("proto")])?;
    fs::write(&descriptor, compiled.encode_to_vec())?;
    Ok(descriptor)
}

/// Tests each method of logging in against each fault of a login, and prints the healing times.
fn logins(bao: Option<&Path>) -> Result<(), Failure> {
    say("Go: each method of logging in, and its faults");
    run(logins_suite(bao)?.arg("-v"))
}

/// Returns the command of the suite of the logins.
fn logins_suite(bao: Option<&Path>) -> Result<Command, Failure> {
    let mut go = suite("logins", "10m", bao);
    go.env("SPIRE", spire::built()?);
    Ok(go)
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

/// Tests the page `/statusz` in a browser.
fn pages(bao: Option<&Path>) -> Result<(), Failure> {
    let mut go = suite("pages", "10m", bao);
    if !with_browser(&mut go)? {
        return Ok(());
    }
    say("Go: the status page in Chromium");
    run(&mut go)
}

/// Adds Chromium to `suite`, and the folder of its pictures: `target/screens`. Returns whether this
/// machine can have Chromium.
fn with_browser(suite: &mut Command) -> Result<bool, Failure> {
    let chromium = debian::packages(&[("chromium", "156.0.8078.108-1~deb12u1")])?;
    if chromium.is_some() {
        let screens = target().join("screens");
        suite.env("CHROMIUM", "/usr/bin/chromium").env("SCREENS", screens);
    }
    Ok(chromium.is_some())
}

/// Runs OpenBao on three nodes with faults.
fn faults(bao: Option<&Path>, choice: &Choice<'_>) -> Result<(), Failure> {
    say("Go: faults of an OpenBao of three nodes");
    run(choice.lasting(&mut suite("faults", "30m", bao)))
}

/// Tests the whole path of a Secret through a real API server. A key also moves between HashiCorp
/// Vault and `OpenBao`.
fn e2e(bao: Option<&Path>, choice: &Choice<'_>) -> Result<(), Failure> {
    let parts = control_plane::build(choice.kubernetes)?;
    let vault = Server::Vault(RELEASES[0]).program()?;
    say(&format!("Go: a control plane with kube-apiserver {}", choice.kubernetes));
    // The suites before this one need only the provider.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--locked", "--quiet", "--workspace", "--bins"]);
    run(cargo.args(["--features", "testkit"]))?;
    let kmsctl = target().join("debug/vault-kube-kmsctl");
    run(suite("conformance", "5m", bao).env("KMSCTL", &kmsctl))?;
    let mut go = suite("e2e", "30m", bao);
    go.env("KMSCTL", kmsctl);
    if let Some(vault) = vault {
        go.env("VAULT", vault);
    }
    go.env("KUBERNETES", parts.kubernetes).env("ETCD", parts.etcd);
    with_browser(&mut go)?;
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
