//! Each fault, in both dialects: what the client meets, and that it meets it once.

use std::time::Duration;

use http::Request;
use proxyxai_testkit::{Fault, Simulator};
use serde_json::{Value, json};

use super::client::{Dialect, End, Reply, call, chat, respond, send};

/// The answer to a chat that meets this fault; the one after it is an ordinary one.
async fn meet(dialect: Dialect, fault: Value, stream: bool) -> Reply {
    let sim = Simulator::new();
    let fault: Fault = serde_json::from_value(fault).unwrap();
    sim.script("sk-1", [fault]);
    let body = chat("tokens=20", json!({ "stream": stream }));
    let reply = call(&sim, dialect, dialect.path(), &body).await;
    let next = call(&sim, dialect, dialect.path(), &body).await;
    assert_eq!(
        (next.status, next.end),
        (200, End::Whole),
        "a fault is met once"
    );
    reply
}

#[tokio::test(start_paused = true)]
async fn error_statuses_have_the_words_of_their_provider() {
    // OpenAI: type and code; Anthropic: type.
    for (status, openai, anthropic) in [
        (
            400,
            ("invalid_request_error", json!("invalid_value")),
            "invalid_request_error",
        ),
        (
            401,
            ("invalid_request_error", json!("invalid_api_key")),
            "authentication_error",
        ),
        (
            402,
            ("insufficient_quota", json!("insufficient_quota")),
            "billing_error",
        ),
        (
            403,
            (
                "invalid_request_error",
                json!("unsupported_country_region_territory"),
            ),
            "permission_error",
        ),
        (
            404,
            ("invalid_request_error", json!("model_not_found")),
            "not_found_error",
        ),
        (
            409,
            ("invalid_request_error", json!("conflict")),
            "conflict_error",
        ),
        (
            413,
            ("invalid_request_error", Value::Null),
            "request_too_large",
        ),
        (
            429,
            ("requests", json!("rate_limit_exceeded")),
            "rate_limit_error",
        ),
        (500, ("server_error", Value::Null), "api_error"),
        (
            503,
            ("server_error", json!("server_is_overloaded")),
            "api_error",
        ),
        (504, ("server_error", Value::Null), "timeout_error"),
        (529, ("server_error", Value::Null), "overloaded_error"),
    ] {
        for stream in [false, true] {
            let reply = meet(Dialect::Openai, json!({ "status": status }), stream).await;
            assert_eq!((reply.status, reply.end), (status, End::Whole));
            let error = &reply.json()["error"];
            let names: Vec<&String> = error.as_object().unwrap().keys().collect();
            assert_eq!(names.len(), 4, "message, type, param, code: {names:?}");
            assert_eq!(
                (error["type"].as_str(), &error["code"]),
                (Some(openai.0), &openai.1),
                "{status}"
            );
            assert!(error["param"].is_null() && error["message"].is_string());

            let reply = meet(Dialect::Anthropic, json!({ "status": status }), stream).await;
            assert_eq!((reply.status, reply.end), (status, End::Whole));
            let body = reply.json();
            assert_eq!(
                (body["type"].as_str(), body["error"]["type"].as_str()),
                (Some("error"), Some(anthropic))
            );
            assert_eq!(
                body["request_id"],
                reply.headers["request-id"].to_str().unwrap()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn faults_are_what_they_say() {
    for dialect in Dialect::BOTH {
        // (fault, stream, status, end, bytes of the body if it is not the whole)
        for (fault, stream, status, end, bytes) in [
            (
                json!({ "cut_at_byte": 100 }),
                false,
                200,
                End::Broken,
                Some(100),
            ),
            (
                json!({ "cut_at_byte": 100 }),
                true,
                200,
                End::Broken,
                Some(100),
            ),
            (json!({ "cut_at_byte": 1 }), true, 200, End::Broken, Some(1)),
            (
                json!({ "cut_at_byte": 1_000_000 }),
                true,
                200,
                End::Whole,
                None,
            ),
            (
                json!({ "stall_at_byte": 100 }),
                false,
                200,
                End::Silent,
                Some(100),
            ),
            (
                json!({ "stall_at_byte": 100 }),
                true,
                200,
                End::Silent,
                Some(100),
            ),
            (
                json!({ "stall_at_byte": 0 }),
                true,
                200,
                End::Silent,
                Some(0),
            ),
            (json!({ "close": true }), false, 0, End::Broken, Some(0)),
            (
                json!({ "status": 503, "body": "<html>" }),
                false,
                503,
                End::Whole,
                Some(6),
            ),
        ] {
            let reply = meet(dialect, fault.clone(), stream).await;
            let context = format!("{dialect:?} {fault} {reply:?}");
            assert_eq!((reply.status, reply.end), (status, end), "{context}");
            if let Some(bytes) = bytes {
                assert_eq!(reply.body.len(), bytes, "{context}");
            }
        }
        let late = meet(dialect, json!({ "delay_ms": 700 }), false).await;
        assert!(late.took >= Duration::from_millis(700) && late.status == 200);

        let throttled = json!({ "status": 429, "headers": { "retry-after": "7" } });
        assert_eq!(
            meet(dialect, throttled, false).await.headers["retry-after"],
            "7"
        );

        let error = meet(dialect, json!({ "first_event_error": true }), true).await;
        assert_eq!((error.status, error.end), (200, End::Whole));
        let begins = match dialect {
            Dialect::Openai => "data: {\"error\":{",
            Dialect::Anthropic => "event: error\ndata: {",
        };
        assert!(
            error.body.starts_with(begins) && error.body.ends_with("}\n\n"),
            "{error:?}"
        );

        for stream in [false, true] {
            let malformed = meet(dialect, json!({ "malformed": true }), stream).await;
            assert_eq!((malformed.status, malformed.end), (200, End::Whole));
            let last = malformed.body.trim_end().rsplit("data: ").next().unwrap();
            assert!(
                serde_json::from_str::<Value>(last).is_err(),
                "{malformed:?}"
            );
            let silent = meet(dialect, json!({ "no_usage": true }), stream).await;
            assert!(!silent.body.contains("_tokens"), "{silent:?}");
            assert_eq!(silent.end, End::Whole);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_a_provider_refuses_are_refused() {
    let openai = |body: &str, key: &str| {
        let request = Request::post("/v1/chat/completions").header("authorization", key);
        request.body(body.to_owned().into()).unwrap()
    };
    let anthropic = |body: &str, version: bool| {
        let request = Request::post("/v1/messages").header("x-api-key", "sk-1");
        let request = if version {
            request.header("anthropic-version", "2023-06-01")
        } else {
            request
        };
        request.body(body.to_owned().into()).unwrap()
    };
    for (request, status, part) in [
        (openai("{}", "Bearer sk-1"), 400, "model parameter"),
        (openai("{", "Bearer sk-1"), 400, "parse the JSON"),
        (openai("{}", ""), 401, "invalid_api_key"),
        (openai("{}", "Bearer sk-2"), 401, "invalid_api_key"),
        (anthropic("{}", true), 400, "max_tokens: Field required"),
        (anthropic("{}", false), 400, "anthropic-version"),
        (anthropic("{", true), 400, "not valid JSON"),
    ] {
        let sim = Simulator::new();
        sim.accept_only(["sk-1".to_owned()]);
        let reply = send(&sim, request).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.body.contains(part), "{reply:?}");
        assert!(sim.bill().rows.is_empty(), "a refusal costs nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn responses_fail_in_their_own_words() {
    let meet = async |fault: Value, stream: bool| {
        let sim = Simulator::new();
        sim.script("sk-1", [serde_json::from_value(fault).unwrap()]);
        let body = respond("tokens=20", json!({ "stream": stream }));
        let reply = call(&sim, Dialect::Openai, "/v1/responses", &body).await;
        (reply, sim.bill().rows)
    };
    for stream in [false, true] {
        let (refused, bill) = meet(json!({ "status": 429 }), stream).await;
        let code = refused.json()["error"]["code"].clone();
        assert_eq!(
            (refused.status, &code),
            (429, &json!("rate_limit_exceeded"))
        );
        assert!(bill.is_empty());
        let (cut, bill) = meet(json!({ "cut_at_byte": 700 }), stream).await;
        assert_eq!((cut.end, cut.body.len()), (End::Broken, 700));
        assert!(!bill[0].whole, "what was generated is charged");
        let (malformed, bill) = meet(json!({ "malformed": true }), stream).await;
        let last = malformed.body.trim_end().rsplit("data: ").next().unwrap();
        assert!(serde_json::from_str::<Value>(last).is_err() && !bill[0].usage_sent);
        let (silent, bill) = meet(json!({ "no_usage": true }), stream).await;
        assert!(silent.body.contains("\"usage\":null") && !silent.body.contains("total_tokens"));
        assert!(!bill[0].usage_sent && bill[0].output == 20);
    }
    let (error, bill) = meet(json!({ "first_event_error": true }), true).await;
    let event = "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":\"server_error\",\"message\":";
    assert!(
        error.body.starts_with(event) && bill.is_empty(),
        "{error:?}"
    );
}
