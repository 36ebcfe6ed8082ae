//! The control plane against stores that work, stores that fail, and real ones.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on should stop where it stands"
)]

mod store;
