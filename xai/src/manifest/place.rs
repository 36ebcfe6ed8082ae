//! Where things stand in a file: the second look at a text that was read, for refusals that come later.
//!
//! The fields are read by their types, which keep no places; this reads the same text for the places alone.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
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

/// The objects of a text by the field that lists them.
pub(super) fn places(text: &str) -> BTreeMap<String, Vec<Places>> {
    type Fields = BTreeMap<String, Spanned<IgnoredAny>>;
    let all: BTreeMap<String, Vec<Spanned<Fields>>> =
        serde_saphyr::from_str(text).unwrap_or_default();
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
        .map(|(list, objects)| (list, objects.into_iter().map(object).collect()))
        .collect()
}
