//! Simulated OpenAI and Anthropic: byte-faithful answers, scripted faults per upstream key, and a true bill.
//!
//! It depends on none of our other crates, so it is an independent witness: what it says a provider would charge was not counted by
//! the code that is tested. `xai sim` and `xai up --demo` run it too. `testkit/README.md` tells how to steer it over HTTP.

mod answer;
mod anthropic;
pub mod bill;
mod control;
pub mod fault;
mod openai;
mod order;
mod prompt;
mod responses;
mod sim;

pub use answer::SimBody;
pub use bill::{Bill, BillRow};
pub use fault::{Chaos, Fault};
pub use sim::{Running, Simulator};
