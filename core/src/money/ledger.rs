//! The ledger: where every nano-dollar is.
//!
//! It is rows and pure transactions on them. The leader's shell loads rows into a [`draft::Ledger`], gives a [`draft::Draft`] of it to one
//! of the functions here together with [`now::Now`], commits [`draft::Draft::into_changes`] by one transaction of the store that compares
//! its fence, and takes the changes in with [`draft::Ledger::commit`]. [`fault::Fault::NotLoaded`] tells it which row to read before it asks again.
//! After a commit of which it does not know whether it happened it reads the rows again; every function here may be repeated.
//!
//! - Rows: [`account`] ([`budget`]: limits and windows; [`wallet`]: [`grant`]s), keys and models ([`budget`]), leases
//!   ([`super::lease::row`]), nodes and their epochs ([`mark`]); all are named in [`id`].
//! - Money moves in [`shift`], and only there, between free and where a lease has it; [`parts`] is the order of grants.
//! - Commands: leases are granted in [`super::lease::grant`]; records are applied in [`apply`]; [`node`] registers, seals and forgets;
//!   [`fund`], [`limit`] (narrowing and closing) are the operator's; [`restore`] puts a restored ledger right.
//!
//! Invariants (laws 1 to 6): in every committed state each row's equation holds, and what rows have leased, in suspense and charged is what the
//! leases have left, row by row, window by window, grant by grant.

pub mod account;
pub mod apply;
pub mod budget;
pub mod draft;
pub mod fault;
pub mod fund;
pub mod grant;
pub mod id;
pub mod limit;
pub mod mark;
pub mod node;
pub mod now;
pub mod parts;
pub mod restore;
pub mod shift;
pub mod wallet;
