//! Where a request may go, and whether a failed attempt may be tried again elsewhere.

pub mod address;
pub mod base_url;
pub mod cascade;
pub mod mapping;
pub mod pool;
pub mod provider;
pub mod retry;
pub mod turns;
