//! What all writes have in common: versions against lost updates, calls that are repeated, lists that may only narrow.

use proxyxai_core::{
    access::Caller,
    account::{
        limits::{Dimension, InvalidLimit, Limits},
        pattern::Pattern,
        tree::AccountIndex,
    },
    idempotency::{self, Repeat},
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::store::v1::CallMark;

use crate::{
    config_store::State,
    status::{Fault, WrongField},
};

/// Refuses a write whose caller read another version of the object; 0 asks for no check.
pub(crate) fn check_version(
    state: &State,
    what: &'static str,
    name: &ResourceName,
    given: u64,
) -> Result<(), Fault> {
    let current = state.version(name);
    if given == 0 || given == current {
        return Ok(());
    }
    Err(Fault::Stale {
        what,
        id: name.id.clone(),
        given,
        current,
    })
}

/// The mark of a call that creates something; `None` when its caller chose no idempotency key. It is of this caller alone: what others
/// asked for under the same key is not told.
pub(crate) fn call_mark(
    caller: &Caller,
    method: &str,
    key: &str,
    request: &[u8],
) -> Result<Option<CallMark>, Fault> {
    idempotency::mark(&format!("{method} {}", caller.credential), key, request)
        .map_err(|error| Fault::field("idempotency_key", error))
}

/// The id of what the same call made before.
pub(crate) fn made_before(
    state: &State,
    kind: ResourceKind,
    mark: Option<&CallMark>,
    now_unix_ms: i64,
) -> Result<Option<String>, Fault> {
    let Some(mark) = mark else { return Ok(None) };
    for stored in state.of_kind(kind) {
        let created = stored.created_unix_ms;
        match idempotency::compare(stored.created_by.as_ref(), created, mark, now_unix_ms) {
            Repeat::Other => {}
            Repeat::Same => {
                let name = stored.resource.as_ref().and_then(ResourceName::of);
                return Ok(name.map(|name| name.id));
            }
            Repeat::Conflict => {
                return Err(Fault::field(
                    "idempotency_key",
                    "a call with this key asked for something else; choose a new key for a new call",
                ));
            }
        }
    }
    Ok(None)
}

/// Refuses lists that cannot be read, and lists among `written` that allow what an account above forbids.
pub(crate) fn check_limits(
    state: &State,
    above: Option<AccountIndex>,
    limits: Result<Limits, InvalidLimit>,
    written: &[Dimension],
) -> Result<(), Fault> {
    let limits = limits.map_err(|error| Fault::field(error.dimension.field(), error.reason))?;
    let widened = |dimension: &Dimension| {
        let accounts = &state.snapshot.accounts;
        let widening = accounts.widened(above?, &limits, *dimension)?;
        Some(WrongField {
            field: dimension.field(),
            what: widening.to_string(),
        })
    };
    let wrong: Vec<WrongField> = written.iter().filter_map(widened).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Fault::Fields(wrong))
    }
}

/// A filter by name; an empty one lets everything pass.
pub(crate) fn name_filter(pattern: &str) -> Result<Option<Pattern>, Fault> {
    let given = (!pattern.is_empty()).then(|| Pattern::parse(pattern));
    given
        .transpose()
        .map_err(|error| Fault::field("name", error))
}
