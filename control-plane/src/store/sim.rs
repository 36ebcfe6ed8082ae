//! A store in memory that fails as real ones do, at moments that a seed decides: for tests and simulations.
//!
//! No threads and no clock but the runtime's, which may be paused. The same seed and the same calls give the same answers.

mod chance;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Compare, Entry, Leadership, Op, Page, Range, Reply, Store, StoreError, Txn, TxnResult, Watch,
    check, leader_key, local::Elections, ring::Ring, rows,
};
pub use chance::Faults;
use chance::{Chance, Fate};

/// A simulated store. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct SimStore(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    elections: Elections,
}

struct State {
    rows: BTreeMap<String, Entry>,
    revision: u64,
    ring: Ring,
    chance: Chance,
}

impl SimStore {
    /// An empty store; nothing goes wrong until [`Self::set_faults`].
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                rows: BTreeMap::new(),
                revision: 0,
                ring: Ring::starting_after(0),
                chance: Chance::new(seed),
            }),
            elections: Elections::default(),
        }))
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().chance.faults = faults;
    }

    /// Forgets changes at and below a revision.
    pub fn compact(&self, revision: u64) {
        self.state().ring.compact(revision);
    }

    /// Ends all watches.
    pub fn lose_watches(&self) {
        self.state().ring.lose_followers();
    }

    /// Somebody elsewhere becomes the leader of this name and leaves again: the fence of the one before does not hold any more.
    pub fn depose(&self, name: &str) {
        self.0.elections.depose(name);
        self.state().apply(&leading(name));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as fate has it. Fate is drawn when the call is made, so that order of calls alone decides.
    async fn fate(&self) -> Result<Fate, StoreError> {
        let fate = self.state().chance.draw();
        if !fate.delay.is_zero() {
            tokio::time::sleep(fate.delay).await;
        }
        if fate.unavailable {
            return Err(StoreError::Failed {
                place: PLACE.to_owned(),
                what: "unavailable".to_owned(),
                next: "try again",
            });
        }
        Ok(fate)
    }
}

const PLACE: &str = "simulation";

impl Store for SimStore {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        Box::pin(async move {
            self.fate().await?;
            Ok(self.state().rows.get(key).cloned())
        })
    }

    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move {
            self.fate().await?;
            self.state().range(&range)
        })
    }

    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(async move {
            check(&txn)?;
            let fate = self.fate().await?;
            let mut state = self.state();
            if fate.ambiguous && !fate.done {
                return Err(ambiguous());
            }
            let result = state.apply(&txn);
            state.aftermath();
            if fate.ambiguous {
                Err(ambiguous())
            } else {
                Ok(result)
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        Box::pin(async move {
            self.fate().await?;
            Ok(self.state().ring.follow(prefix, from))
        })
    }

    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        Box::pin(async move {
            self.fate().await?;
            let (turn, over) = self.0.elections.wait(name).await;
            let won = self.state().apply(&leading(name));
            let fence = Compare::ModRevision(leader_key(name), won.revision);
            Ok(Leadership::new(fence, over, turn))
        })
    }
}

impl State {
    fn apply(&mut self, txn: &Txn) -> TxnResult {
        let next = self.revision.saturating_add(1);
        let Ok(changes) = rows::run(&mut self.rows, txn, next);
        let succeeded = changes.is_some();
        let changes = changes.unwrap_or_default();
        if !changes.is_empty() {
            self.revision = next;
            self.ring.record(next, changes);
            self.ring.publish(next);
        }
        TxnResult {
            succeeded,
            revision: self.revision,
        }
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let at = range.at_revision.unwrap_or(self.revision);
        let earlier = self
            .ring
            .earlier(at, self.revision)
            .ok_or(StoreError::Compacted)?;
        let from = (Bound::Included(rows::start(range)), Bound::Unbounded);
        let found = self.rows.range::<str, _>(from);
        let found = found.map(|(_, entry)| Ok::<_, Infallible>(entry.clone()));
        let Ok(page) = rows::page(found, range, at, earlier);
        Ok(page)
    }

    /// What befalls everybody after a transaction.
    fn aftermath(&mut self) {
        if self.chance.happens(self.chance.faults.compaction) {
            self.ring.compact(self.revision);
        }
        if self.chance.happens(self.chance.faults.lost_watches) {
            self.ring.lose_followers();
        }
    }
}

fn ambiguous() -> StoreError {
    StoreError::Ambiguous {
        place: PLACE.to_owned(),
        what: "no answer".to_owned(),
    }
}

fn leading(name: &str) -> Txn {
    Txn {
        compares: Vec::new(),
        then: vec![Op::Put(leader_key(name), Vec::new())],
    }
}
