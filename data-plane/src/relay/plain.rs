//! An answer in one piece: passed on as it comes, kept aside to read its usage at the end.

use std::{
    io,
    task::{Context as Task, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::SizeHint;
use proxyxai_core::dialect::{
    Endpoint,
    usage::{response_of_answer, usage_of_answer},
};

use super::source::{Piece, Source};
use crate::meter::Meter;

/// Largest answer whose usage is looked for; no provider sends one like it.
const KEPT: usize = 64 << 20;

pub(super) struct Plain {
    source: Source,
    endpoint: Endpoint,
    status: u16,
    meter: Box<Meter>,
    /// The answer so far: one frame as it came, or several joined.
    one: Bytes,
    joined: BytesMut,
    done: bool,
}

impl Plain {
    pub(super) fn new(
        source: Source,
        endpoint: Endpoint,
        mut meter: Box<Meter>,
        status: u16,
    ) -> Self {
        if status >= 300 {
            meter.settle_rejected("rejected");
        }
        let done = source.is_complete();
        let mut plain = Self {
            source,
            endpoint,
            status,
            meter,
            one: Bytes::new(),
            joined: BytesMut::new(),
            done,
        };
        if done {
            plain.settle();
        }
        plain
    }

    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.source.poll(task)) {
            Piece::Data(data) => {
                self.keep(&data);
                if self.source.is_complete() {
                    self.settle();
                    self.done = true;
                }
                Some(Ok(data))
            }
            Piece::End => {
                self.settle();
                self.done = true;
                None
            }
            // The client sees an answer that is cut, as it is: the connection ends short of the length announced.
            Piece::Broken => self.broke("upstream_cut"),
            Piece::Silent => self.broke("upstream_silent"),
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }

    fn broke(&mut self, why: &'static str) -> Option<Result<Bytes, io::Error>> {
        self.meter.settle_unknown(why);
        self.done = true;
        Some(Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the provider's answer broke off",
        )))
    }

    fn keep(&mut self, data: &Bytes) {
        if self.status >= 300 || self.endpoint.is_free() {
            return;
        }
        if self.one.is_empty() && self.joined.is_empty() {
            self.one = data.clone();
            return;
        }
        if self.joined.is_empty() {
            self.joined
                .extend_from_slice(&std::mem::take(&mut self.one));
        }
        if self.joined.len() <= KEPT {
            self.joined.extend_from_slice(data);
        }
    }

    fn settle(&mut self) {
        if self.endpoint.is_free() {
            self.meter.settle_free();
            return;
        }
        let answer: &[u8] = if self.joined.is_empty() {
            &self.one
        } else {
            &self.joined
        };
        if self.endpoint == Endpoint::Responses
            && let Some(response) = response_of_answer(answer)
        {
            self.meter.made(&response);
        }
        match usage_of_answer(self.endpoint, answer) {
            Some(usage) => self.meter.settle_reported(&usage),
            None => {
                self.meter
                    .saw(None, u64::try_from(answer.len()).unwrap_or(u64::MAX));
                self.meter.settle_unknown("no_usage");
            }
        }
    }
}
