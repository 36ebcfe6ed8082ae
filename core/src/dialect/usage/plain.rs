//! Reads `usage` in its usual form, in one pass: whole numbers, at most one object within it, no key twice, no escape, no list. It
//! costs a fifth of a general parse, which reads the rest.
//!
//! Invariant: what is read here is what the general parse would have read.

use super::{
    AnthropicUsage, CacheCreation, CompletionDetails, Count, OpenaiUsage, PromptDetails,
    ServerToolUse, priced_tier,
};
use crate::dialect::words::end_of_plain;

/// More digits than any count has, and fewer than overflow.
const DIGITS: usize = 18;

/// It is not in its usual form.
#[derive(Debug, PartialEq, Eq)]
struct Unusual;

/// A value of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Null,
    Count(u64),
    Text(&'a [u8]),
    /// Its members follow.
    Object,
}

/// Usage of chat completions at `at`, and where it ends.
pub(super) fn openai(body: &[u8], at: usize) -> Option<(OpenaiUsage, usize)> {
    let (mut usage, mut total, mut hits) = (OpenaiUsage::default(), None, None);
    let (mut cached, mut written, mut reasoning) = (None, None, None);
    // Comparisons of whole slices: a pattern would be compared byte by byte.
    let end = members(body, at, |within, key, value| match (within, key) {
        ([], key) if key == b"prompt_tokens" => count(&mut usage.prompt_tokens, value),
        ([], key) if key == b"completion_tokens" => count(&mut usage.completion_tokens, value),
        ([], key) if key == b"total_tokens" => count(&mut total, value),
        ([], key) if key == b"prompt_cache_hit_tokens" => count(&mut hits, value),
        ([], key) if key == b"prompt_tokens_details" => {
            object(&mut usage.prompt_tokens_details, value)
        }
        ([], key) if key == b"completion_tokens_details" => {
            object(&mut usage.completion_tokens_details, value)
        }
        ([], _) => Ok(()),
        (within, key) if within == b"prompt_tokens_details" => match key {
            key if key == b"cached_tokens" => count(&mut cached, value),
            key if key == b"cache_write_tokens" => count(&mut written, value),
            _ => Ok(()),
        },
        (within, key) if within == b"completion_tokens_details" && key == b"reasoning_tokens" => {
            count(&mut reasoning, value)
        }
        _ => Ok(()),
    });
    let end = end.ok()?;
    usage.total_tokens = total.unwrap_or_default();
    usage.prompt_cache_hit_tokens = hits.unwrap_or_default();
    usage.prompt_tokens_details = usage.prompt_tokens_details.map(|_| PromptDetails {
        cached_tokens: cached.unwrap_or_default(),
        cache_write_tokens: written.unwrap_or_default(),
    });
    usage.completion_tokens_details = usage.completion_tokens_details.map(|_| CompletionDetails {
        reasoning_tokens: reasoning.unwrap_or_default(),
    });
    Some((usage, end))
}

/// Usage of messages at `at`, and where it ends.
pub(super) fn anthropic(body: &[u8], at: usize) -> Option<(AnthropicUsage, usize)> {
    let (mut usage, mut hour, mut searches) = (AnthropicUsage::default(), None, None);
    let end = members(body, at, |within, key, value| match (within, key) {
        (b"", b"input_tokens") => count(&mut usage.input_tokens, value),
        (b"", b"output_tokens") => count(&mut usage.output_tokens, value),
        (b"", b"cache_creation_input_tokens") => {
            count(&mut usage.cache_creation_input_tokens, value)
        }
        (b"", b"cache_read_input_tokens") => count(&mut usage.cache_read_input_tokens, value),
        (b"", b"cache_creation") => object(&mut usage.cache_creation, value),
        (b"", b"server_tool_use") => object(&mut usage.server_tool_use, value),
        (b"cache_creation", b"ephemeral_1h_input_tokens") => count(&mut hour, value),
        (b"server_tool_use", b"web_search_requests") => count(&mut searches, value),
        (b"", b"service_tier") => tier(&mut usage.service_tier, value),
        (b"", b"speed") => tier(&mut usage.speed, value),
        _ => Ok(()),
    });
    let end = end.ok()?;
    usage.cache_creation = usage.cache_creation.map(|_| CacheCreation {
        ephemeral_1h_input_tokens: hour.unwrap_or_default(),
    });
    usage.server_tool_use = usage.server_tool_use.map(|_| ServerToolUse {
        web_search_requests: searches.unwrap_or_default(),
    });
    Some((usage, end))
}

fn count(slot: &mut Option<Count>, value: Value<'_>) -> Result<(), Unusual> {
    match value {
        Value::Null => fill(slot, None),
        Value::Count(number) => fill(slot, Some(Count(number))),
        Value::Text(_) | Value::Object => Err(Unusual),
    }
}

fn object<T: Default>(slot: &mut Option<T>, value: Value<'_>) -> Result<(), Unusual> {
    match value {
        Value::Null => fill(slot, None),
        Value::Object => fill(slot, Some(T::default())),
        Value::Text(_) | Value::Count(_) => Err(Unusual),
    }
}

/// A tier with prices of its own; the usual one leaves the slot empty, which comes to the same.
fn tier(slot: &mut Option<String>, value: Value<'_>) -> Result<(), Unusual> {
    match value {
        Value::Null => fill(slot, None),
        Value::Text(text) => fill(
            slot,
            priced_tier(str::from_utf8(text).map_err(|_| Unusual)?),
        ),
        Value::Count(_) | Value::Object => Err(Unusual),
    }
}

fn fill<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Unusual> {
    if slot.is_some() {
        return Err(Unusual);
    }
    *slot = value;
    Ok(())
}

/// Visits the members of the object at `at` with the key of the object that they are within, which is empty for itself. Gives its end.
fn members<'a>(
    body: &'a [u8],
    at: usize,
    mut visit: impl FnMut(&'a [u8], &'a [u8], Value<'a>) -> Result<(), Unusual>,
) -> Result<usize, Unusual> {
    let mut rest = body.get(at..).ok_or(Unusual)?;
    let mut within: Option<&[u8]> = None;
    rest = space(rest.strip_prefix(b"{").ok_or(Unusual)?);
    if let Some(after) = rest.strip_prefix(b"}") {
        return Ok(body.len().saturating_sub(after.len()));
    }
    loop {
        let (key, after) = string(rest)?;
        let after = space(space(after).strip_prefix(b":").ok_or(Unusual)?);
        let (value, after) = value(after)?;
        visit(within.unwrap_or_default(), key, value)?;
        rest = space(after);
        if value == Value::Object {
            if within.replace(key).is_some() {
                return Err(Unusual);
            }
            if !rest.starts_with(b"}") {
                continue;
            }
        }
        while let Some(after) = rest.strip_prefix(b"}") {
            if within.take().is_none() {
                return Ok(body.len().saturating_sub(after.len()));
            }
            rest = space(after);
        }
        rest = space(rest.strip_prefix(b",").ok_or(Unusual)?);
    }
}

fn space(text: &[u8]) -> &[u8] {
    match text {
        [b' ' | b'\t' | b'\n' | b'\r', ..] => text.trim_ascii_start(),
        _ => text,
    }
}

/// What is between the quotes at the start of `text`, and what follows them.
fn string(text: &[u8]) -> Result<(&[u8], &[u8]), Unusual> {
    let inner = text.strip_prefix(b"\"").ok_or(Unusual)?;
    let end = end_of_plain(inner).ok_or(Unusual)?;
    match inner.split_at_checked(end) {
        Some((word, [b'"', after @ ..])) => Ok((word, after)),
        _ => Err(Unusual),
    }
}

fn value(text: &[u8]) -> Result<(Value<'_>, &[u8]), Unusual> {
    match text {
        [b'0'..=b'9', ..] => number(text),
        [b'{', after @ ..] => Ok((Value::Object, after)),
        [b'n', b'u', b'l', b'l', after @ ..] => Ok((Value::Null, after)),
        [b'"', ..] => string(text).map(|(word, after)| (Value::Text(word), after)),
        _ => Err(Unusual),
    }
}

/// A whole number; what follows it must end it.
fn number(text: &[u8]) -> Result<(Value<'_>, &[u8]), Unusual> {
    let mut number = 0_u64;
    for (place, byte) in text.iter().enumerate() {
        if !byte.is_ascii_digit() {
            let after = text.get(place..).unwrap_or_default();
            let zero_before_others = place > 1 && text.first() == Some(&b'0');
            let more_of_a_number = matches!(byte, b'.' | b'e' | b'E');
            return if place > DIGITS || zero_before_others || more_of_a_number {
                Err(Unusual)
            } else {
                Ok((Value::Count(number), after))
            };
        }
        number = number
            .wrapping_mul(10)
            .wrapping_add(u64::from(byte.wrapping_sub(b'0')));
    }
    Err(Unusual)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{prelude::*, sample::select};
    use serde_json::{Map, Value};

    use super::{anthropic, openai};
    use crate::dialect::usage::{AnthropicUsage, OpenaiUsage};

    const NAMES: [&str; 17] = [
        "usage",
        "service_tier",
        "prompt_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "total_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "input_tokens",
        "output_tokens",
        "cache_creation",
        "ephemeral_1h_input_tokens",
        "server_tool_use",
        "web_search_requests",
        "speed",
        "x\"y\\",
    ];

    /// Values such as answers are made of.
    pub(in super::super) fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<u64>().prop_map(Value::from),
            (-3_i64..2000).prop_map(Value::from),
            (0_u32..9).prop_map(|n| Value::from(f64::from(n) / 2.0)),
            select(vec![
                "flex",
                "standard",
                "\"usage\"",
                ", \"usage\": {",
                "\\",
                "}",
                "\u{1}"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                object(inner),
            ]
        })
    }

    pub(in super::super) fn object(
        values: impl Strategy<Value = Value>,
    ) -> impl Strategy<Value = Value> {
        prop::collection::vec((select(NAMES.to_vec()), values), 0..8).prop_map(|members| {
            Value::from(
                members
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<Map<_, _>>(),
            )
        })
    }

    proptest! {
        #[test]
        fn plain_reading_is_the_general_one(usage in object(json())) {
            let text = serde_json::to_vec(&usage).unwrap();
            if let Some((found, end)) = openai(&text, 0) {
                prop_assert_eq!(end, text.len());
                prop_assert_eq!(found.usage(None), serde_json::from_slice::<OpenaiUsage>(&text).unwrap().usage(None));
            }
            if let Some((found, end)) = anthropic(&text, 0) {
                prop_assert_eq!(end, text.len());
                prop_assert_eq!(found.usage(), serde_json::from_slice::<AnthropicUsage>(&text).unwrap().usage());
            }
        }
    }

    #[test]
    fn the_usual_form_is_plain() {
        for text in [
            r#"{"prompt_tokens": 231, "completion_tokens": 64, "total_tokens": 295, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}, "completion_tokens_details": null}"#,
            r#"{"prompt_tokens_details":{},"completion_tokens_details":{ "reasoning_tokens":7 } , "x":"y"}"#,
            "{}",
        ] {
            let want = (serde_json::from_str(text).unwrap(), text.len());
            assert_eq!(
                openai(format!("{text} ,").as_bytes(), 0),
                Some(want),
                "{text}"
            );
        }
        let text = r#"{"input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":3},"server_tool_use":null,"service_tier":"priority"}"#;
        let want = (serde_json::from_str(text).unwrap(), text.len() + 1);
        assert_eq!(anthropic(format!(" {text}").as_bytes(), 1), Some(want));
        for text in [
            r#"{"prompt_tokens":1.0}"#,
            r#"{"prompt_tokens":1e3}"#,
            r#"{"prompt_tokens":"1"}"#,
            r#"{"prompt_tokens":01}"#,
            r#"{"prompt_tokens":-1}"#,
            r#"{"prompt_tokens":1,"prompt_tokens":2}"#,
            r#"{"prompt\u005ftokens":1}"#,
            r#"{"prompt_tokens_details":[]}"#,
            r#"{"prompt_tokens_details":{"a":{}}}"#,
            r#"{"total_tokens":1234567890123456789}"#,
            r#"{"total_tokens":1"#,
            r#"{"total_tokens":1,}"#,
            "null",
            "[]",
        ] {
            assert_eq!(openai(text.as_bytes(), 0), None, "{text}");
        }
    }
}
