//! The clock of a core, read once per turn of a connection's task.
//!
//! A request asks for the time some seven times, nearly always within two turns: when it came, and when its answer did. Invariant: what
//! is told was read in the turn that asks, so it is late by no more than what was computed in that turn.

use std::{cell::Cell, sync::Arc, time::Duration};

use proxyxai_core::ports::Clock;

/// A clock for the tasks of connections.
pub(crate) struct TurnClock {
    clock: Arc<dyn Clock>,
    monotonic: Cell<Option<Duration>>,
    unix_ms: Cell<Option<i64>>,
}

impl TurnClock {
    /// Reads this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            monotonic: Cell::new(None),
            unix_ms: Cell::new(None),
        }
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&self) {
        self.monotonic.set(None);
        self.unix_ms.set(None);
    }

    /// Time that never goes back.
    pub(crate) fn monotonic(&self) -> Duration {
        read_once(&self.monotonic, || self.clock.monotonic())
    }

    /// Unix milliseconds.
    pub(crate) fn unix_ms(&self) -> i64 {
        read_once(&self.unix_ms, || self.clock.unix_ms())
    }
}

fn read_once<T: Copy>(kept: &Cell<Option<T>>, read: impl FnOnce() -> T) -> T {
    let now = kept.get().unwrap_or_else(read);
    kept.set(Some(now));
    now
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Goes on by a second with each look at it.
    struct Running(AtomicU32);

    impl Clock for Running {
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed).into())
        }

        fn unix_ms(&self) -> i64 {
            i64::from(self.0.fetch_add(1, Ordering::Relaxed)).saturating_mul(1_000)
        }
    }

    #[test]
    fn time_passes_between_turns() {
        let clock = TurnClock::new(Arc::new(Running(AtomicU32::new(1))));
        for turn in [1, 3, 5] {
            clock.begin_turn();
            for _ in 0..3 {
                assert_eq!(clock.monotonic(), Duration::from_secs(turn));
                assert_eq!(clock.unix_ms(), i64::try_from(turn + 1).unwrap() * 1_000);
            }
        }
    }
}
