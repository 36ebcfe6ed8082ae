//! The level of the log that is wanted of this node, and until when.

use proxyxai_core::{order::LogLevel, ports::LogControl};
use tokio::time::{Instant, sleep_until};

use super::Orders;

/// A level of the log; `None` is that of the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) level: Option<LogLevel>,
    pub(super) until: Option<Instant>,
}

impl Wish {
    pub(super) fn level_at(&self, now: Instant) -> Option<LogLevel> {
        self.level
            .filter(|_| self.until.is_none_or(|until| now < until))
    }
}

impl Orders {
    /// Keeps a log at the level that is wanted. Never ends.
    pub(crate) async fn keep_log(&self, log: &dyn LogControl) {
        let mut wishes = self.0.log.subscribe();
        let mut set = None;
        loop {
            let wish = *wishes.borrow_and_update();
            let level = wish.level_at(Instant::now());
            if set != level {
                log.set(level);
                set = level;
                let level = level.map_or("that of the settings", |level| level.as_str());
                tracing::info!(level, "the level of this node's log was changed");
            }
            let until = wish.until.filter(|_| level.is_some());
            tokio::select! {
                biased;
                changed = wishes.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use proxyxai_proto::config::v1::{self as proto, Order};
    use tokio::time::sleep;

    use super::*;
    use crate::orders::Load;

    #[derive(Default)]
    struct Log(Mutex<Vec<Option<LogLevel>>>);

    impl LogControl for Log {
        fn set(&self, level: Option<LogLevel>) {
            self.0.lock().unwrap().push(level);
        }
    }

    fn order(log_level: proto::LogLevel, log_level_for_ms: u64) -> Order {
        Order {
            log_level: log_level.into(),
            log_level_for_ms,
            ..Order::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_ends_by_itself_also_when_nothing_is_heard_any_more() {
        let (orders, log) = (Orders::new(Load::default), Arc::new(Log::default()));
        let (kept, to) = (orders.clone(), Arc::clone(&log));
        tokio::spawn(async move { kept.keep_log(&*to).await });
        let second = Duration::from_secs(1);
        let seen = async || {
            sleep(second).await;
            log.0.lock().unwrap().clone()
        };
        assert_eq!(seen().await, []);
        let debug = Some(LogLevel::Debug);
        orders.obey(&order(proto::LogLevel::Debug, 10_000));
        assert_eq!(seen().await, [debug]);
        assert_eq!(orders.vitals().log_level(), proto::LogLevel::Debug);
        orders.obey(&order(proto::LogLevel::Debug, 10_000));
        sleep(second * 8).await;
        assert_eq!(seen().await, [debug], "what is said again is no news");
        sleep(second * 2).await;
        assert_eq!(seen().await, [debug, None]);
        assert_eq!(orders.vitals().log_level(), proto::LogLevel::Unspecified);
        orders.obey(&order(proto::LogLevel::Trace, 0));
        sleep(second * 100_000).await;
        assert_eq!(seen().await, [debug, None, Some(LogLevel::Trace)]);
        orders.obey(&Order::default());
        assert_eq!(seen().await, [debug, None, Some(LogLevel::Trace), None]);
    }
}
