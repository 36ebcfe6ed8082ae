//! Makes events durable: takes them from the cores, cuts batches, writes and syncs, and says how far it is.
//!
//! Invariants: batches that cannot be written are kept, with their numbers, until they can; meanwhile further events wait in
//! memory, and nobody who hands events in waits. The epoch changes only between two flushes, when all that has a number is durable. At shutdown it takes all that was handed in before it says that it is done.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use proxyxai_core::ports::Clock;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    batch,
    disk::Disk,
    event::Event,
    files::{Epoch, Journal, Numbered},
    progress::Progress,
    recent::Recent,
    retention,
    sender::{EventReceiver, FULL},
    work::FileWork,
};

/// Events wait at most this long before they are written.
const LINGER: Duration = Duration::from_millis(50);
/// Between tries to write to a disk that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks for files to delete.
const CLEAN: Duration = Duration::from_secs(600);
/// Events taken at a time.
const TAKEN: usize = 2 * FULL;
/// How long writing may take at shutdown.
const LAST_TRY: Duration = Duration::from_secs(10);

/// How far the current epoch is durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Durable {
    /// The current epoch.
    pub(super) epoch: u64,
    /// The last durable batch.
    pub(super) through: u64,
    /// Nothing follows any more.
    pub(super) last: bool,
}

/// What came of a flush.
#[derive(PartialEq, Eq)]
enum Flushed {
    /// There was nothing to write.
    Nothing,
    /// Something is durable now.
    Some,
    /// The disk could not be written to the end.
    GaveUp,
}

/// Writes the current epoch.
pub(super) struct Writer<E> {
    pub(super) events: EventReceiver<E>,
    pub(super) journal: Arc<Mutex<Journal>>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) epoch: Epoch,
    pub(super) work: FileWork,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) progress: Arc<Progress>,
    pub(super) recent: Arc<Recent>,
    pub(super) keep: Duration,
    /// The epoch that cannot be reported any further.
    pub(super) leave: watch::Receiver<u64>,
    /// When it may be left: not at once after that failed.
    pub(super) leave_at: Instant,
}

impl<E: Event> Writer<E> {
    /// Writes until `shutdown`, then what is left.
    pub(super) async fn run(
        mut self,
        shutdown: CancellationToken,
        durable: watch::Sender<Durable>,
    ) {
        let intake = Arc::clone(&self.events.shared);
        let mut clean_at = Instant::now();
        while !shutdown.is_cancelled() {
            let epoch = self.epoch.number;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = sleep_until(clean_at) => {
                    self.clean().await;
                    clean_at = Instant::now().checked_add(CLEAN).unwrap_or(clean_at);
                    continue;
                }
                () = wanted(&mut self.leave, epoch, self.leave_at) => {
                    self.begin_anew(&durable).await;
                    continue;
                }
                () = intake.some() => tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = intake.full() => {}
                    () = sleep(LINGER) => {}
                },
            }
            if self.flush(&shutdown, &durable).await == Flushed::GaveUp {
                durable.send_modify(|durable| durable.last = true);
                return;
            }
        }
        while self.flush(&shutdown, &durable).await == Flushed::Some {}
        durable.send_modify(|durable| durable.last = true);
    }

    /// Goes on in a fresh epoch, whose number is durable before anything is written in it. Should that fail, the one of before is
    /// written until it succeeds.
    async fn begin_anew(&mut self, durable: &watch::Sender<Durable>) {
        let journal = Arc::clone(&self.journal);
        let begin = move || {
            journal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .begin_anew()
        };
        let counters = &self.events.shared.counters;
        match self.work.run::<Epoch, io::Error>(begin).await {
            Ok(epoch) => {
                tracing::warn!(
                    left = self.epoch.number,
                    epoch = epoch.number,
                    "usage goes on in a fresh epoch"
                );
                self.epoch = epoch;
                self.progress.begin_anew(counters);
                self.recent.forget(u64::MAX);
                let epoch = self.epoch.number;
                durable.send_modify(|durable| (durable.epoch, durable.through) = (epoch, 0));
            }
            Err(error) => {
                counters.disk_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "cannot begin a fresh epoch of usage; trying again");
                let now = Instant::now();
                self.leave_at = now.checked_add(RETRY).unwrap_or(now);
            }
        }
    }

    /// Writes what was handed in so far, at most some thousands of it.
    async fn flush(
        &mut self,
        shutdown: &CancellationToken,
        durable: &watch::Sender<Durable>,
    ) -> Flushed {
        let events = self.events.take(TAKEN);
        if events.is_empty() {
            return Flushed::Nothing;
        }
        let count = events.len();
        let batches: Arc<[Numbered]> = {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let tally = &self.events.shared.counters.attempts;
            batch::cut(events, |event| tally.add(event))
                .iter()
                .map(|events| journal.number(events))
                .collect()
        };
        if !self.write(&batches, shutdown).await {
            let lost = self.events.shared.give_up();
            tracing::error!(
                events = lost,
                "the disk could not be written before the end; usage events are lost"
            );
            return Flushed::GaveUp;
        }
        self.events.shared.durable(count);
        self.note(&batches);
        self.recent.add(&batches);
        let through = batches.last().map_or(0, |batch| batch.sequence);
        durable.send_modify(|durable| durable.through = durable.through.max(through));
        Flushed::Some
    }

    /// Tries until it is done, or until it is time to go.
    async fn write(&mut self, batches: &Arc<[Numbered]>, shutdown: &CancellationToken) -> bool {
        let mut give_up = None;
        loop {
            let (journal, mine) = (Arc::clone(&self.journal), Arc::clone(batches));
            let write = move || {
                journal
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .append(&mine)
            };
            let Err(error) = self.work.run::<(), io::Error>(write).await else {
                return true;
            };
            self.events
                .shared
                .counters
                .disk_failures
                .fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, batches = batches.len(), "cannot write usage events; they wait in memory: make room on the disk");
            if shutdown.is_cancelled() {
                let until = *give_up.get_or_insert_with(|| Instant::now().checked_add(LAST_TRY));
                if until.is_none_or(|until| Instant::now() >= until) {
                    return false;
                }
                sleep(RETRY).await;
            } else {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = sleep(RETRY) => {}
                }
            }
        }
    }

    fn note(&self, batches: &[Numbered]) {
        let counters = &self.events.shared.counters;
        let (last, after) = (
            batches.last().map_or(0, |batch| batch.sequence),
            counters
                .durable
                .load(Ordering::Relaxed)
                .saturating_sub(counters.set_aside_events.load(Ordering::Relaxed)),
        );
        self.progress
            .written(last, after, self.clock.unix_ms(), counters);
    }

    async fn clean(&mut self) {
        let (disk, progress, epoch) = (
            Arc::clone(&self.disk),
            Arc::clone(&self.progress),
            self.epoch.clone(),
        );
        let (keep, now) = (self.keep, self.clock.unix_ms());
        let clean =
            move || retention::clean(&*disk, &progress, &epoch, (keep, retention::BYTES_MAX), now);
        if let Err(error) = self.work.run::<(), io::Error>(clean).await {
            tracing::warn!(%error, "cannot delete old event files");
        }
    }
}

/// Waits until this epoch is to be left, and may be.
async fn wanted(leave: &mut watch::Receiver<u64>, epoch: u64, not_before: Instant) {
    let asked = leave.wait_for(|left| *left == epoch).await.is_ok();
    if !asked {
        // Nobody sends any more.
        std::future::pending::<()>().await;
    }
    sleep_until(not_before).await;
}
