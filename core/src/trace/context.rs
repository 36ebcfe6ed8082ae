//! The W3C trace context: `traceparent`, read and written.
//!
//! Invariant: what is read is whole or not at all (W3C Trace Context §3.2): a header that breaks a rule begins a new trace.

use std::fmt;

/// Length of a `traceparent` of version 00.
pub const LEN: usize = 55;
/// Longest `tracestate` that is passed on (W3C Trace Context §3.3.1.5: at least 512 characters).
pub const STATE_MAX: usize = 512;

const SAMPLED: u8 = 1;

/// Names a trace; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// Names a span; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub u64);

/// Where in which trace something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that it happens in.
    pub span_id: SpanId,
    /// Whether whoever began the trace keeps it.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` for what is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (text, rest) = (text.get(..LEN)?, text.get(LEN..)?);
        let version = hex(text.get(..2)?)?;
        // A later version may go on behind a dash; 255 is no version.
        let ends = rest.is_empty() || (version > 0 && rest.first() == Some(&b'-'));
        if version == 0xff || !ends || [2, 35, 52].iter().any(|at| text.get(*at) != Some(&b'-')) {
            return None;
        }
        let trace_id = hex(text.get(3..35)?)?;
        let span_id = u64::try_from(hex(text.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(text.get(53..55)?)?).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            sampled: flags & SAMPLED != 0,
        })
    }

    /// The same trace in another span.
    #[must_use]
    pub fn within(self, span_id: SpanId) -> Self {
        Self { span_id, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Lower-case digits alone: the standard allows no others.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit.wrapping_sub(b'0'),
            b'a'..=b'f' => digit.wrapping_sub(b'a').wrapping_add(10),
            _ => return None,
        };
        Some(sum.wrapping_shl(4) | u128::from(value))
    })
}
