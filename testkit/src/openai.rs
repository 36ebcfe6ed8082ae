//! Simulated OpenAI: chat completions, embeddings, models (responses beside it), and its errors, to the byte where clients look.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use crate::{
    answer::{Piece, SimBody},
    order,
    prompt::{Wish, input_tokens, tokens, words},
    responses,
    sim::{Call, events, json as answer_json},
};

const MODELS: [&str; 7] = [
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-5",
    "o3-mini",
    "text-embedding-3-small",
];
const CREATED: u64 = 1_760_000_000;

/// Answers a request.
pub(crate) fn answer(call: &Call) -> Response<SimBody> {
    match call.path.as_str() {
        "/v1/models" => list(),
        path if path.starts_with("/v1/models/") => {
            retrieve(call, path.trim_start_matches("/v1/models/"))
        }
        "/v1/chat/completions" | "/v1/embeddings" | "/v1/responses" => {
            let Ok(request) = serde_json::from_slice::<Value>(&call.body) else {
                return error(
                    call,
                    400,
                    Some("We could not parse the JSON body of your request."),
                );
            };
            match call.path.as_str() {
                "/v1/embeddings" => embeddings(call, &request),
                "/v1/responses" => responses::answer(call, &request),
                _ => chat(call, &request),
            }
        }
        _ => error(call, 404, Some("Invalid URL")),
    }
}

/// An error, in the words of OpenAI unless others are given.
pub(crate) fn error(call: &Call, status: u16, message: Option<&str>) -> Response<SimBody> {
    if let Some(body) = &call.fault.body {
        return answer_json(status, SimBody::free(body.clone()));
    }
    let (kind, code, usual) = words_of(status);
    let code = if status == 404 && message.is_none() {
        Some("model_not_found")
    } else {
        code
    };
    let body =
        json!({ "message": message.unwrap_or(usual), "type": kind, "param": null, "code": code });
    let members = ["message", "type", "param", "code"]
        .map(|name| format!("        \"{name}\": {}", body[name]))
        .join(",\n");
    answer_json(
        status,
        SimBody::free(format!("{{\n    \"error\": {{\n{members}\n    }}\n}}\n")),
    )
}

fn words_of(status: u16) -> (&'static str, Option<&'static str>, &'static str) {
    match status {
        400 => (
            "invalid_request_error",
            Some("invalid_value"),
            "Invalid value in the request.",
        ),
        401 => (
            "invalid_request_error",
            Some("invalid_api_key"),
            "Incorrect API key provided: sk-sim***. You can find your API key at https://platform.openai.com/account/api-keys.",
        ),
        402 => (
            "insufficient_quota",
            Some("insufficient_quota"),
            "You have run out of credits.",
        ),
        403 => (
            "invalid_request_error",
            Some("unsupported_country_region_territory"),
            "Country, region, or territory not supported",
        ),
        404 => (
            "invalid_request_error",
            None,
            "The model does not exist or you do not have access to it.",
        ),
        409 => (
            "invalid_request_error",
            Some("conflict"),
            "The resource was changed meanwhile.",
        ),
        422 => (
            "invalid_request_error",
            Some("unprocessable"),
            "The request cannot be processed.",
        ),
        429 => (
            "requests",
            Some("rate_limit_exceeded"),
            "Rate limit reached for requests. Please try again in 6ms.",
        ),
        503 => (
            "server_error",
            Some("server_is_overloaded"),
            "The engine is currently overloaded, please try again later",
        ),
        500.. => (
            "server_error",
            None,
            "The server had an error while processing your request. Sorry about that!",
        ),
        _ => ("invalid_request_error", None, "The request was refused."),
    }
}

fn list() -> Response<SimBody> {
    let data: Vec<Value> = MODELS.iter().map(|id| model(id)).collect();
    let list = json!({ "object": "list", "data": data });
    answer_json(200, SimBody::free(order::text(&list, order::OPENAI_MODEL)))
}

fn retrieve(call: &Call, id: &str) -> Response<SimBody> {
    if MODELS.contains(&id) {
        answer_json(
            200,
            SimBody::free(order::text(&model(id), order::OPENAI_MODEL)),
        )
    } else {
        error(call, 404, None)
    }
}

fn model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": CREATED, "owned_by": "system" })
}

fn embeddings(call: &Call, request: &Value) -> Response<SimBody> {
    let model = text(request, "model");
    let inputs = match request.get("input") {
        Some(Value::Array(items)) => items.len().max(1),
        _ => 1,
    };
    let numbers: Vec<f32> = (0_u8..16).map(|n| f32::from(n) / 64.0 - 0.125).collect();
    let vector = if text(request, "encoding_format") == "base64" {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        json!(base64(&bytes))
    } else {
        json!(numbers)
    };
    let data: Vec<Value> = (0..inputs)
        .map(|index| json!({ "object": "embedding", "index": index, "embedding": vector }))
        .collect();
    let input = input_tokens(request);
    let mut answer = json!({ "object": "list", "data": data, "model": model, "usage": { "prompt_tokens": input, "total_tokens": input } });
    strip_usage(call, &mut answer);
    let text = order::text(&answer, order::OPENAI_LIST);
    whole(call, &model, input, 0, 0, text)
}

fn chat(call: &Call, request: &Value) -> Response<SimBody> {
    let model = text(request, "model");
    if model.is_empty() {
        return error(call, 400, Some("you must provide a model parameter"));
    }
    let wish = Wish::of(request);
    let cap = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|key| request.get(*key).and_then(Value::as_u64));
    let choices = request
        .get("n")
        .and_then(Value::as_u64)
        .unwrap_or(1)
        .clamp(1, 128);
    let shape = Chat {
        tool: tool_of(request),
        shown: wish.tokens.min(cap.unwrap_or(u64::MAX)),
        capped: cap.is_some_and(|cap| cap < wish.tokens),
        input: input_tokens(request),
        choices,
        model,
        wish,
    };
    if request
        .get("stream")
        .and_then(Value::as_bool)
        .unwrap_or(false)
    {
        let options = request.get("stream_options");
        let usage = options
            .and_then(|options| options.get("include_usage"))
            .and_then(Value::as_bool)
            .unwrap_or(false);
        return shape.streamed(call, usage);
    }
    shape.plain(call)
}

/// One chat completion, whichever way it is told.
struct Chat {
    model: String,
    wish: Wish,
    /// Name of the tool that is called instead of an answer.
    tool: Option<String>,
    /// Tokens of each choice.
    shown: u64,
    capped: bool,
    input: u64,
    choices: u64,
}

impl Chat {
    fn finish(&self) -> &'static str {
        match (&self.tool, self.capped) {
            (Some(_), _) => "tool_calls",
            (None, true) => "length",
            (None, false) => "stop",
        }
    }

    fn arguments(&self) -> &'static str {
        r#"{"city":"Lisbon"}"#
    }

    fn output(&self) -> u64 {
        let each = if self.tool.is_some() {
            tokens(self.arguments())
        } else {
            self.shown
        };
        each.saturating_mul(self.choices)
            .saturating_add(self.wish.reasoning)
    }

    fn usage(&self) -> Value {
        let (output, cached) = (self.output(), self.wish.cached.min(self.input));
        json!({
            "prompt_tokens": self.input, "completion_tokens": output, "total_tokens": self.input.saturating_add(output),
            "prompt_tokens_details": { "cached_tokens": cached, "audio_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": self.wish.reasoning, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 },
        })
    }

    fn plain(&self, call: &Call) -> Response<SimBody> {
        let message = match &self.tool {
            Some(name) => {
                json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": [
                { "id": "call_sim1", "type": "function", "function": { "name": name, "arguments": self.arguments() } }] })
            }
            None => {
                json!({ "role": "assistant", "content": words(self.shown).collect::<String>(), "refusal": null, "annotations": [] })
            }
        };
        let choices: Vec<Value> = (0..self.choices)
            .map(|index| json!({ "index": index, "message": message, "logprobs": null, "finish_reason": self.finish() }))
            .collect();
        let mut answer = json!({
            "id": format!("chatcmpl-{}", call.request_id), "object": "chat.completion", "created": CREATED, "model": self.model,
            "choices": choices, "usage": self.usage(), "service_tier": "default", "system_fingerprint": "fp_sim",
        });
        strip_usage(call, &mut answer);
        whole(
            call,
            &self.model,
            self.input,
            self.wish.cached.min(self.input),
            self.output(),
            order::text(&answer, order::OPENAI),
        )
    }

    fn streamed(&self, call: &Call, with_usage: bool) -> Response<SimBody> {
        if call.fault.first_event_error {
            let error = json!({ "error": { "message": "The server had an error while processing your request.", "type": "server_error", "param": null, "code": null } });
            let error = order::text(&error, order::OPENAI);
            return events(SimBody::free(format!("data: {error}\n\n")));
        }
        let delay = Duration::from_millis(self.wish.delay_ms);
        let mut pieces = Vec::new();
        for index in 0..self.choices {
            pieces.push(self.chunk(
                call,
                index,
                json!({ "role": "assistant", "content": "", "refusal": null }),
                None,
                with_usage,
                0,
            ));
            if let Some(name) = &self.tool {
                let call_delta = |delta: Value| json!({ "tool_calls": [delta] });
                let opened = json!({ "index": 0, "id": "call_sim1", "type": "function", "function": { "name": name, "arguments": "" } });
                pieces.push(self.chunk(call, index, call_delta(opened), None, with_usage, 0));
                for part in [r#"{"city":"#, r#""Lisbon"}"#] {
                    let delta =
                        call_delta(json!({ "index": 0, "function": { "arguments": part } }));
                    pieces.push(self.chunk(call, index, delta, None, with_usage, tokens(part)));
                }
            } else {
                for word in words(self.shown) {
                    let piece =
                        self.chunk(call, index, json!({ "content": word }), None, with_usage, 1);
                    pieces.push(Piece { delay, ..piece });
                }
            }
            pieces.push(self.chunk(call, index, json!({}), Some(self.finish()), with_usage, 0));
        }
        if let Some(first) = pieces.first_mut() {
            first.output = first.output.saturating_add(self.wish.reasoning);
        }
        if with_usage && !call.fault.no_usage {
            let last = json!({
                "id": format!("chatcmpl-{}", call.request_id), "object": "chat.completion.chunk", "created": CREATED, "model": self.model,
                "service_tier": "default", "system_fingerprint": "fp_sim", "choices": [], "usage": self.usage(),
            });
            let last = order::text(&last, order::OPENAI_CHUNK);
            pieces.push(Piece::now(format!("data: {last}\n\n"), 0));
        }
        pieces.push(Piece::now("data: [DONE]\n\n", 0));
        if call.fault.malformed {
            pieces.truncate(2);
            pieces.push(Piece::now(
                "data: {\"id\":\"chatcmpl\",\"choices\":[{\n\n",
                0,
            ));
        }
        let cached = self.wish.cached.min(self.input);
        let mut row = call.row(&self.model, self.input.saturating_sub(cached));
        row.cache_read = cached;
        row.usage_sent &= with_usage && !call.fault.malformed;
        events(SimBody::billed(&call.state, row, pieces, None, &call.fault))
    }

    fn chunk(
        &self,
        call: &Call,
        index: u64,
        delta: Value,
        finish: Option<&str>,
        with_usage: bool,
        output: u64,
    ) -> Piece {
        let delta = order::text(&delta, order::OPENAI_DELTA);
        let usage = if with_usage { ",\"usage\":null" } else { "" };
        let finish = finish.map_or("null".to_owned(), |finish| format!("\"{finish}\""));
        let text = format!(
            "data: {{\"id\":\"chatcmpl-{}\",\"object\":\"chat.completion.chunk\",\"created\":{CREATED},\"model\":{},\"service_tier\":\"default\",\"system_fingerprint\":\"fp_sim\",\"choices\":[{{\"index\":{index},\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]{usage}}}\n\n",
            call.request_id,
            Value::from(self.model.as_str()),
        );
        Piece::now(text, output)
    }
}

/// The tool to call: any that is asked for by `tool_choice`.
fn tool_of(request: &Value) -> Option<String> {
    let choice = request.get("tool_choice")?;
    let named = choice
        .get("function")
        .and_then(|f| f.get("name"))
        .and_then(Value::as_str);
    if named.is_none() && choice.as_str() != Some("required") {
        return None;
    }
    let first = request
        .get("tools")?
        .as_array()?
        .first()?
        .get("function")?
        .get("name")?
        .as_str()?;
    Some(named.unwrap_or(first).to_owned())
}

/// A billed answer in one piece.
fn whole(
    call: &Call,
    model: &str,
    input: u64,
    cached: u64,
    output: u64,
    body: String,
) -> Response<SimBody> {
    let body = if call.fault.malformed {
        "{\"id\": \"chatcmpl-sim\", \"object\": \"chat.comp".to_owned()
    } else {
        body
    };
    let length = u64::try_from(body.len()).ok();
    let mut row = call.row(model, input.saturating_sub(cached));
    row.cache_read = cached;
    row.usage_sent &= !call.fault.malformed;
    answer_json(
        200,
        SimBody::billed(
            &call.state,
            row,
            vec![Piece::now(body, output)],
            length,
            &call.fault,
        ),
    )
}

fn strip_usage(call: &Call, answer: &mut Value) {
    if let (true, Some(object)) = (call.fault.no_usage, answer.as_object_mut()) {
        object.remove("usage");
    }
}

fn text(request: &Value, key: &str) -> String {
    request
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            (bits << 8) | u32::from(group.get(at).copied().unwrap_or(0))
        });
        for place in 0..4_u32 {
            let digit = ALPHABET.get(
                usize::try_from((bits >> (18_u32.saturating_sub(place.saturating_mul(6)))) & 63)
                    .unwrap_or(0),
            );
            let padding = usize::try_from(place).unwrap_or(0) > group.len();
            out.push(if padding {
                '='
            } else {
                digit.map_or('A', |b| char::from(*b))
            });
        }
    }
    out
}
