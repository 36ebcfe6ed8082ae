//! What objects of a manifest name must be there, or be made by it.

use std::collections::BTreeSet;

use proxyxai_core::{
    manifest::{self, Named, Wrong},
    snapshot::ResourceKind,
};
use proxyxai_proto::admin::v1::{ManifestObject, manifest_object::Kind};

use super::{find::Finder, plan::wrong};
use crate::{config_store::State, status::Fault};

/// The account that an object is in or below. There must be one, or the manifest must make it.
pub(super) fn above(
    finder: &Finder<'_>,
    given: &BTreeSet<Named>,
    object: &ManifestObject,
) -> Result<Option<String>, Fault> {
    let (field, path) = match &object.kind {
        Some(Kind::Account(it)) => match manifest::parent(&it.path) {
            Some((parent, _)) if finder.account(&it.path).is_none() => ("path", parent),
            Some(_) | None => return Ok(None),
        },
        Some(Kind::Key(it)) => ("account", it.account.as_str()),
        Some(Kind::Provider(_) | Kind::UpstreamKey(_) | Kind::Route(_) | Kind::PriceTable(_))
        | None => return Ok(None),
    };
    let found = finder.account(path);
    let made = Named {
        kind: ResourceKind::Account,
        name: path.to_owned(),
    };
    if found.is_none() && !given.contains(&made) {
        let what = format!("there is no account `{path}`, and the manifest makes none");
        return Err(Fault::field(field, what));
    }
    Ok(found)
}

/// Every provider that is named must be there, or be made.
pub(super) fn check_providers(
    state: &State,
    given: &BTreeSet<Named>,
    object: &ManifestObject,
) -> Result<(), Fault> {
    let (field, ids): (_, Vec<&String>) = match &object.kind {
        Some(Kind::UpstreamKey(it)) => ("provider_id", vec![&it.provider_id]),
        Some(Kind::Route(it)) => {
            let levels = it.levels.iter().flat_map(|level| &level.provider_ids);
            ("levels", levels.collect())
        }
        Some(Kind::Account(_) | Kind::Key(_) | Kind::Provider(_) | Kind::PriceTable(_)) | None => {
            return Ok(());
        }
    };
    let is_there = |id: &&String| {
        let made = Named {
            kind: ResourceKind::Provider,
            name: (*id).clone(),
        };
        state.get(ResourceKind::Provider, id).is_some() || given.contains(&made)
    };
    match ids.into_iter().find(|id| !is_there(id)) {
        None => Ok(()),
        Some(id) => {
            let what = format!("there is no provider `{id}`, and the manifest makes none");
            Err(Fault::field(field, what))
        }
    }
}

/// A table goes out of force by another one that takes its place.
pub(super) fn check_active(state: &State, objects: &[ManifestObject]) -> Result<(), Fault> {
    let tables = || {
        let all = objects.iter().enumerate();
        all.filter_map(|(index, object)| match &object.kind {
            Some(Kind::PriceTable(table)) => Some((index, table)),
            _ => None,
        })
    };
    if tables().any(|(_, table)| table.active) {
        return Ok(());
    }
    let in_force = &state.snapshot.prices.version;
    match tables().find(|(_, table)| table.version == *in_force) {
        None => Ok(()),
        Some((index, _)) => Err(wrong(
            objects,
            Wrong {
                index,
                field: "active",
                what: "this table is in force, and one must be; say `active: true` of it, or of the one that takes its place".to_owned(),
            },
        )),
    }
}
