//! Simulated Anthropic: messages, models, and its errors, to the byte where clients look.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use crate::{
    answer::{Piece, SimBody},
    order,
    prompt::{Wish, input_tokens, tokens, words},
    sim::{Call, events, json as answer_json},
};

const MODELS: [(&str, &str); 3] = [
    ("claude-sonnet-4-5", "Claude Sonnet 4.5"),
    ("claude-opus-4-5", "Claude Opus 4.5"),
    ("claude-haiku-4-5", "Claude Haiku 4.5"),
];

/// Answers a request.
pub(crate) fn answer(call: &Call) -> Response<SimBody> {
    if !call.headers.contains_key("anthropic-version") {
        return error(call, 400, Some("anthropic-version: header is required"));
    }
    match call.path.as_str() {
        "/v1/models" => list(),
        path if path.starts_with("/v1/models/") => {
            let id = path.trim_start_matches("/v1/models/");
            match MODELS.iter().find(|(known, _)| *known == id) {
                Some((id, name)) => answer_json(200, SimBody::free(written(&model(id, name)))),
                None => error(call, 404, None),
            }
        }
        "/v1/messages" => messages(call),
        "/v1/messages/count_tokens" => count_tokens(call),
        _ => error(call, 404, None),
    }
}

/// An error, in the words of Anthropic unless others are given.
pub(crate) fn error(call: &Call, status: u16, message: Option<&str>) -> Response<SimBody> {
    if let Some(body) = &call.fault.body {
        return answer_json(status, SimBody::free(body.clone()));
    }
    let (kind, usual) = words_of(status);
    let body = json!({ "type": "error", "error": { "type": kind, "message": message.unwrap_or(usual) }, "request_id": call.request_id });
    answer_json(status, SimBody::free(written(&body)))
}

fn words_of(status: u16) -> (&'static str, &'static str) {
    match status {
        401 => ("authentication_error", "invalid x-api-key"),
        402 => (
            "billing_error",
            "Your credit balance is too low to access the Anthropic API.",
        ),
        403 => (
            "permission_error",
            "Your API key does not have permission to use the specified resource.",
        ),
        404 => ("not_found_error", "The requested resource was not found."),
        409 => ("conflict_error", "The resource was changed meanwhile."),
        413 => (
            "request_too_large",
            "Request exceeds the maximum allowed number of bytes.",
        ),
        429 => (
            "rate_limit_error",
            "This request would exceed your organization's rate limit.",
        ),
        504 => ("timeout_error", "The request timed out."),
        529 => ("overloaded_error", "Overloaded"),
        500.. => ("api_error", "Internal server error"),
        _ => ("invalid_request_error", "The request is not valid."),
    }
}

fn written(value: &Value) -> String {
    order::text(value, order::ANTHROPIC)
}

fn list() -> Response<SimBody> {
    let data: Vec<Value> = MODELS.iter().map(|(id, name)| model(id, name)).collect();
    let (first, last) = (
        MODELS.first().map(|(id, _)| id),
        MODELS.last().map(|(id, _)| id),
    );
    let list = json!({ "data": data, "has_more": false, "first_id": first, "last_id": last });
    answer_json(200, SimBody::free(written(&list)))
}

fn model(id: &str, name: &str) -> Value {
    json!({ "type": "model", "id": id, "display_name": name, "created_at": "2025-09-29T00:00:00Z", "max_input_tokens": 200_000, "max_tokens": 64_000 })
}

/// Counts and charges nothing.
fn count_tokens(call: &Call) -> Response<SimBody> {
    let Ok(request) = serde_json::from_slice::<Value>(&call.body) else {
        return error(call, 400, Some("The request body is not valid JSON."));
    };
    for field in ["model", "messages"] {
        if request.get(field).is_none() {
            return error(call, 400, Some(&format!("{field}: Field required")));
        }
    }
    let counted = json!({ "input_tokens": input_tokens(&request) });
    answer_json(200, SimBody::free(written(&counted)))
}

fn messages(call: &Call) -> Response<SimBody> {
    let Ok(request) = serde_json::from_slice::<Value>(&call.body) else {
        return error(call, 400, Some("The request body is not valid JSON."));
    };
    let model = request
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some(cap) = request.get("max_tokens").and_then(Value::as_u64) else {
        return error(call, 400, Some("max_tokens: Field required"));
    };
    let wish = Wish::of(&request);
    let input = input_tokens(&request);
    let tool = tool_of(&request);
    let message = Message {
        shown: wish.tokens.min(cap),
        capped: cap < wish.tokens,
        id: format!("msg_{}", call.request_id),
        model,
        wish,
        input,
        tool,
    };
    if request
        .get("stream")
        .and_then(Value::as_bool)
        .unwrap_or(false)
    {
        message.streamed(call)
    } else {
        message.plain(call)
    }
}

struct Message {
    id: String,
    model: String,
    wish: Wish,
    input: u64,
    shown: u64,
    capped: bool,
    tool: Option<String>,
}

const ARGUMENTS: [&str; 2] = ["{\"city\": ", "\"Lisbon\"}"];

impl Message {
    fn stop_reason(&self) -> &'static str {
        match (&self.tool, self.capped) {
            (Some(_), _) => "tool_use",
            (None, true) => "max_tokens",
            (None, false) => "end_turn",
        }
    }

    fn output(&self) -> u64 {
        let shown = if self.tool.is_some() {
            ARGUMENTS
                .iter()
                .map(|part| tokens(part))
                .fold(0, u64::saturating_add)
        } else {
            self.shown
        };
        shown.saturating_add(self.wish.reasoning)
    }

    /// Cached input stands beside `input_tokens`, as Anthropic counts it.
    fn usage(&self, output: u64) -> Value {
        let written = self
            .wish
            .cache_write
            .saturating_add(self.wish.cache_write_1h);
        json!({
            "input_tokens": self.input, "cache_creation_input_tokens": written, "cache_read_input_tokens": self.wish.cached,
            "cache_creation": { "ephemeral_5m_input_tokens": self.wish.cache_write, "ephemeral_1h_input_tokens": self.wish.cache_write_1h },
            "output_tokens": output, "service_tier": "standard",
        })
    }

    fn frame(&self, content: Value, stop: Option<&str>, usage: Value) -> Value {
        json!({ "model": self.model, "id": self.id, "type": "message", "role": "assistant", "content": content,
                "stop_reason": stop, "stop_sequence": null, "usage": usage })
    }

    fn plain(&self, call: &Call) -> Response<SimBody> {
        let content = match &self.tool {
            Some(name) => {
                json!([{ "type": "tool_use", "id": "toolu_sim1", "name": name, "input": { "city": "Lisbon" } }])
            }
            None => json!([{ "type": "text", "text": words(self.shown).collect::<String>() }]),
        };
        let mut answer = self.frame(content, Some(self.stop_reason()), self.usage(self.output()));
        if let (true, Some(object)) = (call.fault.no_usage, answer.as_object_mut()) {
            object.remove("usage");
        }
        let body = if call.fault.malformed {
            "{\"model\": \"claude".to_owned()
        } else {
            written(&answer)
        };
        let length = u64::try_from(body.len()).ok();
        let pieces = vec![Piece::now(body, self.output())];
        answer_json(
            200,
            SimBody::billed(&call.state, self.row(call), pieces, length, &call.fault),
        )
    }

    fn row(&self, call: &Call) -> crate::BillRow {
        let mut row = call.row(&self.model, self.input);
        row.cache_read = self.wish.cached;
        row.cache_write_5m = self.wish.cache_write;
        row.cache_write_1h = self.wish.cache_write_1h;
        row.usage_sent &= !call.fault.malformed;
        row
    }

    fn streamed(&self, call: &Call) -> Response<SimBody> {
        let event = |name: &str, data: Value, output: u64| {
            let data = written(&data);
            Piece::now(format!("event: {name}\ndata: {data}\n\n"), output)
        };
        if call.fault.first_event_error {
            let data = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" }, "request_id": call.request_id });
            let data = written(&data);
            return events(SimBody::free(format!("event: error\ndata: {data}\n\n")));
        }
        let start = json!({ "type": "message_start", "message": self.frame(json!([]), None, if call.fault.no_usage { json!(null) } else { self.usage(1) }) });
        let mut pieces = vec![event("message_start", start, self.wish.reasoning)];
        let block = match &self.tool {
            Some(name) => {
                json!({ "type": "tool_use", "id": "toolu_sim1", "name": name, "input": {} })
            }
            None => json!({ "type": "text", "text": "" }),
        };
        pieces.push(event(
            "content_block_start",
            json!({ "type": "content_block_start", "index": 0, "content_block": block }),
            0,
        ));
        pieces.push(event("ping", json!({ "type": "ping" }), 0));
        let delta =
            |delta: Value| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
        if self.tool.is_some() {
            for part in ARGUMENTS {
                let data = delta(json!({ "type": "input_json_delta", "partial_json": part }));
                pieces.push(event("content_block_delta", data, tokens(part)));
            }
        } else {
            let delay = Duration::from_millis(self.wish.delay_ms);
            for word in words(self.shown) {
                let piece = event(
                    "content_block_delta",
                    delta(json!({ "type": "text_delta", "text": word })),
                    1,
                );
                pieces.push(Piece { delay, ..piece });
            }
        }
        pieces.push(event(
            "content_block_stop",
            json!({ "type": "content_block_stop", "index": 0 }),
            0,
        ));
        let stop = json!({ "stop_reason": self.stop_reason(), "stop_sequence": null });
        let last = if call.fault.no_usage {
            json!({ "type": "message_delta", "delta": stop })
        } else {
            json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": self.output() } })
        };
        pieces.push(event("message_delta", last, 0));
        pieces.push(event("message_stop", json!({ "type": "message_stop" }), 0));
        if call.fault.malformed {
            pieces.truncate(3);
            pieces.push(Piece::now(
                "event: content_block_delta\ndata: {\"type\": \n\n",
                0,
            ));
        }
        events(SimBody::billed(
            &call.state,
            self.row(call),
            pieces,
            None,
            &call.fault,
        ))
    }
}

fn tool_of(request: &Value) -> Option<String> {
    let choice = request.get("tool_choice")?;
    let wanted = match choice.get("type").and_then(Value::as_str)? {
        "any" => None,
        "tool" => choice.get("name").and_then(Value::as_str),
        _ => return None,
    };
    let first = request
        .get("tools")?
        .as_array()?
        .first()?
        .get("name")?
        .as_str()?;
    Some(wanted.unwrap_or(first).to_owned())
}
