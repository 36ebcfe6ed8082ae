//! Simulated OpenAI responses: created whole or as a stream of typed events, gone on from by the key that made them alone.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use crate::{
    answer::{Piece, SimBody},
    openai, order,
    prompt::{Wish, input_tokens, tokens, words},
    sim::{Call, events, json as answer_json},
};

const CREATED: u64 = 1_760_000_000;
const ARGUMENTS: [&str; 2] = [r#"{"city":"#, r#""Lisbon"}"#];

/// Answers a request to create one.
pub(crate) fn answer(call: &Call, request: &Value) -> Response<SimBody> {
    let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("model").is_empty() {
        return openai::error(call, 400, Some("you must provide a model parameter"));
    }
    let previous = text("previous_response_id");
    if !previous.is_empty() && call.state.lock().made.get(previous) != Some(&call.key) {
        return not_found(previous);
    }
    let id = format!("resp_{}", call.request_id);
    let wish = Wish::of(request);
    let cap = request.get("max_output_tokens").and_then(Value::as_u64);
    let shape = Made {
        shown: wish.tokens.min(cap.unwrap_or(u64::MAX)),
        capped: cap.is_some_and(|cap| cap < wish.tokens),
        tool: tool_of(request),
        input: input_tokens(request),
        model: text("model").to_owned(),
        previous: request.get("previous_response_id").cloned(),
        cap: request.get("max_output_tokens").cloned(),
        id: id.clone(),
        wish,
    };
    call.state.lock().made.insert(id, call.key.clone());
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        shape.streamed(call)
    } else {
        shape.plain(call)
    }
}

fn not_found(id: &str) -> Response<SimBody> {
    let error = json!({ "error": {
        "message": format!("Previous response with id '{id}' not found."), "type": "invalid_request_error",
        "param": "previous_response_id", "code": "previous_response_not_found",
    } });
    answer_json(400, SimBody::free(order::text(&error, order::OPENAI)))
}

/// One response, whichever way it is told.
struct Made {
    id: String,
    model: String,
    wish: Wish,
    /// Name of the tool that is called instead of an answer.
    tool: Option<String>,
    shown: u64,
    capped: bool,
    input: u64,
    cap: Option<Value>,
    previous: Option<Value>,
}

impl Made {
    fn output(&self) -> u64 {
        let shown = if self.tool.is_some() {
            tokens(&ARGUMENTS.concat())
        } else {
            self.shown
        };
        shown.saturating_add(self.wish.reasoning)
    }

    fn cached(&self) -> u64 {
        self.wish.cached.min(self.input)
    }

    fn usage(&self, call: &Call) -> Value {
        if call.fault.no_usage {
            return Value::Null;
        }
        json!({
            "input_tokens": self.input, "input_tokens_details": { "cached_tokens": self.cached() }, "output_tokens": self.output(),
            "output_tokens_details": { "reasoning_tokens": self.wish.reasoning }, "total_tokens": self.input.saturating_add(self.output()),
        })
    }

    /// The item of output, empty while it is in progress.
    fn item(&self, done: bool) -> Value {
        let status = match (done, self.capped && self.tool.is_none()) {
            (false, _) => "in_progress",
            (true, true) => "incomplete",
            (true, false) => "completed",
        };
        match &self.tool {
            Some(name) => {
                let arguments = if done {
                    ARGUMENTS.concat()
                } else {
                    String::new()
                };
                json!({ "id": format!("fc_{}", self.id), "type": "function_call", "status": status, "arguments": arguments,
                        "call_id": "call_sim1", "name": name })
            }
            None => {
                let content: Vec<Value> = done.then(|| self.part(true)).into_iter().collect();
                json!({ "id": format!("msg_{}", self.id), "type": "message", "status": status, "content": content, "role": "assistant" })
            }
        }
    }

    fn part(&self, done: bool) -> Value {
        let text: String = if done {
            words(self.shown).collect()
        } else {
            String::new()
        };
        json!({ "type": "output_text", "annotations": [], "logprobs": [], "text": text })
    }

    fn response(&self, call: &Call, done: bool) -> Value {
        let incomplete = self.capped && self.tool.is_none();
        let (status, why) = match (done, incomplete) {
            (false, _) => ("in_progress", Value::Null),
            (true, true) => ("incomplete", json!({ "reason": "max_output_tokens" })),
            (true, false) => ("completed", Value::Null),
        };
        let (output, usage) = if done {
            (json!([self.item(true)]), self.usage(call))
        } else {
            (json!([]), Value::Null)
        };
        json!({
            "id": self.id, "object": "response", "created_at": CREATED, "status": status, "background": false, "error": null,
            "incomplete_details": why, "instructions": null, "max_output_tokens": self.cap, "model": self.model, "output": output,
            "parallel_tool_calls": true, "previous_response_id": self.previous, "reasoning": { "effort": null, "summary": null },
            "service_tier": "default", "store": true, "temperature": 1.0, "text": { "format": { "type": "text" } },
            "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
        })
    }

    fn plain(&self, call: &Call) -> Response<SimBody> {
        let body = if call.fault.malformed {
            "{\"id\":\"resp_sim\",\"object\":\"resp".to_owned()
        } else {
            order::text(&self.response(call, true), order::RESPONSE)
        };
        let length = u64::try_from(body.len()).ok();
        let pieces = vec![Piece::now(body, self.output())];
        let body = SimBody::billed(&call.state, self.row(call), pieces, length, &call.fault);
        answer_json(200, body)
    }

    fn row(&self, call: &Call) -> crate::BillRow {
        let mut row = call.row(&self.model, self.input.saturating_sub(self.cached()));
        row.cache_read = self.cached();
        row.usage_sent &= !call.fault.malformed;
        row
    }

    fn streamed(&self, call: &Call) -> Response<SimBody> {
        let mut stream = Stream::default();
        if call.fault.first_event_error {
            let message = "The server had an error while processing your request.";
            let event =
                stream.event(json!({ "type": "error", "code": "server_error", "message": message, "param": null }), 0);
            return events(SimBody::free(event.bytes));
        }
        let mut pieces = Vec::new();
        for kind in ["response.created", "response.in_progress"] {
            let began = json!({ "type": kind, "response": self.response(call, false) });
            pieces.push(stream.event(began, 0));
        }
        let item = json!({ "type": "response.output_item.added", "output_index": 0, "item": self.item(false) });
        pieces.push(stream.event(item, self.wish.reasoning));
        match &self.tool {
            Some(_) => self.arguments(&mut stream, &mut pieces),
            None => self.text(&mut stream, &mut pieces),
        }
        let item = json!({ "type": "response.output_item.done", "output_index": 0, "item": self.item(true) });
        pieces.push(stream.event(item, 0));
        let whole = self.response(call, true);
        let kind = format!("response.{}", whole["status"].as_str().unwrap_or_default());
        pieces.push(stream.event(json!({ "type": kind, "response": whole }), 0));
        if call.fault.malformed {
            pieces.truncate(3);
            pieces.push(Piece::now(
                "event: response.output_text.delta\ndata: {\"type\":\n\n",
                0,
            ));
        }
        let body = SimBody::billed(&call.state, self.row(call), pieces, None, &call.fault);
        events(body)
    }

    fn text(&self, stream: &mut Stream, pieces: &mut Vec<Piece>) {
        let delay = Duration::from_millis(self.wish.delay_ms);
        let of_part = |kind: &str, more: Value| {
            let mut event = json!({ "type": kind, "item_id": format!("msg_{}", self.id), "output_index": 0, "content_index": 0 });
            if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            event
        };
        let added = json!({ "part": self.part(false) });
        pieces.push(stream.event(of_part("response.content_part.added", added), 0));
        for word in words(self.shown) {
            let delta = json!({ "delta": word, "logprobs": [] });
            let piece = stream.event(of_part("response.output_text.delta", delta), 1);
            pieces.push(Piece { delay, ..piece });
        }
        let text: String = words(self.shown).collect();
        let done = json!({ "text": text, "logprobs": [] });
        pieces.push(stream.event(of_part("response.output_text.done", done), 0));
        let done = json!({ "part": self.part(true) });
        pieces.push(stream.event(of_part("response.content_part.done", done), 0));
    }

    fn arguments(&self, stream: &mut Stream, pieces: &mut Vec<Piece>) {
        let id = format!("fc_{}", self.id);
        for part in ARGUMENTS {
            let delta = json!({ "type": "response.function_call_arguments.delta", "item_id": id, "output_index": 0, "delta": part });
            pieces.push(stream.event(delta, tokens(part)));
        }
        let done = json!({ "type": "response.function_call_arguments.done", "item_id": id, "output_index": 0,
                           "arguments": ARGUMENTS.concat() });
        pieces.push(stream.event(done, 0));
    }
}

/// Numbers the events of a stream.
#[derive(Default)]
struct Stream {
    next: u64,
}

impl Stream {
    fn event(&mut self, mut data: Value, output: u64) -> Piece {
        data["sequence_number"] = json!(self.next);
        self.next = self.next.saturating_add(1);
        let kind = data["type"].as_str().unwrap_or_default();
        let text = order::text(&data, order::RESPONSE_EVENT);
        Piece::now(format!("event: {kind}\ndata: {text}\n\n"), output)
    }
}

/// The tool to call: any that is asked for by `tool_choice`.
fn tool_of(request: &Value) -> Option<String> {
    let choice = request.get("tool_choice")?;
    let named = choice.get("name").and_then(Value::as_str);
    if named.is_none() && choice.as_str() != Some("required") {
        return None;
    }
    let first = request.get("tools")?.as_array()?.first()?.get("name")?;
    Some(named.or(first.as_str())?.to_owned())
}
