//! The laws of money (design: laws 1 to 7 and 14), on the transactions that the leader runs and the book that a node holds.
//!
//! A [`world`] has a leader's ledger, several nodes with journals and books, and a network between them that loses, repeats and reorders.
//! Everything that happens is drawn by proptest; after each step [`audit`] looks at every row.

mod audit;
mod laws;
mod node;
mod steps;
mod world;
