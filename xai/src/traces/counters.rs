//! What became of spans, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};

use proxyxai_core::exposition::{Kind, Page};

/// Counts spans of one process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
}

impl Counters {
    pub(super) fn sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Ordering::Relaxed);
    }

    /// The collector does not take them.
    pub(super) fn refused(&self, spans: u64) {
        self.refused.fetch_add(spans, Ordering::Relaxed);
    }

    /// The collector did not answer, however often it was tried.
    pub(super) fn unreachable(&self, spans: u64) {
        self.unreachable.fetch_add(spans, Ordering::Relaxed);
    }

    /// Adds the metrics to a page.
    pub(crate) fn metrics(&self, page: &mut Page<'_>) {
        page.counter(
            "xai_trace_spans_sent_total",
            "Spans that the collector took.",
            &self.sent,
        );
        let name = "xai_trace_spans_dropped_total";
        page.family(
            name,
            Kind::Counter,
            "Spans that did not reach the collector, by reason.",
        );
        page.sample(name, &[("reason", "refused")], &self.refused);
        page.sample(name, &[("reason", "unreachable")], &self.unreachable);
    }
}
