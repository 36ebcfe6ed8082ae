//! A whole control plane over an in-memory pipe and an in-memory store: what administrators and nodes see, and what is kept. And the
//! stores themselves: those that work, those that fail, and real ones.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod accounts;
mod applied;
mod auth;
mod editor;
mod format_1;
mod harness;
mod lists;
mod node;
mod orders;
mod orphans;
mod poison;
mod replicas;
mod resolve;
mod rotation;
mod secrets;
mod settings;
mod staged;
mod store;
mod stream;
mod transfer;
mod tree;
mod upstreams;
mod usage;
mod usage_query;
mod usage_replicas;
mod veil;
mod views;
