//! What administrators want of nodes and of control planes, as every replica knows it: followed in the store, told to those whom it
//! concerns at once.
//!
//! Invariants: until the store was read nothing is said of a node, so that it keeps what it was told before; who was removed is cut off by
//! every replica that it has a stream to, also when the replica did not follow the store at that moment.

mod follow;
mod log;
mod wishes;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proxyxai_core::{order::order, ports::Clock};
use proxyxai_proto::{
    config::v1::Order,
    store::v1::{LogWish, RosterRow},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use wishes::Wishes;

/// Knows what is wanted.
pub(crate) struct Orders {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// What is wanted of the logs of control planes.
    log: watch::Sender<Option<LogWish>>,
}

#[derive(Default)]
struct State {
    /// Rows of nodes; `None` until the store was read.
    rows: Option<BTreeMap<String, RosterRow>>,
    /// Streams to tell.
    streams: BTreeMap<String, watch::Sender<()>>,
    /// What ends everything that a node has open.
    open: BTreeMap<String, CancellationToken>,
}

impl Orders {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            log: watch::Sender::new(None),
        }
    }

    /// What a node is to do now; `None` when that is not known here.
    pub(crate) fn of(&self, node: &str) -> Option<Order> {
        let state = self.lock();
        let row = state.rows.as_ref()?.get(node).cloned().unwrap_or_default();
        Some(order(
            row.schedule(),
            row.log.as_ref(),
            self.clock.unix_ms(),
        ))
    }

    /// Whether a node is known to stand in the store.
    pub(crate) fn is_registered(&self, node: &str) -> bool {
        let state = self.lock();
        state
            .rows
            .as_ref()
            .is_some_and(|rows| rows.contains_key(node))
    }

    /// Becomes ready when something else is wanted of a node.
    pub(crate) fn subscribe(&self, node: &str) -> watch::Receiver<()> {
        let mut state = self.lock();
        let stream = state.streams.entry(node.to_owned());
        stream.or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Is cancelled when a node is removed. Who has this asks once more after that whether the node is admitted.
    pub(crate) fn until_removed(&self, node: &str) -> CancellationToken {
        self.lock().open.entry(node.to_owned()).or_default().clone()
    }

    /// What is wanted of the logs of control planes, and until when.
    pub(crate) fn log(&self) -> Option<LogWish> {
        *self.log.borrow()
    }

    fn set_rows(&self, rows: BTreeMap<String, RosterRow>) {
        let mut state = self.lock();
        let before = state.rows.replace(rows).unwrap_or_default();
        let rows = state.rows.clone().unwrap_or_default();
        for (node, stream) in &state.streams {
            if before.get(node) != rows.get(node) {
                stream.send_replace(());
            }
        }
    }

    fn set_row(&self, node: &str, row: Option<RosterRow>) {
        let mut state = self.lock();
        let Some(rows) = &mut state.rows else {
            return;
        };
        match row {
            Some(row) => {
                rows.insert(node.to_owned(), row);
            }
            None => {
                rows.remove(node);
            }
        }
        if let Some(stream) = state.streams.get(node) {
            stream.send_replace(());
        }
    }

    fn removed(&self, node: &str) {
        let mut state = self.lock();
        state.streams.remove(node);
        if let Some(open) = state.open.remove(node) {
            open.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
