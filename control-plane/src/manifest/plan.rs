//! What a manifest changes: each object that it says otherwise, and with `prune` each that it says no more.
//!
//! Nothing is refused here for who asks: whoever sees the objects may ask for the difference.

use std::collections::{BTreeMap, BTreeSet};

use proxyxai_core::{
    access::Caller,
    account::key::Pepper,
    manifest::{self, Named, Wrong},
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::admin::v1::ManifestObject;

use super::{
    complete::complete,
    find::Finder,
    pruned::pruned,
    references::{above, check_active, check_providers},
    show,
};
use crate::{config_store::State, status::Fault};

/// One object that changes.
pub(super) struct Planned {
    /// Its place in the manifest; `None` when it is to be deleted.
    pub(super) index: Option<usize>,
    pub(super) named: Named,
    /// What it is in the store; `None` when it is new.
    pub(super) target: Option<ResourceName>,
    /// Id of the account that it is in or below, where that account is there already.
    pub(super) above: Option<String>,
    pub(super) before: Option<ManifestObject>,
    pub(super) after: Option<ManifestObject>,
}

/// A fault of one object.
pub(super) fn at(index: usize, named: &Named, fault: Fault) -> Fault {
    Fault::Object {
        index,
        name: format!("{} `{}`", named.kind.as_str().replace('_', " "), named.name),
        fault: Box::new(fault),
    }
}

/// A fault that can be seen in the manifest alone.
pub(super) fn wrong(objects: &[ManifestObject], wrong: Wrong) -> Fault {
    let object = objects.get(wrong.index);
    let named = object.and_then(manifest::named).unwrap_or(Named {
        kind: ResourceKind::Account,
        name: String::new(),
    });
    at(wrong.index, &named, Fault::field(wrong.field, wrong.what))
}

/// Compares a manifest with what is in force.
pub(super) fn plan(
    state: &State,
    caller: &Caller,
    pepper: &Pepper,
    objects: &[ManifestObject],
    prune: bool,
) -> Result<Vec<Planned>, Fault> {
    manifest::check(objects).map_err(|found| wrong(objects, found))?;
    let finder = Finder::new(state, caller, objects);
    let given: BTreeSet<Named> = objects.iter().filter_map(manifest::named).collect();
    let mut meant: BTreeMap<ResourceName, usize> = BTreeMap::new();
    let mut planned = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        let Some(named) = manifest::named(object) else {
            continue;
        };
        let fail = |fault: Fault| at(index, &named, fault);
        let target = finder.find(object).map_err(fail)?;
        if let Some(target) = &target
            && let Some(first) = meant.insert(target.clone(), index)
        {
            let what = format!("object {first} of the manifest means the same one; say it once");
            return Err(fail(Fault::field(manifest::name_field(named.kind), what)));
        }
        let above = above(&finder, &given, object).map_err(fail)?;
        check_providers(state, &given, object).map_err(fail)?;
        let stored = target.as_ref().and_then(|it| state.get(it.kind, &it.id));
        let before = stored.and_then(|stored| show::one(state, stored));
        let mut after = manifest::normal(object.clone());
        let before = complete(state, pepper, before, &mut after).map_err(fail)?;
        if before.as_ref() != Some(&after) {
            planned.push(Planned {
                index: Some(index),
                named: named.clone(),
                target,
                above,
                before,
                after: Some(after),
            });
        }
    }
    check_active(state, objects)?;
    if prune {
        planned.extend(pruned(state, caller, &meant));
    }
    Ok(planned)
}
