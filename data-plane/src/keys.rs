//! Looks virtual keys up that the snapshot does not hold: asks the control plane, and remembers what it said.
//!
//! Invariants: only the control plane's own answer makes an authoritative "no such key"; when it cannot be asked the answer is
//! [`ResolveError::Unavailable`] (law 12). An answer is used only while it is at least as new as the configuration in force, so
//! that nothing older than a change is admitted once the change arrived, whatever was in flight (law 11). A remembered "no" is
//! used only by a node that is not stale: a stale one may have missed the key's creation. Memory is bounded.
//!
//! The rule by versions drops everything that was remembered at each change of the configuration. That costs one question per
//! key that the snapshot does not hold, and the snapshot holds nearly all of them.

mod asker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{ops::compute::Op, sync::Cache};
use proxyxai_core::{
    account::{key::KeyDigest, terms::Key, tree::AccountTree},
    snapshot::Version,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use asker::Asker;

use crate::config::{ConfigHandle, NodeState};

/// Answers that are remembered.
const REMEMBERED: u64 = 100_000;
/// Requests that may wait for an answer at the same time.
const WAITING: usize = 4_096;
/// How long a request waits.
const DEADLINE: Duration = Duration::from_millis(500);

/// A key that exists, with the accounts it depends on.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The key; its account stands in `accounts`, not in a snapshot.
    pub key: Key,
    /// The account of the key and its ancestors, as the control plane had them.
    pub accounts: Arc<AccountTree>,
}

/// Asks for keys, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct KeyResolver {
    shared: Arc<Shared>,
    questions: mpsc::UnboundedSender<Question>,
}

struct Shared {
    config: ConfigHandle,
    answers: Cache<KeyDigest, Answer>,
    waiting: Semaphore,
    counters: ResolveCounters,
}

/// What look-ups came to so far.
#[derive(Debug, Default)]
pub struct ResolveCounters {
    /// Answered from memory.
    pub hits: AtomicU64,
    /// The control plane was asked.
    pub misses: AtomicU64,
    /// There was no such key, remembered or not.
    pub negative: AtomicU64,
    /// The control plane did not answer in time, or too many were asking.
    pub unavailable: AtomicU64,
}

/// What the control plane said about a digest.
#[derive(Clone)]
struct Answer {
    as_of: Version,
    found: Option<Resolved>,
}

/// One request that waits for an answer.
struct Question {
    digest: KeyDigest,
    answer: oneshot::Sender<Answer>,
}

impl KeyResolver {
    /// A resolver, and what asks on its behalf: run that on the runtime that owns the channel to the control plane.
    pub fn new(config: ConfigHandle) -> (Self, Asker) {
        let (questions, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            config,
            answers: Cache::new(REMEMBERED),
            waiting: Semaphore::new(WAITING),
            counters: ResolveCounters::default(),
        });
        (
            Self {
                shared: Arc::clone(&shared),
                questions,
            },
            Asker::new(shared, asked),
        )
    }

    /// Whether a key with this digest exists; `None` is authoritative.
    ///
    /// # Errors
    /// [`ResolveError`] when the control plane cannot say now.
    pub async fn resolve(&self, digest: KeyDigest) -> Result<Option<Resolved>, ResolveError> {
        let counters = &self.shared.counters;
        let result = match self.shared.remembered(&digest) {
            Some(answer) => {
                counters.hits.fetch_add(1, Ordering::Relaxed);
                Ok(answer.found)
            }
            None => {
                counters.misses.fetch_add(1, Ordering::Relaxed);
                self.ask(digest).await
            }
        };
        match &result {
            Ok(None) => counters.negative.fetch_add(1, Ordering::Relaxed),
            Err(_) => counters.unavailable.fetch_add(1, Ordering::Relaxed),
            Ok(Some(_)) => 0,
        };
        result
    }

    /// What look-ups came to so far.
    pub fn counters(&self) -> &ResolveCounters {
        &self.shared.counters
    }

    async fn ask(&self, digest: KeyDigest) -> Result<Option<Resolved>, ResolveError> {
        if self.shared.config.state() == NodeState::Waiting {
            return Err(ResolveError::Unavailable);
        }
        let _waiting = self
            .shared
            .waiting
            .try_acquire()
            .map_err(|_| ResolveError::Busy)?;
        let answered = tokio::time::timeout(DEADLINE, async {
            loop {
                let (answer, answered) = oneshot::channel();
                self.questions
                    .send(Question { digest, answer })
                    .map_err(|_| ResolveError::Unavailable)?;
                let answer = answered.await.map_err(|_| ResolveError::Unavailable)?;
                if self.shared.is_current(&answer) {
                    return Ok(answer.found);
                }
            }
        });
        answered.await.unwrap_or(Err(ResolveError::Unavailable))
    }
}

impl Shared {
    fn is_current(&self, answer: &Answer) -> bool {
        answer.as_of >= self.config.version()
    }

    fn remembered(&self, digest: &KeyDigest) -> Option<Answer> {
        let answer = self
            .answers
            .get(digest)
            .filter(|answer| self.is_current(answer))?;
        let may_have_changed = matches!(self.config.state(), NodeState::Stale | NodeState::Waiting);
        (answer.found.is_some() || !may_have_changed).then_some(answer)
    }

    /// Remembers an answer, unless a newer one is remembered already.
    fn remember(&self, digest: KeyDigest, answer: &Answer) {
        self.answers
            .entry(digest)
            .and_compute_with(|old| match old {
                Some(old) if old.value().as_of > answer.as_of => Op::Nop,
                Some(_) | None => Op::Put(answer.clone()),
            });
    }
}

/// Why it is not known whether a key exists. Neither is the caller's fault; both may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The control plane did not answer.
    #[error("the key could not be checked, since the control plane does not answer; try again")]
    Unavailable,
    /// Too many requests wait for the control plane already.
    #[error("too many unknown keys are being checked; try again")]
    Busy,
}

#[cfg(test)]
mod tests;
