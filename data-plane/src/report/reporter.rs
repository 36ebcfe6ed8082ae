//! Puts the report together: what writes, what sends, and how both end.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proxyxai_core::ports::{Clock, Random};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    delivery::Delivery,
    disk::Disk,
    event::Event,
    files::{Epoch, Journal},
    progress::Progress,
    recent::Recent,
    sender::{EventSender, channel},
    set_aside,
    work::FileWork,
    writer::{Durable, Writer},
};
use crate::config::{ControlPlanes, backoff::Backoff};

/// How long event files are kept after the control plane has their batches.
pub const EVENTS_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the last acknowledgement may take at shutdown.
const LAST_ACK: Duration = Duration::from_secs(10);

/// What a report is given to touch the world with.
pub struct Ports {
    /// Holds the event files, and nothing else.
    pub disk: Arc<dyn Disk>,
    /// Where work on files is done.
    pub work: FileWork,
    /// The ways to the control planes.
    pub planes: ControlPlanes,
    /// Stamps what waits.
    pub clock: Arc<dyn Clock>,
    /// Spreads tries to reach the control plane.
    pub random: Arc<dyn Random>,
}

/// The report of one start of one node; does nothing until it runs.
pub struct Reporter<E> {
    writer: Writer<E>,
    delivery: Delivery,
    earlier: VecDeque<Epoch>,
}

/// Begins a new epoch of a node. Blocks on the disk for a moment.
///
/// # Errors
/// The node id cannot stand in a file name, the disk fails, or the count of starts cannot be read.
pub fn open<E: Event>(
    node_id: &str,
    keep: Duration,
    ports: Ports,
) -> Result<(EventSender<E>, Reporter<E>), OpenError> {
    let first = u64::try_from(ports.clock.unix_ms()).unwrap_or(0).max(1);
    let (journal, earlier) =
        Journal::open(Arc::clone(&ports.disk), node_id, first).map_err(OpenError)?;
    let (sender, events) = channel();
    let aside = set_aside::list(&*ports.disk).map_err(OpenError)?;
    let names: Vec<String> = aside.iter().map(set_aside::aside).collect();
    if !names.is_empty() {
        tracing::error!(
            files = ?names,
            "there are event files that are set aside: usage in them is not booked; {}",
            set_aside::WHAT_TO_DO
        );
    }
    let aside: BTreeSet<Epoch> = aside.into_iter().map(|segment| segment.epoch).collect();
    let starts = earlier.iter().chain(&aside).collect::<BTreeSet<_>>().len();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let counters = &events.shared.counters;
    counters
        .unreported_starts
        .store(count(starts), Ordering::Relaxed);
    counters
        .set_aside_files
        .store(count(names.len()), Ordering::Relaxed);
    let (epoch, progress) = (journal.epoch().clone(), Arc::new(Progress::default()));
    let recent = Arc::new(Recent::default());
    let (leave, left) = watch::channel(0);
    let delivery = Delivery {
        planes: ports.planes,
        failures: 0,
        disk: Arc::clone(&ports.disk),
        work: ports.work,
        backoff: Backoff::new(ports.random),
        progress: Arc::clone(&progress),
        recent: Arc::clone(&recent),
        intake: Arc::clone(&events.shared),
        current: epoch.clone(),
        sent: AtomicU64::new(0),
        leave,
        aside,
        suspect: None,
        anew_at: Instant::now(),
    };
    let journal = Arc::new(Mutex::new(journal));
    let writer = Writer {
        events,
        journal,
        disk: ports.disk,
        epoch,
        work: ports.work,
        clock: ports.clock,
        progress,
        recent,
        keep,
        leave: left,
        leave_at: Instant::now(),
    };
    Ok((
        sender,
        Reporter {
            writer,
            delivery,
            earlier: earlier.into(),
        },
    ))
}

impl<E: Event> Reporter<E> {
    /// The epoch that this start began in.
    pub fn epoch(&self) -> u64 {
        self.writer.epoch.number
    }

    /// Runs until `shutdown`; then writes what was handed in so far, and waits at most ten seconds for the control plane to
    /// acknowledge it. What it does not acknowledge is sent at the next start. Cancel only after the last event was handed in.
    pub async fn run(self, shutdown: CancellationToken) {
        let (durable, progress) = watch::channel(Durable {
            epoch: self.epoch(),
            ..Durable::default()
        });
        let writing = self.writer.run(shutdown, durable);
        let delivering = async {
            tokio::select! {
                biased;
                () = self.delivery.run(self.earlier, progress.clone()) => {}
                () = last_chance(progress) => {
                    tracing::warn!("not all usage was acknowledged in time; the rest is in the event files, for the next start");
                }
            }
        };
        tokio::join!(writing, delivering);
    }
}

async fn last_chance(mut durable: watch::Receiver<Durable>) {
    let _writer_may_be_gone = durable.wait_for(|durable| durable.last).await.map(drop);
    sleep(LAST_ACK).await;
}

/// Why a report cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("the event files cannot be used: {0}")]
pub struct OpenError(#[source] io::Error);

#[cfg(test)]
mod tests;
