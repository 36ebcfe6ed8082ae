//! Where cores hand their events in.
//!
//! Invariant: handing in never blocks and, but for the first event after a pause and every full batch, wakes nobody: a request
//! does not pay a system call for being counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    mpsc,
};

use tokio::sync::Notify;

use super::tally::Tally;

/// Events after which a flush does not wait any longer.
pub(super) const FULL: usize = 4_000;

/// Takes events in; one per core, cheap to clone. An event comes as `E`, whatever costs its core the least, and is brought into the
/// form that leaves the node on the writer's thread.
pub struct EventSender<E> {
    events: mpsc::Sender<E>,
    shared: Arc<Intake>,
}

/// What became of the events of this process so far.
#[derive(Debug, Default)]
pub struct ReportCounters {
    /// Handed in.
    pub queued: AtomicU64,
    /// Written to a file and synced.
    pub durable: AtomicU64,
    /// Durable at the control plane.
    pub acknowledged: AtomicU64,
    /// Batches of earlier starts that were sent again.
    pub replayed_batches: AtomicU64,
    /// Writes to files that failed and are tried again.
    pub disk_failures: AtomicU64,
    /// Report streams that ended, whatever the reason.
    pub disconnects: AtomicU64,
    /// Handed in after the reporter had stopped, or not durable when it had to: lost.
    pub lost: AtomicU64,
    /// Earlier epochs (starts, but for those that one start left) of which not all is known to be durable at the control plane, those
    /// of which files are set aside included.
    pub unreported_starts: AtomicU64,
    /// Event files that are set aside, since the start or before.
    pub set_aside_files: AtomicU64,
    /// Events of this process in files that were set aside; at most a flush too many, of which a part was acknowledged.
    pub set_aside_events: AtomicU64,
    /// Batches that the files do not hold any more although the control plane misses them.
    pub missing_batches: AtomicU64,
    /// What attempts came to, by provider.
    pub attempts: Tally,
    /// Unix milliseconds since when the oldest unacknowledged batch of this start is durable here; 0 when there is none.
    pub oldest_unacknowledged_unix_ms: AtomicU64,
}

pub(super) struct Intake {
    waiting: AtomicUsize,
    wake: Notify,
    pub(super) counters: ReportCounters,
}

/// The other end: all events of all cores.
pub(super) struct EventReceiver<E> {
    events: mpsc::Receiver<E>,
    pub(super) shared: Arc<Intake>,
}

pub(super) fn channel<E>() -> (EventSender<E>, EventReceiver<E>) {
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Intake {
        waiting: AtomicUsize::new(0),
        wake: Notify::new(),
        counters: ReportCounters::default(),
    });
    (
        EventSender {
            events: sender,
            shared: Arc::clone(&shared),
        },
        EventReceiver {
            events: receiver,
            shared,
        },
    )
}

impl<E> Clone for EventSender<E> {
    fn clone(&self) -> Self {
        Self {
            events: self.events.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E> EventSender<E> {
    /// Hands an event in. Never blocks.
    pub fn push(&self, event: E) {
        self.shared.counters.queued.fetch_add(1, Ordering::Relaxed);
        let before = self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.events.send(event).is_err() {
            self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a usage event came after the reporter had stopped; it is lost");
            return;
        }
        if before == 0 || before.saturating_add(1) == FULL {
            self.shared.wake.notify_one();
        }
    }

    /// Events that are not durable yet.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Usage events of this start that are not durable at the control plane, and may become that.
    pub(crate) fn unreported(&self) -> u64 {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        let done = count(&counters.acknowledged)
            .saturating_add(count(&counters.lost))
            .saturating_add(count(&counters.set_aside_events));
        count(&counters.queued).saturating_sub(done)
    }

    /// What became of the events so far.
    pub fn counters(&self) -> &ReportCounters {
        &self.shared.counters
    }
}

impl<E> EventReceiver<E> {
    /// Takes up to `max` events without waiting. They count as waiting until [`Intake::durable`].
    pub(super) fn take(&mut self, max: usize) -> Vec<E> {
        let waiting = self.shared.waiting.load(Ordering::Acquire).min(max);
        let mut taken = Vec::with_capacity(waiting);
        taken.extend(self.events.try_iter().take(max));
        taken
    }
}

impl Intake {
    /// Waits until there is something to take.
    pub(super) async fn some(&self) {
        while self.waiting.load(Ordering::Acquire) == 0 {
            self.wake.notified().await;
        }
    }

    /// Waits until there is a full batch to take.
    pub(super) async fn full(&self) {
        while self.waiting.load(Ordering::Acquire) < FULL {
            self.wake.notified().await;
        }
    }

    /// So many events that were taken are durable.
    pub(super) fn durable(&self, events: usize) {
        self.waiting.fetch_sub(events, Ordering::AcqRel);
        self.counters
            .durable
            .fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Nothing that waits will become durable; how many events that is.
    pub(super) fn give_up(&self) -> usize {
        let lost = self.waiting.load(Ordering::Acquire);
        let count = u64::try_from(lost).unwrap_or(u64::MAX);
        self.counters.lost.fetch_add(count, Ordering::Relaxed);
        lost
    }
}
