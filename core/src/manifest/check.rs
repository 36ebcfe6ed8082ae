//! What can be seen to be wrong with a manifest without a look at what is in force.

use std::collections::BTreeMap;

use proxyxai_proto::admin::v1::{ManifestObject, manifest_object::Kind};

use super::{name_field, named};
use crate::account::{rules, tree::ROOT};

/// What is wrong with an object of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Wrong {
    /// Its place in the manifest.
    pub index: usize,
    /// The field of its message.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// Finds what can be seen to be wrong in a manifest alone.
///
/// # Errors
/// The first object that cannot be used.
pub fn check(objects: &[ManifestObject]) -> Result<(), Wrong> {
    let mut seen = BTreeMap::new();
    let mut active: Option<usize> = None;
    for (index, object) in objects.iter().enumerate() {
        let wrong = |field: &'static str, what: String| Wrong { index, field, what };
        let Some(name) = named(object) else {
            let what = "it is of a kind that this control plane does not know".to_owned();
            return Err(wrong("kind", what));
        };
        check_one(object).map_err(|(field, what)| wrong(field, what))?;
        let field = name_field(name.kind);
        let (kind, text) = (name.kind.as_str(), name.name.clone());
        if seen.insert(name, index).is_some() {
            let what = format!("the {kind} `{text}` is there twice; say it once");
            return Err(wrong(field, what.replace('_', " ")));
        }
        if matches!(&object.kind, Some(Kind::PriceTable(it)) if it.active)
            && active.replace(index).is_some()
        {
            let what = "two tables cannot be in force; say it of one of them";
            return Err(wrong("active", what.to_owned()));
        }
    }
    Ok(())
}

fn check_one(object: &ManifestObject) -> Result<(), (&'static str, String)> {
    match &object.kind {
        Some(Kind::Account(it)) => check_path(&it.path).map_err(|what| ("path", what)),
        Some(Kind::Key(it)) => {
            check_path(&it.account).map_err(|what| ("account", what))?;
            rules::check_account_name(&it.name).map_err(|error| ("name", error.to_string()))
        }
        Some(Kind::Route(it)) if it.levels.is_empty() => {
            Err(("levels", "it names no provider".to_owned()))
        }
        Some(Kind::Route(_) | Kind::Provider(_) | Kind::UpstreamKey(_) | Kind::PriceTable(_))
        | None => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let mut names = path.split('/');
    if names.next() != Some(ROOT) {
        return Err(format!(
            "`{path}` is no path: it begins with `{ROOT}`, as in `{ROOT}/team-a/app`"
        ));
    }
    names.try_for_each(|name| {
        rules::check_account_name(name).map_err(|error| format!("`{path}`: {error}"))
    })
}
