//! Where the node stands, kept true as time passes: the facts decide in `core`, this tells time and remembers the outcome.
//!
//! Invariant: requests read one atomic word, which tells the state and the age; whoever changes a fact changes the word with it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use proxyxai_core::freshness::{Freshness, NodeState};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::pinned::ConfigHandle;

/// The facts and what follows from them.
pub(super) struct Standing {
    began: Instant,
    freshness: Mutex<Freshness>,
    /// A [`Word`].
    word: AtomicI64,
    changed: Notify,
}

impl Standing {
    pub(super) fn new(max_stale: Duration) -> Self {
        Self {
            began: Instant::now(),
            freshness: Mutex::new(Freshness::new(max_stale)),
            word: AtomicI64::new(Word::new(NodeState::Waiting, 0).0),
            changed: Notify::new(),
        }
    }

    /// Where the node stands, as of the last fact or change by time.
    pub(super) fn state(&self) -> NodeState {
        self.word().state()
    }

    /// That, and since when what is held may be out of date.
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// How old what is held is, by a word that was read just now.
    pub(super) fn age(&self, word: Word) -> Duration {
        let age = millis(self.elapsed()).saturating_sub(word.born_ms());
        Duration::from_millis(u64::try_from(age).unwrap_or_default())
    }

    /// Time since the process began to hold anything.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Asks the facts.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Freshness, Duration) -> T) -> T {
        let freshness = self.freshness.lock();
        let freshness = freshness.unwrap_or_else(PoisonError::into_inner);
        question(&freshness, self.elapsed())
    }

    /// Changes the facts; gives the state before and after.
    pub(super) fn note(
        &self,
        change: impl FnOnce(&mut Freshness, Duration),
    ) -> (NodeState, NodeState) {
        let freshness = self.freshness.lock();
        let mut freshness = freshness.unwrap_or_else(PoisonError::into_inner);
        let now = self.elapsed();
        change(&mut freshness, now);
        let state = freshness.state(now);
        let age = freshness.age(now).unwrap_or_default();
        let word = Word::new(state, millis(now).saturating_sub(millis(age)));
        let before = self.state();
        self.word.store(word.0, Ordering::Release);
        drop(freshness);
        self.changed.notify_one();
        (before, state)
    }
}

/// Where the node stands, in its lowest eight bits; above them the milliseconds, since this process began, at which what is held was the
/// newest for certain: less than nothing where that was an earlier process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word(i64);

/// One more than the largest state.
const STATES: i64 = 1 << 8;

impl Word {
    fn new(state: NodeState, born_ms: i64) -> Self {
        Self(
            born_ms
                .saturating_mul(STATES)
                .saturating_add(i64::from(state as u8)),
        )
    }

    fn born_ms(self) -> i64 {
        self.0.div_euclid(STATES)
    }

    fn state(self) -> NodeState {
        let state = self.0.rem_euclid(STATES);
        NodeState::ALL
            .into_iter()
            .find(|s| i64::from(*s as u8) == state)
            .unwrap_or(NodeState::Waiting)
    }

    pub(super) fn is_expired(self) -> bool {
        self.0.rem_euclid(STATES) == i64::from(NodeState::Expired as u8)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Changes the state whenever time alone changes it. Never ends.
pub(super) async fn watch(config: ConfigHandle) -> std::convert::Infallible {
    loop {
        let standing = config.standing();
        let due = standing.ask(Freshness::next_change);
        let due = due.and_then(|due| standing.began.checked_add(due));
        tokio::select! {
            biased;
            () = standing.changed.notified() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                config.note(|_, _| {});
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_holds_the_state_and_the_age() {
        for state in NodeState::ALL {
            for born_ms in [
                0,
                1,
                -1,
                255,
                256,
                -256,
                365 * 86_400_000,
                -365 * 86_400_000,
            ] {
                let word = Word::new(state, born_ms);
                assert_eq!((word.state(), word.born_ms()), (state, born_ms));
                assert_eq!(word.is_expired(), state == NodeState::Expired);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_grows_by_itself_and_counts_what_an_earlier_process_had() {
        let standing = Standing::new(Duration::from_secs(3600));
        let age = Duration::from_secs(60);
        standing.note(|facts, now| facts.restored(now, age, None));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(standing.age(standing.word()), Duration::from_secs(65));
        standing.note(|facts, now| facts.compared(now, true, true));
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!(standing.age(standing.word()), Duration::from_millis(7));
    }
}
