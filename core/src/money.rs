//! Money: integer nano-USD, the price book, what a usage costs, and how a budget is spent from many nodes at once.
//!
//! Read in this order: [`nano`], [`price`], [`cost`] (what a usage costs at list price), [`charge`] and [`amounts`] (what each level
//! of a path is charged for it), [`window`] (in which window it counts).

pub mod amounts;
pub mod charge;
pub mod cost;
pub mod nano;
pub mod price;
pub mod window;
