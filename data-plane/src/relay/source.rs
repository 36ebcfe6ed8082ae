//! Where the bytes of an answer come from: one body, one connection, one bound on silence.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::{context::Context, timers::Alarm, upstream::Incoming};

/// How long the rest of a stream after its end mark may take before its connection is given up.
const REST: Duration = Duration::from_secs(1);

/// An answer's body.
pub(super) struct Source {
    cx: Rc<Context>,
    body: Incoming,
    /// Starts again with every piece.
    silence: Alarm,
}

/// What comes next.
pub(super) enum Piece {
    /// Bytes.
    Data(Bytes),
    /// The body is complete.
    End,
    /// It broke off.
    Broken,
    /// Nothing came for too long.
    Silent,
}

impl Source {
    pub(super) fn new(cx: &Rc<Context>, body: Incoming) -> Self {
        Self {
            cx: Rc::clone(cx),
            body,
            silence: Alarm::new(&cx.timers, cx.settings.idle_timeout),
        }
    }

    /// The next piece.
    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> Poll<Piece> {
        loop {
            match Pin::new(&mut self.body).poll_frame(task) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.silence.set(Some(self.cx.settings.idle_timeout));
                        return Poll::Ready(Piece::Data(data));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Piece::Broken),
                Poll::Ready(None) => return Poll::Ready(Piece::End),
                Poll::Pending => return self.silence.poll(task).map(|()| Piece::Silent),
            }
        }
    }

    /// Whether the node ends what is left.
    pub(super) fn is_ending(&self) -> bool {
        self.cx.ending.get()
    }

    /// Whether all of the body was handed out.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_end_stream()
    }

    /// How much is still to come, when that is known.
    pub(super) fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }

    /// All that matters was handed out; what the provider still sends is read aside, so that the connection can be used again.
    pub(super) fn finish_aside(mut self) {
        if self.is_complete() {
            return;
        }
        tokio::task::spawn_local(async move {
            let rest = pin!(async { while let Some(Ok(_)) = self.body.frame().await {} });
            let _given_up_when_late = timeout(REST, rest).await;
        });
    }
}
