//! `xai doctor` against real gateways: a healthy one needs nothing, a sick one is told what it has, and no secret gets out.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use serde_json::Value;

use super::{
    joining::token,
    process::{Ask, Done, Gateway, Home, until},
};

/// What a doctor found: severity, check and object of each.
type Found = Vec<(String, String, String)>;

fn found(done: &Done) -> Found {
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{done:?}"));
    let findings = report["findings"].as_array().unwrap();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    let needs_more = |one: &&Value| one["severity"] != "info" && text(one, "next").is_empty();
    let without = findings.iter().find(needs_more);
    assert!(without.is_none(), "{without:?} does not say what to do");
    let all = findings.iter();
    all.map(|one| {
        (
            text(one, "severity"),
            text(one, "check"),
            text(one, "object"),
        )
    })
    .collect()
}

fn has(found: &Found, severity: &str, check: &str, object: &str) -> bool {
    found
        .iter()
        .any(|(s, c, o)| s == severity && c == check && o == object)
}

/// The id of the provider of this kind that the environment brought.
async fn provider(home: &Home, kind: &str) -> String {
    let all = home.json("provider list").await;
    let mut all = all["providers"].as_array().unwrap().iter();
    let found = all.find(|one| one["kind"] == kind).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_healthy_deployment_needs_nothing_and_its_secret_files_are_named() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let done = home.xai("doctor --output json").await;
    let seen = found(&done);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(seen.iter().all(|(s, _, _)| s == "info"), "{seen:?}");
    for file in ["key-encryption-key", "admin-credential", "first-key"] {
        let path = home.data().join(file).display().to_string();
        assert!(has(&seen, "info", "secret_file", &path), "{path}: {seen:?}");
    }
    assert!(has(&seen, "info", "ready", &gateway.ops.to_string()));
    let people = home.xai("doctor").await;
    assert!(
        people.out.contains("Nothing needs to be done."),
        "{people:?}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_sick_deployment_has_is_found() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let openai = provider(&home, "openai").await;
    for words in [
        "provider create lonely --base https://api.example.com",
        "provider create open --base http://api.example.com",
        "upstream-key create --provider open --id off --secret sk-of-open",
        "upstream-key disable off",
        "route create dead --model nobody-prices-this --provider lonely",
        &format!("route create half --model gpt-4o --provider {openai} --next lonely"),
        "settings set --max-stale 30d --audit-keep 1d",
    ] {
        home.json(words).await;
    }
    let key = home.json("key create --expires 1d").await;
    let credential = home
        .json("credential create ci --role admin --expires 1d")
        .await;
    let let_in = token(&home, "--uses 2 --expires 1h").await;
    let ask = Ask::chat(&home.first_key(), "nobody-knows-this", "");
    until("a model without a price is served", async || {
        (gateway.ask(&ask).await.status == 200).then_some(())
    })
    .await;
    until("it is booked", async || {
        let rows = home.json("usage --unpriced").await["rows"].clone();
        (rows[0]["unpriced"].as_u64()? > 0).then_some(())
    })
    .await;
    let node = home.json("nodes").await["nodes"][0]["id"].clone();
    let node = node.as_str().unwrap();
    home.json(&format!("node cordon {node}")).await;
    until("it says that it is not ready", async || {
        let ready = Gateway::get(gateway.ops, "/ready", &[]).await;
        (ready.status == 503).then_some(())
    })
    .await;
    let first_key = home.data().join("first-key");
    fs::set_permissions(&first_key, fs::Permissions::from_mode(0o644)).unwrap();

    let done = home.xai("doctor --output json").await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let seen = found(&done);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (key, credential) = (
        text(&key["key"]["id"]),
        text(&credential["credential"]["id"]),
    );
    let first_key = first_key.display().to_string();
    let ops = gateway.ops.to_string();
    for (severity, check, object) in [
        ("error", "provider", "lonely"),
        ("warning", "provider", "open"),
        ("error", "provider", "open"),
        ("info", "upstream_key", "off"),
        ("error", "route", "dead"),
        ("warning", "route", "half"),
        ("warning", "price", "dead"),
        ("warning", "price", "nobody-knows-this"),
        ("warning", "settings", "max_stale"),
        ("warning", "settings", "audit_keep"),
        ("warning", "key", key.as_str()),
        ("warning", "credential", credential.as_str()),
        ("info", "join_token", let_in.id.as_str()),
        ("info", "node", node),
        ("error", "ready", ops.as_str()),
        ("error", "secret_file", first_key.as_str()),
    ] {
        assert!(
            has(&seen, severity, check, object),
            "{severity} {check} {object} in {seen:#?}"
        );
    }
    let first = seen.iter().position(|(s, _, _)| s != "error").unwrap();
    assert!(
        seen[first..].iter().all(|(s, _, _)| s != "error"),
        "the worst stands first"
    );

    home.json("account create team").await;
    let made = home
        .json("credential create see --role viewer --account root/team")
        .await;
    let file = home.data().join("viewer");
    fs::write(&file, text(&made["secret"])).unwrap();
    let words = format!("doctor --output json --credential-file {}", file.display());
    let seen = found(&home.xai(&words).await);
    assert!(has(&seen, "warning", "hidden", "nodes"), "{seen:?}");

    gateway.kill().await;
    let done = home.xai("doctor --output json").await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let seen = found(&done);
    assert!(
        has(&seen, "error", "reachable", "control plane"),
        "{seen:?}"
    );
    assert!(has(&seen, "error", "ops", &ops), "{seen:?}");
}

#[tokio::test]
async fn law_21_no_secret_is_in_a_bundle() {
    let home = Home::new();
    let base = home.providers();
    let keys =
        format!("sk-planted-upstream-1::openai@{base},sk-planted-upstream-2::anthropic@{base}");
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let (_, virtual_key) = home.new_key("root").await;
    let credential = home.json("credential create ci --role admin").await;
    let let_in = token(&home, "--uses 2").await;
    let openai = provider(&home, "openai").await;
    let words =
        format!("upstream-key create --provider {openai} --id p --secret sk-planted-upstream-3");
    home.json(&words).await;
    gateway
        .ask(&Ask::chat(&virtual_key, "gpt-4o-mini", ""))
        .await;
    let mut planted: Vec<String> = ["key-encryption-key", "admin-credential", "first-key"]
        .iter()
        .map(|file| fs::read_to_string(home.data().join(file)).unwrap())
        .map(|text| text.trim().to_owned())
        .collect();
    planted.extend([
        "sk-planted-upstream".to_owned(),
        virtual_key,
        credential["secret"].as_str().unwrap().to_owned(),
        let_in.expose().to_owned(),
    ]);

    let file = home.data().with_file_name("bundle.json");
    let words = format!("doctor --output json --bundle {}", file.display());
    let done = home.xai(&words).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let bundle = fs::read_to_string(&file).unwrap();
    for secret in &planted {
        assert!(secret.len() > 8 && !bundle.contains(secret), "{secret}");
        assert!(!format!("{done:?}").contains(secret), "{secret}");
    }
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let bundle: Value = serde_json::from_str(&bundle).unwrap();
    let metrics = bundle["ports"][0]["metrics"].as_str().unwrap();
    assert!(metrics.contains("xai_requests_total"), "{metrics}");
    assert_eq!(bundle["ports"][0]["settings"]["cores"], "1");
    assert_eq!(
        bundle["deployment"]["upstream_keys"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let again = home.xai(&words).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("does not exist yet"), "{again:?}");

    // Somebody put a secret where none belongs.
    let leak = format!(
        "route create leak --provider {openai} --model {}",
        planted[1]
    );
    home.json(&leak).await;
    let other = file.with_file_name("other.json");
    let refused = home
        .xai(&format!("doctor --bundle {}", other.display()))
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("nothing is written"), "{refused:?}");
    assert!(!other.exists());
    gateway.stop().await;
}
