//! Secrets: types that cannot be printed, how they are sealed at rest and on the wire, and what proves who is who.

pub mod fingerprint;
pub mod join_token;
pub mod seal;

pub use secrecy::{ExposeSecret, SecretString};
pub use zeroize::Zeroizing;
