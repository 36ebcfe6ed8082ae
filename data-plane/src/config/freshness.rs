//! Notices that the control plane fell silent: three missed bookmarks make a node stale.
//!
//! Invariant: a stale node goes on serving what it holds; only its state and its alarms change.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::pinned::{ConfigHandle, NodeState};

/// Bookmarks that may be missed.
const MISSED: u32 = 3;

/// How long a node counts as fresh after a bookmark.
pub(super) fn lifetime(bookmark_interval: Duration) -> Duration {
    bookmark_interval.saturating_mul(MISSED)
}

/// Until when the configuration counts as fresh; `None` before it was for the first time.
pub(super) type Deadline = Option<Instant>;

/// Marks the node whenever a deadline passes without having been renewed. Ends when the sender is gone.
pub(super) async fn watch(config: ConfigHandle, mut deadline: watch::Receiver<Deadline>) {
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            biased;
            renewed = deadline.changed() => if renewed.is_err() {
                return;
            },
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                mark(&config);
                if deadline.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

fn mark(config: &ConfigHandle) {
    if config.is_ready() {
        tracing::error!(version = %config.version(), "the control plane fell silent; serving the configuration held");
        config.set_state(NodeState::Stale);
    } else {
        config.set_state(NodeState::Waiting);
    }
}
