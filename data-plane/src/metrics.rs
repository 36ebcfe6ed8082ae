//! Counters of one core, written by that core alone, and their text for Prometheus.
//!
//! Every metric name and label value of the node stands in this file. A count costs one load and one store, as nobody else
//! writes; a scrape adds up the cores.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proxyxai_core::{dialect::Endpoint, route::retry::REASONS};

const ENDPOINTS: usize = Endpoint::ALL.len() + 1;
const CLASSES: usize = 5;
/// Upper bounds in milliseconds; the last bucket has none.
const BOUNDS_MS: [u64; 10] = [5, 25, 100, 250, 500, 1_000, 2_500, 10_000, 60_000, 300_000];

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(more),
            Ordering::Relaxed,
        );
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one core. Aligned so that no other core's writes share a cache line with them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCounters {
    requests: [[Count; CLASSES]; ENDPOINTS],
    retries: [Count; REASONS.len()],
    latency: [Count; BOUNDS_MS.len() + 1],
    latency_sum_ms: Count,
    attempts: Count,
    in_flight: Count,
    connections: Count,
    refused: Count,
}

impl CoreCounters {
    /// An answer's head went out.
    pub(crate) fn answered(&self, endpoint: Option<Endpoint>, status: u16, after: Duration) {
        let row = endpoint
            .and_then(|e| Endpoint::ALL.iter().position(|one| *one == e))
            .unwrap_or(Endpoint::ALL.len());
        let class = usize::from(status / 100).saturating_sub(1).min(CLASSES - 1);
        if let Some(count) = self
            .requests
            .get(row)
            .and_then(|classes| classes.get(class))
        {
            count.add(1);
        }
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS
            .iter()
            .position(|bound| ms <= *bound)
            .unwrap_or(BOUNDS_MS.len());
        if let Some(count) = self.latency.get(bucket) {
            count.add(1);
        }
        self.latency_sum_ms.add(ms);
    }

    /// An attempt was discarded for one of [`REASONS`].
    pub(crate) fn retried(&self, why: &str) {
        if let Some(count) = REASONS
            .iter()
            .position(|reason| *reason == why)
            .and_then(|at| self.retries.get(at))
        {
            count.add(1);
        }
    }

    /// An attempt began.
    pub(crate) fn attempted(&self) {
        self.attempts.add(1);
    }

    /// Requests in flight now.
    pub(crate) fn set_in_flight(&self, now: usize) {
        self.in_flight
            .0
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The same, to be read.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Connections of clients now.
    pub(crate) fn set_connections(&self, now: usize) {
        self.connections
            .0
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A request or connection was refused because the core is full.
    pub(crate) fn shed(&self) {
        self.refused.add(1);
    }
}

/// The text of all cores together.
pub(crate) fn render(cores: &[std::sync::Arc<CoreCounters>], out: &mut String) {
    let sum = |pick: &dyn Fn(&CoreCounters) -> Option<&Count>| {
        cores
            .iter()
            .filter_map(|core| pick(core))
            .map(Count::get)
            .sum::<u64>()
    };
    head(
        out,
        "xai_requests_total",
        "counter",
        "Requests answered, by endpoint and class of status.",
    );
    for row in 0..ENDPOINTS {
        let endpoint = Endpoint::ALL
            .get(row)
            .map_or("none", |endpoint| endpoint.as_str());
        for class in 0..CLASSES {
            let count = sum(&|core| core.requests.get(row)?.get(class));
            if count > 0 {
                line(
                    out,
                    "xai_requests_total",
                    &format!(
                        "{{endpoint=\"{endpoint}\",status=\"{}xx\"}}",
                        class.saturating_add(1)
                    ),
                    count,
                );
            }
        }
    }
    head(
        out,
        "xai_retries_total",
        "counter",
        "Attempts that were discarded for another upstream key, by reason.",
    );
    for (at, why) in REASONS.iter().enumerate() {
        line(
            out,
            "xai_retries_total",
            &format!("{{reason=\"{why}\"}}"),
            sum(&|core| core.retries.get(at)),
        );
    }
    head(
        out,
        "xai_time_to_answer_seconds",
        "histogram",
        "From a request to the head of its answer.",
    );
    let mut below = 0_u64;
    for (at, bound) in BOUNDS_MS.iter().map(Some).chain([None]).enumerate() {
        below = below.saturating_add(sum(&|core| core.latency.get(at)));
        let bound = bound.map_or("+Inf".to_owned(), |ms| {
            format!("{}.{:03}", ms / 1000, ms % 1000)
        });
        line(
            out,
            "xai_time_to_answer_seconds_bucket",
            &format!("{{le=\"{bound}\"}}"),
            below,
        );
    }
    let total_ms = sum(&|core| Some(&core.latency_sum_ms));
    seconds(
        out,
        "xai_time_to_answer_seconds_sum",
        Duration::from_millis(total_ms),
    );
    line(out, "xai_time_to_answer_seconds_count", "", below);
    let one = |out: &mut String, name: &str, kind: &str, help: &str, value: u64| {
        head(out, name, kind, help);
        line(out, name, "", value);
    };
    one(
        out,
        "xai_attempts_total",
        "counter",
        "Calls to upstream keys.",
        sum(&|core| Some(&core.attempts)),
    );
    one(
        out,
        "xai_shed_total",
        "counter",
        "Requests and connections refused because a core was full.",
        sum(&|core| Some(&core.refused)),
    );
    one(
        out,
        "xai_requests_in_flight",
        "gauge",
        "Requests in flight.",
        sum(&|core| Some(&core.in_flight)),
    );
    one(
        out,
        "xai_client_connections",
        "gauge",
        "Connections of clients.",
        sum(&|core| Some(&core.connections)),
    );
}

/// Announces a metric.
pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _to_a_string = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// One sample.
pub(crate) fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _to_a_string = writeln!(out, "{name}{labels} {value}");
}

/// One sample that is a time, in seconds.
pub(crate) fn seconds(out: &mut String, name: &str, time: Duration) {
    let _to_a_string = writeln!(out, "{name} {}.{:03}", time.as_secs(), time.subsec_millis());
}
