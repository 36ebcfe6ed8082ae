//! Judges the head of a stream that is still held back: an error as the first event counts as an error before the first byte.

use serde::Deserialize;

use super::{Dialect, responses, sse};

/// What the head of a stream shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstEvent {
    /// No whole event yet, or only such that keep the line alive.
    NeedMore,
    /// The answer has begun.
    Content,
    /// The provider failed after it had said 200.
    Error {
        /// The status that it would have been.
        status: u16,
        /// The error in the form of a plain answer's body.
        body: Vec<u8>,
    },
}

/// Looks at what has come so far.
pub fn first_event(dialect: Dialect, head: &[u8]) -> FirstEvent {
    let mut rest = head;
    while let Some((event, after)) = sse::event_end(rest).and_then(|end| rest.split_at_checked(end))
    {
        rest = after;
        if !sse::is_keep_alive(event) {
            return judge(dialect, event);
        }
    }
    FirstEvent::NeedMore
}

fn judge(dialect: Dialect, event: &[u8]) -> FirstEvent {
    let Some(data) = sse::data(event) else {
        return FirstEvent::Content;
    };
    // Every error, and hardly any content, has the word near its start: most events are not parsed.
    if memchr::memmem::find(data, b"\"error\"").is_none() {
        return FirstEvent::Content;
    }
    if dialect == Dialect::OpenaiResponses {
        return judge_response(data);
    }
    #[derive(Deserialize)]
    struct Event {
        error: Option<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "type", default)]
        kind: Option<String>,
        #[serde(default)]
        code: Option<serde_json::Value>,
    }
    match serde_json::from_slice::<Event>(data) {
        Ok(Event { error: Some(error) }) => FirstEvent::Error {
            status: status(dialect, error.kind.as_deref(), error.code.as_ref()),
            body: data.to_vec(),
        },
        Ok(Event { error: None }) | Err(_) => FirstEvent::Content,
    }
}

/// The events of a response tell of errors in three ways, and an answer in one.
fn judge_response(data: &[u8]) -> FirstEvent {
    let event = serde_json::from_slice::<responses::Event>(data);
    let Some(trouble) = event.ok().and_then(responses::Event::trouble) else {
        return FirstEvent::Content;
    };
    let (kind, code) = (trouble.kind.as_deref(), trouble.code.as_ref());
    let status = status(Dialect::OpenaiResponses, kind, code);
    let usual = if status < 500 {
        "invalid_request_error"
    } else {
        "server_error"
    };
    let body = serde_json::json!({ "error": {
        "message": trouble.message, "type": kind.unwrap_or(usual), "param": trouble.param, "code": code,
    } });
    FirstEvent::Error {
        status,
        body: body.to_string().into_bytes(),
    }
}

fn status(dialect: Dialect, kind: Option<&str>, code: Option<&serde_json::Value>) -> u16 {
    let number = code
        .and_then(serde_json::Value::as_u64)
        .and_then(|n| u16::try_from(n).ok());
    let words = [kind, code.and_then(|c| c.as_str())];
    number
        .filter(|n| (400..600).contains(n))
        .unwrap_or_else(|| status_of(dialect, &words))
}

/// The status that an error's type or code stands for.
fn status_of(dialect: Dialect, words: &[Option<&str>; 2]) -> u16 {
    let is = |names: &[&str]| words.iter().flatten().any(|word| names.contains(word));
    if is(&[
        "rate_limit_error",
        "rate_limit_exceeded",
        "insufficient_quota",
        "requests",
        "tokens",
        "slow_down",
    ]) {
        429
    } else if is(&["overloaded_error", "server_is_overloaded"]) {
        if dialect == Dialect::AnthropicMessages {
            529
        } else {
            503
        }
    } else if is(&["authentication_error", "invalid_api_key"]) {
        401
    } else if is(&["billing_error"]) {
        402
    } else if is(&["permission_error"]) {
        403
    } else if is(&["not_found_error", "model_not_found"]) {
        404
    } else if is(&[
        "invalid_request_error",
        "context_length_exceeded",
        "invalid_prompt",
    ]) {
        400
    } else {
        500
    }
}
