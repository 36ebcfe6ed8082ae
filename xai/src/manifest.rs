//! Files that say what the configuration should be: read, checked against their schema, and written.
//!
//! Invariant: what is written and read again is the same manifest.

mod entry;
pub mod file;
mod place;
pub mod read;
pub mod schema;
mod source;
pub mod write;
