//! Keeping the process's memory to itself: no core file, no ptrace, no swap where allowed.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// Keeps secrets out of core files and, where the memory limit allows, out of swap. Returns what
/// could not be had, for the log.
#[must_use]
pub fn harden() -> Vec<&'static str> {
    let mut missed = Vec::new();
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, no_core).is_err()
        || set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err()
    {
        missed.push("core files are not switched off");
    }
    // Locking under a limit would make later allocations fail, which is worse than swap.
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if !unlimited || mlockall(flags).is_err() {
        missed.push("memory is not locked (set LimitMEMLOCK=infinity, or run without swap)");
    }
    missed
}
