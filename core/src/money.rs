//! Money: integer nano-USD, the price book, what a usage costs, and how a budget is spent from many nodes at once.
//!
//! Read in this order:
//!
//! 1. [`nano`], [`price`], [`cost`]: what a usage costs at list price; [`bound`]: the most that a request can cost.
//! 2. [`charge`], [`amounts`]: what each level of a path is charged for it; [`window`]: in which window it counts.
//! 3. [`lease`]: what a node may spend without asking, and how it is granted; [`record`]: what the node writes down of that.
//! 4. [`ledger`]: the rows that say where every nano-dollar is, and the transactions of the leader on them.
//!
//! The life of a nano-dollar: free → leased ([`lease::grant`]) → held ([`lease::book`]) → settled ([`ledger::apply`]); what is not
//! spent goes back by a return, or, when the node started anew, through suspense by a seal ([`ledger::node`]).

pub mod amounts;
pub mod bound;
pub mod charge;
pub mod cost;
pub mod lease;
pub mod ledger;
pub mod nano;
pub mod price;
pub mod record;
pub mod window;
