//! The APIs that clients speak: what a request asks for, where its usage is, what its errors look like.

pub mod endpoint;
pub mod error;
pub mod estimate;
pub mod first_event;
pub mod intent;
mod responses;
pub mod scan;
pub mod sse;
pub mod stream;
pub mod usage;
mod words;

pub use endpoint::{Dialect, Endpoint, NoEndpoint};
