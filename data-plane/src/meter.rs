//! Follows one attempt and books it: exactly one usage event, however the attempt ends (law 18).
//!
//! Invariant: an event is sent when the attempt is settled, or when the meter is dropped unsettled because the client left. Dropping
//! only hands a record over: a dropped future cannot wait.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use proxyxai_core::{
    account::tree::AccountTree,
    dialect::{
        Endpoint, estimate,
        usage::{Tokens, Usage},
    },
    money::cost,
    route::{pool::UpstreamKeyIndex, retry::AttemptEnd},
    snapshot::KeyRecord,
};
use proxyxai_proto::usage::v1 as proto;

use crate::{config::Pinned, context::Context};

/// Who asks, as a request needs it.
pub(crate) struct Caller {
    pub(crate) key: KeyRecord,
    /// The tree that the key's account stands in: the snapshot's, or what came with a key that was looked up.
    pub(crate) accounts: Arc<AccountTree>,
}

/// What all attempts of a request share.
pub(crate) struct Facts {
    pub(crate) request_id: String,
    pub(crate) caller: Caller,
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// The body as the client sent it, for an estimate.
    pub(crate) body: Bytes,
}

/// One attempt.
pub(crate) struct Meter {
    cx: Rc<Context>,
    facts: Rc<Facts>,
    pinned: Arc<Pinned>,
    upstream: UpstreamKeyIndex,
    attempt: u32,
    began: Duration,
    began_unix_ms: i64,
    sent: bool,
    status: u16,
    first_byte: Option<Duration>,
    /// What is known while the answer is still coming.
    seen: Option<Usage>,
    output_bytes: u64,
    settled: bool,
}

impl Meter {
    pub(crate) fn begin(
        cx: &Rc<Context>,
        facts: &Rc<Facts>,
        pinned: &Arc<Pinned>,
        upstream: UpstreamKeyIndex,
        attempt: usize,
    ) -> Self {
        cx.counters.attempted();
        Self {
            cx: Rc::clone(cx),
            facts: Rc::clone(facts),
            pinned: Arc::clone(pinned),
            upstream,
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            began: cx.clock.monotonic(),
            began_unix_ms: cx.clock.unix_ms(),
            sent: false,
            status: 0,
            first_byte: None,
            seen: None,
            output_bytes: 0,
            settled: false,
        }
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
        self.book(proto::Outcome::Reported, "ok", usage.clone(), false, false);
    }

    /// The provider answered with an error: nothing is owed.
    pub(crate) fn settle_rejected(&mut self, reason: &'static str) {
        self.book(
            proto::Outcome::Rejected,
            reason,
            Usage::default(),
            false,
            false,
        );
    }

    /// Nothing is free of charge here, as listing models is.
    pub(crate) fn settle_free(&mut self) {
        self.book(
            proto::Outcome::Reported,
            "ok",
            Usage::default(),
            false,
            false,
        );
    }

    /// The attempt ended before an answer, or its answer was discarded.
    pub(crate) fn settle_end(&mut self, end: AttemptEnd, why: &'static str) {
        match end {
            AttemptEnd::ConnectFailed => {
                self.book(proto::Outcome::NotSent, why, Usage::default(), false, false)
            }
            AttemptEnd::TimedOut | AttemptEnd::ConnectionLost if self.sent => {
                self.settle_unknown(why)
            }
            AttemptEnd::TimedOut | AttemptEnd::ConnectionLost => {
                self.book(proto::Outcome::NotSent, why, Usage::default(), false, false);
            }
            AttemptEnd::Status(_) | AttemptEnd::FirstEventError(_) => self.settle_rejected(why),
        }
    }

    /// The answer ended, or broke off, without its usage: what it cost is an estimate.
    pub(crate) fn settle_unknown(&mut self, reason: &'static str) {
        let usage = self.estimate();
        self.book(proto::Outcome::Unknown, reason, usage, true, false);
    }

    fn elapsed(&self) -> Duration {
        self.cx.clock.monotonic().saturating_sub(self.began)
    }

    /// What the provider said so far, and text for the rest.
    fn estimate(&self) -> Usage {
        let guess = estimate::estimate(&self.facts.body, self.output_bytes);
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
        outcome: proto::Outcome,
        reason: &'static str,
        usage: Usage,
        estimated: bool,
        client_gone: bool,
    ) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let snapshot = &self.pinned.snapshot;
        let (upstream_key_id, provider_id, kind) = match snapshot.upstream(self.upstream) {
            Some((key, provider)) => (
                key.id.as_ref().to_owned(),
                provider.id.as_ref().to_owned(),
                Some(provider.kind),
            ),
            None => (String::new(), String::new(), None),
        };
        let used = usage.tokens != Tokens::default() || usage.web_searches > 0;
        let priced = match kind.and_then(|kind| snapshot.prices.price(kind, &self.facts.model)) {
            _ if !used => Some(0),
            Some(price) => cost::cost(price, &usage).ok().map(|cost| cost.0),
            None => None,
        };
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let Tokens {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
        } = usage.tokens;
        let caller = &self.facts.caller;
        self.cx.events.push(proto::UsageEvent {
            request_id: self.facts.request_id.clone(),
            attempt: self.attempt,
            account_id: caller.accounts.id(caller.key.account).to_owned(),
            key_id: caller.key.id.as_str().to_owned(),
            provider_id,
            upstream_key_id,
            model: self.facts.model.clone(),
            endpoint: self.facts.endpoint.as_str().to_owned(),
            stream: self.facts.stream,
            outcome: outcome.into(),
            status: u32::from(self.status),
            tokens: Some(proto::Tokens {
                input,
                cache_read,
                cache_write_5m,
                cache_write_1h,
                output,
            }),
            cost_nano_usd: priced.unwrap_or(0),
            price_version: snapshot.prices.version.clone(),
            unpriced: priced.is_none(),
            estimated,
            started_unix_ms: self.began_unix_ms,
            duration_ms: ms(self.elapsed()),
            first_byte_ms: self.first_byte.map_or(0, ms),
            client_gone,
            reason: reason.to_owned(),
            web_searches: usage.web_searches,
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
            self.book(proto::Outcome::Unknown, "client_gone", usage, true, true);
        } else {
            self.book(
                proto::Outcome::NotSent,
                "client_gone",
                Usage::default(),
                false,
                true,
            );
        }
    }
}
