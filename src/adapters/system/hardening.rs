//! Protects the memory of the process: no core file, no ptrace, and no swap if the limits allow it.

use std::fmt;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// A protection that is not active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingProtection {
    /// Core files are not switched off.
    CoreFiles,
    /// Memory is not locked.
    Lock {
        /// Whether this machine swaps, so that secrets can reach a disk.
        swap: bool,
    },
}

impl fmt::Display for MissingProtection {
    /// Writes what is missing, and what to do about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoreFiles => "core files are not switched off",
            Self::Lock { swap: false } => {
                "memory is not locked (set LimitMEMLOCK=infinity, or keep swap off)"
            }
            Self::Lock { swap: true } => {
                "swap is on and memory is not locked: secrets can be written to a disk; \
                 set LimitMEMLOCK=infinity, or switch swap off"
            }
        })
    }
}

/// Keeps secrets out of core files and, if the memory limit allows it, out of swap. Returns the
/// protections that are not active.
#[must_use]
pub fn harden() -> Vec<MissingProtection> {
    let mut missing = Vec::new();
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, no_core).is_err()
        || set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err()
    {
        missing.push(MissingProtection::CoreFiles);
    }
    // Locks only without a limit: under a limit later allocations would fail, which is worse than
    // swap.
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if !unlimited || mlockall(flags).is_err() {
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        missing.push(MissingProtection::Lock { swap: is_swapping(&swaps) });
    }
    missing
}

/// Returns whether `/proc/swaps` has an entry below its header (proc(5)).
fn is_swapping(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_swap_by_an_entry_below_the_header() {
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!is_swapping(""));
        assert!(!is_swapping(header));
        assert!(is_swapping(&format!("{header}/swap.img partition 4194300 0 -2\n")));
    }

    #[test]
    fn reports_swap_without_a_lock_and_its_remedy() {
        let text = MissingProtection::Lock { swap: true }.to_string();
        assert!(text.contains("swap is on") && text.contains("LimitMEMLOCK=infinity"), "{text}");
    }
}
