//! Leases: slices of an account's money that one node may spend without asking.
//!
//! At the leader, [`grant`] takes them out of what is free, all kinds that a request needs or none, and [`recall`] says which to ask
//! back. At the node, a [`book::Book`] holds, settles, releases and returns, and asks for more by the sizes of [`size`].
//!
//! How a node's shell shares it between cores: each core has a book of its own and is the only one that touches it, so hold and settle take
//! no lock and no atomic, and they allocate nothing: a hold is a slot of the book. The node's money thread has one more book, which is
//! the one that asks and returns; [`book::Book::carve`] takes a slice out of it for a core, and [`book::Book::put`] takes slices in. A
//! lease's amount is the sum over the books, so nothing is spent twice whichever core spends it. Settlements go to the money thread as
//! records, are numbered there as they are appended, and consume the lease's grants in that order.

pub mod book;
pub mod grant;
#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a model whose numbers overflow should stop there"
)]
mod model;
pub mod recall;
pub mod row;
pub mod size;
