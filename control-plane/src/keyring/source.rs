//! Where the next key-encryption key comes from: the shell reads it, from a file, the environment or a command.

use std::pin::Pin;

use proxyxai_core::secret::seal::{SealKey, SealKeyId};

/// The next key-encryption key, or why it cannot be had.
pub type NextKey<'a> = Pin<Box<dyn Future<Output = Result<Option<SealKey>, String>> + Send + 'a>>;

/// Where the next key-encryption key comes from.
pub trait KeySource: Send + Sync {
    /// Reads it; `None` when there is none.
    fn read(&self) -> NextKey<'_>;

    /// The store is sealed under the key that was read: it is the one to start with from now on.
    fn adopted(&self, id: SealKeyId);
}

/// There is no next key.
#[derive(Debug, Clone, Copy)]
pub struct NoNextKey;

impl KeySource for NoNextKey {
    fn read(&self) -> NextKey<'_> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn adopted(&self, _: SealKeyId) {}
}
