//! The streams of nodes: what is said on one, and how it gets onto the wire.

pub(crate) mod codec;
pub(crate) mod session;
