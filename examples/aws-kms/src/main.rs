//! `aws-kube-kms`: see `aws-kube-kms --help`.

use std::{alloc::System, process::ExitCode};

use aws_kube_kms::settings::AwsKms;
use vault_kube_kms::prelude::Program;
use zeroizing_alloc::ZeroAlloc;

/// Wipes each block of memory when it is freed, because the AWS SDK copies seeds.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let version = concat!("aws-kube-kms ", env!("CARGO_PKG_VERSION"));
    let program = Program::new("aws-kube-kms", version, env!("CARGO_PKG_DESCRIPTION"));
    program.keeper(AwsKms).run(std::env::args_os())
}
