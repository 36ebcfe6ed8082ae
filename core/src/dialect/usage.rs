//! Finds what an answer says it used, and brings it into one form.
//!
//! The classes of [`Tokens`] do not overlap. OpenAI counts cached input inside `prompt_tokens`, Anthropic beside `input_tokens`;
//! reasoning is inside the output of both. Absent, null and zero are told apart only where it matters: an answer without usage
//! gives `None`, never zero.

use std::ops::Range;

use serde::{Deserialize, Deserializer, de};

use super::{Endpoint, responses};

mod place;
mod plain;

/// Tokens by class; their sum is all that was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Input read neither from nor into a cache.
    pub input: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written to a cache that lives five minutes, or for the only lifetime that the provider has.
    pub cache_write_5m: u64,
    /// Written to a cache that lives one hour.
    pub cache_write_1h: u64,
    /// Output, hidden reasoning included.
    pub output: u64,
}

impl Tokens {
    /// All input, however it was read.
    pub fn input_total(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }
}

/// What an answer says it used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// By class.
    pub tokens: Tokens,
    /// Web searches that the provider ran.
    pub web_searches: u64,
    /// The service tier that was served, when it has prices of its own (`flex`, `priority`, `fast`, `batch` …).
    pub tier: Option<String>,
}

/// The usage of a whole answer that is not a stream; `None` when it reports none.
pub fn usage_of_answer(endpoint: Endpoint, body: &[u8]) -> Option<Usage> {
    if endpoint == Endpoint::Responses {
        return responses::Response::read(body)?.usage();
    }
    plain_usage(endpoint, body).or_else(|| general_usage(endpoint, body))
}

/// Usage as it nearly always stands in an answer: at its end, in plain form.
fn plain_usage(endpoint: Endpoint, body: &[u8]) -> Option<Usage> {
    let at = place::near_the_end(body)?;
    match endpoint {
        Endpoint::Messages => {
            let (usage, end) = plain::anthropic(body, at)?;
            place::rest(body, end)?;
            usage.usage()
        }
        Endpoint::ChatCompletions | Endpoint::Embeddings => {
            let (usage, end) = plain::openai(body, at)?;
            usage.usage(tier(body, place::rest(body, end)?))
        }
        Endpoint::Responses | Endpoint::CountTokens | Endpoint::Models => None,
    }
}

fn general_usage(endpoint: Endpoint, body: &[u8]) -> Option<Usage> {
    let place = place::anywhere(body)?;
    let text = body.get(place.usage)?;
    match endpoint {
        Endpoint::Messages => serde_json::from_slice::<Option<AnthropicUsage>>(text)
            .ok()??
            .usage(),
        Endpoint::ChatCompletions | Endpoint::Embeddings => {
            serde_json::from_slice::<Option<OpenaiUsage>>(text)
                .ok()??
                .usage(tier(body, place.tier))
        }
        Endpoint::Responses | Endpoint::CountTokens | Endpoint::Models => None,
    }
}

/// The id of the response that a whole answer tells of, which a later request may go on from.
pub fn response_of_answer(body: &[u8]) -> Option<String> {
    responses::id_of(body)
}

fn tier(body: &[u8], at: Option<Range<usize>>) -> Option<String> {
    serde_json::from_slice(body.get(at?)?).ok()?
}

/// A count as providers write it: an integer, a whole float, or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Count;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a count")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Count, E> {
                u64::try_from(value)
                    .map(Count)
                    .map_err(|_| E::custom("a negative count"))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Count, E> {
                let whole = value.fract() == 0.0 && (0.0..9e15).contains(&value);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked: whole and in range"
                )]
                if whole {
                    Ok(Count(value as u64))
                } else {
                    Err(E::custom("not a whole count"))
                }
            }
            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `usage` of chat completions and embeddings, as OpenAI and those who follow it write it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OpenaiUsage {
    prompt_tokens: Option<Count>,
    completion_tokens: Option<Count>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    total_tokens: Count,
    /// DeepSeek's name for cached input.
    prompt_cache_hit_tokens: Count,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Count,
}

impl OpenaiUsage {
    /// The usage; `None` when there is a `usage` that counts nothing at all.
    pub(super) fn usage(&self, tier: Option<String>) -> Option<Usage> {
        let details = self.prompt_tokens_details.as_ref();
        let prompt = self
            .prompt_tokens
            .or(self.completion_tokens.map(|_| Count(0)))?
            .0;
        let cache_read = details
            .map_or(0, |d| d.cached_tokens.0)
            .max(self.prompt_cache_hit_tokens.0)
            .min(prompt);
        let cache_write = details
            .map_or(0, |d| d.cache_write_tokens.0)
            .min(prompt.saturating_sub(cache_read));
        Some(Usage {
            tokens: Tokens {
                input: prompt
                    .saturating_sub(cache_read)
                    .saturating_sub(cache_write),
                cache_read,
                cache_write_5m: cache_write,
                cache_write_1h: 0,
                output: self.output(prompt),
            },
            web_searches: 0,
            tier: tier.as_deref().and_then(priced_tier),
        })
    }

    /// Output with reasoning. Some servers (xAI, Gemini's compatible endpoint) keep reasoning out of `completion_tokens`, and show
    /// that by a total that exceeds the sum of the other two.
    fn output(&self, prompt: u64) -> u64 {
        let completion = self.completion_tokens.unwrap_or_default().0;
        let beyond = self
            .total_tokens
            .0
            .saturating_sub(prompt)
            .saturating_sub(completion);
        let details = self.completion_tokens_details.as_ref();
        completion.saturating_add(beyond.min(details.map_or(0, |d| d.reasoning_tokens.0)))
    }
}

/// `usage` of messages, whole or of one event.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct AnthropicUsage {
    input_tokens: Option<Count>,
    output_tokens: Option<Count>,
    cache_creation_input_tokens: Option<Count>,
    cache_read_input_tokens: Option<Count>,
    cache_creation: Option<CacheCreation>,
    server_tool_use: Option<ServerToolUse>,
    service_tier: Option<String>,
    speed: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Count,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ServerToolUse {
    web_search_requests: Count,
}

impl AnthropicUsage {
    /// Overwrites each field that a later event carries; counts there are running totals, never to be added.
    pub(super) fn merge(&mut self, later: Self) {
        fn newer<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        newer(&mut self.input_tokens, later.input_tokens);
        newer(&mut self.output_tokens, later.output_tokens);
        newer(
            &mut self.cache_creation_input_tokens,
            later.cache_creation_input_tokens,
        );
        newer(
            &mut self.cache_read_input_tokens,
            later.cache_read_input_tokens,
        );
        newer(&mut self.cache_creation, later.cache_creation);
        newer(&mut self.server_tool_use, later.server_tool_use);
        newer(&mut self.service_tier, later.service_tier);
        newer(&mut self.speed, later.speed);
    }

    /// The usage; `None` when there is a `usage` that counts nothing at all.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.input_tokens.or(self.output_tokens)?;
        let count = |field: Option<Count>| field.map_or(0, |c| c.0);
        let written = count(self.cache_creation_input_tokens);
        let long = self
            .cache_creation
            .map_or(0, |c| c.ephemeral_1h_input_tokens.0)
            .min(written);
        Some(Usage {
            tokens: Tokens {
                input: count(self.input_tokens),
                cache_read: count(self.cache_read_input_tokens),
                cache_write_5m: written.saturating_sub(long),
                cache_write_1h: long,
                output: count(self.output_tokens),
            },
            web_searches: self.server_tool_use.map_or(0, |t| t.web_search_requests.0),
            tier: self
                .speed
                .as_deref()
                .and_then(priced_tier)
                .or_else(|| self.service_tier.as_deref().and_then(priced_tier)),
        })
    }
}

/// A tier with prices of its own; the words for the usual one are dropped.
pub(super) fn priced_tier(tier: &str) -> Option<String> {
    let usual = matches!(tier, "default" | "standard" | "auto" | "");
    (!usual).then(|| tier.to_owned())
}
