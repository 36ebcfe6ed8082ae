//! Brings durable batches to the control plane: one stream per epoch, earlier epochs first, a small window of batches under way.
//!
//! Invariants: only durable batches are sent, in order, as they stand in the files; everything not known to be durable at the
//! control plane is sent again after any failure, so nothing is lost; the control plane passes over repeats, so nothing is
//! counted twice (law 4).

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use proxyxai_proto::usage::v1::{
    Register, ReportRequest, ReportResponse, report_request, report_response,
    usage_service_client::UsageServiceClient,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    disk::Disk,
    files::Epoch,
    progress::Progress,
    reader::{ReadError, Reader, Stored, close_epoch},
    recent::Recent,
    sender::ReportCounters,
    work::FileWork,
    writer::Durable,
};
use crate::config::{ControlPlanes, backoff::Backoff};

/// Batches that may be under way.
const WINDOW: u64 = 8;
/// Messages that may wait to be sent: what is under way, and what is sent again after a gap.
const OUTGOING: usize = 32;
/// How long the control plane may take to answer while batches are under way.
const PATIENCE: Duration = Duration::from_secs(10);

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
        let epoch = self.current.clone();
        loop {
            let acknowledged = self.progress.acknowledged(&epoch);
            let news = durable
                .wait_for(|durable| durable.last || durable.through > acknowledged)
                .await
                .map(|durable| *durable);
            let Ok(news) = news else { return };
            if news.through <= acknowledged {
                return;
            }
            match self.deliver(&epoch, &mut durable).await {
                Ok(()) => return,
                Err(fault) => self.wait(&epoch, &fault).await,
            }
        }
    }

    /// Sends what the control plane lacks of an epoch that is not written any more.
    async fn replay(&mut self, epoch: Epoch) {
        loop {
            let fault = match self.replay_once(&epoch).await {
                Ok(()) => {
                    self.progress.finish(&epoch);
                    let counters = &self.intake.counters;
                    counters.unreported_starts.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                Err(fault) => fault,
            };
            if fault.is_final() {
                self.note_missing(&fault);
                tracing::error!(epoch = epoch.number, node = %epoch.node, %fault, "set an earlier epoch aside; its event files stay");
                return;
            }
            self.wait(&epoch, &fault).await;
        }
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
        self.note_missing(fault);
        let wait = self.backoff.next_wait();
        tracing::warn!(epoch = epoch.number, %fault, wait_ms = wait.as_millis(), "usage is not being reported; trying again");
        sleep(wait).await;
    }

    fn note_missing(&self, fault: &DeliveryFault) {
        if let DeliveryFault::Read(ReadError::Missing { .. }) = fault {
            self.intake
                .counters
                .missing_batches
                .fetch_add(1, Ordering::Relaxed);
        }
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
            .map_err(Box::new)?
            .into_inner();
        let first = timeout(PATIENCE, responses.message())
            .await
            .map_err(|_| DeliveryFault::Silent)?;
        let report_response::Message::Registered(registered) = read(first)? else {
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
        self.backoff.reset();
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
                answer = responses.message() => stream.take(read(answer)?)?,
                changed = durable.changed(), if !now.last => changed.map_err(|_| DeliveryFault::Closed)?,
                () = sleep_until(due), if waiting => return Err(DeliveryFault::Silent),
            }
        }
    }
}

/// The state of one stream.
struct Stream<'a> {
    delivery: &'a Delivery,
    epoch: &'a Epoch,
    requests: mpsc::Sender<ReportRequest>,
    /// Comes and goes with work on files.
    reader: Option<Reader>,
    read: VecDeque<Stored>,
    acknowledged: u64,
    sent: u64,
    /// The gap that was answered last.
    rewound_to: u64,
    /// When an answer is overdue, if anything is under way.
    due: Instant,
}

impl<'a> Stream<'a> {
    fn new(
        delivery: &'a Delivery,
        epoch: &'a Epoch,
        acknowledged: u64,
        requests: mpsc::Sender<ReportRequest>,
    ) -> Self {
        let mut stream = Self {
            delivery,
            epoch,
            requests,
            reader: None,
            read: VecDeque::new(),
            acknowledged,
            sent: acknowledged,
            rewound_to: 0,
            due: due(),
        };
        stream.note_acknowledged();
        stream.rewind(acknowledged.saturating_add(1));
        stream
    }

    /// Whether an answer must come.
    fn is_waiting(&self) -> bool {
        self.sent > self.acknowledged
    }

    /// Sends as much as the window has room for.
    async fn fill(&mut self, through: u64) -> Result<(), DeliveryFault> {
        while self.sent < through && self.sent.saturating_sub(self.acknowledged) < WINDOW {
            let sequence = self.sent.saturating_add(1);
            let current = *self.epoch == self.delivery.current;
            let recent = current.then(|| self.delivery.recent.get(sequence));
            let batch = match recent.flatten() {
                Some(batch) => batch,
                None => self.read(sequence).await?,
            };
            send(&self.requests, report_request::Message::Batch(batch))?;
            if !self.is_waiting() {
                self.due = due();
            }
            self.sent = sequence;
            if current {
                self.delivery.sent.fetch_max(self.sent, Ordering::Relaxed);
            } else {
                self.delivery
                    .intake
                    .counters
                    .replayed_batches
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// A batch from the files.
    async fn read(&mut self, sequence: u64) -> Result<Bytes, DeliveryFault> {
        if self.read.front().map(|stored| stored.sequence) != Some(sequence) {
            let mut reader = self.reader_at(sequence);
            let read = move || reader.read().map(|batches| (reader, batches));
            let (reader, batches) = self.delivery.work.run::<_, ReadError>(read).await?;
            self.reader = Some(reader);
            self.read = batches.into();
        }
        match self.read.pop_front() {
            Some(stored) => Ok(stored.payload),
            None => Err(ReadError::Missing { sequence }.into()),
        }
    }

    /// The reader that stands there, or a new one where batches were sent meanwhile that need not be read.
    fn reader_at(&mut self, sequence: u64) -> Reader {
        let there = self.reader.take();
        there
            .filter(|reader| reader.next() == sequence)
            .unwrap_or_else(|| {
                let disk = Arc::clone(&self.delivery.disk);
                Reader::new(disk, self.epoch.clone(), sequence)
            })
    }

    fn take(&mut self, answer: report_response::Message) -> Result<(), DeliveryFault> {
        match answer {
            report_response::Message::Ack(ack) if ack.epoch == self.epoch.number => {
                if ack.applied_through > self.sent {
                    return Err(DeliveryFault::OutOfOrder);
                }
                if ack.applied_through > self.acknowledged {
                    self.acknowledged = ack.applied_through;
                    self.due = due();
                    self.note_acknowledged();
                }
                Ok(())
            }
            report_response::Message::Gap(gap) if gap.epoch == self.epoch.number => {
                if gap.expected == 0 || gap.expected > self.sent {
                    return Err(DeliveryFault::OutOfOrder);
                }
                // Every batch that was under way behind the missing one asks for it again; once is enough.
                if gap.expected != self.rewound_to {
                    self.rewound_to = gap.expected;
                    self.rewind(gap.expected);
                }
                Ok(())
            }
            report_response::Message::Ack(_)
            | report_response::Message::Gap(_)
            | report_response::Message::Registered(_) => Err(DeliveryFault::OutOfOrder),
        }
    }

    /// Goes on sending from this batch.
    fn rewind(&mut self, sequence: u64) {
        self.read.clear();
        self.sent = sequence.saturating_sub(1);
        self.acknowledged = self.acknowledged.min(self.sent);
    }

    fn note_acknowledged(&self) {
        let counters: &ReportCounters = &self.delivery.intake.counters;
        let current = *self.epoch == self.delivery.current;
        if current {
            self.delivery.recent.forget(self.acknowledged);
        }
        self.delivery
            .progress
            .acknowledge(self.epoch, self.acknowledged, current, counters);
    }
}

fn due() -> Instant {
    let now = Instant::now();
    now.checked_add(PATIENCE).unwrap_or(now)
}

fn send(
    requests: &mpsc::Sender<ReportRequest>,
    message: report_request::Message,
) -> Result<(), DeliveryFault> {
    requests
        .try_send(ReportRequest {
            message: Some(message),
        })
        .map_err(|_| DeliveryFault::Stuck)
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

/// Why a report stream ended before everything was acknowledged.
#[derive(Debug, thiserror::Error)]
enum DeliveryFault {
    /// An answer that cannot be, at this place.
    #[error("the control plane sent a message out of order")]
    OutOfOrder,
    /// No answer came while one was due.
    #[error("the control plane does not answer")]
    Silent,
    /// The connection takes nothing more.
    #[error("the connection to the control plane is stuck or gone")]
    Stuck,
    /// The other end went away in good order.
    #[error("the control plane ended the stream")]
    Closed,
    /// Somebody else reports under this node's id and epoch.
    #[error(
        "the control plane has batch {applied} of an epoch of which this node sent {sent}: its data directory was copied, or put \
         back from a backup; give the node a new id"
    )]
    Foreign {
        /// What the control plane has.
        applied: u64,
        /// What was sent from here.
        sent: u64,
    },
    /// A batch cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The call failed, or the connection.
    #[error("the stream failed: {} ({:?})", .0.message(), .0.code())]
    Rpc(#[from] Box<tonic::Status>),
}

impl DeliveryFault {
    /// Whether trying again leads to the same, so that an earlier epoch must not hold up the current one.
    fn is_final(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::Read(ReadError::Missing { .. }) => true,
            Self::Rpc(status) => status.code() == Code::InvalidArgument,
            Self::OutOfOrder
            | Self::Silent
            | Self::Stuck
            | Self::Closed
            | Self::Read(ReadError::Disk(_)) => false,
        }
    }
}
