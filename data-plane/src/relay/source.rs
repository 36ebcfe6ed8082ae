//! Where the bytes of an answer come from: one body, one connection, one bound on silence.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use proxyxai_core::route::pool::UpstreamKeyIndex;
use tokio::time::timeout;

use crate::{attempt::Call, config::Pinned, context::Context, pool::Lease, timers::Alarm};

/// How long the rest of a stream after its end mark may take before its connection is given up.
const REST: Duration = Duration::from_secs(1);

/// An answer's body.
pub(super) struct Source {
    cx: Rc<Context>,
    pinned: Arc<Pinned>,
    upstream: UpstreamKeyIndex,
    body: Incoming,
    lease: Option<Lease>,
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
    pub(super) fn new(
        cx: &Rc<Context>,
        call: &Call,
        body: Incoming,
        lease: Lease,
        upstream: UpstreamKeyIndex,
    ) -> Self {
        Self {
            cx: Rc::clone(cx),
            pinned: Arc::clone(&call.pinned),
            upstream,
            body,
            lease: Some(lease),
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
                Poll::Ready(None) => {
                    self.give_back();
                    return Poll::Ready(Piece::End);
                }
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

    /// The body is complete: its connection can carry the next request.
    pub(super) fn give_back(&mut self) {
        if let Some((lease, (_, provider))) = self
            .lease
            .take()
            .zip(self.pinned.snapshot.upstream(self.upstream))
        {
            self.cx.pool.put(provider, lease, self.cx.clock.monotonic());
        }
    }

    /// All that matters was handed out; what the provider still sends is read aside, so that the connection can be used again.
    pub(super) fn finish_aside(mut self) {
        if self.lease.is_none() {
            return;
        }
        tokio::task::spawn_local(async move {
            let rest = pin!(async {
                while let Some(frame) = self.body.frame().await {
                    if frame.is_err() {
                        return false;
                    }
                }
                true
            });
            let complete = timeout(REST, rest).await.unwrap_or(false);
            if complete {
                self.give_back();
            }
        });
    }
}
