//! The subaccount tree, virtual keys, and what a caller may use.

pub mod key;
pub mod pattern;
pub mod rules;
pub mod tree;
