//! Whether what this process holds is proven to be the newest. Bookmarks to nodes are derived from it, so they stop when it is not.

/// Proves that the store was followed up to a moment ago.
pub trait Freshness: Send + Sync {
    /// Whether a proof came in lately.
    fn is_proven(&self) -> bool;
}

/// Of a store in this process: what was written was seen.
#[derive(Debug, Clone, Copy)]
pub struct Always;

impl Freshness for Always {
    fn is_proven(&self) -> bool {
        true
    }
}
