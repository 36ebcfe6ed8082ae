//! A settled attempt on its way out: what its core knows, in the form that costs it the least.
//!
//! Names and the cost are looked up where the event is written, off the core that serves: both follow from the pinned configuration,
//! so it makes no difference when that is done.

use std::sync::Arc;

use proxyxai_core::{
    dialect::usage::{Tokens, Usage},
    money::cost,
    route::pool::UpstreamKeyIndex,
};
use proxyxai_proto::usage::v1::{self as proto, Outcome, UsageEvent};

use super::{Caller, Facts};
use crate::report::{Event, Row};

/// A settled attempt.
pub(crate) struct Settled {
    pub(super) facts: Arc<Facts>,
    pub(super) upstream: UpstreamKeyIndex,
    pub(super) attempt: u32,
    pub(super) outcome: Outcome,
    pub(super) reason: &'static str,
    pub(super) status: u16,
    pub(super) usage: Usage,
    pub(super) estimated: bool,
    pub(super) client_gone: bool,
    pub(super) started_unix_ms: i64,
    pub(super) duration_ms: u32,
    pub(super) first_byte_ms: u32,
}

/// List cost of an attempt in nano-USD; `None` when it cannot be told.
pub(crate) fn cost_of(facts: &Facts, upstream: UpstreamKeyIndex, usage: &Usage) -> Option<i64> {
    let used = usage.tokens != Tokens::default() || usage.web_searches > 0;
    if !used {
        return Some(0);
    }
    let snapshot = &facts.pinned.snapshot;
    let (_, provider) = snapshot.upstream(upstream)?;
    let price = snapshot.prices.price(provider.kind, facts.sent_model()?)?;
    cost::cost(price, usage).ok().map(|cost| cost.0)
}

impl Event for Settled {
    fn row(&self) -> Row<'_> {
        let Caller { key, accounts } = &self.facts.caller;
        let account = accounts.id(key.record.account);
        (account, key.record.id.as_bytes(), &self.facts.model)
    }

    fn started_unix_ms(&self) -> i64 {
        self.started_unix_ms
    }

    fn write_to(&self, event: &mut UsageEvent) {
        let cost = cost_of(&self.facts, self.upstream, &self.usage);
        let Facts {
            request_id,
            pinned,
            caller,
            endpoint,
            model: _,
            mapped_model,
            stream,
        } = &*self.facts;
        let upstream = pinned.snapshot.upstream(self.upstream);
        let (upstream_key, provider) = match upstream {
            Some((key, provider)) => (key.id.as_ref(), provider.id.as_ref()),
            None => Default::default(),
        };
        let (account, _, model) = self.row();
        for (into, text) in [
            (&mut event.request_id, request_id.as_str()),
            (&mut event.account_id, account),
            (&mut event.key_id, caller.key.record.id.as_str()),
            (&mut event.provider_id, provider),
            (&mut event.upstream_key_id, upstream_key),
            (&mut event.model, model),
            (&mut event.endpoint, endpoint.as_str()),
            (&mut event.price_version, &pinned.snapshot.prices.version),
            (&mut event.reason, self.reason),
            (
                &mut event.sent_model,
                mapped_model.as_deref().unwrap_or_default(),
            ),
        ] {
            into.clear();
            into.push_str(text);
        }
        let Tokens {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
        } = self.usage.tokens;
        event.tokens = Some(proto::Tokens {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
        });
        event.attempt = self.attempt;
        event.stream = *stream;
        event.outcome = self.outcome.into();
        event.status = u32::from(self.status);
        event.cost_nano_usd = cost.unwrap_or(0);
        event.unpriced = cost.is_none();
        event.estimated = self.estimated;
        event.started_unix_ms = self.started_unix_ms;
        event.duration_ms = self.duration_ms;
        event.first_byte_ms = self.first_byte_ms;
        event.client_gone = self.client_gone;
        event.web_searches = self.usage.web_searches;
    }
}
