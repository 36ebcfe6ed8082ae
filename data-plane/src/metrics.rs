//! Counters of one core, written by that core alone, and their text for Prometheus.
//!
//! A count costs one load and one store, as nobody else writes; a scrape adds up the cores. What can be counted elsewhere is not counted
//! here: attempts by provider are added up where usage events are written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proxyxai_core::{
    dialect::{Endpoint, error::ErrorCode},
    exposition::{Kind, Page},
    route::retry::REASONS,
};

const ENDPOINTS: usize = Endpoint::ALL.len() + 1;
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds in milliseconds; the last bucket has none.
const BOUNDS_MS: [u64; 10] = [5, 25, 100, 250, 500, 1_000, 2_500, 10_000, 60_000, 300_000];

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one core. Aligned so that no other core's writes share a cache line with them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCounters {
    requests: [[Count; CLASSES.len()]; ENDPOINTS],
    failures: [Count; ErrorCode::ALL.len()],
    retries: [Count; REASONS.len()],
    latency: [Count; BOUNDS_MS.len() + 1],
    latency_sum_ms: Count,
    attempts: Count,
    in_flight: Count,
    streams: Count,
    connections: Count,
    shed: Count,
}

impl CoreCounters {
    /// An answer's head went out.
    pub(crate) fn answered(&self, endpoint: Option<Endpoint>, status: u16, after: Duration) {
        let row = endpoint
            .and_then(|e| Endpoint::ALL.iter().position(|one| *one == e))
            .unwrap_or(Endpoint::ALL.len());
        let class = usize::from(status / 100)
            .saturating_sub(1)
            .min(CLASSES.len().saturating_sub(1));
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

    /// The gateway itself answered with an error.
    pub(crate) fn failed(&self, code: ErrorCode) {
        let place = ErrorCode::ALL.iter().position(|one| *one == code);
        if let Some(count) = place.and_then(|at| self.failures.get(at)) {
            count.add(1);
        }
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
        self.in_flight.set(u64::try_from(now).unwrap_or(u64::MAX));
    }

    /// The same, to be read.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Connections of clients now.
    pub(crate) fn set_connections(&self, now: usize) {
        self.connections.set(u64::try_from(now).unwrap_or(u64::MAX));
    }

    /// A request or connection was refused because the core is full.
    pub(crate) fn shed(&self) {
        self.shed.add(1);
    }
}

/// A stream of events to a client, counted while it is open.
pub(crate) struct OpenStream(Arc<CoreCounters>);

impl OpenStream {
    /// It begins.
    pub(crate) fn new(counters: &Arc<CoreCounters>) -> Self {
        counters.streams.add(1);
        Self(Arc::clone(counters))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

/// The text of all cores together.
pub(crate) fn render(cores: &[Arc<CoreCounters>], page: &mut Page<'_>) {
    let sum = |pick: &dyn Fn(&CoreCounters) -> Option<&Count>| {
        cores
            .iter()
            .filter_map(|core| pick(core))
            .map(Count::get)
            .sum::<u64>()
    };
    let name = "xai_requests_total";
    page.family(
        name,
        Kind::Counter,
        "Requests answered, by endpoint and class of status.",
    );
    for row in 0..ENDPOINTS {
        let endpoint = Endpoint::ALL.get(row).map_or("none", |it| it.as_str());
        for (class, status) in CLASSES.iter().enumerate() {
            let count = sum(&|core| core.requests.get(row)?.get(class));
            if count > 0 {
                page.sample(name, &[("endpoint", endpoint), ("status", status)], count);
            }
        }
    }
    let name = "xai_failures_total";
    page.family(
        name,
        Kind::Counter,
        "Requests that the gateway itself answered with an error, by its code.",
    );
    for (at, code) in ErrorCode::ALL.iter().enumerate() {
        let count = sum(&|core| core.failures.get(at));
        page.sample(name, &[("code", code.as_str())], count);
    }
    let name = "xai_retries_total";
    page.family(
        name,
        Kind::Counter,
        "Attempts that were discarded for another upstream key, by reason.",
    );
    for (at, why) in REASONS.iter().enumerate() {
        let count = sum(&|core| core.retries.get(at));
        page.sample(name, &[("reason", why)], count);
    }
    let name = "xai_time_to_answer_seconds";
    page.family(
        name,
        Kind::Histogram,
        "From a request to the head of its answer.",
    );
    let buckets: Vec<u64> = (0..=BOUNDS_MS.len())
        .map(|at| sum(&|core| core.latency.get(at)))
        .collect();
    let total = Duration::from_millis(sum(&|core| Some(&core.latency_sum_ms)));
    page.histogram(name, &[], (&BOUNDS_MS, &buckets), total);
    page.counter(
        "xai_attempts_total",
        "Calls to upstream keys that began.",
        sum(&|core| Some(&core.attempts)),
    );
    page.counter(
        "xai_shed_total",
        "Requests and connections refused because a core was full.",
        sum(&|core| Some(&core.shed)),
    );
    type One = fn(&CoreCounters) -> Option<&Count>;
    let gauges: [(&str, &str, One); 3] = [
        ("xai_requests_in_flight", "Requests in flight.", |core| {
            Some(&core.in_flight)
        }),
        (
            "xai_streams_open",
            "Streams of events that go to clients now.",
            |core| Some(&core.streams),
        ),
        (
            "xai_client_connections",
            "Connections of clients.",
            |core| Some(&core.connections),
        ),
    ];
    for (name, help, one) in gauges {
        page.gauge(name, help, sum(&one));
    }
}
