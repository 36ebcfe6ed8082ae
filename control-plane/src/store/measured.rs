//! A store whose answers are timed and whose failures are counted.
//!
//! Invariant: what a call says and does is what the store behind it says and does. How long a campaign waits is no measure of a store, and
//! a watch is timed until it began.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proxyxai_core::{
    exposition::{Histogram, Kind, Page},
    ports::Clock,
};

use super::{
    Entry, Leadership, Page as Rows, Range, Reply, Store, StoreError, Txn, TxnResult, Watch,
};

/// Upper bounds in milliseconds.
const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 500, 1_000, 5_000];

/// What is asked of a store.
#[derive(Debug, Clone, Copy)]
enum Call {
    Get,
    Range,
    Txn,
    Watch,
}

impl Call {
    const ALL: [Self; 4] = [Self::Get, Self::Range, Self::Txn, Self::Watch];

    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Range => "range",
            Self::Txn => "txn",
            Self::Watch => "watch",
        }
    }
}

/// Times the answers of a store.
pub(crate) struct Measured {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    seen: [Seen; Call::ALL.len()],
}

/// What became of calls of one kind.
struct Seen {
    times: Histogram,
    failures: AtomicU64,
}

impl Measured {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let seen = Call::ALL.map(|_| Seen {
            times: Histogram::new(&BOUNDS_MS),
            failures: AtomicU64::new(0),
        });
        Self { store, clock, seen }
    }

    async fn measure<T>(&self, call: Call, reply: Reply<'_, T>) -> Result<T, StoreError> {
        let began = self.clock.monotonic();
        let answer = reply.await;
        let took: Duration = self.clock.monotonic().saturating_sub(began);
        if let Some(seen) = self.seen.get(call as usize) {
            seen.times.observe(took);
            if answer.as_ref().is_err_and(is_failure) {
                seen.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        answer
    }

    /// Writes what was measured.
    pub(crate) fn metrics(&self, page: &mut Page<'_>) {
        let name = "xai_store_seconds";
        let help = "Time that the store took to answer, by call.";
        page.family(name, Kind::Histogram, help);
        for (call, seen) in Call::ALL.iter().zip(&self.seen) {
            seen.times.show(page, name, &[("call", call.as_str())]);
        }
        let name = "xai_store_failures_total";
        page.family(name, Kind::Counter, "Calls that the store failed, by call.");
        for (call, seen) in Call::ALL.iter().zip(&self.seen) {
            page.sample(name, &[("call", call.as_str())], &seen.failures);
        }
    }
}

/// Whether it is the store that failed, and not the caller who asked for what no store gives.
fn is_failure(error: &StoreError) -> bool {
    match error {
        StoreError::Failed { .. } | StoreError::Ambiguous { .. } | StoreError::Closed => true,
        StoreError::TooLarge { .. } | StoreError::Twice(_) | StoreError::Compacted => false,
    }
}

impl Store for Measured {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        Box::pin(self.measure(Call::Get, self.store.get(key)))
    }

    fn range(&self, range: Range) -> Reply<'_, Rows> {
        Box::pin(self.measure(Call::Range, self.store.range(range)))
    }

    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(self.measure(Call::Txn, self.store.txn(txn)))
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        Box::pin(self.measure(Call::Watch, self.store.watch(prefix, from)))
    }

    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        self.store.campaign(name)
    }
}
