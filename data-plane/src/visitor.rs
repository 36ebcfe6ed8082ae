//! One connection of a client, as the edge sees it: in which phase it is, how long that may last, and what its request heads look
//! like before the HTTP library has tidied them.
//!
//! The library sends a silent connection no timeout and forgives some ambiguous framing (both lengths, lines that end with LF only),
//! so this layer sits below it. Invariants: every phase but the work on a request has a limit; a head is looked at from its first
//! byte, or not at all, and then its request says so ([`Head::Unseen`]).

use std::{
    cell::{Cell, RefCell},
    io,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    context::Settings,
    head::{Head, HeadReader},
    net::Io,
    timers::{Alarm, Timers},
};

/// How long a client may refuse to read, at most.
const STALL: Duration = Duration::from_secs(60);

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rest of a head, or its first byte on a new connection.
    Head,
    /// A request's answer; limits of its own apply.
    Busy,
    /// The next request.
    Idle,
}

/// A client's connection; shared by its stream, its requests and its task.
pub(crate) struct Visitor {
    /// Where it comes from.
    pub(crate) peer: IpAddr,
    phase: Cell<Phase>,
    stalled: Cell<bool>,
    /// The body of a refused request may still be arriving, so heads cannot be told from it any more.
    blind: Cell<bool>,
    reader: RefCell<HeadReader>,
    alarm: RefCell<Alarm>,
    limits: Limits,
}

struct Limits {
    head: Duration,
    idle: Duration,
    stall: Duration,
}

impl Visitor {
    /// A connection that was just accepted.
    pub(crate) fn new(peer: IpAddr, timers: &Rc<Timers>, settings: &Settings) -> Rc<Self> {
        Rc::new(Self {
            peer,
            phase: Cell::new(Phase::Head),
            stalled: Cell::new(false),
            blind: Cell::new(false),
            reader: RefCell::default(),
            alarm: RefCell::new(Alarm::new(timers, settings.head_timeout)),
            limits: Limits {
                head: settings.head_timeout,
                idle: settings.keep_alive,
                stall: settings.idle_timeout.min(STALL),
            },
        })
    }

    /// A request begins: what its head looked like.
    pub(crate) fn begin(&self) -> Head {
        self.enter(Phase::Busy);
        self.reader.borrow_mut().take()
    }

    /// Its answer is over: the connection waits for its next request.
    pub(crate) fn end(&self) {
        self.enter(Phase::Idle);
    }

    /// Whether it waits for its next request.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase.get() == Phase::Idle
    }

    /// Its body is not read to the end by the gateway.
    pub(crate) fn body_unread(&self) {
        self.blind.set(true);
    }

    /// Ready when the phase lasted too long.
    pub(crate) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.borrow_mut().poll(cx)
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.restart();
    }

    fn restart(&self) {
        let limit = match self.phase.get() {
            _ if self.stalled.get() => Some(self.limits.stall),
            Phase::Head => Some(self.limits.head),
            Phase::Busy => None,
            Phase::Idle => Some(self.limits.idle),
        };
        self.alarm.borrow_mut().set(limit);
    }

    fn arrived(&self, bytes: &[u8]) {
        match self.phase.get() {
            Phase::Busy => return,
            Phase::Idle => self.enter(Phase::Head),
            Phase::Head => {}
        }
        if !self.blind.get() {
            self.reader.borrow_mut().read(bytes);
        }
    }

    fn written(&self, pending: bool) {
        if self.stalled.replace(pending) != pending {
            self.restart();
        }
    }
}

/// The stream of a client's connection.
pub(crate) struct Watched {
    io: Io,
    visitor: Rc<Visitor>,
}

impl Watched {
    /// Reports what passes by to the visitor.
    pub(crate) fn new(io: Io, visitor: Rc<Visitor>) -> Self {
        Self { io, visitor }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Some(new) = buf.filled().get(before..).filter(|new| !new.is_empty()) {
            self.visitor.arrived(new);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.visitor.written(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.visitor.written(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
