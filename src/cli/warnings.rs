//! Warnings about a configuration that is valid.

use rustix::process::{Uid, getegid};

use crate::{
    adapters::{grpc::address::SocketAddress, system::place::others_that_may_write},
    config::settings::Settings,
    ports::finding::{Area, Finding},
};

/// Returns the warnings. `serve` logs them at each start, and `check` prints them. `serving` is the
/// uid of the process that serves, `None` when it is not known.
pub(super) fn of(settings: &Settings, serving: Option<Uid>) -> Vec<Finding> {
    let ignored = settings.warnings.iter();
    let mut warnings: Vec<_> =
        ignored.map(|text| Finding::warn(Area::Configuration, text, "")).collect();
    warnings.extend(socket_warning(&settings.listen, serving));
    if !settings.sandbox {
        warnings.push(Finding::warn(
            Area::Sandbox,
            "--no-sandbox: this process is not restricted to the files, ports and system calls that it needs",
            "leave this flag out; if something fails in the sandbox, report it (docs/sandbox.md)",
        ));
    }
    warnings.extend(settings.keeper.warnings());
    warnings
}

/// Warns when another process may bind the socket's address first. kube-apiserver would then send
/// its seeds to that process.
fn socket_warning(listen: &SocketAddress, serving: Option<Uid>) -> Option<Finding> {
    let place = match listen {
        SocketAddress::File(path) => {
            let directory = path.parent()?;
            let own = serving.map(Uid::as_raw);
            let others = others_that_may_write(directory, own, getegid().as_raw())?;
            format!("--listen-address: {others} may write to {}", directory.display())
        }
        SocketAddress::Abstract(_) => {
            "--listen-address: every process in this network namespace may use an abstract name"
                .into()
        }
    };
    Some(Finding::warn(
        Area::Socket,
        format!("{place}, and a process that listens there first receives seeds"),
        "use a path in a directory of mode 0750 that belongs to the provider's user",
    ))
}
