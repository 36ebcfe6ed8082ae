//! Watches every call: counts it, and makes a span of it where the caller's trace is kept or something failed.
//!
//! Invariants: a call never waits for its span, and what does not fit is dropped and counted; labels are names of calls that exist and
//! codes of gRPC, so their number is bounded. A stream counts when it begins, and has no span: it lives for days.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proxyxai_core::{
    ports::{Clock, Random, random_bytes},
    trace::{IdSource, Outbox, Sampling, Span, SpanKind, SpanSource, TraceContext},
};
use tonic::{Code, Status};

use crate::auth;

mod layer;

pub(crate) use layer::Watched;

/// Spans that may wait.
const ROOM: usize = 8_192;
/// Calls that stay open: nodes' streams, and what is read for long.
const STREAMS: [&str; 3] = ["Stream", "Report", "Backup"];

/// What became of calls.
pub(crate) struct Calls {
    clock: std::sync::Arc<dyn Clock>,
    sampling: Option<Sampling>,
    ids: Mutex<IdSource>,
    spans: Outbox<Span>,
    counts: Mutex<BTreeMap<(&'static str, i32), Count>>,
}

/// Calls of one name that ended with one code.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) calls: u64,
    pub(crate) took: Duration,
}

/// A call that began.
struct Begun {
    name: &'static str,
    at: Duration,
    unix_ms: i64,
    trace: Option<(TraceContext, Option<TraceContext>)>,
}

impl Calls {
    /// Watches calls; spans are kept as `sampling` says, or not made at all.
    pub(crate) fn new(
        clock: std::sync::Arc<dyn Clock>,
        random: &dyn Random,
        sampling: Option<Sampling>,
    ) -> Self {
        Self {
            clock,
            sampling,
            ids: Mutex::new(IdSource::new(u64::from_le_bytes(random_bytes(random)))),
            spans: Outbox::new(ROOM),
            counts: Mutex::default(),
        }
    }

    /// Names and codes, and how many calls they had.
    pub(crate) fn counts(&self) -> Vec<((&'static str, Code), Count)> {
        let counts = self.lock_counts();
        let each = counts.iter();
        each.map(|((name, code), count)| ((*name, Code::from_i32(*code)), *count))
            .collect()
    }

    /// Spans that did not fit.
    pub(crate) fn dropped(&self) -> u64 {
        self.spans.dropped()
    }

    fn begin(&self, path: &str, traceparent: Option<&[u8]>) -> Begun {
        let name = auth::name_of(path);
        let traced = name.filter(|name| !STREAMS.contains(name));
        let trace = self.sampling.zip(traced).map(|(sampling, _)| {
            let parent = traceparent.and_then(TraceContext::parse);
            let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            let trace_id = parent.map_or_else(|| ids.trace_id(), |parent| parent.trace_id);
            let context = TraceContext {
                trace_id,
                span_id: ids.span_id(),
                sampled: sampling.at_start(trace_id, parent.as_ref()),
            };
            (context, parent)
        });
        Begun {
            name: name.unwrap_or("unknown"),
            at: self.clock.monotonic(),
            unix_ms: self.clock.unix_ms(),
            trace,
        }
    }

    fn end(&self, begun: Begun, path: &str, code: Code) {
        let took = self.clock.monotonic().saturating_sub(begun.at);
        let mut counts = self.lock_counts();
        let count = counts.entry((begun.name, code as i32)).or_default();
        count.calls = count.calls.saturating_add(1);
        count.took = count.took.saturating_add(took);
        drop(counts);
        let (Some(sampling), Some((context, parent))) = (self.sampling, begun.trace) else {
            return;
        };
        let failed = is_failure(code);
        if !sampling.at_end(context.sampled, failed) {
            return;
        }
        let ns = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
        let start = ns(begun.unix_ms);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or((name, ""));
        self.spans.push(Span {
            trace_id: context.trace_id,
            span_id: context.span_id,
            parent: parent.map(|parent| parent.span_id),
            state: String::new(),
            name: name.to_owned().into(),
            kind: SpanKind::Server,
            start,
            end: start.saturating_add(took),
            attributes: vec![
                ("rpc.system", "grpc".into()),
                ("rpc.service", service.into()),
                ("rpc.method", method.into()),
                ("rpc.grpc.status_code", (code as i32).unsigned_abs().into()),
            ],
            events: Vec::new(),
            error: failed.then(|| code_name(code).to_owned()),
        });
    }

    fn lock_counts(&self) -> MutexGuard<'_, BTreeMap<(&'static str, i32), Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanSource for Calls {
    fn take(&self, most: usize) -> Vec<Span> {
        self.spans.take(most)
    }
}

/// What is the server's fault, as OpenTelemetry's conventions for gRPC have it.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A code as gRPC spells it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The code of an answer, as far as its head tells: what fails has it there.
fn code_of(headers: &http::HeaderMap) -> Code {
    Status::from_header_map(headers).map_or(Code::Ok, |status| status.code())
}
