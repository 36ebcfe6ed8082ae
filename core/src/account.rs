//! The subaccount tree, virtual keys, and what a caller may use.

pub mod admission;
pub mod key;
pub mod limits;
pub mod network;
pub(crate) mod paged;
pub mod pattern;
pub mod rules;
pub mod staleness;
pub mod terms;
pub mod tree;
