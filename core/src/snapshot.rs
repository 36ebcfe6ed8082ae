//! What a request is served from: one immutable, compiled configuration.
//!
//! Invariants: a version never goes back (law 9); the same content gives the same digest on every node; content that does not
//! compile never replaces content that did (law 10).

pub mod checks;
pub mod compile;
pub mod content;
pub mod invalidation;
pub mod key_table;
pub mod key_terms;
pub mod version;

pub use compile::{Provider, ProviderIndex, Rejection, Snapshot, UpstreamKey};
pub use content::{Change, Content, Digest, ResourceKind, ResourceName};
pub use invalidation::{Heard, InvalidationLog};
pub use key_table::{KeyId, KeyRecord, KeyTable, KeyTableBuilder};
pub use key_terms::KeyTerms;
pub use version::Version;
