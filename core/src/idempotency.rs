//! Whether a call that creates something was made before: by the key that its caller chose, and by what it asks for.
//!
//! Invariant: nothing of the call can be read from what is kept of it. A secret never goes into a mark: callers put a keyed hash of it
//! in its place.

use std::time::Duration;

use proxyxai_proto::store::v1::CallMark;

/// How long a call is remembered.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Longest key, in characters.
pub const MAX_KEY_CHARS: usize = 128;

/// What an earlier call is to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Another call.
    Other,
    /// The same call: its answer is the answer.
    Same,
    /// A call with the same key that asked for something else.
    Conflict,
}

/// The mark of a call; `None` when its caller chose no key.
///
/// # Errors
/// Says what a key looks like.
pub fn mark(method: &str, key: &str, request: &[u8]) -> Result<Option<CallMark>, InvalidCallKey> {
    if key.is_empty() {
        return Ok(None);
    }
    if key.chars().count() > MAX_KEY_CHARS || key.chars().any(char::is_control) {
        return Err(InvalidCallKey);
    }
    let hash = |context: &str, bytes: &[u8]| {
        let mut hash = blake3::Hasher::new_derive_key(context)
            .update(method.as_bytes())
            .update(&[0])
            .update(bytes)
            .finalize()
            .as_bytes()
            .to_vec();
        hash.truncate(16);
        hash
    };
    Ok(Some(CallMark {
        key: hash("proxyxai 2026 idempotency key", key.as_bytes()),
        request: hash("proxyxai 2026 idempotent request", request),
    }))
}

/// What an earlier call, remembered with what it made at that time, is to this one.
pub fn compare(
    earlier: Option<&CallMark>,
    created_unix_ms: i64,
    now: &CallMark,
    now_unix_ms: i64,
) -> Repeat {
    let lifetime = i64::try_from(LIFETIME.as_millis()).unwrap_or(i64::MAX);
    let over = created_unix_ms.saturating_add(lifetime);
    match earlier {
        Some(mark) if mark.key == now.key && now_unix_ms < over => {
            if mark.request == now.request {
                Repeat::Same
            } else {
                Repeat::Conflict
            }
        }
        Some(_) | None => Repeat::Other,
    }
}

/// A text that cannot be an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has at most {MAX_KEY_CHARS} characters and no control characters")]
pub struct InvalidCallKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_is_told_from_others() {
        let of = |method: &str, key: &str, request: &str| {
            mark(method, key, request.as_bytes()).unwrap().unwrap()
        };
        let first = of("CreateKey", "k1", "for a");
        let day = i64::try_from(LIFETIME.as_millis()).unwrap();
        let check = |now: &CallMark, at: i64, want: Repeat| {
            assert_eq!(compare(Some(&first), 1_000, now, at), want);
        };
        check(&of("CreateKey", "k1", "for a"), 2_000, Repeat::Same);
        check(&of("CreateKey", "k1", "for a"), 999 + day, Repeat::Same);
        check(&of("CreateKey", "k1", "for a"), 1_000 + day, Repeat::Other);
        check(&of("CreateKey", "k1", "for b"), 2_000, Repeat::Conflict);
        check(&of("CreateKey", "k2", "for a"), 2_000, Repeat::Other);
        check(&of("CreateRoute", "k1", "for a"), 2_000, Repeat::Other);
        assert_eq!(compare(None, 0, &first, 0), Repeat::Other);
    }

    #[test]
    fn a_key_is_optional_and_short() {
        assert_eq!(mark("m", "", b"r"), Ok(None));
        assert_eq!(mark("m", &"x".repeat(129), b"r"), Err(InvalidCallKey));
        assert_eq!(mark("m", "a\nb", b"r"), Err(InvalidCallKey));
        assert!(mark("m", &"é".repeat(128), b"r").is_ok());
    }
}
