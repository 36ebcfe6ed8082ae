//! Which upstream key made a response, so that what goes on from it comes to the same account of the provider.
//!
//! Invariants: a response that is known here is gone on from by its own account alone, with the key that made it alone; one that is not
//! known is tried with one key, and never with another after it. What is forgotten costs a refusal by the provider, nothing else.

use std::sync::Arc;

use moka::sync::Cache;
use proxyxai_core::{dialect::intent::State, route::pool::UpstreamKeyIndex};

use crate::{config::Pinned, meter::Caller, respond::Failure};

/// Responses that are remembered, the latest ones.
const REMEMBERED: u64 = 50_000;
/// Longest id that is remembered, in bytes.
const MAX_ID: usize = 128;

/// Who may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    /// Every key that serves the model.
    Any,
    /// One of them, whichever has its turn.
    One,
    /// This one.
    This(UpstreamKeyIndex),
}

#[derive(Clone)]
struct Maker {
    upstream_key: Arc<str>,
    account: Arc<str>,
}

/// The responses that this node saw being made.
#[derive(Clone)]
pub(crate) struct Made(Cache<Box<str>, Maker>);

impl Made {
    pub(crate) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }

    /// Notes who made a response, and for whom.
    pub(crate) fn note(&self, response: &str, upstream_key: &Arc<str>, account: &Arc<str>) {
        if response.len() <= MAX_ID {
            let maker = Maker {
                upstream_key: Arc::clone(upstream_key),
                account: Arc::clone(account),
            };
            self.0.insert(response.into(), maker);
        }
    }

    /// Who may serve a request that goes on from this.
    pub(crate) fn servers(
        &self,
        state: &State,
        pinned: &Pinned,
        caller: &Caller,
    ) -> Result<Servers, Failure> {
        let id = match state {
            State::None => return Ok(Servers::Any),
            State::Other => return Ok(Servers::One),
            State::Response(id) => id.as_str(),
        };
        let Some(maker) = self.0.get(id) else {
            return Ok(Servers::One);
        };
        let keys = &pinned.snapshot.upstream_keys;
        let key = keys.iter().position(|key| key.id == maker.upstream_key);
        let own = caller.accounts.id(caller.key.record.account);
        match key {
            Some(key) if *maker.account == *own => Ok(Servers::This(UpstreamKeyIndex(key))),
            Some(_) | None => Err(Failure::NoSuchResponse(id.to_owned())),
        }
    }
}
