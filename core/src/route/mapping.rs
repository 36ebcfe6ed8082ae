//! How a client's name of a model becomes the upstream's: `gpt-4o*` → `openai/gpt-4o*`.
//!
//! Invariant: each `*` of the upstream's name stands for what the `*` at the same place of the pattern matched, counted from the left; a
//! `*` matches as little as it can, the last one what is left.

use crate::account::pattern::{InvalidPattern, Pattern};

/// A mapping of names that match its pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pattern: Pattern,
    upstream: Pattern,
}

impl Mapping {
    /// Takes the pattern of a route and the upstream's name; an empty name maps nothing.
    ///
    /// # Errors
    /// When the name needs more than the pattern gives.
    pub fn parse(pattern: &Pattern, upstream: &str) -> Result<Option<Self>, InvalidMapping> {
        if upstream.is_empty() {
            return Ok(None);
        }
        let upstream = Pattern::parse(upstream)?;
        let (needs, gives) = (stars(&upstream), stars(pattern));
        if needs > gives {
            return Err(InvalidMapping::Stars { needs, gives });
        }
        Ok(Some(Self {
            pattern: pattern.clone(),
            upstream,
        }))
    }

    /// The upstream's name; `None` when the model does not match the pattern.
    pub fn apply(&self, model: &str) -> Option<String> {
        let mut matched = captures(self.pattern.as_str(), model)?.into_iter();
        let mut parts = self.upstream.as_str().split('*');
        let mut name = parts.next()?.to_owned();
        for part in parts {
            name.push_str(matched.next()?);
            name.push_str(part);
        }
        Some(name)
    }
}

fn stars(pattern: &Pattern) -> usize {
    pattern.as_str().matches('*').count()
}

/// What each `*` matched.
fn captures<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split('*');
    let mut rest = name.strip_prefix(parts.next()?)?;
    let Some(last) = parts.next_back() else {
        return rest.is_empty().then(Vec::new);
    };
    let mut matched = Vec::new();
    for part in parts {
        let (before, after) = rest.split_once(part).unwrap_or((rest, ""));
        if part.is_empty() {
            matched.push("");
            continue;
        }
        if before.len() == rest.len() {
            return None;
        }
        matched.push(before);
        rest = after;
    }
    matched.push(rest.strip_suffix(last)?);
    Some(matched)
}

/// Why an upstream's name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMapping {
    /// It is no name, nor a pattern of one.
    #[error(transparent)]
    Name(#[from] InvalidPattern),
    /// A `*` without a place to come from.
    #[error(
        "it has {needs} `*`, but the pattern of the route has {gives}; each one needs one there"
    )]
    Stars {
        /// In the upstream's name.
        needs: usize,
        /// In the pattern.
        gives: usize,
    },
}
