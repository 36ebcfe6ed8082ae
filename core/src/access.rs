//! Who may do what: roles, the permissions of calls, what a credential may hand on.
//!
//! Invariants: a caller sees and changes only what is in the subtree of its account; what is outside is refused in the same words as
//! what does not exist; no credential that a caller makes can do more, or live longer, than the caller's own.

pub mod credential;
pub mod grant;
pub mod permission;
pub mod role;

pub use credential::Unfit;
pub use grant::Grant;
pub use permission::{Caller, Permission, Refusal, may, may_call};
pub use role::Role;
