//! One stream of a report: what is under way of an epoch, what is acknowledged, and what is sent next.
//!
//! Invariant: batches go out in the order of their numbers, with the bytes that stand in the files.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use proxyxai_proto::usage::v1::{ReportRequest, report_request, report_response};
use tokio::{sync::mpsc, time::Instant};
use tonic::Code;

use super::{
    delivery::Delivery,
    fault::DeliveryFault,
    files::Epoch,
    reader::{ReadError, Reader, Stored},
    sender::ReportCounters,
};

/// Batches that may be under way.
const WINDOW: u64 = 8;
/// How long the control plane may take to answer while batches are under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The state of one stream.
pub(super) struct Stream<'a> {
    delivery: &'a Delivery,
    epoch: &'a Epoch,
    requests: mpsc::Sender<ReportRequest>,
    /// Comes and goes with work on files.
    reader: Option<Reader>,
    read: VecDeque<Stored>,
    pub(super) acknowledged: u64,
    sent: u64,
    /// The gap that was answered last.
    rewound_to: u64,
    /// Up to this batch only one is under way, so that a refusal tells which one is meant.
    probe: u64,
    /// When an answer is overdue, if anything is under way.
    pub(super) due: Instant,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
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
            probe: delivery.suspected(epoch),
            due: due(),
        };
        stream.note_acknowledged();
        stream.rewind(acknowledged.saturating_add(1));
        stream
    }

    /// Whether an answer must come.
    pub(super) fn is_waiting(&self) -> bool {
        self.sent > self.acknowledged
    }

    fn window(&self) -> u64 {
        if self.acknowledged < self.probe {
            1
        } else {
            WINDOW
        }
    }

    /// Says which batch a refusal is about.
    pub(super) fn blame(&self, fault: DeliveryFault) -> DeliveryFault {
        match &fault {
            DeliveryFault::Rpc(status)
                if status.code() == Code::InvalidArgument && self.is_waiting() =>
            {
                DeliveryFault::Refused {
                    sequence: self.acknowledged.saturating_add(1),
                    why: status.message().to_owned(),
                }
            }
            DeliveryFault::Rpc(_)
            | DeliveryFault::OutOfOrder
            | DeliveryFault::Silent
            | DeliveryFault::Stuck
            | DeliveryFault::Closed
            | DeliveryFault::Foreign { .. }
            | DeliveryFault::Refused { .. }
            | DeliveryFault::NotOurs { .. }
            | DeliveryFault::Read(_) => fault,
        }
    }

    /// Sends as much as the window has room for.
    pub(super) async fn fill(&mut self, through: u64) -> Result<(), DeliveryFault> {
        while self.sent < through && self.sent.saturating_sub(self.acknowledged) < self.window() {
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

    pub(super) fn take(&mut self, answer: report_response::Message) -> Result<(), DeliveryFault> {
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

pub(super) fn send(
    requests: &mpsc::Sender<ReportRequest>,
    message: report_request::Message,
) -> Result<(), DeliveryFault> {
    requests
        .try_send(ReportRequest {
            message: Some(message),
        })
        .map_err(|_| DeliveryFault::Stuck)
}
