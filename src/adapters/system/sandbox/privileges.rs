//! Gives up privileges: forbids gaining new ones, drops capabilities, and makes new files private.

use std::path::Path;

use rustix::{
    fs::{Access, AtFlags, CWD, Mode, accessat},
    io::Result,
    process::umask,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

use super::{Needs, Report};

/// Let root use the files of other users: read them, or do everything with them.
const READ_ALL: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;
const USE_ALL: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Sets the umask to 0077 and `no_new_privs`. Drops all capabilities, except one that is needed to
/// use a file of another user in `needs`. Keeps the capabilities unless `drops_capabilities`.
pub(super) fn drop_all(needs: &Needs, drops_capabilities: bool) -> Report {
    let mut report = Report::default();
    let _former = umask(Mode::RWXG | Mode::RWXO);
    report.in_force.push("umask 0077".to_owned());
    match set_no_new_privs(true) {
        Ok(()) => report.in_force.push("no_new_privs".to_owned()),
        Err(error) => report.missing.push(format!("the kernel refused no_new_privs: {error}")),
    }
    if !drops_capabilities {
        return report;
    }
    match drop_capabilities(needs) {
        Ok(kept) if kept.is_empty() => report.in_force.push("no capabilities".to_owned()),
        Ok(kept) => report.missing.push(format!(
            "{} is kept, because a configured file or directory belongs to another user; \
             chown it to the user of this process",
            if kept == USE_ALL { "CAP_DAC_OVERRIDE" } else { "CAP_DAC_READ_SEARCH" }
        )),
        Err(error) => {
            report.missing.push(format!("the capabilities could not be dropped: {error}"));
        }
    }
    report
}

/// Drops the capabilities of this thread. Returns those that it keeps.
fn drop_capabilities(needs: &Needs) -> Result<CapabilitySet> {
    let held = capabilities(None)?;
    clear_ambient_capability_set()?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..u64::BITS {
            let Some(one) = 1_u64.checked_shl(bit).map(CapabilitySet::from_bits_retain) else {
                break;
            };
            // The kernel has no further capability.
            if remove_capability_from_bounding_set(one).is_err() {
                break;
            }
        }
    }
    let before = Usable::now(needs);
    for kept in [CapabilitySet::empty(), READ_ALL, USE_ALL] {
        let kept = kept & held.effective;
        // Keeps them permitted, so that the next round can use them again.
        let permitted = held.permitted & (READ_ALL | USE_ALL);
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted, inheritable })?;
        if Usable::now(needs) == before || kept == USE_ALL {
            set_capabilities(
                None,
                CapabilitySets { effective: kept, permitted: kept, inheritable },
            )?;
            return Ok(kept);
        }
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(none)
}

/// Which of the needed files and directories this process can use.
#[derive(PartialEq, Eq)]
struct Usable(Vec<bool>);

impl Usable {
    fn now(needs: &Needs) -> Self {
        let can = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
        let read = needs.read.iter().map(|path| can(path, Access::READ_OK));
        let changed = needs.written.iter().chain(&needs.sockets).map(|path| {
            let directory = path.parent().unwrap_or(path);
            can(directory, Access::WRITE_OK | Access::EXEC_OK)
        });
        let peers = needs.peers.iter().map(|path| can(path, Access::WRITE_OK));
        let trees = needs.trees.iter().map(|path| {
            let access = Access::READ_OK | Access::WRITE_OK;
            can(path, if path.is_dir() { access | Access::EXEC_OK } else { access })
        });
        Self(read.chain(changed).chain(peers).chain(trees).collect())
    }
}
