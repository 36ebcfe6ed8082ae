//! The laws of `core` as property tests, and its tables as tables.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on should stop where it stands"
)]

mod accounts;
mod addresses;
mod admission;
mod audits;
mod cascades;
mod fits;
mod freshness;
mod intents;
mod keys;
mod money;
mod rates;
mod retries;
mod roles;
mod routes;
mod snapshots;
mod staleness;
mod streams;
mod traces;
mod usages;
