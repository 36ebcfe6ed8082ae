//! The event files of a node: `<node>-<epoch>-<first sequence>.log`, one epoch per start (and one more whenever the current one cannot be
//! reported any further), and `<node>.epoch` that names the newest epoch.
//!
//! Invariants: the number of an epoch is durable before the epoch is used, and higher than that of any file, so no two epochs number
//! a batch alike. A batch that was appended successfully is durable, and its bytes never change (law 5). After a crash at any
//! point a file holds a prefix of what was appended and all that was synced (law 19).

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use proxyxai_proto::usage::v1::UsageBatch;

use super::{batch::Encoded, disk::Disk, frame, set_aside};

/// A file that has reached this size gets no more batches.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
const SUFFIX: &str = ".log";

/// One start of one node, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch {
    pub(super) node: Arc<str>,
    pub(super) number: u64,
}

/// One event file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) epoch: Epoch,
    pub(super) first: u64,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}{SUFFIX}",
            self.epoch.node, self.epoch.number, self.first
        )
    }
}

impl Segment {
    /// Reads a file name; `None` when it is another file.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.rsplitn(3, '-');
        let (first, number, node) = (
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
            parts.next()?,
        );
        Some(Self {
            epoch: Epoch {
                node: node.into(),
                number,
            },
            first,
        })
    }
}

/// All segments on a disk, in order.
pub(super) fn segments(disk: &dyn Disk) -> io::Result<Vec<Segment>> {
    let mut all: Vec<Segment> = disk
        .list()?
        .iter()
        .filter_map(|file| Segment::parse(&file.name))
        .collect();
    all.sort();
    Ok(all)
}

/// A batch under its number. The bytes are final.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
}

/// Writes the files of the current epoch.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    epoch: Epoch,
    next: u64,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    name: String,
    /// Bytes that are durable.
    synced: u64,
    /// Whether there may be bytes after those: a write or sync of them failed.
    torn: bool,
}

impl Journal {
    /// Begins a new epoch, and names the earlier ones that there are files of. It follows the last one; where no trace of one is
    /// left, as on a new disk of an old node, it is `first`, which should be higher than any used before.
    ///
    /// # Errors
    /// The disk fails, or the count of starts cannot be read.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        node: &str,
        first: u64,
    ) -> io::Result<(Self, Vec<Epoch>)> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if node.is_empty() || !node.bytes().all(fits) {
            let why = "a node id has letters, digits, `-` and `_` only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut earlier: Vec<Epoch> = segments(&*disk)?
            .into_iter()
            .map(|segment| segment.epoch)
            .collect();
        earlier.dedup();
        let number = match last_epoch(&*disk, node)? {
            None => first,
            Some(last) => after(last)?,
        };
        store_epoch(&*disk, node, number)?;
        let epoch = Epoch {
            node: node.into(),
            number,
        };
        Ok((
            Self {
                disk,
                epoch,
                next: 1,
                open: None,
            },
            earlier,
        ))
    }

    /// Leaves the epoch for a fresh one, which it names. Only while every batch that has a number is durable.
    ///
    /// # Errors
    /// The disk fails, or the count of starts cannot be read; then the epoch is still the one of before.
    pub(super) fn begin_anew(&mut self) -> io::Result<Epoch> {
        let last = last_epoch(&*self.disk, &self.epoch.node)?.unwrap_or_default();
        let number = after(last.max(self.epoch.number))?;
        store_epoch(&*self.disk, &self.epoch.node, number)?;
        self.epoch = Epoch {
            node: Arc::clone(&self.epoch.node),
            number,
        };
        (self.next, self.open) = (1, None);
        Ok(self.epoch.clone())
    }

    /// The epoch that batches are numbered in.
    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Gives a batch its number.
    pub(super) fn number(&mut self, events: &Encoded) -> Numbered {
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        let mut payload = UsageBatch {
            node_id: self.epoch.node.to_string(),
            epoch: self.epoch.number,
            sequence,
            events: Vec::new(),
        }
        .encode_to_vec();
        payload.extend_from_slice(events);
        Numbered {
            sequence,
            payload: payload.into(),
        }
    }

    /// Makes batches durable, all of them or (after an error) none for sure; then it is called again with the same ones.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub(super) fn append(&mut self, batches: &[Numbered]) -> io::Result<()> {
        let Some(first) = batches.first() else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        batches
            .iter()
            .for_each(|batch| frame::encode(batch.sequence, &batch.payload, &mut bytes));
        let mut open = match self.open.take() {
            Some(open) if !open.torn && open.synced < SEGMENT_BYTES => open,
            before => {
                before
                    .filter(|open| open.torn)
                    .into_iter()
                    .for_each(|open| self.abandon(&open));
                let segment = Segment {
                    epoch: self.epoch.clone(),
                    first: first.sequence,
                };
                OpenSegment {
                    name: segment.to_string(),
                    synced: 0,
                    torn: false,
                }
            }
        };
        let written = self
            .disk
            .append(&open.name, &bytes)
            .and_then(|()| self.disk.sync(&open.name));
        match &written {
            Ok(()) => {
                open.synced = open
                    .synced
                    .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Err(_) => open.torn = true,
        }
        self.open = Some(open);
        written
    }

    /// Leaves a file behind after a failure. A sync that succeeds after one that failed proves nothing about what was written
    /// before, so a new file is begun. The tail is cut off; should that fail too, it holds the same batches or damaged ones, and
    /// readers pass over both.
    fn abandon(&self, open: &OpenSegment) {
        let cut = if open.synced == 0 {
            self.disk.remove(&open.name)
        } else {
            self.disk
                .truncate(&open.name, open.synced)
                .and_then(|()| self.disk.sync(&open.name))
        };
        if let Err(error) = cut {
            tracing::warn!(file = open.name, %error, "could not cut an event file after a failed write");
        }
    }
}

/// The highest epoch of a node that there is a trace of.
fn last_epoch(disk: &dyn Disk, node: &str) -> io::Result<Option<u64>> {
    let aside = set_aside::list(disk)?;
    let of_files = segments(disk)?
        .into_iter()
        .chain(aside)
        .filter(|segment| *segment.epoch.node == *node)
        .map(|segment| segment.epoch.number)
        .max();
    Ok(of_files.max(stored_epoch(disk, node)?))
}

fn after(last: u64) -> io::Result<u64> {
    last.checked_add(1)
        .ok_or_else(|| io::Error::other("the epochs of this node are used up"))
}

fn epoch_file(node: &str) -> String {
    format!("{node}.epoch")
}

fn stored_epoch(disk: &dyn Disk, node: &str) -> io::Result<Option<u64>> {
    let bytes = match disk.read(&epoch_file(node), 0, 64) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let number = str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let damaged = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} does not hold a number", epoch_file(node)),
        )
    };
    number.map(Some).ok_or_else(damaged)
}

fn store_epoch(disk: &dyn Disk, node: &str, number: u64) -> io::Result<()> {
    let (name, temporary) = (epoch_file(node), format!("{}.new", epoch_file(node)));
    disk.remove(&temporary)?;
    disk.append(&temporary, format!("{number}\n").as_bytes())?;
    disk.sync(&temporary)?;
    disk.rename(&temporary, &name)
}

#[cfg(test)]
mod tests;
