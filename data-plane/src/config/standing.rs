//! Where the node stands, kept true as time passes: the facts decide in `core`, this tells time and remembers the outcome.
//!
//! Invariant: requests read one atomic word; whoever changes a fact changes the word with it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
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
    state: AtomicU8,
    changed: Notify,
}

impl Standing {
    pub(super) fn new(max_stale: Duration) -> Self {
        Self {
            began: Instant::now(),
            freshness: Mutex::new(Freshness::new(max_stale)),
            state: AtomicU8::new(NodeState::Waiting as u8),
            changed: Notify::new(),
        }
    }

    /// Where the node stands, as of the last fact or change by time.
    pub(super) fn state(&self) -> NodeState {
        let state = self.state.load(Ordering::Acquire);
        NodeState::ALL
            .into_iter()
            .find(|s| *s as u8 == state)
            .unwrap_or(NodeState::Waiting)
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
        let before = self.state();
        self.state.store(state as u8, Ordering::Release);
        drop(freshness);
        self.changed.notify_one();
        (before, state)
    }
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
