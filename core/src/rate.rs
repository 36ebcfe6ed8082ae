//! Rates: requests and tokens per minute, hour and day, and requests at once; over all nodes, for every level of a path.
//!
//! The leader counts in a [`counter::Counter`] per limit; a node takes chunks of a second or two of its demand, and spends them from a
//! [`chunk::Chunks`] without asking. Nothing here is durable by itself: [`counter::Checkpoint`]s of the longer windows are written every few
//! seconds, and a new leader adds to them what nodes say they were given since.
//!
//! Invariants: what is admitted in any window is at most 1.05 × its limit, chunks that nodes still hold included; what tokens cost beyond their
//! estimate is a debt that is paid before more is given; every level is checked before any is charged. Times are the leader's, as
//! milliseconds from a fixed start; limits are counts.

pub mod chunk;
pub mod counter;
pub mod seats;
