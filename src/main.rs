//! `vault-kube-kms`: see `vault-kube-kms --help`.

use std::process::ExitCode;

use vault_kube_kms::cli::program::{Program, WIPING, WipingAllocator};

/// Zeroes every block of memory when it is freed, so that libraries leave no copy of a seed.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WIPING;

fn main() -> ExitCode {
    Program::vault_kube_kms().run(std::env::args_os())
}
