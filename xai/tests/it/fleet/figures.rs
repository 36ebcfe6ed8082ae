//! Times, memory, and the table of both.

use std::{fs, time::Duration};

/// Some times of one kind.
#[derive(Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that so many of a hundred do not exceed.
    fn at(&self, part: usize) -> Duration {
        let mut all = self.0.clone();
        all.sort_unstable();
        all[(all.len() * part).div_ceil(100).saturating_sub(1)]
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99, most) = (ms(self.at(50)), ms(self.at(99)), ms(self.at(100)));
        write!(f, "p50 {p50}, p99 {p99}, most {most} ms")
    }
}

/// Milliseconds, as a table shows them.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// What a process has, in KiB: now, and once at most.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

/// Reads it as the kernel counts it.
pub(super) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    };
    Memory {
        now: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB, at most {} MiB", self.now >> 10, self.peak >> 10)
    }
}

/// Seconds of CPU that a process has used: also true beside the work of others.
pub(super) fn worked(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which may hold anything: fields 12 and 13 are ticks of a hundredth, in the program and in the kernel.
    let (_, fields) = text.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|field| field.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

/// Bytes of each of `count`, between two looks.
pub(super) fn each(before: Memory, after: Memory, count: u64) -> u64 {
    (after.now.saturating_sub(before.now) << 10) / count.max(1)
}

/// Prints a row.
#[expect(clippy::print_stdout, reason = "a benchmark shows its figures")]
pub(super) fn row(what: &str, result: impl std::fmt::Display) {
    println!("| {what} | {result} |");
}
