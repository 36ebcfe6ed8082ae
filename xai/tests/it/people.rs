//! Credentials and the audit trail, against the real process: what a command may do with which credential, and a trail that is exported,
//! changed and checked.

use std::fs;

use serde_json::Value;

use super::process::{Done, Home};

/// A command with a credential of its own.
async fn with(home: &Home, credential: &str, words: &str) -> Done {
    let words: Vec<&str> = words.split_whitespace().collect();
    let variables = [("XAI_CREDENTIAL", credential)];
    home.finish(home.command(&words, &variables), "").await
}

async fn check(home: &Home, credential: &str, words: &str, code: i32, said: &str) {
    let done = with(home, credential, words).await;
    let text = if code == 0 { &done.out } else { &done.err };
    assert_eq!(done.code, Some(code), "xai {words}: {done:?}");
    assert!(text.contains(said), "xai {words}: {text}\nlacks: {said}");
    assert!(!text.contains(credential), "xai {words}: {text}");
}

/// A new credential: its id and its secret.
async fn new(home: &Home, words: &str) -> (String, String) {
    let made = home.json(&format!("credential create {words}")).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["credential"]["id"]), text(&made["secret"]))
}

#[tokio::test]
async fn a_credential_does_what_its_role_allows_until_it_ends() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    home.json("account create team").await;
    home.json("account create other").await;
    let (id, admin) = new(&home, "boss --role admin --account root/team --expires 30d").await;
    let (_, viewer) = new(&home, "eve --role viewer --account root/team").await;
    let who = home.json("whoami").await;
    assert_eq!(who["identity"]["role"], "root");
    check(&home, &admin, "whoami", 0, "root/team").await;
    check(&home, &admin, "account create app", 0, "root/team/app").await;
    check(&home, &admin, "account list", 0, "app").await;
    check(
        &home,
        &admin,
        "key create --account root/team/app",
        0,
        "sk-pxai-",
    )
    .await;
    check(&home, &admin, "usage --by account", 0, "").await;
    check(
        &home,
        &admin,
        "account list --under root/other",
        4,
        "there is no account `root/other`",
    )
    .await;
    check(
        &home,
        &admin,
        "account show root/none",
        4,
        "there is no account `root/none`",
    )
    .await;
    check(
        &home,
        &admin,
        "account suspend root/team",
        1,
        "is changed from above",
    )
    .await;
    check(
        &home,
        &admin,
        "provider list",
        1,
        "only root and credentials of the account `root` see it",
    )
    .await;
    check(
        &home,
        &admin,
        "credential create x --role root",
        1,
        "only root makes or changes root",
    )
    .await;
    check(
        &home,
        &admin,
        "credential create x --role viewer --expires 31d",
        1,
        "live longer",
    )
    .await;
    check(&home, &viewer, "key list", 0, "root/team/app").await;
    check(
        &home,
        &viewer,
        "key create",
        1,
        "needs an admin of the account, or root",
    )
    .await;
    check(
        &home,
        "pxai-cred-000000000000-x",
        "whoami",
        3,
        "does not accept the credential",
    )
    .await;
    gateway.stop().await;

    let gateway = home.start(&[]).await;
    check(&home, &admin, "whoami", 0, "root/team").await;
    home.json(&format!("credential disable {id}")).await;
    check(&home, &admin, "whoami", 3, "this credential is disabled").await;
    home.json(&format!("credential enable {id}")).await;
    let rotated = home.json(&format!("credential rotate {id}")).await;
    check(&home, &admin, "whoami", 3, "replaced or deleted").await;
    let renewed = rotated["secret"].as_str().unwrap().to_owned();
    check(&home, &renewed, "whoami", 0, "root/team").await;
    check(&home, &renewed, "credential list", 0, "eve").await;
    home.json("account suspend root/team").await;
    check(&home, &renewed, "whoami", 3, "`root/team` is suspended").await;
    home.json(&format!("credential delete {id}")).await;
    assert_eq!(
        home.xai(&format!("credential show {id}")).await.code,
        Some(4)
    );
    gateway.stop().await;

    let store = fs::read(home.data().join("store.redb")).unwrap();
    for secret in [admin, viewer, renewed] {
        let kept = store
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!kept, "a credential stands in the store in plain");
    }
}

#[tokio::test]
async fn the_audit_trail_is_listed_checked_exported_and_checked_again() {
    let home = Home::new();
    let gateway = home.start(&[("XAI_KEYS", &home.keys())]).await;
    home.json("account create team").await;
    let (id, viewer) = new(&home, "eve --role viewer --account root/team").await;
    check(&home, &viewer, "key create", 1, "needs an admin").await;
    let all = home.json("audit list").await;
    let oldest_first = all["records"].as_array().unwrap().iter().rev();
    let told: Vec<[&str; 3]> = oldest_first
        .map(|record| {
            let fields = [
                &record["actor"]["credential_id"],
                &record["action"],
                &record["outcome"],
            ];
            fields.map(|field| field.as_str().unwrap())
        })
        .collect();
    assert_eq!(told[0], ["start", "CreateKey", "done"]);
    assert_eq!(told[1], ["env", "CreateProvider", "done"]);
    assert_eq!(
        told[told.len() - 3..],
        [
            ["admin", "CreateAccount", "done"],
            ["admin", "CreateCredential", "done"],
            [id.as_str(), "CreateKey", "denied"],
        ]
    );
    let one = home.json(&format!("audit list --object {id}")).await;
    assert_eq!(one["records"].as_array().unwrap().len(), 1);
    check(&home, &viewer, "audit list", 0, "denied").await;
    check(
        &home,
        &viewer,
        "audit verify",
        1,
        "ask who holds such a credential",
    )
    .await;

    let verified = home.json("audit verify").await;
    assert_eq!(verified["checked"], told.len());
    let known = format!(
        "{}:{}",
        verified["head_sequence"],
        verified["head_hash"].as_str().unwrap()
    );
    home.json("account create later").await;
    let done = home.xai(&format!("audit verify --known {known}")).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = home
        .xai(&format!("audit verify --known 1:{}", "0".repeat(64)))
        .await;
    assert!(
        done.code == Some(1)
            && done
                .err
                .contains("record 1 is not the record 1 that was known before"),
        "{done:?}"
    );

    assert_eq!(
        home.xai("audit export --file trail.jsonl").await.code,
        Some(0)
    );
    gateway.stop().await;
    let file = home.data().with_file_name("trail.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    for secret in [viewer.as_str(), "sk-openai-1", &home.first_key()] {
        assert!(!text.contains(secret), "a secret is in the trail");
    }
    let offline = |code: i32, said: &'static str| {
        let home = &home;
        async move {
            let done = home.xai("audit verify --file trail.jsonl").await;
            let text = if code == 0 { &done.out } else { &done.err };
            assert!(done.code == Some(code) && text.contains(said), "{done:?}");
        }
    };
    offline(0, "The audit trail holds").await;
    fs::write(&file, text.replacen("CreateAccount", "DeleteAccount", 1)).unwrap();
    offline(1, "was edited").await;
    let lines: Vec<&str> = text.lines().collect();
    let without: Vec<&str> = lines
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 3)
        .map(|(_, line)| *line)
        .collect();
    fs::write(&file, without.join("\n")).unwrap();
    offline(1, "record 3 was removed").await;
    let mut swapped = lines;
    swapped.swap(4, 5);
    fs::write(&file, swapped.join("\n")).unwrap();
    offline(1, "record 4 stands at a wrong place").await;
}
