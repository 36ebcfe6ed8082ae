//! Every decision of ProxyXAI: who may ask for what, where it may go, what it costs.
//!
//! Invariant: nothing here performs I/O, reads a clock, draws a random number or awaits. Shells pass `now` and random bytes in, and
//! do what the functions here decide.

pub mod access;
pub mod account;
pub mod audit;
pub mod causes;
pub mod dialect;
pub mod exposition;
pub mod freshness;
pub mod idempotency;
pub mod manifest;
pub mod money;
pub mod order;
pub mod ports;
pub mod rate;
pub mod route;
pub mod secret;
pub mod settings;
pub mod snapshot;
pub mod trace;
