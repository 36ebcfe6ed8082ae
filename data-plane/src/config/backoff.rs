//! How long to wait before trying the control plane again: exponential with full jitter, so that nodes that lost it together
//! do not come back together; where the control plane says when it has room, then and a little later.

use std::{sync::Arc, time::Duration};

use proxyxai_core::ports::{Random, random_bytes};
use tonic::Status;

/// Waits of one connection that is tried again and again.
pub struct Backoff {
    random: Arc<dyn Random>,
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// Longest wait that a control plane may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// Most that is added to a wait that was asked for. The control plane names each node another moment and saves up room for a second,
/// so that this much costs none of it.
const LATE: Duration = Duration::from_secs(1);
/// In which gRPC says how long to stay away.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

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
        self.up_to(FIRST.saturating_mul(factor).min(LONGEST))
    }

    /// The wait that a control plane asked for when it refused a call, and at most a tenth more; `None` when it asked for none. It is
    /// there, so the next waits are short again.
    pub fn asked(&mut self, refused: &Status) -> Option<Duration> {
        let ms = refused.metadata().get(PUSHBACK)?.to_str().ok()?;
        let wait = Duration::from_millis(ms.parse().ok()?).min(LONGEST_ASKED);
        self.reset();
        let late = wait.checked_div(10).unwrap_or_default();
        Some(wait.saturating_add(self.up_to(late.min(LATE))))
    }

    fn up_to(&self, bound: Duration) -> Duration {
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

    fn check_asked(byte: u8, said: Option<&str>, expected: Option<u64>) {
        let mut status = Status::unavailable("too many nodes come at once");
        if let Some(said) = said {
            status
                .metadata_mut()
                .insert(PUSHBACK, said.parse().unwrap());
        }
        let mut backoff = Backoff::new(Arc::new(Fixed(byte)));
        backoff.next_wait();
        let wait = backoff.asked(&status).map(|wait| wait.as_millis());
        assert_eq!(wait, expected.map(u128::from), "{said:?}");
        if byte == 255 {
            let next = if wait.is_some() { 200 } else { 400 };
            assert_eq!(backoff.next_wait().as_millis(), next);
        }
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_and_a_little_more() {
        check_asked(0, Some("20"), Some(20));
        check_asked(255, Some("20"), Some(22));
        check_asked(0, Some("30000"), Some(30_000));
        check_asked(255, Some("30000"), Some(31_000));
        check_asked(0, Some("86400000"), Some(60_000));
        check_asked(255, None, None);
        check_asked(255, Some("soon"), None);
        // By the rules of gRPC: do not try this call again. A node has to.
        check_asked(255, Some("-1"), None);
    }
}
