//! Keeps the disk copy up to date, off the path of requests: soon after a change, never oftener than the disk can bear.
//!
//! Invariants: a failed write leaves the copy before it; the newest state is written once more when the node stops.

use std::{sync::Arc, time::Duration};

use proxyxai_core::{
    freshness::Freshness,
    ports::{Clock, Random, random_bytes},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Age, CopyFault, CopyPorts, leftovers, write, write_age};
use crate::{
    config::{ConfigHandle, held::Holding},
    keys::{KeyResolver, Remembered},
    orders::Orders,
    report::FileWork,
};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// Bytes a second that copies may take of the disk, in the mean.
const RATE: u64 = 4 << 20;
/// Least time between two copies.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the age is written, and what was looked up.
const AGE_EVERY: Duration = Duration::from_secs(60);

/// Writes what a node holds.
pub(crate) struct Keeper {
    pub(crate) ports: Arc<CopyPorts>,
    pub(crate) work: FileWork,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) config: ConfigHandle,
    pub(crate) keys: KeyResolver,
    pub(crate) orders: Orders,
    pub(crate) holding: watch::Receiver<Option<Holding>>,
}

impl Keeper {
    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut minute = interval(AGE_EVERY);
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        minute.tick().await;
        let mut schedules = self.orders.schedules();
        // Reading a copy, receiving a content and writing a copy each leave something.
        let mut tidy: Option<Instant> = Instant::now().checked_add(leftovers::AFTER);
        // When the next copy is written, if something changed, and how soon one may be.
        let (mut due, mut not_before): (Option<Instant>, Instant) = (None, Instant::now());
        let soon = |not_before: Instant| {
            Instant::now()
                .checked_add(GATHER)
                .map(|due| due.max(not_before))
        };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = self.holding.changed() => match changed {
                    Ok(()) => {
                        due = due.or_else(|| soon(not_before));
                        tidy = tidy.or_else(|| Instant::now().checked_add(leftovers::AFTER));
                    }
                    Err(_) => break,
                },
                () = sleep_until(tidy.unwrap_or_else(Instant::now)), if tidy.is_some() => {
                    leftovers::give_back();
                    tidy = None;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let written = self.save().await;
                    let pause = Duration::from_secs(written.unwrap_or(0) / RATE).max(PAUSE);
                    not_before = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
                    due = if written.is_some() { None } else { Some(not_before) };
                    tidy = Instant::now().checked_add(leftovers::AFTER);
                }
                // It is to outlive the node, and is seldom changed.
                Ok(()) = schedules.changed() => self.save_age().await,
                _ = minute.tick() => {
                    self.save_age().await;
                    let keyed = self.holding.borrow().as_ref().is_some_and(|held| held.pinned.keyed);
                    if keyed && due.is_none() {
                        due = soon(not_before);
                    }
                }
            }
        }
        if due.is_some() || self.holding.has_changed().unwrap_or(false) {
            self.save().await;
        } else {
            self.save_age().await;
        }
    }

    /// Writes a copy; gives its length, or nothing when that failed.
    async fn save(&mut self) -> Option<u64> {
        let holding = self.holding.borrow_and_update().clone()?;
        let remembered = match holding.pinned.keyed {
            true => self.keys.export(),
            false => Remembered {
                through: self.keys.through(),
                ..Remembered::default()
            },
        };
        let (ports, info, age) = (Arc::clone(&self.ports), self.info(), self.age());
        let work = move || write(&ports, info, &holding, remembered, age);
        self.done(self.work.run(work).await)
    }

    async fn save_age(&self) {
        let Some(holding) = self.holding.borrow().clone() else {
            return;
        };
        let (ports, info, age) = (Arc::clone(&self.ports), self.info(), self.age());
        let work = move || write_age(&ports, info, &holding, age);
        self.done(self.work.run(work).await);
    }

    fn done(&self, written: Result<u64, CopyFault>) -> Option<u64> {
        use std::sync::atomic::Ordering;
        let counters = self.config.counters();
        match written {
            Ok(bytes) => {
                counters.copied.fetch_add(1, Ordering::Relaxed);
                Some(bytes)
            }
            Err(fault) => {
                counters.copy_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%fault, "the disk copy of the configuration could not be written; the one before stays");
                None
            }
        }
    }

    fn info(&self) -> [u8; 32] {
        random_bytes(&*self.random)
    }

    fn age(&self) -> Age {
        let age = self.config.age().unwrap_or_default();
        let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Age {
            age,
            proved_unix_ms: self.clock.unix_ms().saturating_sub(ms),
            limit: self.config.ask(Freshness::named_limit),
            schedule: self.orders.schedule(),
        }
    }
}

#[cfg(test)]
mod tests;
