//! What goes wrong in a simulated store, and when: drawn from a seed, in the order of calls.

use std::time::Duration;

/// How often something goes wrong, in calls of a thousand.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The store is not there.
    pub unavailable: u32,
    /// A transaction is not answered; as often as not it was done.
    pub ambiguous: u32,
    /// The answer takes its time.
    pub slow: u32,
    /// The longest that a slow answer takes.
    pub slowest: Duration,
    /// All watches end after a transaction.
    pub lost_watches: u32,
    /// History is forgotten after a transaction.
    pub compaction: u32,
}

/// Decides.
pub(super) struct Chance {
    pub(super) faults: Faults,
    random: u64,
}

/// What happens to a call.
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) unavailable: bool,
    pub(super) ambiguous: bool,
    pub(super) done: bool,
}

impl Chance {
    /// Nothing goes wrong yet.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            faults: Faults::default(),
            random: seed,
        }
    }

    /// What happens to the next call.
    pub(super) fn draw(&mut self) -> Fate {
        let faults = self.faults.clone();
        let slow = self.happens(faults.slow);
        let part = u32::try_from(self.next() % 1000).unwrap_or_default();
        let delay = faults.slowest.saturating_mul(part).checked_div(1000);
        Fate {
            delay: delay.filter(|_| slow).unwrap_or_default(),
            unavailable: self.happens(faults.unavailable),
            ambiguous: self.happens(faults.ambiguous),
            done: self.happens(500),
        }
    }

    /// Whether something happens that happens so often.
    pub(super) fn happens(&mut self, of_a_thousand: u32) -> bool {
        self.next() % 1000 < u64::from(of_a_thousand)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
