//! The node: takes requests of clients, sends them to providers, and reports what they used.
//!
//! Read `request.rs` first: the life of one request, top to bottom. A node runs one single-threaded runtime per core, each with its own
//! listener, upstream connections and counters; what is shared is one pointer to an immutable snapshot. Configuration and usage
//! travel on a runtime of their own.

pub mod app;
mod attempt;
mod body;
mod cascade;
pub mod client_tls;
pub mod config;
pub mod context;
pub mod control_tls;
pub mod dial;
mod edge;
pub mod enroll;
#[cfg(test)]
mod fakes;
mod forwarded;
mod head;
mod headers;
mod identify;
pub mod keys;
mod made;
mod meter;
pub mod metrics;
mod models;
pub mod net;
pub mod node;
mod orders;
mod relay;
pub mod report;
mod request;
mod request_id;
mod respond;
mod serve;
mod signs;
mod spelling;
mod timers;
pub mod trace;
mod turn;
mod upstream;
mod visitor;
