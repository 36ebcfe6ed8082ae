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

use super::Facts;

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

impl Settled {
    /// List cost in nano-USD; `None` when it cannot be told.
    fn cost(&self) -> Option<i64> {
        let used = self.usage.tokens != Tokens::default() || self.usage.web_searches > 0;
        if !used {
            return Some(0);
        }
        let snapshot = &self.facts.pinned.snapshot;
        let (_, provider) = snapshot.upstream(self.upstream)?;
        let price = snapshot
            .prices
            .price(provider.kind, self.facts.sent_model()?)?;
        cost::cost(price, &self.usage).ok().map(|cost| cost.0)
    }
}

impl From<Settled> for UsageEvent {
    fn from(settled: Settled) -> Self {
        let cost = settled.cost();
        let Facts {
            request_id,
            pinned,
            caller,
            endpoint,
            model,
            mapped_model,
            stream,
        } = &*settled.facts;
        let (upstream_key_id, provider_id) = match pinned.snapshot.upstream(settled.upstream) {
            Some((key, provider)) => (key.id.as_ref().to_owned(), provider.id.as_ref().to_owned()),
            None => Default::default(),
        };
        let Tokens {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
        } = settled.usage.tokens;
        Self {
            request_id: request_id.as_str().to_owned(),
            attempt: settled.attempt,
            account_id: caller.accounts.id(caller.key.record.account).to_owned(),
            key_id: caller.key.record.id.as_str().to_owned(),
            provider_id,
            upstream_key_id,
            model: model.clone(),
            endpoint: endpoint.as_str().to_owned(),
            stream: *stream,
            outcome: settled.outcome.into(),
            status: u32::from(settled.status),
            tokens: Some(proto::Tokens {
                input,
                cache_read,
                cache_write_5m,
                cache_write_1h,
                output,
            }),
            cost_nano_usd: cost.unwrap_or(0),
            price_version: pinned.snapshot.prices.version.clone(),
            unpriced: cost.is_none(),
            estimated: settled.estimated,
            started_unix_ms: settled.started_unix_ms,
            duration_ms: settled.duration_ms,
            first_byte_ms: settled.first_byte_ms,
            client_gone: settled.client_gone,
            reason: settled.reason.to_owned(),
            web_searches: settled.usage.web_searches,
            sent_model: mapped_model.clone().unwrap_or_default(),
        }
    }
}
