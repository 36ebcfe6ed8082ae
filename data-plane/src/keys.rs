//! Looks virtual keys up that the snapshot does not hold: asks the control plane, and remembers what it said.
//!
//! Invariants: only the control plane's own answer makes an authoritative "no such key"; when it cannot be asked the answer is
//! [`ResolveError::Unavailable`] (law 12). After a change of a key or account was noted, nothing older is admitted, whatever answers
//! are in flight (law 11): an answer is remembered and handed out only if no later change is in the invalidation log. A
//! remembered "no" is used only by a node that is in touch with its control plane: another one may have missed the key's
//! creation. Memory is bounded, and nothing in it ends by time: what works goes on working while the control plane is away.

mod asker;
mod memory;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proxyxai_core::{
    account::{key::KeyDigest, terms::Key, tree::AccountTree},
    snapshot::{KeyId, ResourceName, Version},
    trace::TraceContext,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use asker::Asker;
pub(crate) use memory::Remembered;
use memory::{Memory, Recall};

use crate::config::ConfigHandle;

/// Answers that are remembered, unless something else is said.
pub const REMEMBERED: u64 = 200_000;
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
    memory: Memory,
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
    /// Answers from before a change that was noted meanwhile; they were asked for again.
    pub outrun: AtomicU64,
    /// Milliseconds since they were learned, summed over the hits.
    pub hit_age_ms: AtomicU64,
}

/// One request that waits for an answer.
struct Question {
    id: KeyId,
    digest: KeyDigest,
    trace: Option<TraceContext>,
    answer: oneshot::Sender<Answer>,
}

/// What came of a question.
#[derive(Debug, Clone)]
struct Answer {
    found: Option<Resolved>,
    /// How many changes had been noted when it was admitted.
    noted: u64,
}

impl KeyResolver {
    /// A resolver that remembers so many keys, and what asks on its behalf: run that on the runtime that owns the channel to the
    /// control plane.
    pub fn new(config: ConfigHandle, remembered: u64) -> (Self, Asker) {
        let (questions, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            config,
            memory: Memory::new(remembered),
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

    /// Whether a key with this id and digest exists; `None` is authoritative. The control plane is asked within the trace, if there is
    /// one.
    ///
    /// # Errors
    /// [`ResolveError`] when the control plane cannot say now.
    pub async fn resolve(
        &self,
        id: KeyId,
        digest: KeyDigest,
        trace: Option<TraceContext>,
    ) -> Result<Option<Resolved>, ResolveError> {
        let counters = &self.shared.counters;
        let result = match self.shared.recall(&id, &digest) {
            Some(found) => {
                counters.hits.fetch_add(1, Ordering::Relaxed);
                Ok(found)
            }
            None => {
                counters.misses.fetch_add(1, Ordering::Relaxed);
                self.ask(id, digest, trace).await
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

    /// How many keys and accounts are remembered.
    pub fn remembered(&self) -> (u64, u64) {
        self.shared.memory.sizes()
    }

    /// Up to where changes were noted.
    pub(crate) fn through(&self) -> Version {
        self.shared.memory.through()
    }

    /// Notes changes; others up to the same version may be still to come.
    pub(crate) fn note(&self, names: impl IntoIterator<Item = ResourceName>, at: Version) {
        self.shared.memory.note(names, at);
    }

    /// Notes all changes between two versions; when some before them were missed, nothing that is remembered is used any more.
    pub(crate) fn take(
        &self,
        from: Version,
        to: Version,
        names: impl IntoIterator<Item = ResourceName>,
    ) {
        self.shared.memory.take(from, to, names);
    }

    /// There were no other changes up to here.
    pub(crate) fn advance(&self, to: Version) {
        self.shared.memory.advance(to);
    }

    /// Anything may have changed up to here.
    pub(crate) fn miss(&self, to: Version) {
        self.shared.memory.miss(to);
    }

    /// Whether an answer about this name, true at `as_of`, could be used.
    #[cfg(test)]
    pub(crate) fn admits(&self, name: &ResourceName, as_of: Version) -> bool {
        self.shared.memory.admits(name, as_of)
    }

    /// What is remembered of keys that exist, for the disk.
    pub(crate) fn export(&self) -> Remembered {
        self.shared.memory.export()
    }

    /// Remembers what an earlier process did.
    pub(crate) fn import(&self, remembered: Remembered) {
        self.shared
            .memory
            .import(remembered, self.shared.config.elapsed());
    }

    async fn ask(
        &self,
        id: KeyId,
        digest: KeyDigest,
        trace: Option<TraceContext>,
    ) -> Result<Option<Resolved>, ResolveError> {
        if !self.shared.config.state().serves() {
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
                let question = Question {
                    id,
                    digest,
                    trace,
                    answer,
                };
                self.questions
                    .send(question)
                    .map_err(|_| ResolveError::Unavailable)?;
                let answer = answered.await.map_err(|_| ResolveError::Unavailable)?;
                // A change that was noted since then may be of this very key.
                if answer.noted == self.shared.memory.noted() {
                    return Ok(answer.found);
                }
                if let Some(found) = self.shared.recall(&id, &digest) {
                    return Ok(found);
                }
            }
        });
        answered.await.unwrap_or(Err(ResolveError::Unavailable))
    }
}

impl Shared {
    /// What is remembered of a key, as far as it may be used.
    fn recall(&self, id: &KeyId, digest: &KeyDigest) -> Option<Option<Resolved>> {
        match self.memory.recall(id, digest) {
            Recall::Found(found, learned) => {
                let age = self.config.elapsed().saturating_sub(learned);
                let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                self.counters.hit_age_ms.fetch_add(age, Ordering::Relaxed);
                Some(Some(found))
            }
            Recall::Absent => self.config.in_touch().then_some(None),
            Recall::Unknown => None,
        }
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
