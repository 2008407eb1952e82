//! Every test there is, in the order of what they need.

use std::{fs, path::Path, process::Command};

use prost::Message as _;

use crate::{
    run::{Failure, can_run, root, run, say, target},
    tools::{self, missing},
};

/// Runs all suites; the first that fails ends it.
pub(crate) fn all() -> Result<(), Failure> {
    let bao = tools::openbao()?;
    say("Rust: units, contract suite, provider, architecture");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["test", "--locked", "--workspace", "--all-features"]);
    run(&mut cargo)?;
    api_server(bao.as_deref())
}

/// The API server's own client code, against the binary that the Rust suites were built with.
fn api_server(bao: Option<&Path>) -> Result<(), Failure> {
    if !can_run("go", &["version"]) {
        return missing("GO", "install Go 1.26 to test with the API server's own client")
            .map(|_: Option<()>| ());
    }
    let descriptor = target().join("kms_v2.descriptor");
    fs::write(
        &descriptor,
        protox::compile(["kms_v2.proto"], [root().join("proto")])?.encode_to_vec(),
    )?;
    say("Go: the API server's own client (the first build takes two minutes)");
    let mut go = Command::new("go");
    go.current_dir(root().join("tests"))
        .args(["test", "-count=1", "-timeout=15m", "./api_server"])
        .env("PROVIDER", target().join("debug/vault-kube-kms"))
        .env("DESCRIPTOR", descriptor);
    if let Some(bao) = bao {
        go.env("BAO", bao);
    }
    run(&mut go)
}
