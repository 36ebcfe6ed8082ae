//! What a node serves from: one pinned configuration behind one pointer, and the stream that keeps it up to date.
//!
//! Invariants: a request pins once and sees one configuration for its whole life; a version never goes back (law 9); a
//! configuration that does not compile never replaces one that did (law 10).

pub mod backoff;
pub mod control;
pub(crate) mod copy;
pub mod credential;
pub(crate) mod held;
pub mod pinned;
#[cfg(test)]
pub(crate) mod sample;
mod session;
mod standing;
pub mod subscriber;

pub use control::ControlPlanes;
pub use copy::CopyPorts;
pub use credential::{ControlChannel, NodeCredential};
pub use pinned::{ConfigHandle, Pinned, UpstreamCredential};
pub use proxyxai_core::freshness::NodeState;
pub use subscriber::{Identity, Subscriber};
