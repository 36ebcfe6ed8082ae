//! Decides whether a failed attempt is tried again on another upstream key, and what is answered when none is left.
//!
//! Invariant: nothing here performs I/O, reads a clock or draws a random number. Invariant: it is asked only before the first byte
//! of an answer went to the client; after that there is nothing to decide.

/// Most upstream calls for one request of a client (law 16).
pub const MAX_ATTEMPTS: usize = 3;

/// How an attempt ended, before a byte of its answer reached the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// No connection: name lookup, connect or TLS failed. Nothing was sent.
    ConnectFailed,
    /// Sent; no answer within the time allowed.
    TimedOut,
    /// Sent; the connection ended before the head of an answer, or that was not HTTP.
    ConnectionLost,
    /// An answer with this status.
    Status(u16),
    /// 200, but the first event of the stream is an error that stands for this status.
    FirstEventError(u16),
}

/// What to do with an attempt that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Give this answer to the client.
    Return,
    /// Discard it and try the next upstream key.
    TryNext {
        /// One of [`REASONS`].
        why: &'static str,
    },
}

/// The vocabulary of `why`: words of the retry metric, of usage events and of the log.
pub const REASONS: [&str; 9] = [
    "connect_failed",
    "timed_out",
    "connection_lost",
    "key_refused",
    "payment_required",
    "key_forbidden",
    "rate_limited",
    "provider_error",
    "error_event",
];

/// Judges one attempt that ended.
pub fn judge(end: AttemptEnd) -> Verdict {
    let why = match end {
        AttemptEnd::ConnectFailed => "connect_failed",
        AttemptEnd::TimedOut => "timed_out",
        AttemptEnd::ConnectionLost => "connection_lost",
        AttemptEnd::Status(401) => "key_refused",
        AttemptEnd::Status(402) => "payment_required",
        AttemptEnd::Status(403) => "key_forbidden",
        AttemptEnd::Status(429) => "rate_limited",
        AttemptEnd::Status(500..=599) => "provider_error",
        AttemptEnd::FirstEventError(status) if may_differ_elsewhere(status) => "error_event",
        AttemptEnd::Status(_) | AttemptEnd::FirstEventError(_) => return Verdict::Return,
    };
    Verdict::TryNext { why }
}

/// Whether another upstream key may answer better than with this status.
fn may_differ_elsewhere(status: u16) -> bool {
    matches!(status, 401 | 402 | 403 | 429 | 500..=599)
}

/// What is answered when no upstream key is left; `attempt` counts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// This attempt's 429, unchanged and with its headers.
    RateLimited {
        /// The last attempt that was throttled.
        attempt: usize,
    },
    /// A 502 that names the upstream key of this attempt.
    KeyRefused {
        /// The last attempt whose key was refused.
        attempt: usize,
    },
    /// A 502, or a 504 when the last attempt timed out.
    Failed {
        /// Whether it was time that ran out.
        timed_out: bool,
    },
}

/// Chooses the answer from all ends, in the order of the attempts: a 429 tells the client most, then whose key must be mended.
pub fn when_none_left(ends: &[AttemptEnd]) -> Exhausted {
    let last = |wanted: fn(u16) -> bool| {
        ends.iter().rposition(|end| match end {
            AttemptEnd::Status(status) | AttemptEnd::FirstEventError(status) => wanted(*status),
            AttemptEnd::ConnectFailed | AttemptEnd::TimedOut | AttemptEnd::ConnectionLost => false,
        })
    };
    if let Some(attempt) = last(|status| status == 429) {
        return Exhausted::RateLimited { attempt };
    }
    if let Some(attempt) = last(|status| matches!(status, 401..=403)) {
        return Exhausted::KeyRefused { attempt };
    }
    Exhausted::Failed {
        timed_out: ends.last() == Some(&AttemptEnd::TimedOut),
    }
}
