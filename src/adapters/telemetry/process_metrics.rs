//! Metrics of this process, under the names of Prometheus' client libraries. Each scrape reads them
//! from `/proc/self` and from the clocks of the kernel.

use std::{fs, io::Read as _};

use opentelemetry::metrics::Meter;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// The most bytes that are read of a file in `/proc`. `stat` has about 300, `statm` about 50.
const FILE_MAX: u64 = 4_096;

/// The most open files that are counted: the kernel's own limit (`fs.nr_open`).
const FILES_MAX: usize = 1 << 20;

/// Adds the seven metrics to `meter`. A scrape leaves out a value that cannot be read.
pub(super) fn observe(meter: &Meter) {
    // The meter keeps the callbacks; the handles are not needed.
    let _cpu = meter
        .f64_observable_counter("process_cpu")
        .with_unit("s")
        .with_description("Total user and system CPU time spent in seconds.")
        .with_callback(|observer| observer.observe(clock_s(ClockId::ProcessCPUTime), &[]))
        .build();
    let gauge = |name: &'static str, unit: &'static str, about: &'static str, read: Read| {
        let _gauge = meter
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(about)
            .with_callback(move |observer| {
                if let Some(value) = read() {
                    observer.observe(value, &[]);
                }
            })
            .build();
    };
    gauge("process_open_fds", "", "Number of open file descriptors.", open_files);
    gauge("process_max_fds", "", "Maximum number of open file descriptors.", || {
        getrlimit(Resource::Nofile).current.map(float)
    });
    gauge("process_virtual_memory", "By", "Virtual memory size in bytes.", || pages(0));
    gauge("process_resident_memory", "By", "Resident memory size in bytes.", || pages(1));
    gauge("process_threads", "", "Number of OS threads in the process.", || {
        stat_field(&read("/proc/self/stat")?, THREADS).map(float)
    });
    if let Some(start) = start_s() {
        let _start = meter
            .f64_observable_gauge("process_start_time")
            .with_unit("s")
            .with_description("Start time of the process since unix epoch in seconds.")
            .with_callback(move |observer| observer.observe(start, &[]))
            .build();
    }
}

/// Reads one value. Returns `None` when it cannot be read.
type Read = fn() -> Option<f64>;

/// Fields of `/proc/self/stat` by their number in `proc_pid_stat(5)`.
const THREADS: usize = 20;
const START_TICKS: usize = 22;

/// Returns field `number` (3 or more) of a line of `/proc/self/stat`. The second field is the name
/// of the program. It may contain spaces and parentheses, so the last `)` of the line ends it.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// Returns a field of `/proc/self/statm` in bytes. The file counts pages.
fn pages(index: usize) -> Option<f64> {
    let pages: u64 = read("/proc/self/statm")?.split_ascii_whitespace().nth(index)?.parse().ok()?;
    pages.checked_mul(page_size().try_into().ok()?).map(float)
}

/// Returns how many files are open, without the directory that is opened to count them.
fn open_files() -> Option<f64> {
    let files = fs::read_dir("/proc/self/fd").ok()?.take(FILES_MAX).count();
    u64::try_from(files.saturating_sub(1)).ok().map(float)
}

/// Returns when this process started, in seconds since 1970. The kernel counts from the boot, so
/// the time of the boot is added.
fn start_s() -> Option<f64> {
    let ticks = float(stat_field(&read("/proc/self/stat")?, START_TICKS)?);
    let booted = clock_s(ClockId::Realtime) - clock_s(ClockId::Boottime);
    Some(booted + ticks / float(clock_ticks_per_second()))
}

fn clock_s(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    std::time::Duration::new(seconds, nanos).as_secs_f64()
}

fn read(path: &str) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Converts a whole number to the value of a metric. Exact below 2^53.
fn float(number: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX));
    half(number >> 32) * 4_294_967_296.0 + half(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_field_after_any_name_of_a_program() {
        let rest = "S 1 2 3 0 -1 4194304 5 0 0 0 7 8 0 0 20 0 4 0 123456 99 50";
        for name in ["a", "a b", "a) S 9 (b", ")", ""] {
            let stat = format!("17 ({name}) {rest}");
            assert_eq!(stat_field(&stat, THREADS), Some(4), "{stat}");
            assert_eq!(stat_field(&stat, START_TICKS), Some(123_456), "{stat}");
        }
        for stat in ["", "17", "17 (a) S", "17 (a) S 1 2 3 x"] {
            assert_eq!(stat_field(stat, THREADS), None, "{stat}");
        }
    }

    #[test]
    fn converts_a_whole_number_exactly() {
        for (number, text) in [(0, "0"), ((1 << 40) + 7, "1099511627783")] {
            assert_eq!(float(number).to_string(), text);
        }
    }
}
