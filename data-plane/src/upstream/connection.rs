//! One connection to a provider: sends a request, reads the head of its answer, fills the buffer for its body.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, Cursor, IoSlice},
    mem,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context as Task, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut, buf::Chain};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{
    head::{self, Head, InvalidAnswer},
    incoming::Incoming,
    pool::Origin,
};
use crate::net::Io;

/// Where all connections of a core read to: what was read is copied out in its own size, so that a connection that waits keeps no buffer.
pub(super) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// Blocks below this size are all alike to an allocator.
const SMALL: usize = 1 << 10;

/// A connection to a provider.
pub(crate) struct Connection {
    io: Io,
    scratch: Scratch,
    origin: Weak<Origin>,
    /// Whether it has carried a request before.
    reused: bool,
    /// What was read and not taken yet.
    pub(super) read: Bytes,
    /// What is still to be sent of a request.
    out: Chain<Cursor<Vec<u8>>, Bytes>,
    sending: Sending,
    /// Whether a byte of the request was taken by the system.
    wrote: bool,
}

/// How far the request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Done,
    Going,
    /// The provider takes no more of it. It may have answered before that, so what came is read.
    Broken,
}

/// A request that got no answer.
pub(crate) struct Lost {
    /// No byte of it was sent, over a connection that was used before: the provider had closed it, which says nothing about the request.
    pub(crate) stale: bool,
    /// Whether a byte of it was sent.
    pub(crate) sent: bool,
    pub(crate) error: io::Error,
}

impl Connection {
    pub(super) fn new(io: Io, scratch: Scratch, origin: &Rc<Origin>) -> Box<Self> {
        Box::new(Self {
            io,
            scratch,
            origin: Rc::downgrade(origin),
            reused: false,
            read: Bytes::new(),
            out: request(Vec::new(), Bytes::new()),
            sending: Sending::Done,
            wrote: false,
        })
    }

    /// Sends a request and waits for the head of its answer. Dropping the future closes the connection.
    pub(crate) async fn exchange(
        mut self: Box<Self>,
        head: Vec<u8>,
        body: Bytes,
    ) -> Result<(Head, Incoming), Lost> {
        self.out = request(head, body);
        (self.sending, self.wrote) = (Sending::Going, false);
        let mut seen = 0;
        match poll_fn(|task| self.poll_head(task, &mut seen)).await {
            Ok((head, body)) => Ok((head, Incoming::new(self, body))),
            Err(error) => Err(Lost {
                stale: self.reused && !self.wrote,
                sent: self.wrote,
                error,
            }),
        }
    }

    fn poll_head(
        &mut self,
        task: &mut Task<'_>,
        seen: &mut usize,
    ) -> Poll<io::Result<(Head, head::Body)>> {
        loop {
            match head::take(&mut self.read, seen) {
                Ok(Some(found)) => return Poll::Ready(Ok(found)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(invalid(error))),
            }
            if ready!(self.poll_fill(task))? == 0 {
                let closed = "the provider closed the connection before its answer";
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, closed);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Reads what has come, and sends what is still to be sent: a provider may answer before it has read all of a request.
    pub(super) fn poll_fill(&mut self, task: &mut Task<'_>) -> Poll<io::Result<usize>> {
        if self.sending == Sending::Going
            && let Poll::Ready(sent) = self.poll_send(task)
        {
            self.sending = match sent {
                Ok(()) => Sending::Done,
                Err(error) if !self.wrote => return Poll::Ready(Err(error)),
                Err(_) => Sending::Broken,
            };
            // An answer may take long, and nothing of its request need be kept meanwhile.
            self.out = request(Vec::new(), Bytes::new());
        }
        let mut scratch = self.scratch.borrow_mut();
        let mut into = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(task, &mut into))?;
        keep(&mut self.read, into.filled());
        Poll::Ready(Ok(into.filled().len()))
    }

    fn poll_send(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        while self.out.has_remaining() {
            let mut parts = [IoSlice::new(&[]); 2];
            let count = self.out.chunks_vectored(&mut parts);
            let parts = parts.get(..count).unwrap_or_default();
            let sent = ready!(Pin::new(&mut self.io).poll_write_vectored(task, parts))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote = true;
            self.out.advance(sent);
        }
        Pin::new(&mut self.io).poll_flush(task)
    }

    /// Whether it can carry a request: nothing is left of the last one, and the provider has neither closed it nor said a word too many.
    pub(super) fn is_idle(&mut self) -> bool {
        let nothing_comes = self.poll_fill(&mut Task::from_waker(Waker::noop()));
        nothing_comes.is_pending()
    }

    /// The answer was read to its end: the connection waits for its next request, unless something is left of this one.
    pub(super) fn give_back(mut self: Box<Self>) {
        if self.read.is_empty()
            && self.sending == Sending::Done
            && let Some(origin) = self.origin.upgrade()
        {
            self.reused = true;
            origin.put(self);
        }
    }
}

/// Puts `more` behind what was read and not taken.
fn keep(read: &mut Bytes, more: &[u8]) {
    if read.is_empty() {
        // Of large blocks, allocators have those of a power of two at hand.
        let room = match more.len() {
            SMALL.. => more.len().checked_next_power_of_two(),
            _ => None,
        };
        let mut first = Vec::with_capacity(room.unwrap_or(more.len()));
        first.extend_from_slice(more);
        *read = first.into();
    } else {
        let mut joined = BytesMut::from(mem::take(read));
        joined.extend_from_slice(more);
        *read = joined.freeze();
    }
}

fn request(head: Vec<u8>, body: Bytes) -> Chain<Cursor<Vec<u8>>, Bytes> {
    Cursor::new(head).chain(body)
}

fn invalid(error: InvalidAnswer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
