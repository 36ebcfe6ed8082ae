//! The body of an answer as it arrives. Read to its end, it gives its connection back.

use std::{
    io, mem,
    pin::Pin,
    task::{Context as Task, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{Connection, chunked::Chunked, head::InvalidAnswer};

/// What tells where a body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Its chunks.
    Chunked(Chunked),
    /// The end of the connection.
    UntilClosed,
}

/// The rest of an answer.
pub(crate) struct Incoming {
    framing: Framing,
    keep_alive: bool,
    /// `None` once the body is complete or broken.
    connection: Option<Box<Connection>>,
}

impl Incoming {
    pub(super) fn new(connection: Box<Connection>, body: super::head::Body) -> Self {
        let mut incoming = Self {
            framing: body.framing,
            keep_alive: body.keep_alive,
            connection: Some(connection),
        };
        if matches!(incoming.framing, Framing::Length(0)) {
            incoming.finish();
        }
        incoming
    }

    fn finish(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.keep_alive
        {
            connection.give_back();
        }
    }

    fn poll_bytes(&mut self, task: &mut Task<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            let taken = match self.framing.take(&mut connection.read) {
                Ok(taken) => taken,
                Err(error) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
            };
            if self.framing.is_end() {
                self.finish();
            }
            if let Some(bytes) = taken {
                return Poll::Ready(Some(Ok(bytes)));
            }
            let Some(connection) = &mut self.connection else {
                continue;
            };
            let lost = match ready!(connection.poll_fill(task)) {
                Ok(0) if matches!(self.framing, Framing::UntilClosed) => None,
                Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => continue,
                Err(error) => Some(error),
            };
            self.connection = None;
            return Poll::Ready(lost.map(Err));
        }
    }
}

impl Framing {
    /// Takes the bytes of the body that are there, if any.
    fn take(&mut self, read: &mut Bytes) -> Result<Option<Bytes>, InvalidAnswer> {
        let count = match self {
            Self::Length(left) => {
                let taken = (*left).min(u64::try_from(read.len()).unwrap_or(u64::MAX));
                *left = left.saturating_sub(taken);
                usize::try_from(taken).unwrap_or(read.len())
            }
            Self::UntilClosed => read.len(),
            Self::Chunked(chunked) => {
                pass_over(chunked, read)?;
                chunked.take(read.len())
            }
        };
        let bytes = (count > 0).then(|| split(read, count));
        if let Self::Chunked(chunked) = self {
            // The end is seen with the last bytes, and nothing small is left to keep a large buffer alive.
            pass_over(chunked, read)?;
        }
        Ok(bytes)
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_end(),
            Self::UntilClosed => false,
        }
    }
}

fn pass_over(chunked: &mut Chunked, read: &mut Bytes) -> Result<(), InvalidAnswer> {
    let over = chunked.pass_over(read)?;
    if over == read.len() {
        *read = Bytes::new();
    } else {
        read.advance(over);
    }
    Ok(())
}

fn split(read: &mut Bytes, count: usize) -> Bytes {
    if count == read.len() {
        mem::take(read)
    } else {
        read.split_to(count)
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let bytes = self.get_mut().poll_bytes(task);
        bytes.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::UntilClosed => SizeHint::default(),
        }
    }
}
