//! Where what was noted of requests gathers: for traces, for the request log, each bounded, each taken from by one task.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use proxyxai_core::{
    exposition::{Kind, Page},
    trace::{Conventions, Outbox, Sampling, Span, SpanSource, TraceContext, TraceId},
};

use super::{log::LogCounters, spans, steps::Steps};
use crate::context::Settings;

/// Requests whose traces may wait, and whose lines may.
const ROOM: usize = 8_192;

/// What all cores of a node hand their requests to.
pub(crate) struct Sink {
    sampling: Option<Sampling>,
    conventions: Conventions,
    traces: Outbox<Arc<Steps>>,
    lines: Option<Outbox<Arc<Steps>>>,
    pub(super) log: LogCounters,
    /// Spans of requests that were taken, but not by the exporter yet.
    ready: Mutex<VecDeque<Span>>,
}

impl Sink {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            sampling: settings.trace,
            conventions: settings.trace_conventions,
            traces: Outbox::new(ROOM),
            lines: settings.request_log.then(|| Outbox::new(ROOM)),
            log: LogCounters::default(),
            ready: Mutex::default(),
        }
    }

    /// Whether anything is to be noted of requests.
    pub(super) fn wants_any(&self) -> bool {
        self.sampling.is_some() || self.lines.is_some()
    }

    /// Whether a trace is kept whatever comes of it.
    pub(super) fn samples(&self, trace: TraceId, parent: Option<&TraceContext>) -> bool {
        let sampling = self.sampling.as_ref();
        sampling.is_some_and(|sampling| sampling.at_start(trace, parent))
    }

    /// Whether requests have traces at all.
    pub(super) fn traces(&self) -> bool {
        self.sampling.is_some()
    }

    /// A request is over.
    pub(super) fn take(&self, steps: &Steps) {
        let sampling = self.sampling.as_ref();
        let kept = sampling.is_some_and(|it| it.at_end(steps.context.sampled, steps.failed()));
        if !kept && self.lines.is_none() {
            return;
        }
        let steps = Arc::new(steps.kept());
        if let Some(lines) = &self.lines {
            lines.push(Arc::clone(&steps));
        }
        if kept {
            self.traces.push(steps);
        }
    }

    /// Requests to be written to the request log.
    pub(super) fn lines(&self, most: usize) -> Vec<Arc<Steps>> {
        self.lines
            .as_ref()
            .map(|lines| lines.take(most))
            .unwrap_or_default()
    }

    /// What became of traces and lines.
    pub(crate) fn metrics(&self, page: &mut Page<'_>) {
        let lines_dropped = self.lines.as_ref().map_or(0, Outbox::dropped);
        page.counter(
            "xai_trace_requests_dropped_total",
            "Requests whose traces were dropped, as too many waited for the collector.",
            self.traces.dropped(),
        );
        page.counter(
            "xai_request_log_lines_total",
            "Lines of the request log that were written.",
            &self.log.written,
        );
        let name = "xai_request_log_dropped_total";
        page.family(
            name,
            Kind::Counter,
            "Lines of the request log that were lost: too many waited, or they could not be written.",
        );
        page.sample(name, &[("reason", "full")], lines_dropped);
        page.sample(name, &[("reason", "failed")], &self.log.failed);
    }
}

impl SpanSource for Sink {
    fn take(&self, most: usize) -> Vec<Span> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            for steps in self.traces.take(most) {
                ready.extend(spans::of(&steps, self.conventions));
            }
        }
        let most = most.min(ready.len());
        ready.drain(..most).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proxyxai_core::trace::{Ratio, SpanId};

    use super::*;

    /// A request that came and went.
    fn steps(number: u64, sampled: bool) -> Steps {
        let context = TraceContext {
            trace_id: TraceId(u128::from(number).saturating_add(1)),
            span_id: SpanId(number.saturating_add(1)),
            sampled,
        };
        Steps::begin(context, (Duration::ZERO, 1_000))
    }

    fn sink(request_log: bool) -> Sink {
        Sink::new(&Settings {
            trace: Some(Sampling {
                ratio: Ratio::NONE,
                follow_parent: true,
                failures: true,
            }),
            request_log,
            ..Settings::default()
        })
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let sink = sink(true);
        let room = u64::try_from(ROOM).unwrap();
        for number in 0..room.saturating_add(7) {
            sink.take(&steps(number, true));
        }
        let mut out = String::new();
        sink.metrics(&mut Page::new(&mut out));
        for line in [
            "xai_trace_requests_dropped_total 7",
            "xai_request_log_dropped_total{reason=\"full\"} 7",
        ] {
            assert!(out.lines().any(|one| one == line), "{line} in {out}");
        }
        assert_eq!(sink.lines(usize::MAX).len(), ROOM);
        // Each has its own span and that of who asks.
        let mut spans = Vec::new();
        loop {
            let some = SpanSource::take(&sink, 100);
            assert!(some.len() <= 100);
            if some.is_empty() {
                break;
            }
            spans.extend(some);
        }
        assert_eq!(spans.len(), 2 * ROOM);
    }

    #[test]
    fn failures_alone_are_kept_of_what_is_not_sampled() {
        let sink = sink(false);
        for status in [200, 404, 429, 500, 503] {
            let mut steps = steps(status.into(), false);
            steps.status = status;
            sink.take(&steps);
        }
        let spans = SpanSource::take(&sink, 100);
        let requests = spans.iter().filter(|span| span.name == "request");
        assert_eq!(requests.count(), 2, "{spans:#?}");
        assert!(sink.lines(1).is_empty());
    }
}
