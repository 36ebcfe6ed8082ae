//! Levels, weights and models of upstream keys, and routes that rename models and switch over.

use proxyxai_proto::{
    config::v1::{self as proto, ProviderKind, resource::Kind},
    usage::v1::UsageEvent,
};

use crate::harness::{
    CHAT, COMPLETION, Core, Setup, Step, Upstream, core, plain, post_as, provider, run, secret,
};

fn good() -> Vec<Step> {
    plain("200 OK", "", COMPLETION)
}

fn bad(status: &str) -> Vec<Step> {
    plain(status, "", "{}")
}

/// The keys of the attempts, in order, each with its outcome's reason.
fn tried(events: &[UsageEvent]) -> Vec<(&str, &str)> {
    events
        .iter()
        .map(|event| (event.upstream_key_id.as_str(), event.reason.as_str()))
        .collect()
}

async fn node(resources: Vec<Kind>) -> Core {
    core(Setup {
        resources,
        ..Setup::default()
    })
    .await
}

fn change(resources: &mut [Kind], id: &str, change: impl Fn(&mut proto::UpstreamKey)) {
    for kind in resources {
        if let Kind::UpstreamKey(key) = kind
            && key.id == id
        {
            change(key);
        }
    }
}

#[test]
fn keys_of_a_lower_level_are_tried_first() {
    run(|| async {
        let upstream = Upstream::start(vec![
            good(),
            good(),
            bad("500 Oops"),
            bad("500 Oops"),
            good(),
        ])
        .await;
        let keys = ["c", "b", "a"];
        let mut all = provider("sim", ProviderKind::Openai, upstream.address, &keys);
        change(&mut all, "c", |key| key.level = 10);
        let core = node(all).await;
        for _ in 0..3 {
            assert_eq!(core.post("/v1/chat/completions", CHAT).await.status, 200);
        }
        let events = core.events(5).await;
        let (ok, failed) = ("ok", "provider_error");
        assert_eq!(
            tried(&events),
            [
                ("a", ok),
                ("b", ok),
                ("a", failed),
                ("b", failed),
                ("c", ok)
            ]
        );
    });
}

#[test]
fn turns_follow_weights_and_keys_serve_their_models() {
    run(|| async {
        let upstream = Upstream::start(vec![good()]).await;
        let keys = ["a", "b", "other"];
        let mut all = provider("sim", ProviderKind::Openai, upstream.address, &keys);
        change(&mut all, "a", |key| key.weight = 3);
        change(&mut all, "other", |key| key.models = vec!["o3*".into()]);
        let core = node(all).await;
        for _ in 0..10 {
            assert_eq!(core.post("/v1/chat/completions", CHAT).await.status, 200);
        }
        let events = core.events(10).await;
        let of = |id: &str| events.iter().filter(|e| e.upstream_key_id == id).count();
        assert_eq!(of("other"), 0);
        assert!(
            of("a") >= 2 * of("b") && of("b") >= 2,
            "{:?}",
            tried(&events)
        );
    });
    run(|| async {
        let upstream = Upstream::start(vec![good()]).await;
        let mut all = provider("sim", ProviderKind::Openai, upstream.address, &["a"]);
        change(&mut all, "a", |key| key.models = vec!["o3*".into()]);
        let answer = node(all).await.post("/v1/chat/completions", CHAT).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (503, Some("no_upstream_key"))
        );
        assert!(upstream.seen().is_empty());
    });
}

#[test]
fn a_route_renames_models_and_the_event_keeps_both_names() {
    run(|| async {
        let upstream = Upstream::start(vec![good()]).await;
        let mut all = provider("sim", ProviderKind::Gateway, upstream.address, &["a"]);
        all.push(Kind::Route(proto::Route {
            id: "r".into(),
            model: "fast-*".into(),
            upstream_model: "gpt-*".into(),
            provider_ids: vec!["sim".into()],
            ..proto::Route::default()
        }));
        let core = node(all).await;
        let body = r#"{ "messages" : [], "model" : "fast-4o-mini", "x": {"model":"fast-1"} }"#;
        let answer = core.post("/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let get = format!(
            "GET /v1/models/fast-4o-mini HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\n\r\n",
            secret("root")
        );
        assert_eq!(core.send(get.as_bytes()).await.status, 200);
        let seen = upstream.seen();
        assert_eq!(
            String::from_utf8_lossy(&seen[0].body),
            r#"{ "messages" : [], "model" : "gpt-4o-mini", "x": {"model":"fast-1"} }"#
        );
        assert!(
            seen[1]
                .head
                .starts_with("GET /v1/models/gpt-4o-mini HTTP/1.1\r\n")
        );
        let events = core.events(2).await;
        assert_eq!(
            (events[0].model.as_str(), events[0].sent_model.as_str()),
            ("fast-4o-mini", "gpt-4o-mini")
        );
        assert!(
            !events[0].unpriced,
            "the price is that of the model that was sent"
        );
        // An account that may use gpt-4o* alone may not use what a route makes into it.
        let answer = core
            .send(&post_as("team1", "/v1/chat/completions", body))
            .await;
        assert_eq!(answer.status, 403);
    });
}

/// One request along a route of two levels, `a`, `b` and `c` in the first.
fn check_switch(
    rule: proto::SwitchOver,
    first: &'static str,
    want: &'static [(&'static str, &'static str)],
) {
    run(|| async {
        let (one, two) = (
            Upstream::start(vec![bad(first)]).await,
            Upstream::start(vec![good()]).await,
        );
        let mut all = provider("one", ProviderKind::Openai, one.address, &["a", "b", "c"]);
        all.extend(provider("two", ProviderKind::Openai, two.address, &["z"]));
        all.push(Kind::Route(proto::Route {
            id: "r".into(),
            model: "*".into(),
            provider_ids: vec!["one".into()],
            next_levels: vec![proto::RouteLevel {
                provider_ids: vec!["two".into()],
            }],
            switch_over: rule.into(),
            ..proto::Route::default()
        }));
        let core = node(all).await;
        assert_eq!(core.post("/v1/chat/completions", CHAT).await.status, 200);
        assert_eq!(tried(&core.events(want.len()).await), want, "{rule:?}");
    });
}

#[test]
fn law_16_a_route_switches_over_by_its_rule_within_three_attempts() {
    use proto::SwitchOver::{AnyFailure, Exhausted, RateLimited, Unspecified};
    const DOWN: (&str, &str) = ("a", "provider_error");
    const SLOW: (&str, &str) = ("a", "rate_limited");
    const LAST: (&str, &str) = ("z", "ok");
    check_switch(
        Unspecified,
        "503 Down",
        &[DOWN, ("b", "provider_error"), LAST],
    );
    check_switch(Exhausted, "429 Slow", &[SLOW, ("b", "rate_limited"), LAST]);
    check_switch(RateLimited, "429 Slow", &[SLOW, LAST]);
    check_switch(
        RateLimited,
        "503 Down",
        &[DOWN, ("b", "provider_error"), LAST],
    );
    check_switch(AnyFailure, "503 Down", &[DOWN, LAST]);
}
