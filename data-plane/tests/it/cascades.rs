//! A node between gateways: what it believes of a child, tells a parent, and makes of a parent's answer.

use proxyxai_proto::config::v1::{self as proto, ProviderKind, resource::Kind};

use crate::harness::{
    Answer, CHAT, COMPLETION, Core, Seen, Setup, Upstream, core, header, plain, post_as, provider,
};

/// A node before upstreams of these kinds, each with its keys.
async fn node(upstreams: &[(&str, ProviderKind, &Upstream, &[&str])]) -> Core {
    let all = upstreams
        .iter()
        .flat_map(|(id, kind, upstream, keys)| provider(id, *kind, upstream.address, keys));
    core(Setup {
        resources: all.collect::<Vec<Kind>>(),
        ..Setup::default()
    })
    .await
}

/// A chat of this account with more lines in its head.
async fn ask(core: &Core, account: &str, lines: &str) -> Answer {
    let request = post_as(account, "/v1/chat/completions", CHAT);
    let request = String::from_utf8(request).unwrap();
    let request = request.replacen("\r\n", &format!("\r\n{lines}"), 1);
    core.send(request.as_bytes()).await
}

fn good() -> Vec<crate::harness::Step> {
    plain("200 OK", "", COMPLETION)
}

fn said<'a>(seen: &'a Seen, names: &[&str]) -> Vec<Option<String>> {
    let _lives_as_long: &'a str = &seen.head;
    names.iter().map(|name| header(&seen.head, name)).collect()
}

const TOLD: [&str; 5] = [
    "x-attempts-left",
    "x-request-timeout-ms",
    "x-request-id",
    "via",
    "cdn-loop",
];
const FROM_A_CHILD: &str = "X-Attempts-Left: 2\r\nX-Request-Timeout-Ms: 5000\r\nX-Request-Id: req_0123456789abcdef000000000011\r\nVia: 1.1 kid\r\nCDN-Loop: kid\r\nX-Upstream-Attempts: 9\r\n";

#[test]
fn a_gateway_is_told_what_a_provider_is_not() {
    crate::harness::run(|| async {
        let (parent, other) = (
            Upstream::start([good()]).await,
            Upstream::start([good()]).await,
        );
        let core = node(&[("p", ProviderKind::Gateway, &parent, &["a"])]).await;
        let answer = ask(&core, "root", FROM_A_CHILD).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = said(&parent.seen()[0], &TOLD);
        let [left, time, name, via, way] = &told[..] else {
            panic!()
        };
        assert_eq!(left.as_deref(), Some("3"), "a client is not believed");
        assert!(
            time.as_ref().unwrap().parse::<u64>().unwrap() > 200_000,
            "{told:?}"
        );
        assert_eq!(*name, answer.header("x-proxyxai-request-id"));
        assert_eq!(via.as_deref(), Some("1.1 kid, 1.1 test"));
        assert_eq!(
            way.as_deref(),
            Some("kid, test"),
            "the way counts from anyone"
        );
        assert_eq!(answer.header("x-upstream-attempts"), None);

        let core = node(&[("o", ProviderKind::Openai, &other, &["a"])]).await;
        for (account, way) in [("root", "test"), ("gateway", "kid, test")] {
            let lines = if account == "root" { "" } else { FROM_A_CHILD };
            assert_eq!(ask(&core, account, lines).await.status, 200);
            let told = said(other.seen().last().unwrap(), &TOLD);
            assert_eq!(told, [None, None, None, None, Some(way.to_owned())]);
            let names = ["x-upstream-attempts"];
            assert_eq!(said(other.seen().last().unwrap(), &names), [None]);
        }
    });
}

#[test]
fn law_17_a_childs_attempts_time_and_name_are_believed_and_passed_on_smaller() {
    crate::harness::run(|| async {
        let parent =
            Upstream::start([plain("200 OK", "X-Upstream-Attempts: 2\r\n", COMPLETION)]).await;
        let core = node(&[("p", ProviderKind::Gateway, &parent, &["a"])]).await;
        let answer = ask(&core, "gateway", FROM_A_CHILD).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = said(&parent.seen()[0], &TOLD);
        let [left, time, name, ..] = &told[..] else {
            panic!()
        };
        assert_eq!(left.as_deref(), Some("2"));
        assert!(
            time.as_ref().unwrap().parse::<u64>().unwrap() < 5000,
            "{told:?}"
        );
        let given = "req_0123456789abcdef000000000011";
        assert_eq!(name.as_deref(), Some(given));
        assert_eq!(
            answer.header("x-proxyxai-request-id").as_deref(),
            Some(given)
        );
        assert_eq!(answer.header("x-upstream-attempts").as_deref(), Some("2"));
        assert_eq!(core.events(1).await[0].request_id, given);
    });
}

#[test]
fn law_16_attempts_are_those_that_a_child_leaves() {
    for (lines, want) in [
        ("X-Attempts-Left: 1\r\n", 1),
        ("X-Attempts-Left: 99\r\n", 3),
        ("", 3),
    ] {
        crate::harness::run(|| async {
            let upstream = Upstream::start([plain("500 Oops", "", "{}")]).await;
            let keys: &[&str] = &["a", "b", "c", "d"];
            let core = node(&[("o", ProviderKind::Openai, &upstream, keys)]).await;
            let answer = ask(&core, "gateway", lines).await;
            let used = answer.header("x-upstream-attempts");
            assert_eq!((answer.status, used), (502, Some(want.to_string())));
            assert_eq!(upstream.seen().len(), want, "{lines}");
            assert_eq!(ask(&core, "root", lines).await.status, 502);
            assert_eq!(upstream.seen().len(), want + 3, "nobody else is believed");
        });
    }
}

#[test]
fn law_16_one_attempt_is_kept_for_another_upstream() {
    crate::harness::run(|| async {
        let error = r#"{"error":{"message":"at the parent","type":"server_error","param":null,"code":"upstream_failed"}}"#;
        let lines =
            "X-Upstream-Attempts: 2\r\nX-Should-Retry: false\r\nX-Proxyxai-Deployment: mum\r\n";
        let parent = Upstream::start([plain("502 Bad Gateway", lines, error)]).await;
        let other = Upstream::start([good()]).await;
        let keys: &[&str] = &["a", "b", "c"];
        let both = [
            ("p", ProviderKind::Gateway, &parent, keys),
            ("q", ProviderKind::Openai, &other, &["z"]),
        ];
        // Whichever has its turn first, the request is served, and the parent's other keys are left alone.
        let core = node(&both).await;
        for _ in 0..4 {
            assert_eq!(ask(&core, "root", "").await.status, 200);
        }
        assert_eq!(other.seen().len(), 4);
        assert_eq!(parent.seen().len(), 3);
        assert!(
            parent
                .seen()
                .iter()
                .all(|seen| header(&seen.head, "x-attempts-left").as_deref() == Some("2"))
        );
        // Alone it gets all that is left, and its error is the answer.
        let core = node(&both[..1]).await;
        let answer = ask(&core, "root", "").await;
        assert_eq!((answer.status, answer.text().as_str()), (502, error));
        assert_eq!(answer.header("x-should-retry").as_deref(), Some("false"));
        assert_eq!(
            answer.header("x-proxyxai-deployment").as_deref(),
            Some("mum")
        );
        let seen = parent.seen();
        assert_eq!(
            (
                seen.len(),
                header(&seen[3].head, "x-attempts-left").as_deref()
            ),
            (4, Some("3"))
        );
    });
}

#[test]
fn a_busy_parent_is_not_charged_and_its_patience_is_passed_on() {
    crate::harness::run(|| async {
        let lines = "Retry-After: 7\r\nX-Should-Retry: true\r\nX-Proxyxai-Deployment: mum\r\n";
        let busy = plain("503 Busy", lines, r#"{"error":{"message":"busy"}}"#);
        let parent = Upstream::start([busy]).await;
        let core = node(&[("p", ProviderKind::Gateway, &parent, &["a"])]).await;
        let answer = ask(&core, "gateway", "").await;
        let names = ["retry-after", "x-should-retry", "x-upstream-attempts"];
        let got = names.map(|name| answer.header(name).unwrap());
        assert_eq!(
            (answer.status, got.each_ref().map(String::as_str)),
            (503, ["7", "true", "0"])
        );
    });
}

#[test]
fn law_17_a_request_that_comes_again_ends_in_the_callers_words() {
    crate::harness::run(|| async {
        let upstream = Upstream::start([good()]).await;
        let core = node(&[("o", ProviderKind::Gateway, &upstream, &["a"])]).await;
        for way in [
            "CDN-Loop: a, test; x=1\r\n",
            "CDN-Loop: a\r\nCDN-Loop: TEST\r\n",
            "CDN-Loop: a,b,c,d,e,f,g,h,i\r\n",
        ] {
            for account in ["root", "gateway"] {
                let answer = ask(&core, account, way).await;
                let error = &answer.json()["error"];
                assert_eq!(
                    (answer.status, error["code"].as_str()),
                    (508, Some("gateway_loop")),
                    "{way}"
                );
                assert!(
                    error["message"]
                        .as_str()
                        .unwrap()
                        .ends_with("(gateway test)"),
                    "{error}"
                );
                assert_eq!(answer.header("x-should-retry").as_deref(), Some("false"));
            }
        }
        let messages = post_as(
            "root",
            "/v1/messages",
            r#"{"model":"m","max_tokens":1,"messages":[]}"#,
        );
        let messages =
            String::from_utf8(messages)
                .unwrap()
                .replacen("\r\n", "\r\nCDN-Loop: test\r\n", 1);
        let answer = core.send(messages.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (508, Some("error"))
        );
        assert_eq!(upstream.seen().len(), 0, "nothing of it goes on");
        assert_eq!(
            ask(&core, "root", "CDN-Loop: a,b,c,d,e,f,g,h\r\n")
                .await
                .status,
            200
        );
        // A circle further up is told as it is.
        let round = plain(
            "508 Loop Detected",
            "X-Proxyxai-Deployment: mum\r\nX-Should-Retry: false\r\n",
            r#"{"error":{"code":"gateway_loop"}}"#,
        );
        let parent = Upstream::start([round]).await;
        let both = [("p", ProviderKind::Gateway, &parent, &["a", "b"][..])];
        let answer = ask(&node(&both).await, "root", "").await;
        assert_eq!(
            (
                answer.status,
                answer.header("x-proxyxai-deployment").as_deref()
            ),
            (508, Some("mum"))
        );
        assert_eq!(parent.seen().len(), 1);
    });
}

#[test]
fn no_time_is_no_attempt() {
    crate::harness::run(|| async {
        let parent = Upstream::start([good()]).await;
        let core = node(&[("p", ProviderKind::Gateway, &parent, &["a", "b"])]).await;
        let answer = ask(&core, "gateway", "X-Request-Timeout-Ms: 5\r\n").await;
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert_eq!(parent.seen().len(), 0);
        assert_eq!(answer.header("x-upstream-attempts").as_deref(), Some("0"));
        let events = core.events(2).await;
        assert!(
            events
                .iter()
                .all(|event| event.outcome() == proxyxai_proto::usage::v1::Outcome::NotSent)
        );
    });
}

#[test]
fn official_providers_are_not_told_the_way() {
    let official = |base: &str, kind: ProviderKind| {
        let given = proto::Provider {
            id: "p".into(),
            kind: kind.into(),
            base_url: base.into(),
            ..proto::Provider::default()
        };
        proxyxai_core::snapshot::compile::check_provider(&given)
            .unwrap()
            .official
    };
    assert!(official("https://api.openai.com", ProviderKind::Openai));
    assert!(official(
        "https://eu.api.openai.com/v1",
        ProviderKind::OpenaiCompatible
    ));
    assert!(official(
        "https://api.anthropic.com",
        ProviderKind::Anthropic
    ));
    assert!(!official(
        "https://api.openai.com.example",
        ProviderKind::Openai
    ));
    assert!(!official("https://api.openai.com", ProviderKind::Gateway));
    assert!(!official("https://gateway.example", ProviderKind::Gateway));
}

#[test]
fn a_key_that_the_parent_refuses_costs_no_attempt() {
    crate::harness::run(|| async {
        let lines = "X-Proxyxai-Deployment: mum\r\n";
        let refused = plain(
            "401 Unauthorized",
            lines,
            r#"{"error":{"message":"no such key"}}"#,
        );
        let parent = Upstream::start([refused, good()]).await;
        let core = node(&[("p", ProviderKind::Gateway, &parent, &["a", "b"])]).await;
        assert_eq!(ask(&core, "root", "").await.status, 200);
        let left = parent.seen();
        let left = left
            .iter()
            .map(|seen| header(&seen.head, "x-attempts-left").unwrap());
        assert_eq!(left.collect::<Vec<_>>(), ["3", "3"]);
    });
}

#[test]
fn a_parent_that_is_away_is_said_to_be() {
    crate::harness::run(|| async {
        let parent = Upstream::start([vec![crate::harness::Step::Cut]]).await;
        let core = node(&[("p", ProviderKind::Gateway, &parent, &["a"])]).await;
        let answer = ask(&core, "root", "").await;
        let again = answer.header("x-should-retry");
        assert_eq!((answer.status, again.as_deref()), (502, Some("false")));
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("at provider `p`") && message.ends_with("(gateway test)"),
            "{message}"
        );
    });
}
