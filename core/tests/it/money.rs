//! The laws of money (design: laws 1 to 7 and 14), on the transactions that the leader runs and the book that a node holds.
//!
//! A [`world`] has a leader's ledger, several nodes with journals and books, and a network between them that loses, repeats and reorders.
//! Everything that happens is drawn by proptest; after each step [`audit`] looks at every row. Single answers are in [`credits`], [`grants`]
//! and [`applied`], what a core does alone in [`books`].

mod applied;
mod audit;
mod books;
mod credits;
mod desk;
mod grants;
mod laws;
mod node;
mod steps;
mod world;
