//! The simulated providers answer as the real ones do, to the byte where clients look; every fault is what it says, and the bill is true.
//!
//! Connections are pipes in memory and time is paused, so delays and stalls take no time.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop where it stands"
)]

mod answers;
mod bill;
mod client;
mod faults;
mod steering;
