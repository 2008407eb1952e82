//! Restricts system calls by seccomp to those that this process makes. Any other call fails with
//! `EPERM`.

use std::{collections::BTreeMap, fs};

use linux_raw_sys::general as sys;
use seccompiler::{
    BpfProgram, Error, SeccompAction,
    SeccompCmpArgLen::{Dword, Qword},
    SeccompCmpOp::{Eq, Le, MaskedEq},
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use super::Report;

/// Calls that are allowed with any argument. The kernel looks them up in a bitmap and runs no
/// filter for them (since Linux 5.11).
const ALLOWED: &[u32] = &[
    // Reads and writes of open files.
    sys::__NR_read,
    sys::__NR_write,
    sys::__NR_readv,
    sys::__NR_writev,
    sys::__NR_pread64,
    sys::__NR_pwrite64,
    sys::__NR_lseek,
    sys::__NR_close,
    sys::__NR_dup,
    sys::__NR_dup3,
    sys::__NR_fcntl,
    sys::__NR_fsync,
    sys::__NR_fdatasync,
    sys::__NR_ftruncate,
    sys::__NR_flock,
    sys::__NR_pipe2,
    // Files by name. Landlock restricts which.
    sys::__NR_openat,
    sys::__NR_openat2,
    sys::__NR_newfstatat,
    sys::__NR_fstat,
    sys::__NR_statx,
    sys::__NR_statfs,
    sys::__NR_fstatfs,
    sys::__NR_readlinkat,
    sys::__NR_getdents64,
    sys::__NR_getcwd,
    sys::__NR_faccessat,
    sys::__NR_faccessat2,
    sys::__NR_fchmod,
    sys::__NR_fchmodat,
    sys::__NR_fchmodat2,
    sys::__NR_unlinkat,
    sys::__NR_renameat,
    sys::__NR_renameat2,
    // Sockets. The rules below restrict their families.
    sys::__NR_bind,
    sys::__NR_listen,
    sys::__NR_accept,
    sys::__NR_accept4,
    sys::__NR_connect,
    sys::__NR_getsockname,
    sys::__NR_getpeername,
    sys::__NR_getsockopt,
    sys::__NR_setsockopt,
    sys::__NR_recvfrom,
    sys::__NR_recvmsg,
    sys::__NR_recvmmsg,
    sys::__NR_shutdown,
    // Waiting.
    sys::__NR_epoll_create1,
    sys::__NR_epoll_ctl,
    sys::__NR_epoll_pwait,
    sys::__NR_epoll_pwait2,
    sys::__NR_eventfd2,
    sys::__NR_ppoll,
    sys::__NR_pselect6,
    sys::__NR_nanosleep,
    sys::__NR_clock_nanosleep,
    sys::__NR_restart_syscall,
    // Memory.
    sys::__NR_brk,
    sys::__NR_mmap,
    sys::__NR_munmap,
    sys::__NR_mremap,
    sys::__NR_mprotect,
    sys::__NR_madvise,
    sys::__NR_mlock,
    sys::__NR_mlock2,
    sys::__NR_munlock,
    sys::__NR_membarrier,
    // Threads and signals.
    sys::__NR_futex,
    sys::__NR_set_robust_list,
    sys::__NR_rseq,
    sys::__NR_sched_yield,
    sys::__NR_sched_getaffinity,
    sys::__NR_sigaltstack,
    sys::__NR_rt_sigaction,
    sys::__NR_rt_sigprocmask,
    sys::__NR_rt_sigreturn,
    sys::__NR_tkill,
    sys::__NR_exit,
    sys::__NR_exit_group,
    // The process itself, the time and the system.
    sys::__NR_getpid,
    sys::__NR_gettid,
    sys::__NR_getuid,
    sys::__NR_geteuid,
    sys::__NR_getgid,
    sys::__NR_getegid,
    sys::__NR_getrusage,
    sys::__NR_getcpu,
    sys::__NR_clock_gettime,
    sys::__NR_clock_getres,
    sys::__NR_gettimeofday,
    sys::__NR_getrandom,
    sys::__NR_uname,
    sys::__NR_sysinfo,
    // A second filter refuses this call with `ENOSYS`, the error that C libraries handle.
    sys::__NR_clone3,
];

/// Older forms of the same calls, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[u32] = &[
    sys::__NR_open,
    sys::__NR_stat,
    sys::__NR_lstat,
    sys::__NR_readlink,
    sys::__NR_access,
    sys::__NR_chmod,
    sys::__NR_unlink,
    sys::__NR_rename,
    sys::__NR_dup2,
    sys::__NR_poll,
    sys::__NR_select,
    sys::__NR_epoll_wait,
    sys::__NR_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[u32] = &[];

/// The allowed socket families with the highest protocol of each. TCP is 6 and UDP is 17. `MPTCP`
/// is 262 and stays forbidden, because Landlock does not restrict it.
const FAMILIES: [(u32, u64); 4] =
    [(AF_UNIX, 0), (AF_INET, 17), (AF_INET6, 17), (AF_NETLINK, NETLINK_ROUTE)];
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// The C library uses it to find the addresses of this host, and to order the addresses of a name.
const AF_NETLINK: u32 = 16;
const NETLINK_ROUTE: u64 = 0;

/// The allowed requests of `ioctl`: `TCGETS` and `TCGETS2` (is this a terminal), `FIONREAD`,
/// `FIONBIO`, `FIONCLEX`, `FIOCLEX`.
const REQUESTS: [u64; 6] = [0x5401, 0x802c_542a, 0x541b, 0x5421, 0x5450, 0x5451];

/// The allowed operations of `prctl`: naming threads, and naming memory areas (`PR_SET_VMA`).
const OPERATIONS: [u64; 3] = [15, 16, 0x5356_4d41];

/// Restricts the system calls of all threads of this process. Reports what it did.
pub(super) fn restrict() -> Report {
    match install() {
        Ok(count) => Report::of(format!("seccomp ({count} system calls)")),
        Err(error) => missing(&error.to_string()),
    }
}

/// Reports whether this kernel has seccomp filters (seccomp(2), Linux 4.14).
pub(super) fn available() -> Report {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Report::of("seccomp".to_owned())
        }
        _ => missing("this kernel has no seccomp filters"),
    }
}

fn missing(why: &str) -> Report {
    let remedy = "use a kernel with CONFIG_SECCOMP_FILTER";
    Report::without(format!("system calls are not restricted: {why}; {remedy}"))
}

/// Installs the filters. Returns the number of allowed calls.
fn install() -> Result<usize, Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    // The arguments of `clone3` are in memory, where no filter can read them. C libraries use
    // `clone` instead when `clone3` fails with `ENOSYS`.
    let no_clone3 = BTreeMap::from([(i64::from(sys::__NR_clone3), Vec::new())]);
    let first = SeccompFilter::new(
        no_clone3,
        SeccompAction::Allow,
        SeccompAction::Errno(rustix::io::Errno::NOSYS.raw_os_error().unsigned_abs()),
        arch,
    )?;
    let rules = rules()?;
    let count = rules.len();
    let second = SeccompFilter::new(
        rules,
        SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().unsigned_abs()),
        SeccompAction::Allow,
        arch,
    )?;
    for filter in [first, second] {
        apply_filter_all_threads(&BpfProgram::try_from(filter)?)?;
    }
    Ok(count)
}

/// Returns the allowed calls with the rules for their arguments. An empty list allows any argument.
fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let mut rules: BTreeMap<_, _> =
        ALLOWED.iter().chain(OLDER).map(|call| (i64::from(*call), Vec::new())).collect();
    let sockets = FAMILIES.map(|(family, protocol)| {
        SeccompRule::new(vec![
            SeccompCondition::new(0, Dword, Eq, family.into())?,
            SeccompCondition::new(2, Dword, Le, protocol)?,
        ])
    });
    let sockets = sockets.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.extend([
        (i64::from(sys::__NR_socket), sockets),
        (i64::from(sys::__NR_socketpair), one_of(0, &[AF_UNIX.into()])?),
        (i64::from(sys::__NR_sendto), without_fast_open(3)?),
        (i64::from(sys::__NR_sendmsg), without_fast_open(2)?),
        (i64::from(sys::__NR_sendmmsg), without_fast_open(3)?),
        (i64::from(sys::__NR_ioctl), one_of(1, &REQUESTS)?),
        (i64::from(sys::__NR_prctl), one_of(0, &OPERATIONS)?),
        (i64::from(sys::__NR_clone), vec![thread_alone()?]),
        (i64::from(sys::__NR_tgkill), one_of(0, &[std::process::id().into()])?),
        (i64::from(sys::__NR_prlimit64), vec![own_limit_read()?]),
    ]);
    Ok(rules)
}

/// Returns rules that require argument number `argument` to be one of `values`.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    let rule =
        |value: &u64| SeccompRule::new(vec![SeccompCondition::new(argument, Dword, Eq, *value)?]);
    Ok(values.iter().map(rule).collect::<Result<_, _>>()?)
}

/// Returns the rule that the flags in argument number `flags` do not connect (`MSG_FASTOPEN`):
/// Landlock does not restrict the ports of such a connection.
fn without_fast_open(flags: u8) -> Result<Vec<SeccompRule>, Error> {
    const FAST_OPEN: u64 = 0x2000_0000;
    let condition = SeccompCondition::new(flags, Dword, MaskedEq(FAST_OPEN), 0)?;
    Ok(vec![SeccompRule::new(vec![condition])?])
}

/// Allows `clone` for threads of this process in the same namespaces, and not for processes.
fn thread_alone() -> Result<SeccompRule, Error> {
    const THREAD: u32 = sys::CLONE_THREAD | sys::CLONE_VM;
    const NAMESPACES: u32 = sys::CLONE_NEWNS
        | sys::CLONE_NEWCGROUP
        | sys::CLONE_NEWUTS
        | sys::CLONE_NEWIPC
        | sys::CLONE_NEWUSER
        | sys::CLONE_NEWPID
        | sys::CLONE_NEWNET;
    let flags = MaskedEq((THREAD | NAMESPACES).into());
    Ok(SeccompRule::new(vec![SeccompCondition::new(0, Dword, flags, THREAD.into())?])?)
}

/// Allows `prlimit64` to read a limit of this process, and not to set one.
fn own_limit_read() -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![
        SeccompCondition::new(0, Dword, Eq, 0)?,
        SeccompCondition::new(2, Qword, Eq, 0)?,
    ])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile() {
        assert!(rules().unwrap().len() > 80);
    }

    #[test]
    fn forbids_starting_programs_and_reaching_into_others() {
        let rules = rules().unwrap();
        for call in [
            sys::__NR_execve,
            sys::__NR_execveat,
            sys::__NR_ptrace,
            sys::__NR_process_vm_readv,
            sys::__NR_process_vm_writev,
            sys::__NR_mount,
            sys::__NR_bpf,
            sys::__NR_keyctl,
            sys::__NR_io_uring_setup,
            sys::__NR_kexec_load,
            sys::__NR_init_module,
            sys::__NR_finit_module,
            sys::__NR_unshare,
            sys::__NR_setns,
            sys::__NR_kill,
            sys::__NR_memfd_create,
            sys::__NR_userfaultfd,
            sys::__NR_perf_event_open,
        ] {
            assert!(!rules.contains_key(&i64::from(call)), "{call}");
        }
    }
}
