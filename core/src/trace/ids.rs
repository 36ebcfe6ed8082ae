//! Names for traces and spans: quick, and different wherever the start is.

use std::cell::Cell;

use super::{SpanId, TraceId};

/// Gives ids to one thread. They are evenly spread, as sampling needs, and no secret: who knows one can compute the next.
#[derive(Debug)]
pub struct IdSource(Cell<u64>);

impl IdSource {
    /// Begins at a random number.
    pub fn new(start: u64) -> Self {
        Self(Cell::new(start))
    }

    /// The next id of a trace.
    pub fn trace_id(&self) -> TraceId {
        let id = u128::from(self.next()).wrapping_shl(64) | u128::from(self.next());
        TraceId(id.max(1))
    }

    /// The next id of a span.
    pub fn span_id(&self) -> SpanId {
        SpanId(self.next().max(1))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
