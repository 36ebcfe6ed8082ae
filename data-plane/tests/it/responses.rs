//! Responses and the counting of tokens: passed through to the byte, metered by what they are, and kept with who made them.

use std::time::Duration;

use proxyxai_proto::{
    config::v1::{ProviderKind, RouteLevel, resource::Kind},
    usage::v1::Outcome,
};

use crate::harness::{
    Core, Setup, Step, Upstream, core, header, openai, plain, post_as, provider, run, stream,
    stream_open,
};

const PATH: &str = "/v1/responses";
const ASK: &str = r#"{"model":"gpt-4o-mini","input":"hello"}"#;
const ASK_STREAM: &str = r#"{"model":"gpt-4o-mini","input":"hello","stream":true}"#;
const USAGE: &str = r#"{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":15}"#;
const CREATED: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_s\",\"error\":null,\"usage\":null}}\n\n";
const DELTA: &str = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"delta\":\"hi\"}\n\n";

fn whole(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","object":"response","status":"completed","output":[],"usage":{USAGE}}}"#
    )
}

fn last(kind: &str) -> String {
    format!(
        "event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":2,\"response\":{{\"id\":\"resp_s\",\"usage\":{USAGE}}}}}\n\n"
    )
}

/// What is booked of one request: outcome, input, cache read, output, estimated.
async fn booked(core: &Core) -> (Outcome, u64, u64, u64, bool) {
    let event = &core.events(1).await[0];
    let tokens = event.tokens.unwrap();
    assert_eq!(event.endpoint, "responses");
    (
        event.outcome(),
        tokens.input,
        tokens.cache_read,
        tokens.output,
        event.estimated,
    )
}

#[test]
fn responses_pass_through_and_are_metered() {
    run(|| async {
        let (core, upstream) = openai(&["a"], vec![plain("200 OK", "", &whole("resp_1"))]).await;
        let answer = core.post(PATH, ASK).await;
        assert_eq!((answer.status, answer.text()), (200, whole("resp_1")));
        assert_eq!(upstream.seen()[0].body, ASK.as_bytes());
        assert_eq!(booked(&core).await, (Outcome::Reported, 6, 4, 5, false));
    });
    for kind in ["completed", "incomplete", "failed"] {
        run(|| async {
            let parts = [CREATED, DELTA, &last(kind)].map(str::to_owned);
            let parts = parts.each_ref().map(String::as_str);
            let (core, upstream) = openai(&["a"], vec![stream(&parts)]).await;
            let answer = core.post(PATH, ASK_STREAM).await;
            assert_eq!(answer.text(), parts.concat(), "{kind}");
            assert_eq!(
                upstream.seen()[0].body,
                ASK_STREAM.as_bytes(),
                "usage is not asked for"
            );
            assert_eq!(booked(&core).await, (Outcome::Reported, 6, 4, 5, false));
        });
    }
}

#[test]
fn a_stream_that_is_cut_ends_with_an_error_that_clients_read() {
    run(|| async {
        let wait = Step::Wait(Duration::from_millis(30));
        let cut = [stream_open(&[CREATED, DELTA]), vec![wait, Step::Cut]].concat();
        let (core, _upstream) = openai(&["a"], vec![cut]).await;
        let text = core.post(PATH, ASK_STREAM).await.text();
        let event = text.split_once("event: error\ndata: ").unwrap().1;
        let event: serde_json::Value = serde_json::from_str(event.trim()).unwrap();
        assert_eq!(
            (&event["type"], &event["sequence_number"]),
            (&"error".into(), &2.into())
        );
        assert_eq!(
            event["error"]["code"], event["code"],
            "as the reference has it, and as clients look for it"
        );
        assert!(
            event["message"]
                .as_str()
                .unwrap()
                .ends_with("(gateway test)"),
            "{event}"
        );
        let (outcome, .., estimated) = booked(&core).await;
        assert_eq!((outcome, estimated), (Outcome::Unknown, true));
    });
}

#[test]
fn an_error_as_first_event_is_tried_elsewhere() {
    let flat = "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":\"server_error\",\"message\":\"m\",\"param\":null}\n\n";
    let failed = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"m\"}}}\n\n";
    for first in [flat, failed] {
        run(|| async {
            let good = stream(&[CREATED, &last("completed")]);
            let (core, _upstream) = openai(&["a", "b"], vec![stream(&[first]), good]).await;
            let answer = core.post(PATH, ASK_STREAM).await;
            assert!(answer.text().starts_with(CREATED), "{}", answer.text());
            assert_eq!(core.events(2).await[0].reason, "error_event");
        });
    }
    run(|| async {
        let refused = "event: error\ndata: {\"type\":\"error\",\"code\":\"invalid_prompt\",\"message\":\"m\",\"param\":null}\n\n";
        let (core, _upstream) = openai(&["a", "b"], vec![stream(&[refused])]).await;
        let answer = core.post(PATH, ASK_STREAM).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (400, Some("invalid_prompt"))
        );
    });
}

#[test]
fn what_goes_on_from_a_response_comes_to_the_key_that_made_it() {
    run(|| async {
        let answer = plain("200 OK", "", &whole("resp_1"));
        let streamed = stream(&[CREATED, &last("completed")]);
        let down = plain("500 Oops", "", "{}");
        let (core, upstream) = openai(
            &["a", "b", "c"],
            vec![
                answer.clone(),
                streamed,
                answer.clone(),
                answer.clone(),
                answer.clone(),
                down,
            ],
        )
        .await;
        assert_eq!(core.post(PATH, ASK).await.status, 200);
        assert_eq!(core.post(PATH, ASK_STREAM).await.status, 200);
        let on = |id: &str| {
            format!(r#"{{"model":"gpt-4o-mini","input":"on","previous_response_id":"{id}"}}"#)
        };
        for id in ["resp_1", "resp_s", "resp_s"] {
            assert_eq!(core.post(PATH, &on(id)).await.status, 200);
        }
        let keys: Vec<_> = upstream
            .seen()
            .iter()
            .map(|seen| header(&seen.head, "authorization").unwrap())
            .collect();
        assert_eq!(keys[2], keys[0]);
        assert_eq!((&keys[3], &keys[4]), (&keys[1], &keys[1]));
        assert_ne!(keys[0], keys[1]);
        // Nobody else can serve it, and what nobody here knows is tried once.
        for id in ["resp_1", "resp_unknown"] {
            let before = upstream.seen().len();
            assert_eq!(core.post(PATH, &on(id)).await.status, 502);
            assert_eq!(upstream.seen().len(), before + 1, "{id}");
        }
        // Of another account it does not exist.
        let before = upstream.seen().len();
        let answer = core.send(&post_as("team1", PATH, &on("resp_1"))).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (404, Some("previous_response_not_found"))
        );
        assert_eq!(upstream.seen().len(), before);
    });
}

#[test]
fn what_is_not_passed_on_says_what_is() {
    run(|| async {
        let (core, upstream) = openai(&["a"], vec![plain("200 OK", "", "{}")]).await;
        let check = async |line: &str, more: &str, status: u16, want: &str| {
            let key = crate::harness::secret("root");
            let request = format!(
                "{line} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {key}\r\n{more}Content-Length: 0\r\n\r\n"
            );
            let answer = core.send(request.as_bytes()).await;
            let message = answer.json()["error"]["message"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(answer.status, status, "{line}: {message}");
            assert!(message.contains(want), "{line}: {message}");
            assert_eq!(
                answer.json()["type"] == "error",
                line.contains("messages"),
                "{line}"
            );
        };
        for line in [
            "GET /v1/responses/resp_1",
            "DELETE /v1/responses/resp_1",
            "POST /v1/responses/resp_1/cancel",
            "POST /v1/responses/compact",
            "GET /v1/responses/resp_1/input_items",
        ] {
            check(line, "", 404, "POST /v1/responses").await;
        }
        check("POST /v1/messages/batches", "", 404, "POST /v1/messages").await;
        check("GET /v1/responses", "", 405, "answers POST alone").await;
        check(
            "GET /v1/responses",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            426,
            "without an upgrade",
        )
        .await;
        let background = r#"{"model":"gpt-4o-mini","input":"x","background":true}"#;
        assert_eq!(core.post(PATH, background).await.status, 400);
        assert_eq!(upstream.seen().len(), 0);
    });
}

#[test]
fn counting_tokens_costs_nothing_and_is_booked_as_such() {
    run(|| async {
        let upstream = Upstream::start([
            plain("500 Oops", "", "{}"),
            plain("200 OK", "", r#"{"input_tokens":14}"#),
        ])
        .await;
        let resources = provider(
            "an",
            ProviderKind::Anthropic,
            upstream.address,
            &["k1", "k2"],
        );
        let core = core(Setup {
            resources,
            ..Setup::default()
        })
        .await;
        let body = r#"{"model":"claude-sonnet-4-5","messages":[]}"#;
        let answer = core.post("/v1/messages/count_tokens?beta=true", body).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, r#"{"input_tokens":14}"#)
        );
        let events = core.events(2).await;
        for (event, outcome) in events.iter().zip([Outcome::Rejected, Outcome::Reported]) {
            assert_eq!(
                (event.endpoint.as_str(), event.outcome()),
                ("messages.count_tokens", outcome)
            );
            assert_eq!(
                (
                    event.cost_nano_usd,
                    event.unpriced,
                    event.tokens.unwrap().input
                ),
                (0, false, 0)
            );
        }
        let team = core
            .send(&post_as("team1", "/v1/messages/count_tokens", body))
            .await;
        assert_eq!(
            (team.status, team.json()["type"].as_str()),
            (403, Some("error")),
            "models that are not allowed are not counted"
        );
    });
}

#[test]
fn a_route_is_for_every_dialect() {
    run(|| async {
        let upstream = Upstream::start([plain("200 OK", "", &whole("r"))]).await;
        let mut resources = provider(
            "p",
            ProviderKind::OpenaiCompatible,
            upstream.address,
            &["a"],
        );
        resources.push(Kind::Route(proxyxai_proto::config::v1::Route {
            id: "r".into(),
            model: "fast-*".into(),
            upstream_model: "gpt-*".into(),
            provider_ids: vec!["p".into()],
            next_levels: Vec::<RouteLevel>::new(),
            ..proxyxai_proto::config::v1::Route::default()
        }));
        let core = core(Setup {
            resources,
            ..Setup::default()
        })
        .await;
        let answer = core
            .post(PATH, r#"{"model":"fast-4o-mini","input":"x"}"#)
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            upstream.seen()[0].body,
            br#"{"model":"gpt-4o-mini","input":"x"}"#
        );
        assert_eq!(booked(&core).await.0, Outcome::Reported);
    });
}
