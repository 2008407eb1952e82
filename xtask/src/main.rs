//! The tasks of developers: `cargo xtask`.

mod author;
mod build;
mod cache;
mod cluster;
mod compare;
mod control_plane;
mod debian;
mod deploy;
mod fuzz;
mod image;
mod node;
mod package;
mod release;
mod reproducible;
mod run;
mod sbom;
mod soak;
mod spire;
mod supply_chain;
mod test;
mod tofu;
mod tools;
mod vault;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test             runs every test; fetches and builds what it needs, once on each machine
        [--long] [--kubernetes 1.37.2|1.36.3|1.31.0]
        [--keeper openbao|vault-1.21|vault-1.19|vault-1.12]   only the suites that talk to a server, on that server
cargo xtask tools            only fetches and builds what the tests need
cargo xtask soak             load, faults, rotations and kills; the default is 30 minutes
        [--minutes N] [--seed N]
cargo xtask hostile          floods and a scan of the memory; prints the cost of each flood
cargo xtask fuzz [SECONDS]   runs each fuzz target with hostile bytes; the default is 10 s for each
cargo xtask deny             checks the dependencies: licences, sources, duplicates, advisories
cargo xtask release          makes both programs, an archive, deb and rpm of each, with checksums, SBOM and VEX,
        [--advisories-unchecked]   in target/release-files
cargo xtask author           tests a crate made from examples/keeper-template, and examples/aws-kms with its
                             program; builds both outside of the workspace
cargo xtask compare          measures the provider beside other plugins; writes docs/comparison.md. COMMAND serves
        [--ours PROGRAM] [--peer NAME --command COMMAND]...   $SOCKET; it has VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT
cargo xtask deploy           tests scripts, alerts and dashboard; causes each alert under a real Prometheus
cargo xtask tofu             applies the OpenTofu module of deploy/vault/terraform to a real server; not in `test`
cargo xtask node up          boots a node in namespaces of its own: a real kubelet runs etcd, kube-apiserver
                             and the image as static Pods; prints the commands to use it
cargo xtask node down        stops that node
cargo xtask node test        runs the tests of such a node
cargo xtask image            builds the container images, the plain one twice, in target/image
cargo xtask package          tests archive, deb and rpm: runs linters, compares two builds, and installs,
                             upgrades and removes them in separate roots and in a booted container
cargo xtask reproducible     makes a release, and checks that a build in another folder gives the same bytes
        [--all]                    also of vault-kube-kmsctl
cargo xtask cluster up       starts a control plane to try: OpenBao, etcd, the plugin, kube-apiserver
        [--replicas N] [--keeper openbao|local] [--kubernetes 1.37.2|1.36.3|1.31.0]
cargo xtask cluster status   prints what runs, and what the API servers report about their plugins
cargo xtask cluster down     stops the control plane";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    // Splits `--flag=value` into two words, but no command that is the value of a flag.
    let parts = |arg| if str::starts_with(arg, "--") { 2 } else { 1 };
    let words: Vec<_> = args.iter().flat_map(|arg| arg.splitn(parts(arg), '=')).collect();
    let done = match words.as_slice() {
        ["test", flags @ ..] => test::Choice::read(flags).and_then(|choice| test::all(&choice)),
        ["cluster", action @ ("up" | "down" | "status"), flags @ ..] => cluster::ctl(action, flags),
        ["soak", flags @ ..] => {
            soak::Choice::read(flags).and_then(|choice| soak::run_soak(&choice))
        }
        ["hostile"] => tools::openbao().and_then(|bao| test::hostile(bao.as_deref())),
        ["author"] => author::test(),
        ["compare", flags @ ..] => compare::all(flags),
        ["deploy"] => tools::openbao().and_then(|bao| deploy::all(bao.as_deref())),
        ["tofu"] => tools::openbao().and_then(|bao| tofu::test(bao.as_deref())),
        ["node", "up"] => node::up(),
        ["node", "down"] => node::down(),
        ["node", "test"] => tools::openbao().and_then(|bao| node::test(bao.as_deref())),
        ["fuzz"] => fuzz::all(10),
        ["fuzz", seconds] => seconds.parse().map_err(Into::into).and_then(fuzz::all),
        ["deny"] => supply_chain::deny(),
        ["release"] => supply_chain::advisories(true).and_then(|()| release::files().map(drop)),
        ["release", "--advisories-unchecked"] => release::files().map(drop),
        ["image"] => image::all().map(drop),
        ["package"] => tools::openbao().and_then(|bao| package::test(bao.as_deref())),
        ["reproducible"] => reproducible::check(false),
        ["reproducible", "--all"] => reproducible::check(true),
        ["tools"] => tools::openbao()
            .and_then(|_| control_plane::build(control_plane::KUBERNETES))
            .and_then(|_| control_plane::node())
            .and_then(|_| spire::built())
            .and_then(|_| vault::Server::Vault(vault::RELEASES[0]).program())
            .map(drop),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
