//! Plain answers, identification, headers, models, pages: the path end to end.

use proxyxai_proto::{config::v1::ProviderKind, usage::v1::Outcome};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    Answer, CHAT, COMPLETION, Setup, Upstream, core, openai, plain, post_as, provider, read_answer,
    run, secret,
};

#[test]
fn a_plain_answer_passes_unchanged_and_is_booked() {
    run(|| async {
        let headers = "x-request-id: up-7\r\nset-cookie: a=b\r\nserver: x\r\nx-ratelimit-remaining-tokens: 9\r\nopenai-organization: o\r\nconnection: x-hop\r\nx-hop: 1\r\n";
        let (core, upstream) = openai(&["k1"], vec![plain("200 OK", headers, COMPLETION)]).await;
        let answer = core.post("/v1/chat/completions", CHAT).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, COMPLETION));
        assert_eq!(answer.header("x-request-id").as_deref(), Some("up-7"));
        let id = answer.header("x-proxyxai-request-id").unwrap();
        for name in [
            "set-cookie",
            "server",
            "x-ratelimit-remaining-tokens",
            "openai-organization",
            "x-hop",
        ] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        let seen = &upstream.seen()[0];
        assert!(
            seen.head
                .starts_with("POST /v1/chat/completions HTTP/1.1\r\n")
        );
        assert_eq!(seen.body, CHAT.as_bytes());
        let event = &core.events(1).await[0];
        assert_eq!(event.request_id, id);
        assert_eq!(
            (event.attempt, event.status, event.outcome()),
            (1, 200, Outcome::Reported)
        );
        assert_eq!(
            (
                event.account_id.as_str(),
                event.provider_id.as_str(),
                event.upstream_key_id.as_str()
            ),
            ("root", "sim", "k1")
        );
        assert_eq!(
            (
                event.model.as_str(),
                event.endpoint.as_str(),
                event.reason.as_str()
            ),
            ("gpt-4o-mini", "chat.completions", "ok")
        );
        let tokens = event.tokens.unwrap();
        assert_eq!((tokens.input, tokens.output), (10, 5));
        assert!(
            !event.unpriced && !event.estimated && event.cost_nano_usd > 0,
            "{event:?}"
        );
        assert_eq!(
            core.metric("xai_requests_total{endpoint=\"chat.completions\",status=\"2xx\"}"),
            1
        );
        assert_eq!(core.metric("xai_requests_in_flight"), 0);
    });
}

#[test]
fn only_fitting_headers_reach_the_upstream() {
    run(|| async {
        let (core, upstream) = openai(&["k1"], vec![plain("200 OK", "", COMPLETION)]).await;
        let key = secret("root");
        let request = format!(
            "POST /v1/chat/completions?beta=true HTTP/1.1\r\nHost: gateway\r\nX-Api-Key: {key}\r\nanthropic-beta: b1\r\nOpenAI-Beta: b2\r\nx-stainless-lang: python\r\n\
             Cookie: c\r\nOpenAI-Organization: o\r\nOrigin: http://a\r\nX-Forwarded-For: 1.2.3.4\r\nX-OpenWebUI-User-Email: e\r\nAccept-Encoding: gzip, br\r\n\
             Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX_Api_Key: u\r\nX-Attempts-Left: 9\r\nContent-Length: {}\r\n\r\n{CHAT}",
            CHAT.len()
        );
        assert_eq!(core.send(request.as_bytes()).await.status, 200);
        let head = upstream.seen()[0].head.to_ascii_lowercase();
        assert!(
            head.starts_with("post /v1/chat/completions?beta=true http/1.1\r\n"),
            "{head}"
        );
        for line in [
            "authorization: bearer sk-k1",
            "anthropic-beta: b1",
            "openai-beta: b2",
            "x-stainless-lang: python",
            "accept-encoding: identity",
            &format!("host: {}", upstream.address),
        ] {
            assert!(
                head.lines().any(|have| have == line),
                "{line} is not in\n{head}"
            );
        }
        assert!(!head.contains(&key.to_ascii_lowercase()));
        for name in [
            "x-api-key",
            "cookie",
            "openai-organization",
            "origin",
            "x-forwarded-for",
            "x-openwebui-user-email",
            "x-mine",
            "x_api_key",
            "x-attempts-left",
            "connection",
            "gateway",
        ] {
            assert!(!head.contains(&format!("{name}:")), "{name} is in\n{head}");
        }
    });
}

#[test]
fn connections_are_reused_on_both_sides() {
    run(|| async {
        let (core, upstream) = openai(&["k1"], vec![plain("200 OK", "", COMPLETION)]).await;
        let mut client = core.connect().await;
        for _ in 0..5 {
            client
                .write_all(&post_as("root", "/v1/chat/completions", CHAT))
                .await
                .unwrap();
            assert_eq!(read_answer(&mut client).await.status, 200);
        }
        assert!(upstream.seen().iter().all(|seen| seen.connection == 0));
        core.events(5).await;
    });
}

#[test]
fn who_may_not_is_told_why() {
    run(|| async {
        let (core, upstream) = openai(&["k1"], vec![plain("200 OK", "", COMPLETION)]).await;
        let check = async |key: String, model: &str, status: u16, code: &str| {
            let body = CHAT.replace("gpt-4o-mini", model);
            let request = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n{key}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = core.send(request.as_bytes()).await;
            let error = answer.json()["error"].clone();
            assert_eq!(
                (answer.status, error["code"].as_str().unwrap()),
                (status, code),
                "{error}"
            );
            assert!(answer.header("x-request-id").is_some());
        };
        let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");
        let root = secret("root");
        check(String::new(), "m", 401, "invalid_api_key").await;
        check(bearer("sk-other"), "m", 401, "invalid_api_key").await;
        check(
            bearer(&root.replace("sk-pxai-", "sk-pxai-X")),
            "m",
            401,
            "invalid_api_key",
        )
        .await;
        check(
            bearer(&secret("no such account")),
            "m",
            401,
            "invalid_api_key",
        )
        .await;
        check(bearer(&secret("disabled")), "m", 401, "invalid_api_key").await;
        check(bearer(&secret("gone99")), "m", 403, "permission_denied").await;
        check(bearer(&secret("team1")), "o3", 403, "model_not_allowed").await;
        check(
            format!("{}X-Api-Key: sk-else\r\n", bearer(&root)),
            "m",
            401,
            "invalid_api_key",
        )
        .await;
        assert!(upstream.seen().is_empty());
        core.events(0).await;
    });
}

#[test]
fn law_12_an_absent_control_plane_never_causes_a_401() {
    run(|| async {
        let core = core(Setup {
            control_plane: false,
            ..Setup::default()
        })
        .await;
        let answer = core
            .send(&post_as(
                "unknown to the snapshot",
                "/v1/chat/completions",
                CHAT,
            ))
            .await;
        assert_eq!(
            (answer.status, answer.header("x-should-retry").as_deref()),
            (503, Some("true"))
        );
    });
}

#[test]
fn keys_that_do_not_exist_are_bounded_per_address() {
    run(|| async {
        let (core, _upstream) = openai(&["k1"], vec![plain("200 OK", "", COMPLETION)]).await;
        let mut statuses = Vec::new();
        for number in 0..52 {
            let request = post_as(&"x".repeat(30 + number), "/v1/chat/completions", CHAT);
            statuses.push(core.send(&request).await.status);
        }
        assert_eq!(
            statuses.iter().filter(|s| **s == 401).count(),
            50,
            "{statuses:?}"
        );
        assert_eq!(statuses.last(), Some(&429));
        assert_eq!(
            core.post("/v1/chat/completions", CHAT).await.status,
            200,
            "keys that exist are served"
        );
    });
}

#[test]
fn without_an_upstream_key_the_answer_says_how_to_add_one() {
    run(|| async {
        let core = core(Setup::default()).await;
        let answer = core.post("/v1/chat/completions", CHAT).await;
        assert_eq!(answer.status, 503);
        assert!(
            answer.text().contains("xai upstream-key create"),
            "{}",
            answer.text()
        );
        let answer = core.post("/v1/messages", CHAT).await;
        assert_eq!(answer.json()["type"], "error", "in the caller's dialect");
    });
}

#[test]
fn a_body_that_cannot_be_read_is_explained() {
    run(|| async {
        let (core, upstream) = openai(&["k1"], vec![plain("200 OK", "", COMPLETION)]).await;
        for body in [
            "",
            "[]",
            "{\"messages\":[]}",
            "{\"model\":\"a\",\"model\":\"b\"}",
            "{\"model\":\"a\"",
            "{\"model\":\"a\",\"stream\":1}",
        ] {
            let answer = core.post("/v1/chat/completions", body).await;
            assert_eq!(answer.status, 400, "{body}");
        }
        assert!(upstream.seen().is_empty());
    });
}

#[test]
fn anthropic_gets_its_own_header_and_shape() {
    run(|| async {
        let body = r#"{"id":"m","type":"message","model":"claude-sonnet-4-5","content":[],"usage":{"input_tokens":3,"cache_read_input_tokens":2,"output_tokens":4}}"#;
        let upstream = Upstream::start(vec![plain("200 OK", "", body)]).await;
        let resources = provider("an", ProviderKind::Anthropic, upstream.address, &["a1"]);
        let core = core(Setup {
            resources,
            ..Setup::default()
        })
        .await;
        let answer = core
            .post(
                "/v1/messages?beta=true",
                r#"{"model":"claude-sonnet-4-5","max_tokens":5,"messages":[]}"#,
            )
            .await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
        let head = upstream.seen()[0].head.to_ascii_lowercase();
        assert!(
            head.contains("x-api-key: sk-a1\r\n") && !head.contains("authorization"),
            "{head}"
        );
        let tokens = core.events(1).await[0].tokens.unwrap();
        assert_eq!((tokens.input, tokens.cache_read, tokens.output), (3, 2, 4));
    });
}

#[test]
fn models_of_all_providers_are_merged_and_filtered() {
    run(|| async {
        let list = |ids: &[&str]| {
            let data: Vec<String> = ids
                .iter()
                .map(|id| format!("{{\"id\":\"{id}\",\"object\":\"model\",\"own\":1}}"))
                .collect();
            plain(
                "200 OK",
                "",
                &format!("{{\"object\":\"list\",\"data\":[{}]}}", data.join(",")),
            )
        };
        let (one, two) = (
            Upstream::start(vec![plain("500 Oops", "", "{}"), list(&["gpt-4o", "o3"])]).await,
            Upstream::start(vec![list(&["gpt-4o-mini", "gpt-4o"])]).await,
        );
        let mut resources = provider("one", ProviderKind::Openai, one.address, &["k1", "k2"]);
        resources.extend(provider(
            "two",
            ProviderKind::OpenaiCompatible,
            two.address,
            &["k3"],
        ));
        let core = core(Setup {
            resources,
            ..Setup::default()
        })
        .await;
        let get = async |account: &str, extra: &str| -> Answer {
            let request = format!(
                "GET /v1/models HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\n{extra}\r\n",
                secret(account)
            );
            core.send(request.as_bytes()).await
        };
        let ids = |answer: &Answer| -> Vec<String> {
            let mut ids: Vec<String> = answer.json()["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["id"].as_str().unwrap().to_owned())
                .collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&get("root", "").await), ["gpt-4o", "gpt-4o-mini", "o3"]);
        assert_eq!(ids(&get("team1", "").await), ["gpt-4o", "gpt-4o-mini"]);
        assert_eq!(
            get("root", "anthropic-version: 2023-06-01\r\n")
                .await
                .status,
            503,
            "no provider speaks that dialect"
        );
        core.events(5).await;
    });
}

#[test]
fn people_and_probes_get_pages() {
    run(|| async {
        let core = core(Setup::default()).await;
        let get = async |line: &str, accept: &str| {
            core.send(
                format!(
                    "{line} HTTP/1.1\r\nHost: g\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
                )
                .as_bytes(),
            )
            .await
        };
        assert!(get("GET /", "*/*").await.text().contains("sk-pxai-"));
        assert_eq!(
            get("GET /", "application/json").await.json()["name"],
            "ProxyXAI"
        );
        assert_eq!(get("GET /api/hello", "*/*").await.status, 200);
        let unknown = get("GET /v1/nothing", "*/*").await;
        assert_eq!(
            (
                unknown.status,
                unknown.json()["error"]["code"].as_str().unwrap()
            ),
            (404, "not_found")
        );
        let wrong = get("GET /v1/messages", "*/*").await;
        assert_eq!(
            (
                wrong.status,
                wrong.header("allow").as_deref(),
                wrong.json()["type"].as_str()
            ),
            (405, Some("POST"), Some("error"))
        );
    });
}
