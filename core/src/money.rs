//! Money: integer nano-USD, the price book, what a usage costs, and how a budget is spent from many nodes at once.
//!
//! Read in this order: [`nano`], [`price`], [`cost`] (what a usage costs at list price), [`charge`] and [`amounts`] (what each level
//! of a path is charged for it), [`window`] (in which window it counts), [`lease`] (what a node may spend without asking), [`record`] (what it
//! tells of that), [`ledger`] (what the control plane does with both).

pub mod amounts;
pub mod charge;
pub mod cost;
pub mod lease;
pub mod ledger;
pub mod nano;
pub mod price;
pub mod record;
pub mod window;
