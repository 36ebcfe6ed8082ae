//! The rules between gateways: which way a request may go, how often it is tried in all, and how long that may take.
//!
//! Invariants: the calls to providers for one request of a client are at most [`MAX_ATTEMPTS`] in the whole tree of gateways (law 16), for
//! what is handed to a parent is taken from what is left until its answer gives some back; a request that comes to a gateway again ends
//! there (law 17); the time that is passed on is shorter than the time that came (law 17).

use std::time::Duration;

use super::retry::{AttemptEnd, MAX_ATTEMPTS, Verdict, judge};

/// Most gateways, and other intermediaries that say so, on the way of a request.
pub const MAX_HOPS: usize = 8;
/// The least and the most that is kept of the time that is left, so that a parent's answer still comes in time: a tenth, in between.
pub const MARGIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// Why a request goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loop {
    /// It was here before.
    #[error("the request has come to this gateway before: its upstreams lead back to it")]
    Again,
    /// It came through too many.
    #[error("the request has come through more than {MAX_HOPS} gateways")]
    TooLong,
}

/// Judges the way that a request came, from the values of its `CDN-Loop` headers (RFC 8586): ids apart by commas, each with parameters
/// behind a `;`.
///
/// # Errors
/// When it must not go on.
pub fn check_way<'a>(
    own: Option<&str>,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(), Loop> {
    let mut hops = 0_usize;
    for id in values.into_iter().flat_map(ids) {
        if own.is_some_and(|own| id.eq_ignore_ascii_case(own.as_bytes())) {
            return Err(Loop::Again);
        }
        hops = hops.saturating_add(1);
    }
    if hops > MAX_HOPS {
        return Err(Loop::TooLong);
    }
    Ok(())
}

/// The ids of one value; a comma within quotes parts none.
fn ids(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |byte| {
            let plain = !std::mem::take(&mut escaped);
            escaped = quoted && plain && *byte == b'\\';
            quoted ^= plain && *byte == b'"';
            *byte == b',' && !quoted
        })
        .map(|entry| {
            let id = entry.split(|byte| *byte == b';').next().unwrap_or_default();
            id.trim_ascii()
        })
        .filter(|id| !id.is_empty())
}

/// How many calls to providers a request may still cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    given: usize,
    left: usize,
}

impl Default for Allowance {
    /// That of a request which comes from no gateway.
    fn default() -> Self {
        Self {
            given: MAX_ATTEMPTS,
            left: MAX_ATTEMPTS,
        }
    }
}

impl Allowance {
    /// What a child gateway leaves, by its `X-Attempts-Left`: never more than one's own. What cannot be read is one.
    pub fn of_child(said: Option<&[u8]>) -> Self {
        let given = match said {
            None => MAX_ATTEMPTS,
            Some(text) => count(text).unwrap_or(1).min(MAX_ATTEMPTS),
        };
        Self { given, left: given }
    }

    /// How many are left here.
    pub fn left(&self) -> usize {
        self.left
    }

    /// How many were used up: what `X-Upstream-Attempts` says.
    pub fn used(&self) -> usize {
        self.given.saturating_sub(self.left)
    }

    /// Takes out what the next call may cost. A provider's costs one. A parent gateway gets all that is left, but for one while there is
    /// more than one and another upstream could use it.
    pub fn take(&mut self, parent: bool, another: bool) -> usize {
        let taken = match (parent, another, self.left) {
            (_, _, 0) => 0,
            (false, _, _) | (true, true, 1) => 1,
            (true, true, left) => left.saturating_sub(1),
            (true, false, left) => left,
        };
        self.left = self.left.saturating_sub(taken);
        taken
    }

    /// A parent's call is over that could cost `taken`: what it did not use comes back. `used` is its `X-Upstream-Attempts`; without one it
    /// counts as used up, unless nothing was sent.
    pub fn give_back(&mut self, taken: usize, used: Used<'_>) {
        let used = match used {
            Used::Nothing => 0,
            Used::Said(text) => count(text).map_or(taken, |used| used.min(taken)),
            Used::NotSaid => taken,
        };
        self.left = self
            .left
            .saturating_add(taken.saturating_sub(used))
            .min(self.given);
    }
}

/// What is known of the attempts behind a call to a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used<'a> {
    /// Nothing was sent.
    Nothing,
    /// The parent's own word.
    Said(&'a [u8]),
    /// It said nothing.
    NotSaid,
}

fn count(text: &[u8]) -> Option<usize> {
    let digits = (1..=3).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

/// How long a request of a child gateway may take: its `X-Request-Timeout-Ms` where that is less than one's own limit.
pub fn time_of_child(own: Duration, said: Option<&[u8]>) -> Duration {
    let said = said.and_then(|text| str::from_utf8(text).ok()?.parse().ok());
    said.map_or(own, |ms| own.min(Duration::from_millis(ms)))
}

/// What a parent is told of the time that is left, in milliseconds; `None` when there is too little to ask it.
pub fn time_for_parent(left: Duration) -> Option<u64> {
    let margin = left.checked_div(10)?.clamp(MARGIN.0, MARGIN.1);
    let left = u64::try_from(left.checked_sub(margin)?.as_millis()).ok()?;
    (left > 0).then_some(left)
}

/// What is to be done with the end of a call to a parent gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentVerdict {
    /// As for any upstream.
    pub verdict: Verdict,
    /// Whether its other keys are left out too, as they lead to the same end.
    pub leave: bool,
}

/// Judges the end of a call to a parent gateway, of which `should_retry` is the `X-Should-Retry`. A circle of gateways is for the client to
/// see; what the parent tried in vain is not tried there again, nor is one that cannot be reached while there is another upstream; what is
/// wrong with one key of it may be right with another.
pub fn judge_parent(
    end: AttemptEnd,
    should_retry: Option<&[u8]>,
    another_upstream: bool,
) -> ParentVerdict {
    let refused = should_retry.is_some_and(|said| said.eq_ignore_ascii_case(b"false"));
    let leave = match end {
        AttemptEnd::Status(500..) | AttemptEnd::FirstEventError(500..) => refused,
        AttemptEnd::ConnectFailed => another_upstream,
        AttemptEnd::TimedOut
        | AttemptEnd::ConnectionLost
        | AttemptEnd::Status(_)
        | AttemptEnd::FirstEventError(_) => false,
    };
    let verdict = if end == AttemptEnd::Status(508) {
        Verdict::Return
    } else {
        judge(end)
    };
    ParentVerdict { verdict, leave }
}
