//! Reads batches back from the files, in order, for sending.
//!
//! Invariants: what is read are the bytes that were written, in the order of their numbers; the tail of a file that a crash tore
//! off is passed over; a batch that stands twice is read once; one that is missing is an error, never skipped.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    disk::Disk,
    files::{Epoch, Segment, segments},
    frame::{self, Decoded},
};

/// Bytes read at a time, if that is enough for one batch.
const CHUNK: usize = 256 * 1024;

/// A place in the files of one epoch.
pub(super) struct Reader {
    disk: Arc<dyn Disk>,
    epoch: Epoch,
    next: u64,
    at: Option<(Segment, u64)>,
}

/// An encoded batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
}

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The files do not hold it (any more).
    #[error("the event files do not hold batch {sequence}")]
    Missing {
        /// Its number.
        sequence: u64,
    },
    /// The disk fails.
    #[error("an event file cannot be read: {0}")]
    Disk(#[from] io::Error),
}

impl Reader {
    /// Begins at batch `next`.
    pub(super) fn new(disk: Arc<dyn Disk>, epoch: Epoch, next: u64) -> Self {
        Self {
            disk,
            epoch,
            next,
            at: None,
        }
    }

    /// The batch that is read next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The next batches, about a chunk of them and at least one; none when `next` is past the end of what is there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) fn read(&mut self) -> Result<Vec<Stored>, ReadError> {
        loop {
            let (segment, offset) = match self.at.take() {
                Some(at) => at,
                None => match self.find(None)? {
                    Some(segment) => (segment, 0),
                    None => return Ok(Vec::new()),
                },
            };
            let (batches, after, _) = self.read_segment(&segment, offset)?;
            if !batches.is_empty() {
                self.at = Some((segment, after));
                return Ok(batches);
            }
            if after > offset {
                self.at = Some((segment, after));
                continue;
            }
            match self.find(Some(segment.first))? {
                Some(followed) => self.at = Some((followed, 0)),
                None => {
                    self.at = Some((segment, offset));
                    return Ok(Vec::new());
                }
            }
        }
    }

    /// The file that should hold the next batch, if it begins after `after`.
    fn find(&self, after: Option<u64>) -> Result<Option<Segment>, ReadError> {
        let mut mine = segments(&*self.disk)?;
        mine.retain(|segment| {
            segment.epoch == self.epoch && after.is_none_or(|after| segment.first > after)
        });
        let position = mine.partition_point(|segment| segment.first <= self.next);
        match position.checked_sub(1) {
            Some(last) => Ok(mine.get(last).cloned()),
            None if mine.is_empty() => Ok(None),
            None => Err(ReadError::Missing {
                sequence: self.next,
            }),
        }
    }

    /// Batches from `offset` on, the offset after them, and what stands there.
    fn read_segment(
        &mut self,
        segment: &Segment,
        offset: u64,
    ) -> Result<(Vec<Stored>, u64, Tail), ReadError> {
        let name = segment.to_string();
        let mut size = CHUNK;
        loop {
            let bytes = self.disk.read(&name, offset, size)?;
            let (batches, used, tail) = self.scan(&bytes)?;
            match tail {
                // The first batch is larger than a chunk.
                Tail::Incomplete { needed } if used == 0 && bytes.len() == size => size = needed,
                Tail::Incomplete { .. } | Tail::Damaged => {
                    let used = u64::try_from(used).unwrap_or(u64::MAX);
                    return Ok((batches, offset.saturating_add(used), tail));
                }
            }
        }
    }

    /// Takes whole batches off the beginning of some bytes, passing over those that were read before.
    fn scan(&mut self, bytes: &[u8]) -> Result<(Vec<Stored>, usize, Tail), ReadError> {
        let (mut batches, mut used) = (Vec::new(), 0_usize);
        loop {
            match frame::decode(bytes.get(used..).unwrap_or_default()) {
                Decoded::Frame { sequence, .. } if sequence > self.next => {
                    return Err(ReadError::Missing {
                        sequence: self.next,
                    });
                }
                Decoded::Frame {
                    sequence,
                    payload,
                    len,
                } => {
                    if sequence == self.next {
                        batches.push(Stored {
                            sequence,
                            payload: Bytes::copy_from_slice(payload),
                        });
                        self.next = self.next.saturating_add(1);
                    }
                    used = used.saturating_add(len);
                }
                Decoded::Incomplete { needed } => {
                    return Ok((batches, used, Tail::Incomplete { needed }));
                }
                Decoded::Damaged => return Ok((batches, used, Tail::Damaged)),
            }
        }
    }
}

/// What follows the last whole batch.
#[derive(Clone, Copy)]
enum Tail {
    /// Nothing, or the beginning of a batch: more may be there, or was torn off.
    Incomplete { needed: usize },
    /// Something else.
    Damaged,
}

/// The last batch of an epoch that is not written any more; 0 when there is none. The beginning of a batch that a crash tore off
/// is cut off, and the rest made durable. Bytes that are no such beginning stay, as evidence.
///
/// # Errors
/// The disk fails.
pub(super) fn close_epoch(disk: &Arc<dyn Disk>, epoch: &Epoch) -> io::Result<u64> {
    let files = disk.list()?;
    let mut mine: Vec<(Segment, u64)> = files
        .into_iter()
        .filter_map(|file| Some((Segment::parse(&file.name)?, file.len)))
        .collect();
    mine.retain(|(segment, _)| segment.epoch == *epoch);
    mine.sort();
    for (segment, len) in mine.into_iter().rev() {
        let name = segment.to_string();
        let (last, end, tail) = last_batch(disk, &segment)?;
        match tail {
            Tail::Incomplete { .. } if end == 0 => disk.remove(&name)?,
            Tail::Incomplete { .. } if end < len => {
                tracing::warn!(
                    file = name,
                    bytes = len.saturating_sub(end),
                    "cut the torn end off an event file"
                );
                disk.truncate(&name, end)?;
            }
            Tail::Incomplete { .. } => {}
            Tail::Damaged => tracing::error!(
                file = name,
                offset = end,
                "an event file is damaged; it is left as it is"
            ),
        }
        if let Some(last) = last {
            disk.sync(&name)?;
            return Ok(last);
        }
    }
    Ok(0)
}

/// The last whole batch of a segment, where it ends, and what follows.
fn last_batch(disk: &Arc<dyn Disk>, segment: &Segment) -> io::Result<(Option<u64>, u64, Tail)> {
    let mut reader = Reader::new(Arc::clone(disk), segment.epoch.clone(), segment.first);
    let mut offset = 0;
    loop {
        let (_, after, tail) = match reader.read_segment(segment, offset) {
            Ok(read) => read,
            Err(ReadError::Disk(error)) => return Err(error),
            // Numbers within a file follow each other; one that does not was not written by this program.
            Err(ReadError::Missing { .. }) => {
                return Ok((reader.last(segment), offset, Tail::Damaged));
            }
        };
        if after == offset {
            return Ok((reader.last(segment), offset, tail));
        }
        offset = after;
    }
}

impl Reader {
    fn last(&self, segment: &Segment) -> Option<u64> {
        self.next
            .checked_sub(1)
            .filter(|last| *last >= segment.first)
    }
}
