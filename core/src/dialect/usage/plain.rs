//! Reads `usage` in its usual form: whole numbers, no key twice, no escape in a key. It costs a fifth of a general parse, which reads
//! the rest.
//!
//! Invariant: what is read here is what the general parse would have read.

use super::{
    AnthropicUsage, CacheCreation, CompletionDetails, Count, OpenaiUsage, PromptDetails,
    ServerToolUse, priced_tier,
};
use crate::dialect::scan::{self, NotAnObject};

/// More digits than any count has, and fewer than overflow.
const DIGITS: usize = 18;

/// It is not in its usual form.
struct Unusual;

impl From<NotAnObject> for Unusual {
    fn from(_: NotAnObject) -> Self {
        Self
    }
}

pub(super) fn openai(text: &[u8]) -> Option<OpenaiUsage> {
    read_openai(text).ok()
}

pub(super) fn anthropic(text: &[u8]) -> Option<AnthropicUsage> {
    read_anthropic(text).ok()
}

fn read_openai(text: &[u8]) -> Result<OpenaiUsage, Unusual> {
    let [prompt, completion, of_prompt, of_completion, total, cached] = fields(
        text,
        [
            "prompt_tokens",
            "completion_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "total_tokens",
            "prompt_cache_hit_tokens",
        ],
    )?;
    Ok(OpenaiUsage {
        prompt_tokens: count(prompt)?,
        completion_tokens: count(completion)?,
        prompt_tokens_details: object(of_prompt, |text| {
            let [cached, written] = fields(text, ["cached_tokens", "cache_write_tokens"])?;
            Ok(PromptDetails {
                cached_tokens: count(cached)?.unwrap_or_default(),
                cache_write_tokens: count(written)?.unwrap_or_default(),
            })
        })?,
        completion_tokens_details: object(of_completion, |text| {
            let [reasoning] = fields(text, ["reasoning_tokens"])?;
            Ok(CompletionDetails {
                reasoning_tokens: count(reasoning)?.unwrap_or_default(),
            })
        })?,
        total_tokens: count(total)?.unwrap_or_default(),
        prompt_cache_hit_tokens: count(cached)?.unwrap_or_default(),
    })
}

fn read_anthropic(text: &[u8]) -> Result<AnthropicUsage, Unusual> {
    let [input, output, written, read, creation, tools, tier, speed] = fields(
        text,
        [
            "input_tokens",
            "output_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "cache_creation",
            "server_tool_use",
            "service_tier",
            "speed",
        ],
    )?;
    Ok(AnthropicUsage {
        input_tokens: count(input)?,
        output_tokens: count(output)?,
        cache_creation_input_tokens: count(written)?,
        cache_read_input_tokens: count(read)?,
        cache_creation: object(creation, |text| {
            let [hour] = fields(text, ["ephemeral_1h_input_tokens"])?;
            Ok(CacheCreation {
                ephemeral_1h_input_tokens: count(hour)?.unwrap_or_default(),
            })
        })?,
        server_tool_use: object(tools, |text| {
            let [searches] = fields(text, ["web_search_requests"])?;
            Ok(ServerToolUse {
                web_search_requests: count(searches)?.unwrap_or_default(),
            })
        })?,
        service_tier: word(tier)?,
        speed: word(speed)?,
    })
}

/// The values of these members, `None` for those that are absent.
fn fields<'a, const N: usize>(
    text: &'a [u8],
    names: [&str; N],
) -> Result<[Option<&'a [u8]>; N], Unusual> {
    let mut found = [None; N];
    scan::members(text, |member| {
        let key = text.get(member.key).unwrap_or_default();
        let place = names.iter().position(|name| name.as_bytes() == key);
        match place.and_then(|place| found.get_mut(place)) {
            Some(slot) if slot.is_none() => *slot = text.get(member.value),
            Some(_) => return Err(Unusual),
            None if key.contains(&b'\\') => return Err(Unusual),
            None => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// A whole number; `None` when it is absent or null.
fn count(value: Option<&[u8]>) -> Result<Option<Count>, Unusual> {
    let digits = match value {
        None | Some(b"null") => return Ok(None),
        Some(b"0") => return Ok(Some(Count(0))),
        Some([b'1'..=b'9', rest @ ..]) if rest.len() < DIGITS => value.unwrap_or_default(),
        Some(_) => return Err(Unusual),
    };
    let mut number = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Unusual);
        }
        number = number
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit.wrapping_sub(b'0')));
    }
    Ok(Some(Count(number)))
}

/// An object; `None` when it is absent or null.
fn object<T>(
    value: Option<&[u8]>,
    read: impl FnOnce(&[u8]) -> Result<T, Unusual>,
) -> Result<Option<T>, Unusual> {
    match value {
        None | Some(b"null") => Ok(None),
        Some(text) => read(text).map(Some),
    }
}

/// A tier; `None` when it is absent, null, or the usual one.
fn word(value: Option<&[u8]>) -> Result<Option<String>, Unusual> {
    let quoted = match value {
        None | Some(b"null") => return Ok(None),
        Some([b'"', inner @ .., b'"']) if !inner.contains(&b'\\') => inner,
        Some(_) => return Err(Unusual),
    };
    let tier = str::from_utf8(quoted).map_err(|_| Unusual)?;
    Ok(priced_tier(tier))
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
            if let Some(found) = openai(&text) {
                prop_assert_eq!(found.usage(None), serde_json::from_slice::<OpenaiUsage>(&text).unwrap().usage(None));
            }
            if let Some(found) = anthropic(&text) {
                prop_assert_eq!(found.usage(), serde_json::from_slice::<AnthropicUsage>(&text).unwrap().usage());
            }
        }
    }

    #[test]
    fn the_usual_form_is_plain() {
        for text in [
            r#"{"prompt_tokens": 231, "completion_tokens": 64, "total_tokens": 295, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}, "completion_tokens_details": null}"#,
            "{}",
        ] {
            assert_eq!(
                openai(text.as_bytes()),
                Some(serde_json::from_str(text).unwrap()),
                "{text}"
            );
        }
        let text = r#"{"input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":3},"server_tool_use":null,"service_tier":"priority"}"#;
        assert_eq!(
            anthropic(text.as_bytes()),
            Some(serde_json::from_str(text).unwrap())
        );
        for text in [
            r#"{"prompt_tokens":1.0}"#,
            r#"{"prompt_tokens":"1"}"#,
            r#"{"prompt_tokens":01}"#,
            r#"{"prompt_tokens":1,"prompt_tokens":2}"#,
            r#"{"prompt\u005ftokens":1}"#,
            r#"{"prompt_tokens_details":[]}"#,
            r#"{"total_tokens":1234567890123456789}"#,
            "null",
            "[]",
        ] {
            assert_eq!(openai(text.as_bytes()), None, "{text}");
        }
    }
}
