//! A settled attempt on its way out: what its core knows, in the form that costs it the least.
//!
//! The cost is computed where the event is written, off the core that serves: it follows from the price book that the request was
//! admitted by, so it makes no difference when that is done.

use std::sync::Arc;

use proxyxai_core::{
    dialect::usage::{Tokens, Usage},
    money::cost,
    route::{pool::UpstreamKeyIndex, provider::ProviderKind},
    snapshot::Snapshot,
};
use proxyxai_proto::usage::v1::{self as proto, Outcome, UsageEvent};

use super::Facts;
use crate::report::{Event, Row};

/// Where an attempt was sent, by name.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) key: Arc<str>,
    pub(crate) provider: Arc<str>,
    pub(crate) kind: ProviderKind,
}

impl Sent {
    pub(crate) fn of(snapshot: &Snapshot, upstream: UpstreamKeyIndex) -> Option<Self> {
        let (key, provider) = snapshot.upstream(upstream)?;
        Some(Self {
            key: Arc::clone(&key.id),
            provider: Arc::clone(&provider.id),
            kind: provider.kind,
        })
    }

    /// Id of the upstream key.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }
}

/// A settled attempt.
pub(crate) struct Settled {
    pub(super) facts: Arc<Facts>,
    pub(super) upstream: Option<Sent>,
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
pub(crate) fn cost_of(facts: &Facts, sent: Option<&Sent>, usage: &Usage) -> Option<i64> {
    let used = usage.tokens != Tokens::default() || usage.web_searches > 0;
    if !used {
        return Some(0);
    }
    let price = facts.prices.price(sent?.kind, facts.sent_model()?)?;
    cost::cost(price, usage).ok().map(|cost| cost.0)
}

impl Event for Settled {
    fn row(&self) -> Row<'_> {
        let facts = &self.facts;
        (&facts.account, facts.key.as_bytes(), &facts.model)
    }

    fn started_unix_ms(&self) -> i64 {
        self.started_unix_ms
    }

    fn write_to(&self, event: &mut UsageEvent) {
        let cost = cost_of(&self.facts, self.upstream.as_ref(), &self.usage);
        let Facts {
            request_id,
            account,
            key,
            prices,
            endpoint,
            model,
            mapped_model,
            stream,
        } = &*self.facts;
        let (upstream_key, provider) = match &self.upstream {
            Some(sent) => (sent.key.as_ref(), sent.provider.as_ref()),
            None => Default::default(),
        };
        for (into, text) in [
            (&mut event.request_id, request_id.as_str()),
            (&mut event.account_id, account),
            (&mut event.key_id, key.as_str()),
            (&mut event.provider_id, provider),
            (&mut event.upstream_key_id, upstream_key),
            (&mut event.model, model),
            (&mut event.endpoint, endpoint.as_str()),
            (&mut event.price_version, &prices.version),
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

#[cfg(test)]
mod tests {
    use proxyxai_core::{
        account::key::{KeyDigest, Pepper},
        dialect::Endpoint,
        snapshot::{Content, Version},
    };
    use proxyxai_proto::config::v1::resource::Kind;

    use super::*;
    use crate::{
        config::{Pinned, held::View, sample},
        meter::Caller,
        request_id::RequestIds,
    };

    #[test]
    fn what_waits_for_the_disk_keeps_no_configuration() {
        let mut resources = sample::resources(&["a"]);
        resources.push(sample::resource(Kind::VirtualKey(sample::virtual_key(
            "k", 7,
        ))));
        let content: Content = resources.into_iter().map(Arc::new).collect();
        let snapshot = Snapshot::compile(Version::default(), &content).unwrap();
        let view = View {
            deployment: "d".into(),
            pepper: Pepper::new([7; 32]),
            keyed: false,
        };
        let pinned = Arc::new(Pinned::build(snapshot, view, &Pinned::empty()).unwrap());
        let caller = Caller {
            key: pinned.snapshot.key(&KeyDigest([7; 16])).unwrap(),
            accounts: Arc::clone(&pinned.snapshot.accounts),
        };
        let facts = Facts {
            request_id: RequestIds::new(1).next(),
            account: caller.account(),
            key: caller.key.record.id,
            prices: Arc::clone(&pinned.snapshot.prices),
            endpoint: Endpoint::ChatCompletions,
            model: "a-1".to_owned(),
            mapped_model: None,
            stream: false,
        };
        let settled = Settled {
            facts: Arc::new(facts),
            upstream: Sent::of(&pinned.snapshot, UpstreamKeyIndex(0)),
            attempt: 1,
            outcome: Outcome::Reported,
            reason: "ok",
            status: 200,
            usage: Usage::default(),
            estimated: false,
            client_gone: false,
            started_unix_ms: 0,
            duration_ms: 0,
            first_byte_ms: 0,
        };
        let accounts = Arc::downgrade(&pinned.snapshot.accounts);
        let whole = Arc::downgrade(&pinned);
        drop((pinned, caller));
        assert!(whole.upgrade().is_none() && accounts.upgrade().is_none());
        let mut event = UsageEvent::default();
        settled.write_to(&mut event);
        let names = [
            event.account_id,
            event.key_id,
            event.provider_id,
            event.upstream_key_id,
        ];
        assert_eq!(names, ["root", "kxxxxxxxxxxx", "sim", "up-1"]);
    }
}
