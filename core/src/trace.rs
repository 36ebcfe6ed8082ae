//! Traces: which context a request belongs to, whether its spans are kept, and what the spans are called.
//!
//! Invariants: a decision follows from the trace id and the settings alone, so that every level of a cascade with the same ratio keeps
//! the same traces; nothing here holds a prompt, an answer or a secret (law 21).

pub mod context;
pub mod genai;
pub mod ids;
pub mod outbox;
pub mod sampling;
pub mod span;

pub use context::{SpanId, TraceContext, TraceId};
pub use genai::Conventions;
pub use ids::IdSource;
pub use outbox::Outbox;
pub use sampling::{Ratio, Sampling};
pub use span::{Span, SpanKind, SpanSource, Value};
