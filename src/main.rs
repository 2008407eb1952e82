//! `vault-kube-kms`: see `vault-kube-kms --help`.

use std::process::ExitCode;

use vault_kube_kms::cli::command;

fn main() -> ExitCode {
    command::run(std::env::args_os())
}
