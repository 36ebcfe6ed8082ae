//! Traces of whole gateways, as a collector gets them, and the request log beside them.

use proxyxai_testkit::Fault;
use serde_json::{Value, json};

use super::{
    collector::{Collector, Trace, text},
    machines::Machine,
    process::{Ask, Gateway, Home, Reply, number, until},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn id(reply: &Reply) -> String {
    let id = &reply.headers["x-proxyxai-request-id"];
    id.to_str().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = Gateway::get(gateway.ops, "/metrics", &[]).await.body;
    page.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A gateway whose traces all go to a collector.
async fn traced(home: &Home, collector: &Collector, more: &[(&str, &str)]) -> Gateway {
    let (keys, url) = (home.keys(), collector.url());
    let mut variables = vec![
        ("XAI_KEYS", keys.as_str()),
        ("XAI_TRACE_ENDPOINT", url.as_str()),
        ("XAI_TRACE_RATIO", "1"),
    ];
    variables.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    variables.extend_from_slice(more);
    home.start(&variables).await
}

#[tokio::test]
async fn a_request_is_one_trace_through_both_planes() {
    let (home, collector) = (Home::new(), Collector::start().await);
    let headers = home.data().with_file_name("headers");
    std::fs::write(&headers, "Authorization: Bearer of-the-collector\n\n").unwrap();
    // Keys are looked up at the control plane, which is a part of the trace then.
    let more = [
        ("XAI_PRELOAD_MAX", "0"),
        ("XAI_TRACE_HEADERS_FILE", headers.to_str().unwrap()),
    ];
    let gateway = traced(&home, &collector, &more).await;
    let key = home.first_key();

    home.sim.script("*", [Fault::status(500)]);
    let reply = gateway
        .ask(&Ask::chat(&key, "gpt-4o-mini", "tokens=9"))
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let trace = collector.trace_of(&id(&reply), 8).await;
    trace.check_shape();
    let request = trace.one("POST /v1/chat/completions");
    assert!(request.parent_span_id.is_empty());
    for (attribute, expected) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/chat/completions"),
        ("http.response.status_code", "200"),
        ("xai.account", "root"),
        ("xai.attempts", "2"),
        ("gen_ai.request.model", "gpt-4o-mini"),
        ("xai.stream", "false"),
    ] {
        let found = text(&request.attributes, attribute);
        assert_eq!(found.as_deref(), Some(expected), "{attribute}");
    }
    assert!(request.status.is_none(), "the retry made it good");
    for step in ["identify", "plan", "relay"] {
        assert_eq!(trace.one(step).parent_span_id, request.span_id, "{step}");
    }
    let look_up = trace.one("look up key");
    let resolve = trace.one("proxyxai.config.v1.ConfigService/ResolveKeys");
    assert_eq!(resolve.parent_span_id, look_up.span_id);
    let attempts = trace.named("chat gpt-4o-mini");
    let say = |at: usize, key: &str| text(&attempts[at].attributes, key);
    for (at, key, expected) in [
        (0, "xai.reason", "provider_error"),
        (0, "xai.verdict", "discarded"),
        (0, "error.type", "provider_error"),
        (0, "http.response.status_code", "500"),
        (0, "xai.attempt", "1"),
        (1, "xai.reason", "ok"),
        (1, "xai.verdict", "returned"),
        (1, "http.response.status_code", "200"),
        (1, "xai.attempt", "2"),
        (1, "gen_ai.operation.name", "chat"),
        (1, "gen_ai.provider.name", "openai"),
        (1, "gen_ai.usage.output_tokens", "9"),
        (1, "server.address", "127.0.0.1"),
    ] {
        assert_eq!(say(at, key).as_deref(), Some(expected), "{key} of {at}");
    }
    assert_ne!(say(0, "xai.upstream_key"), say(1, "xai.upstream_key"));
    assert_eq!(
        attempts[0].status.as_ref().unwrap().message,
        "provider_error"
    );
    assert_eq!(attempts[1].events[0].name, "first byte");

    let streamed = Ask::messages(&key, "claude-sonnet-4-5", "tokens=5").streamed();
    let reply = gateway.ask(&streamed).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let trace = collector.trace_of(&id(&reply), 5).await;
    trace.check_shape();
    let attempt = trace.one("chat claude-sonnet-4-5");
    for (attribute, expected) in [
        ("gen_ai.provider.name", "anthropic"),
        ("gen_ai.usage.output_tokens", "5"),
        ("xai.reason", "ok"),
    ] {
        let found = text(&attempt.attributes, attribute);
        assert_eq!(found.as_deref(), Some(expected), "{attribute}");
    }
    let request = trace.one("POST /v1/messages");
    assert_eq!(text(&request.attributes, "xai.stream").unwrap(), "true");

    // Law 21: nothing that was asked, and no secret.
    let everything = format!("{:?}", collector.all());
    for secret in ["Tell me of the sea", "sk-openai-1", &key] {
        let without_headers = everything.matches(secret).count();
        assert_eq!(without_headers, 0, "{secret}");
    }
    let sent = &collector.all()[0].headers["authorization"];
    assert_eq!(sent, "Bearer of-the-collector");
    let dump = Gateway::get(gateway.ops, "/config", &[]).await.body;
    assert!(!dump.contains("of-the-collector"), "{dump}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_caller_decides_about_its_trace_and_providers_learn_nothing() {
    let (home, collector) = (Home::new(), Collector::start().await);
    let gateway = traced(&home, &collector, &[("XAI_TRACE_RATIO", "0")]).await;
    let key = home.first_key();
    let ask = async |parent: &str| {
        let body = Ask::chat(&key, "gpt-4o-mini", "tokens=3").body;
        let headers = [
            ("authorization", format!("Bearer {key}")),
            ("traceparent", parent.to_owned()),
            ("tracestate", "vendor=1".to_owned()),
            ("baggage", "user=42".to_owned()),
        ];
        let reply = gateway.post("/v1/chat/completions", &headers, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        id(&reply)
    };
    let unsampled = ask(&PARENT.replace("-01", "-00")).await;
    let nonsense = ask("00-nonsense").await;
    let sampled = ask(PARENT).await;
    let trace = collector.trace_of(&sampled, 5).await;
    let request = trace.one("POST /v1/chat/completions");
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), SPAN);
    assert_eq!(request.trace_state, "vendor=1");
    let all = format!("{:?}", collector.all());
    assert!(!all.contains(&unsampled) && !all.contains(&nonsense));
    let seen = format!("{:?}", home.seen().await);
    for header in ["traceparent", "tracestate", "baggage", "vendor=1"] {
        assert!(!seen.contains(header), "{header} in {seen}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_trace_goes_on_through_a_parent_gateway() {
    let (home, child_home) = (Home::new(), Home::new());
    let collector = Collector::start().await;
    let parent = traced(&home, &collector, &[("XAI_TRACE_RATIO", "0")]).await;
    let upstream = format!("{}::http://{}", home.first_key(), parent.client);
    let child = traced(&child_home, &collector, &[("XAI_KEYS", upstream.as_str())]).await;
    let ask = Ask::chat(&child_home.first_key(), "gpt-4o-mini", "tokens=4");
    let reply = child.ask(&ask).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let trace = collector.trace_of(&id(&reply), 10).await;
    let requests = trace.named("POST /v1/chat/completions");
    assert_eq!(requests.len(), 2, "{trace:#?}");
    let outer = requests
        .iter()
        .find(|it| it.parent_span_id.is_empty())
        .unwrap();
    let inner = requests
        .iter()
        .find(|it| !it.parent_span_id.is_empty())
        .unwrap();
    let attempts = trace.named("chat gpt-4o-mini");
    let of = |request: &[u8]| {
        let mut of = attempts.iter().filter(|it| it.parent_span_id == request);
        of.next().unwrap()
    };
    assert_eq!(inner.parent_span_id, of(&outer.span_id).span_id);
    assert_ne!(of(&inner.span_id).span_id, of(&outer.span_id).span_id);
    child.stop().await;
    parent.stop().await;
}

#[tokio::test]
async fn a_node_that_joins_is_a_trace_of_both_sides() {
    let (home, collector) = (Home::new(), Collector::start().await);
    let gateway = traced(&home, &collector, &[("XAI_TRACE_RATIO", "0")]).await;
    let token = home.json("join-token create").await["token"].clone();
    let (planes, url) = (format!("https://{}", gateway.grpc), collector.url());
    let variables = [
        ("XAI_CONTROL_PLANES", planes.as_str()),
        ("XAI_JOIN_TOKEN", token.as_str().unwrap()),
        ("XAI_TRACE_ENDPOINT", url.as_str()),
    ];
    let data = home.data().with_file_name("node");
    let node = Machine::start(&home, data, "xai-data-plane", &variables).await;
    let trace = until("both spans come", async || {
        let all = Trace(collector.all());
        let asked = all.named("join").first()?.span_id.clone();
        let joined = all.named("proxyxai.node.v1.JoinService/Join");
        let parent = joined.first()?.parent_span_id.clone();
        Some((asked, parent))
    })
    .await;
    assert_eq!(trace.0, trace.1);
    node.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_failed_is_kept_whatever_the_share() {
    let (home, collector) = (Home::new(), Collector::start().await);
    let gateway = traced(&home, &collector, &[("XAI_TRACE_RATIO", "0")]).await;
    let key = home.first_key();
    let good = gateway
        .ask(&Ask::chat(&key, "gpt-4o-mini", "tokens=2"))
        .await;
    let mistaken = gateway.ask(&Ask::chat("sk-wrong", "gpt-4o-mini", "")).await;
    assert_eq!((good.status, mistaken.status), (200, 401));
    home.sim
        .script("*", [Fault::status(500), Fault::status(503)]);
    let bad = gateway.ask(&Ask::chat(&key, "gpt-4o-mini", "")).await;
    assert_eq!(bad.status, 502);
    let cut = Fault {
        cut_at_byte: Some(700),
        ..Fault::default()
    };
    home.sim.script("*", [cut]);
    let ask = Ask::chat(&key, "gpt-4o-mini", "tokens=50").streamed();
    let broken = gateway.ask(&ask).await;
    assert_eq!(broken.status, 200, "{broken:?}");
    let trace = collector.trace_of(&id(&bad), 6).await;
    trace.check_shape();
    let request = trace.one("POST /v1/chat/completions");
    assert_eq!(
        request.status.as_ref().unwrap().message,
        "upstream_failed",
        "{request:?}"
    );
    assert_eq!(trace.named("chat gpt-4o-mini").len(), 2);
    let trace = collector.trace_of(&id(&broken), 5).await;
    let request = trace.one("POST /v1/chat/completions");
    assert_eq!(request.status.as_ref().unwrap().message, "upstream_cut");
    let all = format!("{:?}", collector.all());
    assert!(!all.contains(&id(&good)), "it went well");
    assert!(!all.contains(&id(&mistaken)), "it was the client's fault");
    gateway.stop().await;
}

#[tokio::test]
async fn a_dead_collector_costs_requests_nothing() {
    let home = Home::new();
    // A port that was free a moment ago, and where nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let keys = home.keys();
    let variables = [
        ("XAI_KEYS", keys.as_str()),
        ("XAI_TRACE_ENDPOINT", url.as_str()),
        ("XAI_TRACE_RATIO", "1"),
    ];
    let gateway = home.start(&variables).await;
    let ask = Ask::chat(&home.first_key(), "gpt-4o-mini", "tokens=1");
    for _ in 0..20 {
        assert_eq!(gateway.ask(&ask).await.status, 200);
    }
    until("spans are given up and counted", async || {
        let name = "xai_trace_spans_dropped_total{reason=\"unreachable\"}";
        metric(&gateway, name).await.filter(|spans| *spans > 0)
    })
    .await;
    assert_eq!(gateway.ask(&ask).await.status, 200);
    let complaints = gateway
        .said()
        .matches("the collector takes no traces")
        .count();
    assert_eq!(complaints, 1, "{}", gateway.said());
    assert_eq!(
        metric(&gateway, "xai_trace_spans_sent_total").await,
        Some(0)
    );
    gateway.stop().await;
}

#[tokio::test]
async fn the_request_log_has_one_line_for_each_request() {
    let (home, collector) = (Home::new(), Collector::start().await);
    let log = home.data().with_file_name("requests.log");
    let more = [("XAI_REQUEST_LOG", log.to_str().unwrap())];
    let gateway = traced(&home, &collector, &more).await;
    let key = home.first_key();
    home.sim.script("*", [Fault::status(500)]);
    let first = gateway
        .ask(&Ask::chat(&key, "gpt-4o-mini", "tokens=9"))
        .await;
    let refused = gateway
        .ask(&Ask::chat("sk-\"},wrong", "gpt-4o-mini", ""))
        .await;
    assert_eq!((first.status, refused.status), (200, 401));
    let lines: Vec<Value> = until("both lines are written", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    let (one, other) = (&lines[0], &lines[1]);
    assert_eq!(one["request_id"], json!(id(&first)));
    let trace = collector.trace_of(&id(&first), 5).await;
    assert_eq!(one["trace_id"], json!(hex(&trace.0[0].span.trace_id)));
    for (field, expected) in [
        ("account", json!("root")),
        ("endpoint", json!("chat.completions")),
        ("dialect", json!("openai_chat")),
        ("model", json!("gpt-4o-mini")),
        ("status", json!(200)),
        ("client_gone", json!(false)),
        ("stream", json!(false)),
    ] {
        assert_eq!(one[field], expected, "{field} in {one:#}");
    }
    assert_eq!(one["attempts"][0]["reason"], "provider_error");
    assert_eq!(one["attempts"][1]["reason"], "ok");
    assert_eq!(number(&one["attempts"][1], "tokens.output"), 9);
    assert!(number(&one["attempts"][1], "cost_nano_usd") > 0, "{one:#}");
    assert_eq!(other["error"], "invalid_api_key");
    assert!(other.get("account").is_none(), "{other:#}");
    let text = std::fs::read_to_string(&log).unwrap();
    for secret in ["Tell me of the sea", &key, "wrong"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(super::process::mode(&log), 0o600);
    assert_eq!(
        metric(&gateway, "xai_request_log_lines_total").await,
        Some(2)
    );
    gateway.stop().await;
}
