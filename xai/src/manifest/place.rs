//! Where things stand in a file: the second look at a text that was read, for refusals that come later.
//!
//! The fields are read by their types, which keep no places; this reads the same text for the places alone.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::Spanned;

/// A line and a column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// An object and its fields.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    pub(super) object: Place,
    pub(super) fields: BTreeMap<String, Place>,
}

type Fields = BTreeMap<String, Spanned<IgnoredAny>>;

/// The fields of a file.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Text {
    settings: Option<Spanned<Fields>>,
    accounts: Vec<Spanned<Fields>>,
    keys: Vec<Spanned<Fields>>,
    providers: Vec<Spanned<Fields>>,
    upstream_keys: Vec<Spanned<Fields>>,
    routes: Vec<Spanned<Fields>>,
    prices: Vec<Spanned<Fields>>,
}

/// The objects of a text by the field that lists them; the settings are a list of one.
pub(super) fn places(text: &str) -> BTreeMap<&'static str, Vec<Places>> {
    let all: Text = serde_saphyr::from_str(text).unwrap_or_default();
    let all = [
        ("settings", all.settings.into_iter().collect()),
        ("accounts", all.accounts),
        ("keys", all.keys),
        ("providers", all.providers),
        ("upstream_keys", all.upstream_keys),
        ("routes", all.routes),
        ("prices", all.prices),
    ];
    let place = |at: serde_saphyr::Location| Place {
        line: at.line(),
        column: at.column(),
    };
    let object = |object: Spanned<Fields>| Places {
        object: place(object.referenced),
        fields: object
            .value
            .into_iter()
            .map(|(name, field)| (name, place(field.referenced)))
            .collect(),
    };
    all.into_iter()
        .map(|(list, objects): (_, Vec<_>)| (list, objects.into_iter().map(object).collect()))
        .collect()
}
