//! The real clock and the real randomness: the only place of this crate that reads either.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use proxyxai_core::ports::{Clock, Random};

/// The clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is handed in"
    )]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_ms(&self) -> i64 {
        unix_ms()
    }
}

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that is handed in"
)]
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The randomness of the operating system.
#[derive(Debug)]
pub struct SystemRandomness(SystemRandom);

impl SystemRandomness {
    /// The randomness, tried once.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn open() -> Result<Self, NoRandomness> {
        let random = SystemRandom::new();
        random.fill(&mut [0; 32]).map_err(|_| NoRandomness)?;
        Ok(Self(random))
    }
}

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random bytes; nothing secret can be made here")]
pub struct NoRandomness;

impl Random for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) {
        if self.0.fill(bytes).is_err() {
            // Keys made of anything else would be guessable, so there is nothing to go on with.
            std::process::abort();
        }
    }
}
