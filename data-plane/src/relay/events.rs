//! A stream of events: passed on at once, watched for its usage and its end.

use std::{
    collections::VecDeque,
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use proxyxai_core::dialect::{
    Dialect,
    error::{self, ErrorCode},
    stream::{EventTooLarge, StreamMeter},
};

use super::source::{Piece, Source};
use crate::{attempt::Call, meter::Meter, metrics::OpenStream, request_id::RequestId};

pub(super) struct Events {
    source: Option<Source>,
    dialect: Dialect,
    request_id: RequestId,
    stream: StreamMeter,
    meter: Box<Meter>,
    out: VecDeque<Bytes>,
    _open: OpenStream,
}

impl Events {
    pub(super) fn new(
        source: Source,
        call: &Call,
        mut meter: Box<Meter>,
        first: Bytes,
        open: OpenStream,
    ) -> Self {
        meter.settle_down();
        let mut events = Self {
            source: Some(source),
            dialect: call.dialect,
            request_id: call.facts.request_id,
            stream: StreamMeter::new(call.facts.endpoint, call.hides_usage),
            meter,
            out: VecDeque::new(),
            _open: open,
        };
        events.take(first);
        events
    }

    pub(super) fn poll(&mut self, task: &mut Task<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            let Some(source) = &mut self.source else {
                return Poll::Ready(None);
            };
            let piece = match source.poll(task) {
                Poll::Pending if source.is_ending() => {
                    self.broke(
                        "gateway_stopped",
                        "the gateway is stopping; the stream was ended",
                    );
                    continue;
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece,
            };
            match piece {
                Piece::Data(data) => self.take(data),
                Piece::End => self.end(),
                Piece::Broken => self.broke(
                    "upstream_cut",
                    "the provider's stream broke off; what was received so far may be incomplete",
                ),
                Piece::Silent => self.broke(
                    "upstream_silent",
                    "the provider sent nothing for too long; the stream was ended",
                ),
            }
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.source.is_none() && self.out.is_empty()
    }

    fn take(&mut self, data: Bytes) {
        let out = &mut self.out;
        let taken = self.stream.push(data, &mut |bytes| out.push_back(bytes));
        self.meter
            .saw(self.stream.usage(), self.stream.output_bytes());
        if self.dialect == Dialect::OpenaiResponses
            && let Some(response) = self.stream.take_response()
        {
            self.meter.made(&response);
        }
        if let Err(EventTooLarge) = taken {
            self.broke(
                "event_too_large",
                "the provider sent an event of more than 1 MiB; the stream was ended",
            );
        } else if self.stream.ended() {
            self.settle("no_usage");
            if let Some(source) = self.source.take() {
                source.finish_aside();
            }
        }
    }

    /// The provider closed its stream in good order, without the mark that ends one.
    fn end(&mut self) {
        let out = &mut self.out;
        self.stream.finish(&mut |bytes| out.push_back(bytes));
        let complete =
            self.stream.ended() || self.stream.failed() || self.dialect == Dialect::OpenaiChat;
        if complete {
            self.settle("no_usage");
            self.source = None;
        } else {
            self.broke(
                "upstream_cut",
                "the provider ended its stream early; what was received so far may be incomplete",
            );
        }
    }

    fn broke(&mut self, why: &'static str, message: &str) {
        self.source = None;
        self.stream.abandon();
        self.meter
            .saw(self.stream.usage(), self.stream.output_bytes());
        self.meter.settle_unknown(why);
        if !self.stream.failed() {
            let level = self.meter.level();
            let event = error::event(
                self.dialect,
                ErrorCode::UpstreamFailed,
                &format!("{message}{level}"),
                self.request_id.as_str(),
                self.stream.events(),
            );
            self.out.push_back(event.into());
        }
    }

    /// Books the usage when the stream reported all of it: messages report some at their start already.
    fn settle(&mut self, otherwise: &'static str) {
        let final_usage = self
            .stream
            .usage()
            .filter(|_| self.stream.ended() || self.dialect == Dialect::OpenaiChat);
        match final_usage {
            Some(usage) => self.meter.settle_reported(&usage),
            None => self.meter.settle_unknown(otherwise),
        }
    }
}
