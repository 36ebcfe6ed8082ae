//! What a request asks for, and how many toy tokens that is: four bytes of text are one.
//!
//! A request can steer its answer by a marker in any text of its last message: `[[sim tokens=200 delay_ms=5]]`.

use serde_json::Value;

/// How an answer shall look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Tokens of output, before any cap.
    pub(crate) tokens: u64,
    /// Between two events of a stream.
    pub(crate) delay_ms: u64,
    /// Tokens of input that come from a cache.
    pub(crate) cached: u64,
    /// Tokens of input that are written to a cache of five minutes.
    pub(crate) cache_write: u64,
    /// Tokens of input that are written to a cache of one hour.
    pub(crate) cache_write_1h: u64,
    /// Tokens of output that nobody sees.
    pub(crate) reasoning: u64,
}

impl Wish {
    /// Reads the marker of the last message.
    pub(crate) fn of(request: &Value) -> Self {
        let asked = request.get("messages").or_else(|| request.get("input"));
        let last = asked.and_then(|asked| match asked.as_array() {
            Some(messages) => messages.last(),
            None => Some(asked),
        });
        let text = last.map(all_text).unwrap_or_default();
        let marker = text
            .split_once("[[sim ")
            .and_then(|(_, rest)| rest.split_once("]]"))
            .map_or("", |(marker, _)| marker);
        let number = |name: &str| {
            let mut words = marker
                .split_whitespace()
                .filter_map(|word| word.split_once('='));
            words
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse::<u64>().ok())
        };
        Self {
            tokens: number("tokens").unwrap_or(24).min(100_000),
            delay_ms: number("delay_ms").unwrap_or(0),
            cached: number("cached").unwrap_or(0),
            cache_write: number("cache_write").unwrap_or(0),
            cache_write_1h: number("cache_write_1h").unwrap_or(0),
            reasoning: number("reasoning").unwrap_or(0),
        }
    }
}

/// Toy tokens of a text.
pub(crate) fn tokens(text: &str) -> u64 {
    u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX)
}

/// Toy tokens of all messages, tools and other input of a request; media count 85 each.
pub(crate) fn input_tokens(request: &Value) -> u64 {
    let parts = ["messages", "system", "instructions", "tools", "input"]
        .map(|key| request.get(key).map_or(0, count));
    parts.iter().fold(3, |sum, part| sum.saturating_add(*part))
}

fn count(value: &Value) -> u64 {
    match value {
        Value::String(text) if text.starts_with("data:") => 85,
        Value::String(text) => tokens(text),
        Value::Array(items) => items.iter().map(count).fold(0, u64::saturating_add),
        Value::Object(members) => members.values().map(count).fold(0, u64::saturating_add),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn all_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(all_text).collect::<Vec<_>>().join(" "),
        Value::Object(members) => members.values().map(all_text).collect::<Vec<_>>().join(" "),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

const WORDS: [&str; 16] = [
    "the", "sea", "is", "wide", "and", "calm", "under", "a", "pale", "sky", "while", "waves",
    "carry", "light", "to", "shore",
];

/// The words of an answer: one a token, the same for the same request.
pub(crate) fn words(count: u64) -> impl Iterator<Item = String> {
    let all = WORDS.iter().cycle().enumerate();
    all.map(|(at, word)| {
        if at == 0 {
            (*word).to_owned()
        } else {
            format!(" {word}")
        }
    })
    .take(usize::try_from(count).unwrap_or(usize::MAX))
}
