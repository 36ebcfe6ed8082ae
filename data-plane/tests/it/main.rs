//! A whole core in-process, against scripted upstreams over loopback: what clients see, and what is booked.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod cascades;
mod edge;
mod harness;
mod levels;
mod orders;
mod outages;
mod plane;
mod responses;
mod retries;
mod staleness;
mod streams;
mod terms;
mod whole;
