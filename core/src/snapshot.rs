//! What a request is served from: one immutable, compiled configuration.
//!
//! Invariants: a version never goes back (law 9); the same content gives the same digest on every node; content that does not
//! compile never replaces content that did (law 10).

pub mod compile;
pub mod content;
pub mod fit;
pub mod key_table;
pub mod version;

pub use compile::{Provider, ProviderIndex, Rejection, Snapshot, UpstreamKey};
pub use content::{Change, Content, Digest, ResourceKind, ResourceName};
pub use fit::{Fitted, Newcomers, fit};
pub use key_table::{KeyRecord, KeyTable};
pub use version::Version;
