//! The tasks of those who work on vault-kube-kms: `cargo xtask`.

mod cluster;
mod control_plane;
mod fuzz;
mod run;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test             every test; fetches what it needs into target/
cargo xtask tools            only fetch what the tests need
cargo xtask fuzz [SECONDS]   hostile bytes at each parser, 60 s for each unless told
cargo xtask cluster up       a control plane to try: OpenBao, etcd, the plugin, kube-apiserver
        [--replicas N] [--keeper openbao|local] [--kubernetes 1.36.3|1.31.0]
cargo xtask cluster status   what runs, and what the API servers think of their plugins
cargo xtask cluster down     end it";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::all(),
        ["cluster", action @ ("up" | "down" | "status"), flags @ ..] => cluster::ctl(action, flags),
        ["fuzz"] => fuzz::all(60),
        ["fuzz", seconds] => seconds.parse().map_err(Into::into).and_then(fuzz::all),
        ["tools"] => tools::openbao().map(drop),
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
