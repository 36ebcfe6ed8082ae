//! Follows one attempt and books it: exactly one usage event, however the attempt ends (law 18).
//!
//! Invariant: an event is sent when the attempt is settled, or when the meter is dropped unsettled because the client left. Dropping
//! only hands a record over: a dropped future cannot wait.

mod settled;

use std::{mem, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use proxyxai_core::{
    account::{admission, limits::Asked, terms::Key, tree::AccountTree},
    dialect::{
        Endpoint, estimate,
        usage::{Tokens, Usage},
    },
    money::price::PriceBook,
    route::{pool::UpstreamKeyIndex, retry::AttemptEnd},
    snapshot::KeyId,
    trace::SpanId,
};
use proxyxai_proto::usage::v1::Outcome;

use crate::{
    attempt::Call,
    body,
    context::Context,
    request_id::RequestId,
    respond::{Failure, level},
    trace::Trace,
};
pub(crate) use settled::{Sent, Settled, cost_of};

/// Who asks, as a request needs it.
pub(crate) struct Caller {
    pub(crate) key: Key,
    /// The tree that the key's account stands in: the snapshot's, or what came with a key that was looked up.
    pub(crate) accounts: Arc<AccountTree>,
}

impl Caller {
    /// Whether it is a child gateway that calls.
    pub(crate) fn is_gateway(&self) -> bool {
        self.accounts.is_of_gateway(self.key.record.account)
    }

    /// The id of the key's account.
    pub(crate) fn account(&self) -> Arc<str> {
        let account = self.accounts.shared_id(self.key.record.account);
        account.unwrap_or_default()
    }

    /// Whether key and accounts allow the model.
    ///
    /// # Errors
    /// Who does not.
    pub(crate) fn may_use(&self, model: &str) -> Result<(), Failure> {
        admission::permits(&self.key, &self.accounts, &Asked::model(model))
            .map_err(|refusal| Failure::refused(&self.key, refusal))
    }
}

/// What all attempts of a request share. It is kept until their events are written, which a full disk may put off for hours: so it
/// holds nothing of the configuration but what they name.
pub(crate) struct Facts {
    pub(crate) request_id: RequestId,
    /// Who pays.
    pub(crate) account: Arc<str>,
    pub(crate) key: KeyId,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    /// What the provider is asked for, where a route gives the model another name.
    pub(crate) mapped_model: Option<String>,
    pub(crate) stream: bool,
}

impl Facts {
    /// The model by the provider's name; `None` where no model is asked for.
    pub(crate) fn sent_model(&self) -> Option<&str> {
        let model = self.mapped_model.as_deref().unwrap_or(&self.model);
        (!model.is_empty()).then_some(model)
    }
}

/// One attempt.
pub(crate) struct Meter {
    cx: Rc<Context>,
    facts: Arc<Facts>,
    upstream: Option<Sent>,
    attempt: u32,
    began: Duration,
    began_unix_ms: i64,
    sent: bool,
    status: u16,
    first_byte: Option<Duration>,
    /// The body as it was sent, for an estimate.
    body: Bytes,
    /// What is known while the answer is still coming.
    seen: Option<Usage>,
    output_bytes: u64,
    settled: bool,
    /// Where the attempt is noted, and its span.
    trace: Option<(Rc<Trace>, SpanId)>,
}

impl Meter {
    pub(crate) fn begin(
        cx: &Rc<Context>,
        call: &Call,
        upstream: UpstreamKeyIndex,
        attempt: usize,
    ) -> Box<Self> {
        cx.counters.attempted();
        // On the heap from the start: it goes from step to step until the answer's last byte.
        Box::new(Self {
            cx: Rc::clone(cx),
            facts: Arc::clone(&call.facts),
            upstream: Sent::of(&call.pinned.snapshot, upstream),
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            began: cx.clock.monotonic(),
            began_unix_ms: cx.clock.unix_ms(),
            sent: false,
            status: 0,
            first_byte: None,
            body: call.body.clone(),
            seen: None,
            output_bytes: 0,
            settled: false,
            trace: call.trace.as_ref().map(|trace| {
                (
                    Rc::clone(trace),
                    trace.attempts(cx, call, upstream, attempt),
                )
            }),
        })
    }

    /// The answer may take long: what is kept meanwhile must not keep more alive than itself.
    pub(crate) fn settle_down(&mut self) {
        self.body = body::apart(mem::take(&mut self.body));
    }

    /// Whether the provider may have begun to work.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Of which deployment the node is, in words that follow an error.
    pub(crate) fn level(&self) -> String {
        let pinned = self.cx.config.current();
        let deployment = pinned.deployment.as_deref();
        deployment.map_or_else(String::new, |own| level(own.id()))
    }

    /// The answer tells which response it makes.
    pub(crate) fn made(&self, response: &str) {
        if let Some(sent) = &self.upstream {
            self.cx.made.note(response, sent.key(), &self.facts.account);
        }
    }

    /// The attempt's span.
    pub(crate) fn span(&self) -> Option<SpanId> {
        self.trace.as_ref().map(|(_, span)| *span)
    }

    /// From here on the provider may have begun to work.
    pub(crate) fn sent(&mut self, sent: bool) {
        self.sent = sent;
    }

    /// The head of an answer came.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
        self.first_byte = Some(self.elapsed());
    }

    /// What was seen of an answer that is still coming.
    pub(crate) fn saw(&mut self, usage: Option<Usage>, output_bytes: u64) {
        self.seen = usage;
        self.output_bytes = output_bytes;
    }

    /// The answer ended, with its usage: the cost is exact.
    pub(crate) fn settle_reported(&mut self, usage: &Usage) {
        self.book(Outcome::Reported, "ok", usage.clone(), false, false);
    }

    /// The provider answered with an error: nothing is owed.
    pub(crate) fn settle_rejected(&mut self, reason: &'static str) {
        self.book(Outcome::Rejected, reason, Usage::default(), false, false);
    }

    /// Nothing is free of charge here, as listing models is.
    pub(crate) fn settle_free(&mut self) {
        self.book(Outcome::Reported, "ok", Usage::default(), false, false);
    }

    /// The attempt ended before an answer, or its answer was discarded.
    pub(crate) fn settle_end(&mut self, end: AttemptEnd, why: &'static str) {
        match end {
            AttemptEnd::ConnectFailed => {
                self.book(Outcome::NotSent, why, Usage::default(), false, false)
            }
            AttemptEnd::TimedOut | AttemptEnd::ConnectionLost if self.sent => {
                self.settle_unknown(why)
            }
            AttemptEnd::TimedOut | AttemptEnd::ConnectionLost => {
                self.book(Outcome::NotSent, why, Usage::default(), false, false);
            }
            AttemptEnd::Status(_) | AttemptEnd::FirstEventError(_) => self.settle_rejected(why),
        }
    }

    /// The answer ended, or broke off, without its usage: what it cost is an estimate.
    pub(crate) fn settle_unknown(&mut self, reason: &'static str) {
        let usage = self.estimate();
        self.book(Outcome::Unknown, reason, usage, true, false);
    }

    fn elapsed(&self) -> Duration {
        self.cx.clock.monotonic().saturating_sub(self.began)
    }

    /// What the provider said so far, and text for the rest.
    fn estimate(&self) -> Usage {
        let guess = estimate::estimate(&self.body, self.output_bytes);
        match &self.seen {
            Some(seen) => {
                let tokens = Tokens {
                    output: seen.tokens.output.max(guess.output),
                    ..seen.tokens
                };
                Usage {
                    tokens,
                    ..seen.clone()
                }
            }
            None => Usage {
                tokens: guess,
                ..Usage::default()
            },
        }
    }

    fn book(
        &mut self,
        outcome: Outcome,
        reason: &'static str,
        usage: Usage,
        estimated: bool,
        client_gone: bool,
    ) {
        if mem::replace(&mut self.settled, true) {
            return;
        }
        if let Some((trace, span)) = &self.trace {
            let first_byte = self.first_byte;
            let ended = self.began.saturating_add(self.elapsed());
            trace.attempted(*span, |attempt| {
                (attempt.first_byte, attempt.ended) = (first_byte, ended);
                (attempt.status, attempt.reason) = (self.status, reason);
                (attempt.usage, attempt.estimated) = (usage.clone(), estimated);
            });
        }
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.cx.events.push(Settled {
            facts: Arc::clone(&self.facts),
            upstream: self.upstream.take(),
            attempt: self.attempt,
            outcome,
            reason,
            status: self.status,
            usage,
            estimated,
            client_gone,
            started_unix_ms: self.began_unix_ms,
            duration_ms: ms(self.elapsed()),
            first_byte_ms: self.first_byte.map_or(0, ms),
        });
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.sent {
            let usage = self.estimate();
            self.book(Outcome::Unknown, "client_gone", usage, true, true);
        } else {
            self.book(
                Outcome::NotSent,
                "client_gone",
                Usage::default(),
                false,
                true,
            );
        }
    }
}
