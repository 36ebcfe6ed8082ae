//! Answers without faults: bodies are whole files, heads are lists. Held against the providers' references as of `docs` of the clients:
//! the fields, their order where it shows, the events and their order, and the headers that clients read.

use std::path::Path;

use proxyxai_testkit::Simulator;
use serde_json::{Value, json};

use super::client::{Dialect, End, call, chat, respond};

#[tokio::test(start_paused = true)]
async fn bodies_are_those_of_the_providers() {
    let openai_tools = json!({
        "tools": [{ "type": "function", "function": { "name": "weather", "parameters": {} } }], "tool_choice": "required",
    });
    let anthropic_tools = json!({
        "tools": [{ "name": "weather", "input_schema": {} }], "tool_choice": { "type": "any" },
    });
    let response_tools = json!({
        "tools": [{ "type": "function", "name": "weather", "parameters": {} }], "tool_choice": "required",
    });
    let with = |more: &Value, stream: bool| {
        let mut more = more.clone();
        more["stream"] = json!(stream);
        more
    };
    let usage = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let words = "tokens=2 cached=1 reasoning=3 cache_write=4 cache_write_1h=5";
    let embed =
        |format: &str| json!({ "model": "e", "input": ["a", "b"], "encoding_format": format });
    use Dialect::{Anthropic, Openai};
    for (fixture, dialect, path, body) in [
        ("chat.json", Openai, Openai.path(), chat(words, json!({}))),
        (
            "chat-capped-twice.json",
            Openai,
            Openai.path(),
            chat("tokens=9", json!({ "max_completion_tokens": 1, "n": 2 })),
        ),
        (
            "chat-tool.json",
            Openai,
            Openai.path(),
            chat("", openai_tools.clone()),
        ),
        (
            "chat.sse",
            Openai,
            Openai.path(),
            chat(words, json!({ "stream": true })),
        ),
        ("chat-usage.sse", Openai, Openai.path(), chat(words, usage)),
        (
            "chat-tool.sse",
            Openai,
            Openai.path(),
            chat("", with(&openai_tools, true)),
        ),
        (
            "response.json",
            Openai,
            "/v1/responses",
            respond(words, json!({})),
        ),
        (
            "response-capped.json",
            Openai,
            "/v1/responses",
            respond("tokens=9", json!({ "max_output_tokens": 1 })),
        ),
        (
            "response-tool.json",
            Openai,
            "/v1/responses",
            respond("", response_tools.clone()),
        ),
        (
            "response.sse",
            Openai,
            "/v1/responses",
            respond(words, json!({ "stream": true })),
        ),
        (
            "response-tool.sse",
            Openai,
            "/v1/responses",
            respond("", with(&response_tools, true)),
        ),
        (
            "count-tokens.json",
            Anthropic,
            "/v1/messages/count_tokens",
            chat(words, json!({})),
        ),
        ("embeddings.json", Openai, "/v1/embeddings", embed("float")),
        (
            "embeddings-base64.json",
            Openai,
            "/v1/embeddings",
            embed("base64"),
        ),
        ("models.json", Openai, "/v1/models", Value::Null),
        (
            "messages.json",
            Anthropic,
            Anthropic.path(),
            chat(words, json!({})),
        ),
        (
            "messages-tool.json",
            Anthropic,
            Anthropic.path(),
            chat("", anthropic_tools.clone()),
        ),
        (
            "messages.sse",
            Anthropic,
            Anthropic.path(),
            chat(words, json!({ "stream": true })),
        ),
        (
            "messages-tool.sse",
            Anthropic,
            Anthropic.path(),
            chat("", with(&anthropic_tools, true)),
        ),
        ("messages-models.json", Anthropic, "/v1/models", Value::Null),
    ] {
        let reply = call(&Simulator::new(), dialect, path, &body).await;
        assert_eq!(
            (reply.status, reply.end),
            (200, End::Whole),
            "{fixture}: {reply:?}"
        );
        let kind = if fixture.ends_with("sse") {
            "text/event-stream; charset=utf-8"
        } else {
            "application/json"
        };
        assert_eq!(reply.headers["content-type"], kind, "{fixture}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/fixtures")
            .join(fixture);
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            reply.body == expected,
            "{fixture} should be what is after the line, else mend the provider:\n{}",
            reply.body
        );
    }
}

#[tokio::test(start_paused = true)]
async fn heads_are_those_of_the_providers() {
    let common = ["cf-ray", "server", "set-cookie", "content-type", "date"];
    let openai = [
        "x-request-id",
        "openai-organization",
        "openai-processing-ms",
        "openai-version",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ];
    let anthropic = [
        "request-id",
        "anthropic-organization-id",
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ];
    let sim = Simulator::new();
    for (stream, length) in [(false, "content-length"), (true, "transfer-encoding")] {
        for (dialect, own) in [
            (Dialect::Openai, &openai[..]),
            (Dialect::Anthropic, &anthropic),
        ] {
            let body = chat("", json!({ "stream": stream }));
            let reply = call(&sim, dialect, dialect.path(), &body).await;
            let mut names: Vec<&str> = reply.headers.keys().map(|name| name.as_str()).collect();
            let cache = stream.then_some("cache-control");
            let mut expected: Vec<&str> = common
                .iter()
                .chain(own)
                .copied()
                .chain([length])
                .chain(cache)
                .collect();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected, "{dialect:?}");
        }
    }
    // Each request has a name of its own, and the bill knows it.
    let first = call(
        &sim,
        Dialect::Openai,
        "/v1/chat/completions",
        &chat("", json!({})),
    )
    .await;
    let id = first.headers["x-request-id"].to_str().unwrap();
    assert_eq!(sim.bill().rows.last().unwrap().request_id, id);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_gone_on_from_by_the_key_that_made_it() {
    let sim = Simulator::new();
    let path = "/v1/responses";
    let first = call(&sim, Dialect::Openai, path, &respond("", json!({}))).await;
    let id = first.json()["id"].clone();
    let on = respond("", json!({ "previous_response_id": id }));
    let next = call(&sim, Dialect::Openai, path, &on).await;
    assert_eq!(
        (next.status, &next.json()["previous_response_id"]),
        (200, &id)
    );
    let other = call(&Simulator::new(), Dialect::Openai, path, &on).await;
    let code = &other.json()["error"]["code"];
    assert_eq!(
        (other.status, code.as_str()),
        (400, Some("previous_response_not_found"))
    );
}
