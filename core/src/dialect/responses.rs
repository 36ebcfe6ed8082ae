//! OpenAI's responses: where their answers and events say what was used, which response was made, and what went wrong.
//!
//! Invariant: usage is read from the event that ends a stream, whichever of them comes; a response that failed may report some.

use serde::Deserialize;

use super::usage::{Count, Tokens, Usage, priced_tier};

/// What matters of a response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) id: Option<String>,
    usage: Option<ResponsesUsage>,
    tool_usage: Option<ToolUsage>,
    service_tier: Option<String>,
    pub(super) error: Option<Trouble>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResponsesUsage {
    input_tokens: Option<Count>,
    output_tokens: Option<Count>,
    input_tokens_details: Option<InputDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
}

/// Tools that the provider ran, which have fees of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolUsage {
    web_search: Option<WebSearch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WebSearch {
    num_requests: Count,
}

/// What went wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Trouble {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<serde_json::Value>,
    pub(super) message: Option<String>,
    pub(super) param: Option<serde_json::Value>,
}

/// An event of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) response: Option<Response>,
    pub(super) error: Option<Trouble>,
    code: Option<serde_json::Value>,
    message: Option<String>,
    param: Option<serde_json::Value>,
}

impl Response {
    /// Reads a whole answer.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The usage; `None` when it reports none. Cached input is counted inside the input.
    pub(super) fn usage(&self) -> Option<Usage> {
        let usage = self.usage.as_ref()?;
        usage.input_tokens.or(usage.output_tokens)?;
        let count = |field: Option<Count>| field.map_or(0, |count| count.0);
        let input = count(usage.input_tokens);
        let details = usage.input_tokens_details.as_ref();
        let cache_read = details.map_or(0, |d| d.cached_tokens.0).min(input);
        let rest = input.saturating_sub(cache_read);
        let written = details.map_or(0, |d| d.cache_write_tokens.0).min(rest);
        let searches = self.tool_usage.as_ref().and_then(|t| t.web_search.as_ref());
        Some(Usage {
            tokens: Tokens {
                input: rest.saturating_sub(written),
                cache_read,
                cache_write_5m: written,
                cache_write_1h: 0,
                output: count(usage.output_tokens),
            },
            web_searches: searches.map_or(0, |search| search.num_requests.0),
            tier: self.service_tier.as_deref().and_then(priced_tier),
        })
    }
}

impl Event {
    /// Whether nothing of value can follow.
    pub(super) fn is_last(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled"
        )
    }

    /// What went wrong, when the event says that something did: within `error`, within the response, or at its own top.
    pub(super) fn trouble(self) -> Option<Trouble> {
        match self.kind.as_str() {
            "error" => Some(self.error.unwrap_or(Trouble {
                kind: None,
                code: self.code,
                message: self.message,
                param: self.param,
            })),
            "response.failed" => Some(self.response.and_then(|it| it.error).unwrap_or_default()),
            _ => self.error,
        }
    }
}

/// The id of the response that a whole answer tells of.
pub(super) fn id_of(body: &[u8]) -> Option<String> {
    Response::read(body)?.id
}
