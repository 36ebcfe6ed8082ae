//! Who asks: from the credential headers to a virtual key and its account.
//!
//! Invariant: 401 is said only when it is certain that there is no such key (law 12): its form is wrong, or the control plane says so at
//! or past the version that the node serves from.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use proxyxai_core::account::key::{self, InvalidKey};

use crate::{
    config::Pinned, context::Context, headers::X_API_KEY, meter::Caller, respond::Failure,
};

/// Finds the caller, or says why not.
pub(crate) async fn identify(
    cx: &Rc<Context>,
    pinned: &Arc<Pinned>,
    headers: &HeaderMap,
    from: IpAddr,
) -> Result<Caller, Failure> {
    let shown = credential(headers)?;
    let text = match key::parse(shown) {
        Ok(text) => text,
        Err(reason) => return Err(wrong(cx, from, reason)),
    };
    let digest = pinned.digest(text.expose()).ok_or(Failure::NotReady)?;
    let caller = match pinned.snapshot.keys.get(&digest) {
        Some(key) => Caller {
            key,
            accounts: Arc::clone(&pinned.snapshot.accounts),
        },
        None if cx.strangers.must_wait(from) => return Err(Failure::Stranger),
        None => match cx.keys.resolve(digest).await {
            Ok(Some(found)) => Caller {
                key: found.key,
                accounts: found.accounts,
            },
            Ok(None) => {
                cx.strangers.missed(from);
                return Err(Failure::WrongKey(
                    "there is no such key; it was mistyped, deleted, or is of another gateway"
                        .to_owned(),
                ));
            }
            Err(_) => return Err(Failure::KeyUnchecked),
        },
    };
    if caller.key.disabled {
        return Err(Failure::KeyDisabled(caller.key.id.as_str().to_owned()));
    }
    caller
        .accounts
        .active(caller.key.account)
        .map_err(Failure::Account)?;
    Ok(caller)
}

fn wrong(cx: &Context, from: IpAddr, reason: InvalidKey) -> Failure {
    if cx.strangers.must_wait(from) {
        return Failure::Stranger;
    }
    cx.strangers.missed(from);
    Failure::WrongKey(reason.to_string())
}

/// The credential of either header; clients of both dialects use both.
fn credential(headers: &HeaderMap) -> Result<&str, Failure> {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let bearer = text(AUTHORIZATION).map(|value| match value.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => value,
    });
    match (bearer, text(X_API_KEY)) {
        (Some(one), Some(other)) if one != other => Err(Failure::TwoKeys),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => Err(Failure::NoKey),
    }
}
