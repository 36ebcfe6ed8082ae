//! Secrets: types that cannot be printed, and how they are sealed at rest and on the wire.

pub mod seal;

pub use secrecy::{ExposeSecret, SecretString};
pub use zeroize::Zeroizing;
