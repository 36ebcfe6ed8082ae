//! Roles and the audit trail through the real gRPC services, in memory.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on should stop where it stands"
)]

mod audit;
mod escape;
mod gate;
mod gateway;
mod manifest;
mod manifests_at_random;
mod moved;
mod staleness;
