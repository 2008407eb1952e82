//! Restricts files, TCP ports, abstract sockets and signals by Landlock
//! (<https://docs.kernel.org/userspace-api/landlock.html>).

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, RestrictSelf,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
    path_beneath_rules,
};

use super::{Needs, Report, places, resolver};

/// The newest Landlock version that this program uses. Newer versions restrict UDP, for which this
/// program has no rules, and sockets by path, of which journald and systemd have some.
const TRIED: ABI = ABI::V7;

/// The Landlock versions that first restrict TCP ports (4), and abstract sockets and signals (6).
const TCP: u32 = 4;
const SCOPES: u32 = 6;

/// TCP port 53. DNS uses it when an answer is too long for UDP.
const DNS: u16 = 53;

/// Files that every process reads: its own metrics and the random bytes of the system.
const READ_BY_ALL: [&str; 3] = ["/proc", "/dev/urandom", "/dev/random"];

/// Restricts this thread, and the threads that it starts later, to `needs`.
pub(super) fn restrict(needs: &Needs) -> Report {
    match enforce(needs) {
        Ok(status) => offered(status.landlock, needs.abstract_sockets),
        Err(error) => refused(&error),
    }
}

/// Reports what this kernel could restrict. Changes nothing.
pub(super) fn available() -> Report {
    // Without a flag this call restricts nothing.
    match RestrictSelf::default().no_new_privs(false).apply() {
        Ok(status) => offered(status.landlock, false),
        Err(error) => refused(&error),
    }
}

fn refused(error: &RulesetError) -> Report {
    Report::without(format!("files and TCP ports are not restricted: {error}"))
}

fn enforce(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let socket = AccessFs::ReadDir | AccessFs::MakeSock | AccessFs::RemoveFile;
    let places = |paths: &[PathBuf], of: fn(&std::path::Path) -> Vec<PathBuf>| {
        paths.iter().flat_map(|path| of(path)).collect::<Vec<_>>()
    };
    let lookups = if needs.names { resolver::files() } else { Vec::new() };
    let dns = needs.names.then_some(DNS);
    let ports = needs.ports.iter().copied().chain(dns);
    let scopes =
        if needs.abstract_sockets { BitFlags::from(Scope::Signal) } else { Scope::from_all(TRIED) };
    Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(scopes)?
        .create()?
        .add_rules(path_beneath_rules(READ_BY_ALL, read))?
        .add_rules(path_beneath_rules(lookups, read))?
        .add_rules(path_beneath_rules(places(&needs.read, places::of_read), read))?
        .add_rules(path_beneath_rules(places(&needs.written, places::of_written), write))?
        .add_rules(path_beneath_rules(places(&needs.trees, places::of_tree), write))?
        .add_rules(path_beneath_rules(places(&needs.sockets, places::of_socket), socket))?
        .add_rules(
            ports.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))),
        )?
        .restrict_self()
}

/// Reports what a kernel of this `status` restricts, and what a newer kernel would add.
fn offered(status: LandlockStatus, abstract_sockets: bool) -> Report {
    let version = match status {
        LandlockStatus::Available { effective_abi, kernel_abi } => kernel_abi
            .and_then(|version| u32::try_from(version).ok())
            .or_else(|| effective_abi.to_string().parse().ok())
            .unwrap_or_default(),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    if version == 0 {
        return Report::without(
            "files and TCP ports are not restricted: this kernel has no Landlock, Landlock is \
             off, or the container runtime forbids it; use Linux 6.7 or later, name \
             landlock in its parameter lsm=, and allow the calls landlock_* in the container"
                .to_owned(),
        );
    }
    let mut report = Report::default();
    let mut parts = vec!["files"];
    for (since, linux, part) in
        [(TCP, "6.7", "TCP ports"), (SCOPES, "6.12", "abstract sockets and signals")]
    {
        if version < since {
            report.newer.push(format!("{part} are restricted from Linux {linux} on"));
        } else if since == SCOPES && abstract_sockets {
            parts.push("signals");
        } else {
            parts.push(part);
        }
    }
    report.in_force.push(format!("Landlock {version} ({})", parts.join(", ")));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(effective_abi: ABI) -> Report {
        offered(LandlockStatus::Available { effective_abi, kernel_abi: None }, false)
    }

    #[test]
    fn reports_what_an_old_kernel_does_not_restrict() {
        assert_eq!(of(ABI::V1).in_force, ["Landlock 1 (files)"]);
        assert_eq!(of(ABI::V1).newer.len(), 2);
        assert_eq!(of(ABI::V4).in_force, ["Landlock 4 (files, TCP ports)"]);
        let newer = "abstract sockets and signals are restricted from Linux 6.12 on";
        assert_eq!(of(ABI::V4).newer, [newer]);
        assert!(of(ABI::V6).newer.is_empty());
        for none in [LandlockStatus::NotEnabled, LandlockStatus::NotImplemented] {
            let report = offered(none, false);
            assert_eq!((report.in_force.len(), report.missing.len()), (0, 1));
            assert!(report.missing[0].contains("lsm="));
        }
    }
}
