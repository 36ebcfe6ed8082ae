//! Brings durable batches to the control plane: one stream per epoch, earlier epochs first, a small window of batches under way.
//!
//! Invariants: only durable batches are sent, in order, as they stand in the files; everything not known to be durable at the
//! control plane is sent again after any failure, so nothing is lost; the control plane passes over repeats, so nothing is
//! counted twice (law 4).

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use proxyxai_proto::usage::v1::{
    Register, ReportResponse, report_request, report_response,
    usage_service_client::UsageServiceClient,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    disk::Disk,
    fault::{DeliveryFault, Verdict},
    files::Epoch,
    progress::Progress,
    reader::{ReadError, close_epoch},
    recent::Recent,
    set_aside,
    stream::{PATIENCE, Stream, send},
    work::FileWork,
    writer::Durable,
};
use crate::config::{ControlPlanes, backoff::Backoff};

/// Messages that may wait to be sent: what is under way, and what is sent again after a gap.
const OUTGOING: usize = 32;
/// Between two fresh epochs of one start, so that a control plane that refuses everything does not get one for each batch.
const ANEW: Duration = Duration::from_secs(600);

/// Sends all epochs.
pub(super) struct Delivery {
    pub(super) planes: ControlPlanes,
    /// Streams in a row that came to nothing: each is opened to the next control plane.
    pub(super) failures: usize,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) work: FileWork,
    pub(super) backoff: Backoff,
    pub(super) progress: Arc<Progress>,
    /// Of the current epoch.
    pub(super) recent: Arc<Recent>,
    pub(super) intake: Arc<super::sender::Intake>,
    pub(super) current: Epoch,
    /// The last batch of the current epoch that was ever sent.
    pub(super) sent: AtomicU64,
    /// Tells the writer which epoch to leave.
    pub(super) leave: watch::Sender<u64>,
    /// Epochs of which files are set aside.
    pub(super) aside: BTreeSet<Epoch>,
    /// What was found once. It is believed when it is found again, by another control plane if there is one.
    pub(super) suspect: Option<(Epoch, Verdict)>,
    /// When the current epoch may be left.
    pub(super) anew_at: Instant,
}

impl Delivery {
    /// Sends the earlier epochs, then the current one until its last batch is acknowledged.
    pub(super) async fn run(
        mut self,
        earlier: VecDeque<Epoch>,
        mut durable: watch::Receiver<Durable>,
    ) {
        for epoch in earlier {
            self.replay(epoch).await;
        }
        loop {
            let epoch = self.current.clone();
            let acknowledged = self.progress.acknowledged(&epoch);
            let news = durable
                .wait_for(|durable| durable.last || durable.through > acknowledged)
                .await
                .map(|durable| *durable);
            let Ok(news) = news else { return };
            if news.through <= acknowledged {
                return;
            }
            let Err(fault) = self.deliver(&epoch, &mut durable).await else {
                return;
            };
            let bad = fault.verdict().filter(|bad| bad.ends_the_current());
            let hopeless = bad.is_some_and(|bad| self.confirms(&epoch, bad));
            if !hopeless || Instant::now() < self.anew_at {
                self.wait(&epoch, &fault).await;
            } else if !self.begin_anew(&fault, &mut durable).await {
                return;
            }
        }
    }

    /// Sends what the control plane lacks of an epoch that is not written any more.
    async fn replay(&mut self, epoch: Epoch) {
        loop {
            let fault = match self.replay_once(&epoch).await {
                Ok(()) => {
                    self.progress.finish(&epoch);
                    if !self.aside.contains(&epoch) {
                        let counters = &self.intake.counters;
                        counters.unreported_starts.fetch_sub(1, Ordering::Relaxed);
                    }
                    return;
                }
                Err(fault) => fault,
            };
            match fault.verdict() {
                Some(bad) if self.confirms(&epoch, bad) => {
                    if bad.sets_aside() {
                        self.set_aside(epoch, &fault).await;
                    } else {
                        tracing::error!(epoch = epoch.number, node = %epoch.node, %fault, "usage of an earlier start is not reported; its event files stay");
                    }
                    return;
                }
                Some(_) | None => self.wait(&epoch, &fault).await,
            }
        }
    }

    /// Whether this was found before. If not, another control plane is asked next.
    fn confirms(&mut self, epoch: &Epoch, bad: Verdict) -> bool {
        let found = Some((epoch.clone(), bad));
        if self.suspect == found {
            return true;
        }
        self.suspect = found;
        self.failures = 1;
        false
    }

    /// The batch of an epoch that was refused last; 0 when none was.
    pub(super) fn suspected(&self, epoch: &Epoch) -> u64 {
        match &self.suspect {
            Some((of, Verdict::Refused(sequence))) if of == epoch => *sequence,
            Some(_) | None => 0,
        }
    }

    /// Leaves the current epoch: the writer first, so that nothing is added to the files that are set aside then. False when the
    /// writer ended before it came to that; then the next start finds the same, in an earlier epoch.
    async fn begin_anew(
        &mut self,
        fault: &DeliveryFault,
        durable: &mut watch::Receiver<Durable>,
    ) -> bool {
        let left = self.current.clone();
        self.leave.send_replace(left.number);
        let begun = durable
            .wait_for(|durable| durable.last || durable.epoch != left.number)
            .await
            .map(|durable| durable.epoch);
        let Some(number) = begun.ok().filter(|number| *number != left.number) else {
            return false;
        };
        let now = Instant::now();
        self.anew_at = now.checked_add(ANEW).unwrap_or(now);
        self.current = Epoch {
            number,
            ..left.clone()
        };
        self.sent.store(0, Ordering::Relaxed);
        let counters = &self.intake.counters;
        counters.unreported_starts.fetch_add(1, Ordering::Relaxed);
        self.set_aside(left, fault).await;
        true
    }

    /// Puts the files of an epoch where nothing but people touches them.
    async fn set_aside(&mut self, epoch: Epoch, fault: &DeliveryFault) {
        let (disk, of) = (Arc::clone(&self.disk), epoch.clone());
        let moved = self
            .work
            .run::<Vec<String>, io::Error>(move || set_aside::set_aside(&*disk, &of))
            .await;
        let counters = &self.intake.counters;
        if let DeliveryFault::Read(ReadError::Missing { .. }) = fault {
            counters.missing_batches.fetch_add(1, Ordering::Relaxed);
        }
        match moved {
            Ok(files) => {
                let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
                counters.set_aside_files.fetch_add(count, Ordering::Relaxed);
                tracing::error!(node = %epoch.node, epoch = epoch.number, ?files, %fault, "set event files aside: usage in them is not booked; {}", set_aside::WHAT_TO_DO);
            }
            Err(error) => {
                tracing::error!(node = %epoch.node, epoch = epoch.number, %fault, %error, "usage is not booked, and its event files could not be set aside; they stay, and the next start of the node tries again");
            }
        }
        self.aside.insert(epoch);
    }

    async fn replay_once(&mut self, epoch: &Epoch) -> Result<(), DeliveryFault> {
        let (disk, of) = (Arc::clone(&self.disk), epoch.clone());
        let through = self
            .work
            .run::<u64, io::Error>(move || close_epoch(&disk, &of))
            .await
            .map_err(ReadError::Disk)?;
        if through == 0 {
            return Ok(());
        }
        let (_ended, mut durable) = watch::channel(Durable {
            epoch: epoch.number,
            through,
            last: true,
        });
        self.deliver(epoch, &mut durable).await
    }

    async fn wait(&mut self, epoch: &Epoch, fault: &DeliveryFault) {
        self.intake
            .counters
            .disconnects
            .fetch_add(1, Ordering::Relaxed);
        let wait = self.backoff.next_wait();
        tracing::warn!(epoch = epoch.number, %fault, wait_ms = wait.as_millis(), "usage is not being reported; trying again");
        sleep(wait).await;
    }

    /// One stream: ends well when the last batch is acknowledged.
    async fn deliver(
        &mut self,
        epoch: &Epoch,
        durable: &mut watch::Receiver<Durable>,
    ) -> Result<(), DeliveryFault> {
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let register = Register {
            node_id: epoch.node.to_string(),
            epoch: epoch.number,
        };
        send(&requests, report_request::Message::Register(register))?;
        let channel = self.planes.channel(self.failures);
        let mut client = UsageServiceClient::new(channel.ok_or(DeliveryFault::Closed)?);
        self.failures = self.failures.wrapping_add(1);
        let opening = client.report(ReceiverStream::new(outgoing));
        let mut responses = timeout(PATIENCE, opening)
            .await
            .map_err(|_| DeliveryFault::Silent)?
            .map_err(|status| self.turned_away(epoch, status))?
            .into_inner();
        let first = timeout(PATIENCE, responses.message())
            .await
            .map_err(|_| DeliveryFault::Silent)?
            .map_err(|status| self.turned_away(epoch, status))?;
        let report_response::Message::Registered(registered) = read(Ok(first))? else {
            return Err(DeliveryFault::OutOfOrder);
        };
        let sent = if *epoch == self.current {
            self.sent.load(Ordering::Relaxed)
        } else {
            durable.borrow().through
        };
        if registered.applied_through > sent {
            return Err(DeliveryFault::Foreign {
                applied: registered.applied_through,
                sent,
            });
        }
        // What is refused is asked for less and less often.
        if self.suspected(epoch) == 0 {
            self.backoff.reset();
        }
        self.failures = 0;
        let mut stream = Stream::new(self, epoch, registered.applied_through, requests);
        loop {
            let now = *durable.borrow_and_update();
            if now.last && stream.acknowledged == now.through {
                return Ok(());
            }
            stream.fill(now.through).await?;
            let (waiting, due) = (stream.is_waiting(), stream.due);
            tokio::select! {
                biased;
                answer = responses.message() => {
                    let answer = read(answer).map_err(|fault| stream.blame(fault))?;
                    stream.take(answer)?;
                }
                changed = durable.changed(), if !now.last => changed.map_err(|_| DeliveryFault::Closed)?,
                () = sleep_until(due), if waiting => return Err(DeliveryFault::Silent),
            }
        }
    }

    /// Why an epoch cannot be reported at all.
    fn turned_away(&self, epoch: &Epoch, status: Status) -> DeliveryFault {
        let why = status.message().to_owned();
        let of_another = epoch.node != self.current.node;
        if status.code() == Code::InvalidArgument {
            DeliveryFault::Refused { sequence: 0, why }
        } else if status.code() == Code::PermissionDenied && of_another {
            let node = epoch.node.to_string();
            DeliveryFault::NotOurs { node, why }
        } else {
            Box::new(status).into()
        }
    }
}

fn read(
    answer: Result<Option<ReportResponse>, Status>,
) -> Result<report_response::Message, DeliveryFault> {
    answer
        .map_err(Box::new)?
        .ok_or(DeliveryFault::Closed)?
        .message
        .ok_or(DeliveryFault::OutOfOrder)
}
