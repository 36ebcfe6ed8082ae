//! Who asks: from the credential headers to a virtual key and its account.
//!
//! Invariant: 401 is said only when it is certain that there is no such key (law 12): its form is wrong, or the control plane says so at
//! or past the version that the node serves from.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use http::HeaderValue;
use proxyxai_core::{
    account::{
        admission,
        key::{self, InvalidKey, KeyDigest},
        limits::Asked,
        staleness::TooOld,
    },
    dialect::Endpoint,
    snapshot::KeyId,
    trace::TraceContext,
};

use crate::{
    config::Pinned,
    context::Context,
    keys::{ResolveError, Resolved},
    meter::Caller,
    respond::Failure,
    signs::Signs,
    trace::Trace,
};

/// Finds the caller, or says why not. What the head of the request tells of its wish is judged here, before the body is read.
pub(crate) async fn identify(
    cx: &Rc<Context>,
    pinned: &Arc<Pinned>,
    signs: &Signs<'_>,
    endpoint: Endpoint,
    from: IpAddr,
    trace: &Option<Rc<Trace>>,
) -> Result<Caller, Failure> {
    let held = cx.config.held();
    let shown = credential(signs)?;
    // A key that is held is of the right form: only others are looked at closely.
    let digest = (shown.len() == key::LEN).then(|| pinned.digest(shown));
    let known = digest.flatten().and_then(|it| pinned.snapshot.key(&it));
    let caller = match known {
        Some(key) => Caller {
            key,
            accounts: Arc::clone(&pinned.snapshot.accounts),
        },
        None => Box::pin(look_up(cx, pinned, shown, from, (held.expired, trace))).await?,
    };
    let now = cx.clock.unix_ms();
    let asked = Asked::call(endpoint, from);
    let admitted = admission::admit(&caller.key, &caller.accounts, now, &asked, held)
        .map_err(|refusal| Failure::refused(&caller.key, refusal));
    if let Some(trace) = trace {
        trace.identified(cx, &caller);
    }
    admitted?;
    Ok(caller)
}

/// A key that is not at hand: unless its form is wrong already, it is asked for.
async fn look_up(
    cx: &Context,
    pinned: &Pinned,
    shown: &str,
    from: IpAddr,
    (expired, trace): (bool, &Option<Rc<Trace>>),
) -> Result<Caller, Failure> {
    let text = key::parse(shown).map_err(|reason| wrong(cx, from, reason))?;
    let digest = pinned.digest(text.expose()).ok_or(Failure::NotReady)?;
    if cx.strangers.must_wait(from) {
        return Err(Failure::Stranger);
    }
    let within = trace.as_ref().map(|trace| trace.asks(cx));
    let found = resolve(cx, text.id(), digest, within).await;
    if let Some(trace) = trace {
        trace.asked(cx);
    }
    match found {
        Ok(Some(found)) => Ok(Caller {
            key: found.key,
            accounts: found.accounts,
        }),
        Ok(None) => {
            cx.strangers.missed(from);
            Err(Failure::WrongKey(
                "there is no such key; it was mistyped, deleted, or is of another gateway"
                    .to_owned(),
            ))
        }
        // The one is what keeps it from being checked, and lasts longer than the other.
        Err(_) if expired => Err(Failure::TooOld(TooOld::Deployment)),
        Err(_) => Err(Failure::KeyUnchecked),
    }
}

async fn resolve(
    cx: &Context,
    id: &str,
    digest: KeyDigest,
    within: Option<TraceContext>,
) -> Result<Option<Resolved>, ResolveError> {
    // A text of the right form has an id of the right form.
    let id = KeyId::new(id).ok_or(ResolveError::Unavailable)?;
    cx.keys.resolve(id, digest, within).await
}

fn wrong(cx: &Context, from: IpAddr, reason: InvalidKey) -> Failure {
    if cx.strangers.must_wait(from) {
        return Failure::Stranger;
    }
    cx.strangers.missed(from);
    Failure::WrongKey(reason.to_string())
}

/// The credential of either header; clients of both dialects use both.
fn credential<'a>(signs: &Signs<'a>) -> Result<&'a str, Failure> {
    let text = |value: Option<&'a HeaderValue>| {
        value
            .and_then(|value| value.to_str().ok())
            .map(str::trim_ascii)
            .filter(|text| !text.is_empty())
    };
    let bearer = text(signs.authorization).map(|value| match value.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_ascii(),
        _ => value,
    });
    match (bearer, text(signs.x_api_key)) {
        (Some(one), Some(other)) if one != other => Err(Failure::TwoKeys),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => Err(Failure::NoKey),
    }
}
