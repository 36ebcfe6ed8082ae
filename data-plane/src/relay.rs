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
    attempt::{Call, Coming},
    context::Context,
    serve::Busy,
};
use events::Events;
use plain::Plain;
use source::Source;

/// The body of an answer.
pub(crate) struct AnswerBody {
    kind: Kind,
    /// Lives as long as the answer, for whoever counts requests in flight.
    guard: Option<Busy>,
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
        }
    }

    /// The body of an answer that is still coming.
    pub(crate) fn relay(cx: &Rc<Context>, call: &Call, status: u16, coming: Coming) -> Self {
        let Coming {
            head: _,
            first,
            body,
            meter,
            lease,
            upstream,
            events,
        } = coming;
        let source = Source::new(cx, call, body, lease, upstream);
        let kind = if events && status == 200 && call.facts.stream {
            Kind::Events(Box::new(Events::new(source, call, meter, first)))
        } else {
            Kind::Plain(Box::new(Plain::new(
                source,
                call.facts.endpoint,
                meter,
                status,
            )))
        };
        Self { kind, guard: None }
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
        let bytes = match &mut self.get_mut().kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Kind::Plain(plain) => plain.poll(task),
            Kind::Events(events) => events.poll(task).map(|bytes| bytes.map(Ok)),
        };
        bytes.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
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
