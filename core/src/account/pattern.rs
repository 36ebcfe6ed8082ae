//! Patterns of model names: `*` matches any run of characters, everything else matches itself.
//!
//! Invariant: matching takes time linear in pattern × name at worst, and allocates nothing.

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Takes any text but the empty one.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > MAX_BYTES || text.chars().any(char::is_control) {
            return Err(InvalidPattern::Unusable);
        }
        Ok(Self(text.into()))
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }

    /// Whether every name that `other` matches is matched here. That is so exactly when its text is, `*` read as a character: no
    /// text of this pattern can stand for a `*` but a `*`, which matches whatever that one does.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// How many characters are not wildcards: the more, the more specific.
    pub fn literal_len(&self) -> usize {
        self.0.bytes().filter(|b| *b != b'*').count()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Longest pattern, in bytes.
const MAX_BYTES: usize = 256;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Nothing was given.
    #[error("a model pattern must not be empty; use `*` for every model")]
    Empty,
    /// Too long, or with control characters.
    #[error("a model pattern has at most 256 bytes and no control characters")]
    Unusable,
}

/// Patterns of which one must match; an empty list permits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PatternList(Box<[Pattern]>);

impl PatternList {
    /// Parses each text.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, InvalidPattern> {
        texts
            .iter()
            .map(|t| Pattern::parse(t.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the name is permitted.
    pub fn permits(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|p| p.matches(name))
    }

    /// The first pattern that matches a name which the list above does not. What one pattern matches lies in a whole list only when
    /// it lies in one pattern of it, for the same reason as in [`Pattern::covers`].
    pub fn beyond(&self, above: &Self) -> Option<String> {
        let covered = |one: &Pattern| above.0.iter().any(|outer| outer.covers(one));
        self.0
            .iter()
            .find(|one| !above.0.is_empty() && !covered(one))
            .map(|one| one.0.to_string())
    }
}

/// Greedy match with one point to come back to: the last `*` seen.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (pattern, name);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (p.split_first(), n.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, n));
                p = rest;
            }
            (Some((want, p_rest)), Some((have, n_rest))) if want == have => {
                (p, n) = (p_rest, n_rest)
            }
            (None, None) => return true,
            _ => match retry
                .and_then(|(after, from)| from.split_first().map(|(_, shorter)| (after, shorter)))
            {
                Some((after, shorter)) => {
                    retry = Some((after, shorter));
                    (p, n) = (after, shorter);
                }
                None => return false,
            },
        }
    }
}
