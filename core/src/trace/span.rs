//! A span as it leaves a plane: plain data, which an exporter brings into the form of its wire.

use std::borrow::Cow;

use super::{SpanId, TraceId};

/// One step of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace_id: TraceId,
    /// Names the span.
    pub span_id: SpanId,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// `tracestate` of the trace, as it came.
    pub state: String,
    /// What is done.
    pub name: Cow<'static, str>,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// Unix nanoseconds.
    pub start: u64,
    /// Unix nanoseconds; not before the start.
    pub end: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Moments in it: Unix nanoseconds and a name.
    pub events: Vec<(u64, &'static str)>,
    /// Why it failed; `None` where it did not.
    pub error: Option<String>,
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Who is called.
    Server,
    /// Who calls.
    Client,
    /// Neither.
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Where an exporter gets spans from. A plane hands them in without waiting; what does not fit is counted.
pub trait SpanSource: Send + Sync {
    /// Takes what has gathered; about `most` spans, when there are so many.
    fn take(&self, most: usize) -> Vec<Span>;
}
