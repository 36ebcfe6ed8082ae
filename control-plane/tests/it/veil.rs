//! A store behind a veil: calls of several callers interleave at random, and after so many writes the process that calls is gone.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use proxyxai_control_plane::store::{
    Entry, Leadership, Page, Range, Reply, Store, StoreError, Txn, TxnResult, Watch,
    embedded::EmbeddedStore,
};

use crate::editor::Dice;

/// A view of a store.
pub(crate) struct Veil {
    store: EmbeddedStore,
    dice: Mutex<Dice>,
    writes_left: AtomicI64,
    /// Whether the last write is made before the process is gone.
    answer_lost: bool,
}

impl Veil {
    /// Calls interleave.
    pub(crate) fn interleaving(store: &EmbeddedStore, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            dice: Mutex::new(Dice::new(seed)),
            writes_left: AtomicI64::new(i64::MAX),
            answer_lost: false,
        })
    }

    /// Gone after so many writes; the one after them is made and not answered, or not made.
    pub(crate) fn crashing(store: &EmbeddedStore, writes: i64, answer_lost: bool) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            dice: Mutex::new(Dice::new(1)),
            writes_left: AtomicI64::new(writes),
            answer_lost,
        })
    }

    /// Gone from now on; what it watches goes on.
    pub(crate) fn ends(&self) {
        self.writes_left.store(-1, Ordering::SeqCst);
    }

    async fn wait(&self) {
        let turns = self.dice.lock().unwrap().roll(4);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    fn gone(&self) -> Result<(), StoreError> {
        if self.writes_left.load(Ordering::SeqCst) < 0 {
            return Err(StoreError::Closed);
        }
        Ok(())
    }
}

impl Store for Veil {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        Box::pin(async move {
            self.wait().await;
            self.gone()?;
            self.store.get(key).await
        })
    }

    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move {
            self.wait().await;
            self.gone()?;
            self.store.range(range).await
        })
    }

    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(async move {
            self.wait().await;
            self.gone()?;
            let last = self.writes_left.fetch_sub(1, Ordering::SeqCst) == 0;
            if last && !self.answer_lost {
                return Err(StoreError::Closed);
            }
            let done = self.store.txn(txn).await;
            self.wait().await;
            if last { Err(StoreError::Closed) } else { done }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        self.store.watch(prefix, from)
    }

    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        self.store.campaign(name)
    }
}
