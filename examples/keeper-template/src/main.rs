//! `{{project-name}}`: see `{{project-name}} --help`.

use std::{alloc::System, env, process::ExitCode};

use {{crate_name}}::settings::Device;
use vault_kube_kms::prelude::Program;
use zeroizing_alloc::ZeroAlloc;

/// Wipes each block of memory when it is freed, because libraries copy seeds.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let version = concat!("{{project-name}} ", env!("CARGO_PKG_VERSION"));
    let program = Program::new("{{project-name}}", version, env!("CARGO_PKG_DESCRIPTION"));
    program.keeper(Device).run(env::args_os())
}
