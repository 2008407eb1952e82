//! Compiles the wire contract without `protoc`, and notes the commit for `--version`.

use std::{error::Error, process::Command};

const PROTO: &str = "proto/kms_v2.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(true)
        .bytes(".v2.DecryptResponse.plaintext")
        .skip_debug(["EncryptRequest", "DecryptResponse"])
        .compile_fds(descriptors)?;
    println!("cargo::rustc-env=VAULT_KUBE_KMS_COMMIT={}", commit());
    Ok(())
}

/// The commit that is being built: from the environment of a build without a repository, or
/// from git.
fn commit() -> String {
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    std::env::var("SOURCE_COMMIT").ok().or_else(git_head).unwrap_or_else(|| "unknown".to_owned())
}

fn git_head() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
