//! What a manifest may leave out because it is there already: filled in on either side of the comparison.

use proxyxai_core::account::key::Pepper;
use proxyxai_proto::admin::v1::{
    ManagedBy, ManifestObject, ManifestPriceTable, ManifestUpstreamKey, manifest_object::Kind,
};

use crate::{
    admin::{prices, upstream_keys},
    config_store::State,
    status::Fault,
};

/// Fills in what a manifest may leave out because it is there already, on either side of the comparison.
pub(super) fn complete(
    state: &State,
    pepper: &Pepper,
    mut before: Option<ManifestObject>,
    after: &mut ManifestObject,
) -> Result<Option<ManifestObject>, Fault> {
    let held = before.as_mut().and_then(|object| object.kind.as_mut());
    match &mut after.kind {
        Some(Kind::Key(key)) => {
            if let Some(Kind::Key(held)) = held {
                held.id.clone_from(&key.id);
            }
        }
        Some(Kind::UpstreamKey(key)) => complete_upstream_key(pepper, held, key)?,
        Some(Kind::PriceTable(table)) => complete_price_table(state, held.is_some(), table)?,
        Some(Kind::Account(_) | Kind::Provider(_) | Kind::Route(_)) | None => {}
    }
    Ok(before)
}

fn complete_upstream_key(
    pepper: &Pepper,
    held: Option<&mut Kind>,
    key: &mut ManifestUpstreamKey,
) -> Result<(), Fault> {
    let held = match held {
        Some(Kind::UpstreamKey(held)) => held.fingerprint.clone(),
        _ => String::new(),
    };
    match &key.secret {
        Some(secret) => {
            let secret = upstream_keys::clean(secret)?;
            key.fingerprint = upstream_keys::fingerprint(pepper, &secret);
            if key.fingerprint == held {
                key.secret = None;
            }
        }
        None if held.is_empty() => {
            let what = "it is new, so it needs a secret; say where it is";
            return Err(Fault::field("secret", what));
        }
        None => key.fingerprint = held,
    }
    Ok(())
}

fn complete_price_table(
    state: &State,
    held: bool,
    table: &mut ManifestPriceTable,
) -> Result<(), Fault> {
    let Some(content) = &table.content else {
        if held {
            return Ok(());
        }
        let what = "there is no such table, so its content is needed";
        return Err(Fault::field("content", what));
    };
    let book = prices::read(content)?;
    if book.version != table.version {
        let what = format!("it says version `{}`", book.version);
        return Err(Fault::field("content", what));
    }
    if held {
        prices::put(state, &book, content, ManagedBy::Apply, 0)?;
        table.content = None;
    }
    Ok(())
}
