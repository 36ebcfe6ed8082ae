//! What is noted of a request on its way: when each step was taken and how each attempt ended. Its trace and its line in the request
//! log are made of that, elsewhere and later.
//!
//! Invariants: where no setting wants it nothing is noted, and a step costs one branch; noting never waits, and what does not fit is
//! dropped and counted; no body, credential or header is noted (law 21). Whether a trace is kept is told at the end of its request, so a
//! failure is kept whole. Times are those of the core's turns, unless the trace was sampled at its start: then the clock is read.

mod line;
mod log;
mod propagate;
mod sink;
mod spans;
mod steps;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use proxyxai_core::{
    dialect::{Dialect, Endpoint, error::ErrorCode},
    route::pool::UpstreamKeyIndex,
    trace::{IdSource, SpanId, TraceContext, context::STATE_MAX},
};

pub(crate) use log::RequestLog;
pub use propagate::TraceUpstreams;
pub(crate) use propagate::{TRACEPARENT, TRACESTATE, send_along, write as write_context};
pub(crate) use sink::Sink;
pub(crate) use steps::{AttemptSteps, Steps};

use crate::{
    attempt::Call,
    context::Context,
    meter::{Caller, Facts},
    request_id::RequestId,
    signs::Signs,
};

/// Begins the traces of one core.
pub(crate) struct Traces {
    ids: IdSource,
    sink: Arc<Sink>,
}

impl Traces {
    /// Names spans from a random number on.
    pub(crate) fn new(start: u64, sink: Arc<Sink>) -> Self {
        Self {
            ids: IdSource::new(start),
            sink,
        }
    }
}

/// What was noted of one request so far. Its core alone has it.
pub(crate) struct Trace(RefCell<Steps>);

impl Trace {
    /// A request came, if anybody wants to know.
    pub(crate) fn begin(cx: &Context) -> Option<Rc<Self>> {
        let Traces { ids, sink } = &cx.traces;
        if !sink.wants_any() {
            return None;
        }
        let trace_id = ids.trace_id();
        let context = TraceContext {
            trace_id,
            span_id: ids.span_id(),
            sampled: sink.samples(trace_id, None),
        };
        Some(Rc::new(Self(RefCell::new(Steps::begin(
            context,
            (cx.clock.monotonic(), cx.clock.unix_ms()),
        )))))
    }

    /// Its head was read: the trace that it belongs to, if the client says so.
    pub(crate) fn take_up(&self, cx: &Context, signs: &Signs<'_>, request_id: RequestId) {
        let mut steps = self.0.borrow_mut();
        steps.request_id = Some(request_id);
        let parent = signs
            .traceparent
            .and_then(|value| TraceContext::parse(value.as_bytes()));
        let Some(parent) = parent else { return };
        steps.parent = Some(parent.span_id);
        steps.context.trace_id = parent.trace_id;
        steps.context.sampled = cx.traces.sink.samples(parent.trace_id, Some(&parent));
        steps.state = signs
            .tracestate
            .filter(|state| state.len() <= STATE_MAX)
            .cloned();
    }

    /// The child gateway that asks has named the request already.
    pub(crate) fn named(&self, request_id: RequestId) {
        self.0.borrow_mut().request_id = Some(request_id);
    }

    /// Who asks is known.
    pub(crate) fn identified(&self, cx: &Context, caller: &Caller) {
        let mut steps = self.0.borrow_mut();
        steps.identified = Some(now(cx, &steps));
        steps.key = Some(caller.key.record.id);
        steps.stands = Some((caller.key.record.account, Arc::clone(&caller.accounts)));
    }

    /// The key is not at hand and is asked for, in this context.
    pub(crate) fn asks(&self, cx: &Context) -> TraceContext {
        let mut steps = self.0.borrow_mut();
        let span_id = cx.traces.ids.span_id();
        steps.asked = Some((span_id, now(cx, &steps), None));
        steps.context.within(span_id)
    }

    /// The answer about the key came.
    pub(crate) fn asked(&self, cx: &Context) {
        let mut steps = self.0.borrow_mut();
        let now = now(cx, &steps);
        if let Some((_, _, end)) = &mut steps.asked {
            *end = Some(now);
        }
    }

    /// What is sent is known.
    pub(crate) fn planned(&self, cx: &Context, facts: &Arc<Facts>) {
        let mut steps = self.0.borrow_mut();
        steps.planned = Some(now(cx, &steps));
        steps.facts = Some(Arc::clone(facts));
    }

    /// An attempt begins; gives its span.
    pub(crate) fn attempts(
        &self,
        cx: &Context,
        call: &Call,
        upstream: UpstreamKeyIndex,
        number: usize,
    ) -> SpanId {
        let mut steps = self.0.borrow_mut();
        let (span, began) = (cx.traces.ids.span_id(), now(cx, &steps));
        let snapshot = &call.pinned.snapshot;
        let names = (span, number, steps.context.sampled);
        let attempt = AttemptSteps::begin(names, began, snapshot, upstream);
        steps.attempts.push(attempt);
        span
    }

    /// An attempt was settled: how.
    pub(crate) fn attempted(&self, span: SpanId, note: impl FnOnce(&mut AttemptSteps)) {
        let mut steps = self.0.borrow_mut();
        let mut latest = steps.attempts.iter_mut().rev();
        if let Some(attempt) = latest.find(|attempt| attempt.span == span) {
            note(attempt);
        }
    }

    /// The head of the answer goes out.
    pub(crate) fn answered(
        &self,
        cx: &Context,
        (endpoint, dialect): (Option<Endpoint>, Dialect),
        status: u16,
        error: Option<ErrorCode>,
    ) {
        let mut steps = self.0.borrow_mut();
        steps.answered = Some(now(cx, &steps));
        (steps.endpoint, steps.dialect) = (endpoint, Some(dialect));
        (steps.status, steps.error) = (status, error);
    }

    /// Its answer is over, or nobody waits for it any more.
    pub(crate) fn end(&self, cx: &Context) {
        let mut steps = self.0.borrow_mut();
        steps.ended = now(cx, &steps);
        cx.traces.sink.take(&steps);
    }

    /// Where the request stands in its trace, and the `tracestate` of that.
    fn with_context<T>(&self, show: impl FnOnce(&Steps) -> T) -> T {
        show(&self.0.borrow())
    }
}

/// The time: exact for traces that are kept.
fn now(cx: &Context, steps: &Steps) -> Duration {
    if steps.context.sampled {
        cx.clock.begin_turn();
    }
    cx.clock.monotonic()
}
