//! Passes an answer on and watches it: the attempt is settled before its last byte goes out.
//!
//! Invariants: no whole event is held back that the client may see, and none is passed on that was cut; after the mark that ends a
//! stream the answer ends, whatever the provider still sends; a stream that breaks off ends with an error event in the caller's dialect;
//! dropping an answer, because its client left, settles its attempt.

mod events;
mod plain;
mod source;

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    attempt::Call, context::Context, meter::Meter, metrics::OpenStream, serve::Busy,
    upstream::Incoming,
};
use events::Events;
use plain::Plain;
use source::Source;

/// The body of an answer.
pub(crate) struct AnswerBody {
    kind: Kind,
    /// Lives as long as the answer, for whoever counts requests in flight.
    guard: Option<Busy>,
    /// Why the answer breaks off, told one turn later: what goes before it, its head above all, is written first.
    broken: Option<io::Error>,
}

enum Kind {
    Whole(Option<Bytes>),
    Plain(Box<Plain>),
    Events(Box<Events>),
}

impl AnswerBody {
    /// A body that is at hand.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)),
            guard: None,
            broken: None,
        }
    }

    /// A body in one piece that is still coming.
    pub(crate) fn plain(
        cx: &Rc<Context>,
        call: &Call,
        meter: Box<Meter>,
        status: u16,
        body: Incoming,
    ) -> Self {
        let (source, endpoint) = (Source::new(cx, body), call.facts.endpoint);
        Self {
            kind: Kind::Plain(Box::new(Plain::new(source, endpoint, meter, status))),
            guard: None,
            broken: None,
        }
    }

    /// A stream of events, of which `first` came already.
    pub(crate) fn events(
        cx: &Rc<Context>,
        call: &Call,
        meter: Box<Meter>,
        first: Bytes,
        body: Incoming,
    ) -> Self {
        let (source, open) = (Source::new(cx, body), OpenStream::new(&cx.counters));
        Self {
            kind: Kind::Events(Box::new(Events::new(source, call, meter, first, open))),
            guard: None,
            broken: None,
        }
    }

    /// Keeps `guard` until the answer is over.
    pub(crate) fn keep(&mut self, guard: Busy) {
        self.guard = Some(guard);
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let bytes = match &mut this.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Kind::Plain(plain) => plain.poll(task),
            Kind::Events(events) => events.poll(task).map(|bytes| bytes.map(Ok)),
        };
        if let Poll::Ready(Some(Err(error))) = bytes {
            this.broken = Some(error);
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        bytes.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            _ if self.broken.is_some() => false,
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Plain(plain) => plain.is_done(),
            Kind::Events(events) => events.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(
                bytes
                    .as_ref()
                    .map_or(0, |b| u64::try_from(b.len()).unwrap_or(u64::MAX)),
            ),
            Kind::Plain(plain) => plain.size_hint(),
            Kind::Events(_) => SizeHint::default(),
        }
    }
}
