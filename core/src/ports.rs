//! What a shell is handed by its `app::build`: a clock and a source of randomness.
//!
//! Invariant: nothing in this crate calls either; `now` and random bytes are arguments of its functions. The traits stand
//! here because both planes need the same ones and never import each other.

use std::time::Duration;

use crate::order::LogLevel;

/// Tells time.
pub trait Clock: Send + Sync {
    /// Time since a fixed but arbitrary start; never goes back. For durations.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since the Unix epoch; may jump. For stamps only.
    fn unix_ms(&self) -> i64;
}

/// Makes unpredictable bytes, fit for keys.
pub trait Random: Send + Sync {
    /// Fills the whole slice.
    fn fill(&self, bytes: &mut [u8]);
}

/// `N` unpredictable bytes.
pub fn random_bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

/// Changes what a part of the program writes to its log.
pub trait LogControl: Send + Sync {
    /// Sets the level; `None` is that of the settings.
    fn set(&self, level: Option<LogLevel>);
}
