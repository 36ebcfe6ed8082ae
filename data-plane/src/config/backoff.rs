//! How long to wait before trying the control plane again: exponential with full jitter, so that nodes that lost it together
//! do not come back together.

use std::{sync::Arc, time::Duration};

use proxyxai_core::ports::{Random, random_bytes};

/// Waits of one connection that is tried again and again.
pub struct Backoff {
    random: Arc<dyn Random>,
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

impl Backoff {
    /// Starts with short waits.
    pub fn new(random: Arc<dyn Random>) -> Self {
        Self {
            random,
            failures: 0,
        }
    }

    /// It worked: the next waits are short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait: anything between nothing and a bound that doubles up to ten seconds.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let bound = FIRST.saturating_mul(factor).min(LONGEST);
        let draw = u32::from_le_bytes(random_bytes(&*self.random));
        bound.mul_f64(f64::from(draw) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn check(byte: u8, expected: &[u64]) {
        let mut backoff = Backoff::new(Arc::new(Fixed(byte)));
        for millis in expected {
            assert_eq!(backoff.next_wait().as_millis(), u128::from(*millis));
        }
        backoff.reset();
        assert_eq!(backoff.next_wait().as_millis(), u128::from(expected[0]));
    }

    #[test]
    fn waits_double_to_ten_seconds_under_full_jitter() {
        check(255, &[200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        check(0, &[0, 0, 0]);
    }
}
