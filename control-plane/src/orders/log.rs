//! The side of [`Orders`] that keeps the log of this replica at the level that is wanted of control planes.

use std::time::Duration;

use proxyxai_core::{order::level_now, ports::LogControl};
use tokio::time::sleep;

use super::Orders;

/// Between looks at a level that ends, at most: a wall clock may be set.
const LOOK: Duration = Duration::from_secs(30);

impl Orders {
    /// Keeps a log at the level that is wanted of control planes. Never ends.
    pub(crate) async fn keep_log(&self, log: &dyn LogControl) {
        let mut wishes = self.log.subscribe();
        let mut set = None;
        loop {
            let wish = *wishes.borrow_and_update();
            let (level, left_ms) = level_now(wish.as_ref(), self.clock.unix_ms());
            if set != level {
                log.set(level);
                let level = level.map_or("that of the settings", |level| level.as_str());
                tracing::info!(level, left_ms, "the level of this log was changed");
                set = level_now(wish.as_ref(), self.clock.unix_ms()).0;
            }
            tokio::select! {
                biased;
                changed = wishes.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(Duration::from_millis(left_ms).min(LOOK)), if left_ms > 0 => {}
            }
        }
    }
}
