//! Compiles the wire contracts without `protoc`, and notes the commit for `--version`.

use std::{error::Error, path::Path, process::Command};

const PROTOS: [&str; 2] = ["proto/kms_v2.proto", "proto/spiffe_workload.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(true)
        .bytes(".v2.DecryptResponse.plaintext")
        .skip_debug([
            "EncryptRequest",
            "DecryptResponse",
            "X509SVID",
            "X509SVIDResponse",
            "JWTSVID",
            "JWTSVIDResponse",
        ])
        .compile_fds(descriptors)?;
    println!("cargo::rustc-env=VAULT_KUBE_KMS_COMMIT={}", commit());
    Ok(())
}

/// The commit that is being built: from the environment of a build without a repository, or
/// from git.
fn commit() -> String {
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    // A path that does not exist makes each build a new one. In a worktree `.git` is a file.
    for part in ["HEAD", "refs/heads"] {
        let path = git(&["rev-parse", "--git-path", part]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = std::env::var("SOURCE_COMMIT").ok();
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    commit.unwrap_or_else(|| "unknown".to_owned())
}

/// What git prints, where there is git and a repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
