//! A request as one line of the request log: JSON, whose text is escaped, so that no client can write a line of its own.

use std::time::Duration;

use jiff::Timestamp;
use proxyxai_core::snapshot::KeyId;
use serde_json::{Map, Value, json};

use super::steps::{AttemptSteps, Steps};
use crate::{
    meter::{Facts, cost_of},
    request_id::RequestId,
};

/// Adds the line of a request.
pub(super) fn write(out: &mut Vec<u8>, steps: &Steps, traced: bool) {
    let mut line = Map::new();
    let mut add = |name: &str, value: Value| {
        if !value.is_null() {
            line.insert(name.to_owned(), value);
        }
    };
    let time = Timestamp::from_millisecond(steps.began_unix_ms).unwrap_or_default();
    add("time", json!(format!("{time:.3}")));
    add(
        "request_id",
        json!(steps.request_id.as_ref().map(RequestId::as_str)),
    );
    // Where nobody has traces, an id of one leads nowhere.
    if traced || steps.parent.is_some() {
        add("trace_id", json!(steps.context.trace_id.to_string()));
        add("span_id", json!(steps.context.span_id.to_string()));
    }
    add("account", json!(steps.account));
    add("key_id", json!(steps.key.as_ref().map(KeyId::as_str)));
    add("endpoint", json!(steps.endpoint.map(|it| it.as_str())));
    add("dialect", json!(steps.dialect.map(|it| it.as_str())));
    add("status", json!(steps.status));
    add("error", json!(steps.error.map(|it| it.as_str())));
    add("client_gone", json!(steps.client_left()));
    add("duration_ms", ms(steps.ended.saturating_sub(steps.began)));
    if let Some(answered) = steps.answered {
        add("answered_ms", ms(answered.saturating_sub(steps.began)));
    }
    if let Some(facts) = &steps.facts {
        add("model", json!(facts.model));
        add("sent_model", json!(facts.mapped_model));
        add("stream", json!(facts.stream));
        let attempts: Vec<Value> = steps.attempts.iter().map(|it| attempt(it, facts)).collect();
        add("attempts", json!(attempts));
    }
    if serde_json::to_writer(&mut *out, &line).is_ok() {
        out.push(b'\n');
    }
}

fn attempt(attempt: &AttemptSteps, facts: &Facts) -> Value {
    let sent = attempt.sent.as_ref();
    let tokens = &attempt.usage.tokens;
    json!({
        "provider": sent.map(|sent| &*sent.provider),
        "upstream_key": sent.map(|sent| &*sent.key),
        "status": attempt.status,
        "reason": attempt.reason,
        "first_byte_ms": attempt.first_byte.map(ms),
        "duration_ms": ms(attempt.ended.saturating_sub(attempt.began)),
        "tokens": {
            "input": tokens.input,
            "cache_read": tokens.cache_read,
            "cache_write_5m": tokens.cache_write_5m,
            "cache_write_1h": tokens.cache_write_1h,
            "output": tokens.output,
        },
        "estimated": attempt.estimated,
        "cost_nano_usd": cost_of(facts, sent, &attempt.usage),
    })
}

fn ms(time: Duration) -> Value {
    json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
