//! What a process says of itself to Prometheus: its version, its memory, its open files.

use std::fs;

use proxyxai_core::exposition::{Kind, Page};

/// Bytes of a kibibyte, as the system counts memory.
const KIBI: u64 = 1_024;

/// Adds what the system tells of this process; nothing where it tells nothing.
pub(super) fn metrics(page: &mut Page<'_>) {
    let name = "xai_build_info";
    page.family(name, Kind::Gauge, "1, with the version of the program.");
    page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], true);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibi) = resident(&status) {
        page.gauge(
            "process_resident_memory_bytes",
            "Memory that the process has in use.",
            kibi.saturating_mul(KIBI),
        );
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        page.gauge(
            "process_open_fds",
            "Files and sockets that are open.",
            files.count(),
        );
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = open_files(&limits) {
        page.gauge(
            "process_max_fds",
            "How many files and sockets may be open.",
            most,
        );
    }
}

/// KiB of `VmRSS` in `/proc/self/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit on open files in `/proc/self/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{open_files, resident};

    #[test]
    fn what_the_system_tells_is_read() {
        let status = "Name:\txai\nVmPeak:\t  9000 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!(resident(status), Some(1_234));
        let limits = "Max processes             1   2   processes\nMax open files            1024                 4096                 files\n";
        assert_eq!(open_files(limits), Some(1_024));
        assert_eq!(
            (resident(""), open_files("Max open files unlimited")),
            (None, None)
        );
    }
}
