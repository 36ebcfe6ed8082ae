//! The configuration as a whole: written out, compared with what files say, and brought in line with it in one change.
//!
//! Invariants: what a manifest changes is decided by the code of the calls that change single objects, one after the other, each on the
//! state that those before it lead to; it is committed at once or not at all. What a caller sees and may do is what those calls say.

mod apply;
mod complete;
mod find;
mod plan;
mod pruned;
mod references;
pub(crate) mod service;
mod settings;
mod show;
mod steps;
mod told;
