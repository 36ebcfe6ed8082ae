//! What upstreams learn of a trace: `traceparent` and `tracestate`, and where they go.
//!
//! Invariant: a provider that is no gateway gets neither, unless a setting says so; `baggage` goes nowhere.

use std::{fmt, io::Write as _, str::FromStr};

use http::{HeaderName, HeaderValue};
use proxyxai_core::{
    route::provider::ProviderKind,
    trace::{SpanId, TraceContext},
};
use tonic::metadata::MetadataMap;

use crate::{attempt::Call, context::Context, headers};

/// Names the trace and the span of a request.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What others want to be told about it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Which upstreams learn of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceUpstreams {
    /// None.
    None,
    /// Those of the kind `gateway`.
    Gateways,
    /// All.
    All,
}

/// Writes the context of one attempt, if this kind of upstream is to learn of it. Where the node itself has no traces, what the client
/// sent goes on.
pub(crate) fn write(
    out: &mut Vec<u8>,
    cx: &Context,
    call: &Call,
    kind: ProviderKind,
    span: Option<SpanId>,
) {
    let goes = match cx.settings.trace_upstreams {
        TraceUpstreams::None => false,
        TraceUpstreams::Gateways => kind == ProviderKind::Gateway,
        TraceUpstreams::All => true,
    };
    if !goes {
        return;
    }
    let pass = |out: &mut Vec<u8>, name: &HeaderName, value: Option<&HeaderValue>| {
        if let Some(value) = value {
            headers::write(out, name, value.as_bytes());
        }
    };
    match (&call.trace, span) {
        (Some(trace), Some(span)) if cx.traces.sink.traces() => trace.with_context(|steps| {
            let context = steps.context.within(span);
            let _to_memory = write!(out, "{TRACEPARENT}: {context}\r\n");
            pass(out, &TRACESTATE, steps.state.as_ref());
        }),
        (Some(_) | None, _) => {
            for name in [TRACEPARENT, TRACESTATE] {
                pass(out, &name, call.headers.get(&name));
            }
        }
    }
}

/// Lets a call to a control plane be a part of a trace.
pub(crate) fn send_along(trace: Option<TraceContext>, metadata: &mut MetadataMap) {
    if let Some(context) = trace.and_then(|trace| trace.to_string().parse().ok()) {
        metadata.insert("traceparent", context);
    }
}

/// Why a text names no upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("traces are told to none, gateways or all")]
pub struct InvalidTraceUpstreams;

impl FromStr for TraceUpstreams {
    type Err = InvalidTraceUpstreams;

    fn from_str(text: &str) -> Result<Self, InvalidTraceUpstreams> {
        match text {
            "none" => Ok(Self::None),
            "gateways" => Ok(Self::Gateways),
            "all" => Ok(Self::All),
            _ => Err(InvalidTraceUpstreams),
        }
    }
}

impl fmt::Display for TraceUpstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gateways => "gateways",
            Self::All => "all",
        })
    }
}
