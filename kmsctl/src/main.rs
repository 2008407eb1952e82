//! `vault-kube-kmsctl`: see `vault-kube-kmsctl --help`.

use std::process::ExitCode;

use vault_kube_kms::cli::program::{WIPING, WipingAllocator};

/// Zeroes every block of memory when it is freed, so that libraries leave no copy of a seed.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WIPING;

fn main() -> ExitCode {
    vault_kube_kmsctl::cli::run(std::env::args_os())
}
