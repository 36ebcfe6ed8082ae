//! Gives memory back to the system that a large piece of work used and left free.
//!
//! mimalloc (`docs/decisions/0301-allocator.md`) gives back what was free for a second, but looks for it only when it frees a page: a
//! node that has little to do would hold as much again as its table of keys, for hours.

use std::{hint::black_box, time::Duration};

/// How long after the work: longer than mimalloc waits itself.
pub(super) const AFTER: Duration = Duration::from_secs(2);
/// Larger than what shares a page with others, so that freeing it frees a page.
const BLOCK: usize = 1 << 20;

/// Frees a page, which was never touched.
pub(in crate::config) fn give_back() {
    drop(black_box(Vec::<u8>::with_capacity(black_box(BLOCK))));
}
