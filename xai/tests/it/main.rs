//! Whole-system tests: real processes, whole gateways, and the shape of the tree.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop where it stands"
)]

mod bill;
mod events;
mod lifecycle;
mod process;
mod refusals;
mod settings;
mod structure;
mod turmoil;
