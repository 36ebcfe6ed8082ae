//! How many nodes may begin a stream: a bucket of tokens, so that a mass reconnect is served one after the other instead of all badly.
//!
//! Invariant: who is refused is told when there will be room, each at another moment, so that they do not all come back at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Farthest moment that is named; nodes add their own jitter.
const FARTHEST: Duration = Duration::from_secs(30);

/// Lets streams begin at a steady rate; a second's worth at once.
pub(crate) struct Admission {
    per_stream: Duration,
    burst: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Up to where tokens were taken, on a clock that is ahead by the burst.
    free: Duration,
    /// When the last one who was refused may come back.
    promised: Duration,
}

impl Admission {
    /// So many streams per second; 0 stands for one.
    pub(crate) fn new(per_second: u32) -> Self {
        let per_stream = Duration::from_secs(1)
            .checked_div(per_second.max(1))
            .unwrap_or_default();
        Self {
            per_stream,
            burst: Duration::from_secs(1),
            state: Mutex::default(),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long to wait before the next try.
    pub(crate) fn enter(&self, now: Duration) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What was saved up reaches back as far as the burst; here time begins that much later, so that there is a before.
        let next = state.free.max(now).saturating_add(self.per_stream);
        if next <= now.saturating_add(self.burst) {
            state.free = next;
            return Ok(());
        }
        let promised = state.promised.max(now).saturating_add(self.per_stream);
        state.promised = promised.min(now.saturating_add(FARTHEST));
        Err(state.promised.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_begin_at_a_steady_rate_after_a_burst() {
        let admission = Admission::new(50);
        let second = Duration::from_secs(1);
        let admitted = |now: Duration| (0..1000).filter(|_| admission.enter(now).is_ok()).count();
        assert_eq!(admitted(second * 10), 50);
        assert_eq!(admitted(second * 10), 0);
        assert_eq!(admitted(second * 11), 50);
        assert_eq!(admitted(second * 11 + second / 2), 25);
        assert_eq!(
            admitted(second * 100),
            50,
            "no more is saved up than a second's worth"
        );
    }

    #[test]
    fn who_is_refused_is_told_another_moment_than_others() {
        let admission = Admission::new(50);
        let now = Duration::from_secs(10);
        let hints: Vec<Duration> = (0..2000)
            .filter_map(|_| admission.enter(now).err())
            .collect();
        assert_eq!(hints.len(), 1950);
        assert_eq!(hints.first(), Some(&Duration::from_millis(20)));
        assert_eq!(hints.get(49), Some(&Duration::from_secs(1)));
        assert_eq!(hints.last(), Some(&FARTHEST));
    }

    #[test]
    fn the_first_streams_of_a_process_are_let_in() {
        let admission = Admission::new(50);
        let admitted = (0..99).filter(|_| admission.enter(Duration::ZERO).is_ok());
        assert_eq!(admitted.count(), 50);
    }
}
