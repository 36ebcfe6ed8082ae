//! The body of an answer: pieces in their time, cut or stalled where the script says, and billed however it ends.

use std::{
    collections::VecDeque,
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{bill::BillRow, fault::Fault, sim::State};

/// How long a cut waits, so that what comes before it gets out.
const FLUSH: Duration = Duration::from_millis(5);

/// One piece of a body.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Tokens of output that were generated with it.
    pub(crate) output: u64,
    /// Time before it.
    pub(crate) delay: Duration,
}

impl Piece {
    pub(crate) fn now(bytes: impl Into<Bytes>, output: u64) -> Self {
        Self {
            bytes: bytes.into(),
            output,
            delay: Duration::ZERO,
        }
    }
}

/// A body.
pub struct SimBody {
    pieces: VecDeque<Piece>,
    cut_at: Option<usize>,
    stall_at: Option<usize>,
    sent: usize,
    waiting: Option<Pin<Box<Sleep>>>,
    billing: Option<Billing>,
    length: Option<u64>,
}

struct Billing {
    state: Arc<State>,
    row: BillRow,
}

impl SimBody {
    /// A body that costs nothing.
    pub(crate) fn free(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = u64::try_from(bytes.len()).ok();
        Self {
            pieces: VecDeque::from([Piece::now(bytes, 0)]),
            cut_at: None,
            stall_at: None,
            sent: 0,
            waiting: None,
            billing: None,
            length,
        }
    }

    /// A body that is billed; `row` says what it costs before the first token of output.
    pub(crate) fn billed(
        state: &Arc<State>,
        row: BillRow,
        pieces: Vec<Piece>,
        length: Option<u64>,
        fault: &Fault,
    ) -> Self {
        Self {
            pieces: pieces.into(),
            cut_at: fault.cut_at_byte,
            stall_at: fault.stall_at_byte,
            sent: 0,
            waiting: None,
            billing: Some(Billing {
                state: Arc::clone(state),
                row,
            }),
            length,
        }
    }

    fn is_past(&self, limit: Option<usize>, next: usize) -> bool {
        limit.is_some_and(|limit| self.sent.saturating_add(next) > limit)
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let Some(next) = this.pieces.front() else {
            if let Some(billing) = &mut this.billing {
                billing.row.whole = true;
            }
            return Poll::Ready(None);
        };
        let (length, delay) = (next.bytes.len(), next.delay);
        if this.stall_at == Some(this.sent) {
            return Poll::Pending;
        }
        if this.cut_at == Some(this.sent) {
            // What was sent so far still lies in buffers, which an error at once would throw away.
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(FLUSH)));
            if waiting.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            this.pieces.clear();
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        if !delay.is_zero() {
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(delay)));
            if waiting.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            this.waiting = None;
        }
        let (cut, stall) = (
            this.is_past(this.cut_at, length),
            this.is_past(this.stall_at, length),
        );
        let mut bytes = match this.pieces.pop_front() {
            Some(piece) => {
                if let Some(billing) = &mut this.billing {
                    billing.row.output = billing.row.output.saturating_add(piece.output);
                }
                piece.bytes
            }
            None => return Poll::Ready(None),
        };
        if cut || stall {
            let limit = this.cut_at.or(this.stall_at).unwrap_or(0);
            bytes.truncate(limit.saturating_sub(this.sent));
            this.pieces.push_front(Piece::now(Bytes::new(), 0));
        }
        this.sent = this.sent.saturating_add(bytes.len());
        if let Some(billing) = &mut this.billing {
            billing.row.whole = this.pieces.is_empty();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for SimBody {
    fn drop(&mut self) {
        if let Some(Billing { state, row }) = self.billing.take() {
            state.charge(row);
        }
    }
}
