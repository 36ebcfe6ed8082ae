//! Keys with terms: an end, two secrets, lists of models, endpoints and addresses.

use proxyxai_core::{
    account::key::{self, GeneratedKey, Pepper},
    secret::ExposeSecret as _,
};
use proxyxai_proto::config::v1::{self as proto, ProviderKind, resource::Kind};

use crate::{
    harness::{CHAT, COMPLETION, Setup, Upstream, core, plain, provider, run},
    plane::PEPPER,
};

/// A long time after every test, in Unix milliseconds.
const LATER: i64 = 4_102_444_800_000;
/// A time before every test.
const BEFORE: i64 = 1;

fn generated(seed: u8) -> GeneratedKey {
    key::generate([seed; 64])
}

fn virtual_key(seed: u8) -> proto::VirtualKey {
    let key = generated(seed);
    proto::VirtualKey {
        digest: Pepper::new(PEPPER).digest_of(&key).0.to_vec(),
        id: key.id,
        account_id: "root".into(),
        name: "k".into(),
        ..proto::VirtualKey::default()
    }
}

/// One request with the key that was generated from `shown`, at a node that knows `key`.
fn check(
    key: proto::VirtualKey,
    shown: u8,
    path: &'static str,
    status: u16,
    code: &str,
    want: &'static str,
) {
    run(|| async {
        let upstream = Upstream::start(vec![plain("200 OK", "", COMPLETION)]).await;
        let mut resources = provider("sim", ProviderKind::Gateway, upstream.address, &["k1"]);
        resources.push(Kind::VirtualKey(key));
        let core = core(Setup {
            resources,
            ..Setup::default()
        })
        .await;
        let key = generated(shown);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{CHAT}",
            key.text.expose_secret(),
            CHAT.len()
        );
        let answer = core.send(request.as_bytes()).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(want), "{}", answer.text());
        assert_eq!(upstream.seen().len(), usize::from(status == 200));
        if status != 200 {
            let error = &answer.json()["error"];
            let kind = if path == "/v1/messages" {
                &error["type"]
            } else {
                &error["code"]
            };
            assert_eq!(kind, code);
        }
    });
}

#[test]
fn a_key_is_served_in_its_time_alone() {
    let chat = "/v1/chat/completions";
    let ends = |expires_unix_ms| proto::VirtualKey {
        expires_unix_ms,
        ..virtual_key(90)
    };
    check(ends(LATER), 90, chat, 200, "", "hi");
    let why = "has expired; ask its administrator for another one";
    check(ends(BEFORE), 90, chat, 401, "invalid_api_key", why);
    check(
        ends(BEFORE),
        90,
        "/v1/messages",
        401,
        "authentication_error",
        why,
    );
}

#[test]
fn the_secret_before_a_rotation_is_served_for_a_while() {
    let chat = "/v1/chat/completions";
    let rotated = |until| proto::VirtualKey {
        previous_digest: virtual_key(91).digest,
        previous_expires_unix_ms: until,
        ..virtual_key(90)
    };
    check(rotated(LATER), 91, chat, 200, "", "hi");
    check(rotated(LATER), 90, chat, 200, "", "hi");
    check(rotated(BEFORE), 90, chat, 200, "", "hi");
    let why = "was rotated, and the time of this secret is over; use the new secret";
    check(rotated(BEFORE), 91, chat, 401, "invalid_api_key", why);
}

#[test]
fn law_15_the_lists_of_a_key_narrow_what_its_account_allows() {
    let chat = "/v1/chat/completions";
    let limited = |models: &[&str], endpoints: &[&str], networks: &[&str]| {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        proto::VirtualKey {
            allowed_models: texts(models),
            allowed_endpoints: texts(endpoints),
            allowed_networks: texts(networks),
            ..virtual_key(90)
        }
    };
    let all = limited(&["gpt-*"], &["chat.completions"], &["127.0.0.0/8", "::1"]);
    check(all.clone(), 90, chat, 200, "", "hi");
    let why = "does not allow this endpoint; ask its administrator";
    check(all, 90, "/v1/messages", 403, "permission_error", why);
    let models = limited(&["o3", "claude-*"], &[], &[]);
    check(
        models,
        90,
        chat,
        403,
        "model_not_allowed",
        "does not allow this model",
    );
    let from = limited(&[], &[], &["10.0.0.0/8"]);
    check(
        from,
        90,
        chat,
        403,
        "permission_denied",
        "does not allow calls from this address",
    );
}
