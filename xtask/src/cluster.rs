//! Starts a control plane to try: OpenBao, etcd, the plugin and kube-apiserver on loopback.

use std::{path::PathBuf, process::Command};

use crate::{
    control_plane::{self, KUBERNETES},
    run::{Failure, can_run, root, run, say, target},
    tools,
};

/// Runs `up`, `down` or `status`. `tests/cluster/ctl` reads the flags, except `--kubernetes`.
pub(crate) fn ctl(action: &str, flags: &[&str]) -> Result<(), Failure> {
    if !can_run(Command::new("go").arg("version")) {
        return Err("GO IS MISSING; install Go 1.26 for a cluster".into());
    }
    let program = target().join("tools/cluster");
    let mut go = Command::new("go");
    go.current_dir(root().join("tests")).args(["build", "-o"]).arg(&program).arg("./cluster/ctl");
    run(&mut go)?;
    let mut ctl = Command::new(program);
    ctl.arg(action).arg(format!("--dir={}", target().join("cluster").display()));
    if action == "up" {
        let (kubernetes, flags) = split(flags)?;
        prepare(&mut ctl, kubernetes, flags.windows(2).any(|pair| pair == ["--keeper", "local"]))?;
        ctl.args(flags);
    } else {
        ctl.args(flags);
    }
    run(&mut ctl).map_err(|_told| format!("cluster {action} failed").into())
}

/// Returns the requested Kubernetes release, and the flags for `tests/cluster/ctl`.
fn split<'a>(flags: &[&'a str]) -> Result<(&'a str, Vec<&'a str>), Failure> {
    let (mut kubernetes, mut others) = (KUBERNETES, Vec::new());
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        match *flag {
            "--kubernetes" => kubernetes = flags.next().ok_or("--kubernetes needs a release")?,
            other => others.push(other),
        }
    }
    Ok((kubernetes, others))
}

/// Builds and fetches the programs, and sets the variables that tell `ctl` their paths.
fn prepare(ctl: &mut Command, kubernetes: &str, embedded: bool) -> Result<(), Failure> {
    say("building the plugin");
    run(Command::new(env!("CARGO")).current_dir(root()).args(["build", "--quiet", "--locked"]))?;
    let parts = control_plane::build(kubernetes)?;
    let bao = if embedded { Some(PathBuf::new()) } else { tools::openbao()? };
    ctl.env("PROVIDER", target().join("debug/vault-kube-kms"))
        .env("BAO", bao.ok_or("OpenBao is not available; give --keeper=local")?)
        .env("KUBERNETES", parts.kubernetes)
        .env("ETCD", parts.etcd);
    Ok(())
}
