//! What an earlier apply made, and what nobody names any more.

use std::collections::BTreeMap;

use proxyxai_core::{
    access::{Caller, Role},
    manifest,
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::admin::v1::ManagedBy;

use super::{
    plan::Planned,
    show::{self, is_seen, name_of},
};
use crate::config_store::State;

/// What was made by an apply and is not meant any more; what depends on others before what they depend on.
pub(super) fn pruned(
    state: &State,
    caller: &Caller,
    meant: &BTreeMap<ResourceName, usize>,
) -> Vec<Planned> {
    let own = |name: &ResourceName| {
        caller.role != Role::Root && name.kind == ResourceKind::Account && name.id == caller.account
    };
    let mut planned = Vec::new();
    for (target, stored) in state.iter() {
        if stored.managed_by() != ManagedBy::Apply
            || meant.contains_key(target)
            || own(target)
            || !is_seen(state, caller, stored)
        {
            continue;
        }
        let before = show::one(state, stored);
        let Some(named) = before.as_ref().and_then(manifest::named) else {
            continue;
        };
        planned.push(Planned {
            index: None,
            named,
            target: name_of(stored),
            above: None,
            before,
            after: None,
        });
    }
    planned.sort_by_key(|one| {
        let rank = one.before.as_ref().map(manifest::rank);
        (std::cmp::Reverse(rank), one.named.clone())
    });
    planned
}
