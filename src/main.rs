//! `vault-kube-kms`: see `vault-kube-kms --help`.

use std::{alloc::System, process::ExitCode};

use vault_kube_kms::cli::program::Program;
use zeroizing_alloc::ZeroAlloc;

/// Zeroes every block of memory when it is freed, so that libraries leave no copy of a seed.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    Program::vault_kube_kms().run(std::env::args_os())
}
