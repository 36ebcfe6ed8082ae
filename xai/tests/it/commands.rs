//! The admin commands, against the real process: every verb of every noun, for people and for programs, and what the verbs do to requests.

use std::fs;

use serde_json::{Value, json};

use super::process::{Ask, Gateway, Home, number, until};

/// One command: its words, what it is given on standard input, its exit code, and what it prints or says contains.
type Step<'a> = (&'a str, &'a str, i32, &'a [&'a str]);

async fn check(home: &Home, steps: &[Step<'_>]) {
    let mut wrong = Vec::new();
    for (words, input, code, expected) in steps {
        let list: Vec<&str> = words.split_whitespace().collect();
        let done = home.finish(home.command(&list, &[]), input).await;
        let said = if *code == 0 { &done.out } else { &done.err };
        let fits = done.code == Some(*code) && expected.iter().all(|part| said.contains(part));
        if !fits || said.contains("sk-secret") {
            wrong.push(format!(
                "xai {words}\nexpected {code} {expected:?}\n{done:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn every_verb_of_every_noun_works_and_refuses_what_is_not_there() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    fs::write(
        home.data().with_file_name("secret"),
        "sk-secret-of-a-file\n",
    )
    .unwrap();
    check(
        &home,
        &[
            ("provider list", "", 0, &["There are no providers."]),
            (
                "provider create one --base api.openai.com/v1",
                "",
                0,
                &["https://api.openai.com", "openai", "admin"],
            ),
            ("provider create one --base api.openai.com", "", 1, &["one"]),
            (
                "provider create two --base 10.0.0.1 --kind openai_compatible --allow-private",
                "",
                0,
                &["https://10.0.0.1"],
            ),
            ("provider create three --base ftp://x", "", 2, &["https://"]),
            (
                "provider list",
                "",
                0,
                &["ID", "KIND", "MANAGED BY", "one", "two"],
            ),
            ("provider show one", "", 0, &["BASE"]),
            ("provider show none", "", 4, &["none"]),
            (
                "provider set two --base https://10.0.0.2 --allow-private yes",
                "",
                0,
                &["https://10.0.0.2"],
            ),
            ("provider disable two", "", 0, &["DISABLED"]),
            ("provider enable two", "", 0, &["DISABLED"]),
            (
                "upstream-key create --provider one --id a --secret-file -",
                "sk-secret-of-stdin\n",
                0,
                &["FINGERPRINT"],
            ),
            (
                "upstream-key create --provider one --id b --secret-file secret",
                "",
                0,
                &["b"],
            ),
            (
                "upstream-key create --provider one --id c --secret sk-secret-of-a-flag",
                "",
                0,
                &["c"],
            ),
            (
                "upstream-key create --provider one --id d",
                "",
                2,
                &["--secret-file"],
            ),
            (
                "upstream-key create --provider none --secret sk-secret",
                "",
                1,
                &["none"],
            ),
            ("upstream-key list", "", 0, &["a", "b", "c"]),
            (
                "upstream-key list --provider two",
                "",
                0,
                &["There are no upstream keys."],
            ),
            ("upstream-key show a", "", 0, &["PROVIDER"]),
            (
                "upstream-key set a --secret-file -",
                "sk-secret-of-another",
                0,
                &["FINGERPRINT"],
            ),
            ("upstream-key disable a", "", 0, &["DISABLED"]),
            ("upstream-key enable a", "", 0, &["DISABLED"]),
            ("upstream-key delete c", "", 0, &["Deleted upstream key c."]),
            ("upstream-key delete c", "", 4, &["c"]),
            ("provider delete one", "", 1, &["one"]),
            (
                "route create r --model gpt-* --provider one",
                "",
                0,
                &["gpt-*"],
            ),
            ("route create s --model x --provider none", "", 1, &["none"]),
            ("route list", "", 0, &["MODEL", "gpt-*"]),
            ("route show r", "", 0, &["one"]),
            (
                "route set r --model gpt-4* --provider one --provider two",
                "",
                0,
                &["gpt-4*", "one, two"],
            ),
            ("route delete r", "", 0, &["Deleted route r."]),
            ("route show r", "", 4, &["r"]),
            ("account create team", "", 0, &["root/team"]),
            ("account create team", "", 1, &["team"]),
            (
                "account create app --parent root/team --allow-model gpt-4o*",
                "",
                0,
                &["root/team/app", "gpt-4o*"],
            ),
            ("account list", "", 0, &["root", "  team", "    app"]),
            ("account show root/team", "", 0, &["IN EFFECT"]),
            ("account set root/team --name crew", "", 0, &["root/crew"]),
            ("account suspend root/crew", "", 0, &["SUSPENDED"]),
            (
                "account show root/crew/app --output json",
                "",
                0,
                &["\"suspended\": false", "\"effectively_suspended\": true"],
            ),
            ("account resume root/crew", "", 0, &["SUSPENDED"]),
            ("account delete root/crew", "", 1, &["crew"]),
            (
                "account delete root/crew/app",
                "",
                0,
                &["Deleted account root/crew/app."],
            ),
            ("account show root/crew/app", "", 4, &["root/crew/app"]),
            ("account delete root", "", 1, &["root"]),
            ("key create --account root/none", "", 4, &["root/none"]),
            ("key list", "", 0, &["HINT"]),
            ("key show none", "", 4, &["none"]),
            ("usage", "", 0, &["There are no rows."]),
            ("usage --since yesterday", "", 2, &["say when"]),
        ],
    )
    .await;
    let (id, _) = home.new_key("root/crew").await;
    let changed = home.json(&format!("key set {id} --name laptop")).await;
    assert_eq!(changed["key"]["name"], "laptop");
    assert_eq!(
        home.json(&format!("key disable {id}")).await["key"]["disabled"],
        true
    );
    assert_eq!(
        home.json(&format!("key enable {id}")).await["key"]["disabled"],
        false
    );
    assert_eq!(
        home.json(&format!("key show {id}")).await["key"]["account_path"],
        "root/crew"
    );
    assert_eq!(home.json(&format!("key delete {id}")).await, json!({}));
    let data = fs::read(home.data().join("store.redb")).unwrap();
    assert!(
        !data.windows(9).any(|part| part == b"sk-secret"),
        "a secret stands in the store in plain"
    );
    gateway.stop().await;
    let gone = home.xai("account list").await;
    assert_eq!(gone.code, Some(3), "{gone:?}");
    assert!(gone.err.contains("is `xai up` running"), "{gone:?}");
}

/// Asks until the answer has this status: a change reaches the node a moment after its command.
async fn becomes(gateway: &Gateway, ask: &Ask, status: u16) -> Value {
    until(&format!("the status is {status}"), async || {
        let reply = gateway.ask(ask).await;
        (reply.status == status).then(|| reply.json())
    })
    .await
}

#[tokio::test]
async fn law_15_what_an_ancestor_forbids_no_key_below_may() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    home.json("account create team --allow-model gpt-4o*").await;
    home.json("account create app --parent root/team --allow-model *mini --allow-model claude*")
        .await;
    let (id, key) = home.new_key("root/team/app").await;
    let (mini, full) = (
        Ask::chat(&key, "gpt-4o-mini", ""),
        Ask::chat(&key, "gpt-4o", ""),
    );
    becomes(&gateway, &mini, 200).await;
    let refused = becomes(&gateway, &full, 403).await;
    assert_eq!(refused["error"]["code"], "model_not_allowed");
    let claude = Ask::messages(&key, "claude-sonnet-4-5", "");
    let refused = becomes(&gateway, &claude, 403).await;
    assert_eq!(refused["error"]["type"], "permission_error");

    home.json("account suspend root/team").await;
    let refused = becomes(&gateway, &mini, 403).await;
    assert_eq!(refused["error"]["code"], "permission_denied");
    let first = Ask::chat(&home.first_key(), "gpt-4o-mini", "");
    becomes(&gateway, &first, 200).await;
    home.json("account resume root/team").await;
    becomes(&gateway, &mini, 200).await;
    home.json("account set root/team --allow-all-models").await;
    becomes(&gateway, &claude, 200).await;

    home.json(&format!("key disable {id}")).await;
    becomes(&gateway, &mini, 401).await;
    home.json(&format!("key enable {id}")).await;
    becomes(&gateway, &mini, 200).await;
    home.json(&format!("key delete {id}")).await;
    becomes(&gateway, &mini, 401).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_has_no_price_is_served_and_shown() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    home.json("account create team").await;
    let (_, key) = home.new_key("root/team").await;
    for model in ["gpt-4o-mini", "nobody-knows-this"] {
        becomes(&gateway, &Ask::chat(&key, model, "tokens=7"), 200).await;
    }
    home.usage("", 2).await;
    let rows = home.usage("--unpriced --by model,account", 1).await;
    assert_eq!(rows[0]["model"], "nobody-knows-this");
    assert_eq!(rows[0]["account_path"], "root/team");
    assert_eq!(
        (
            number(&rows[0], "unpriced"),
            number(&rows[0], "cost_nano_usd")
        ),
        (1, 0)
    );
    assert_eq!(number(&rows[0], "tokens.output"), 7);
    let priced = home.usage("--model gpt-4o-mini --account root", 1).await;
    assert_eq!(number(&priced[0], "unpriced"), 0);
    // 7 tokens of output at 0.60 USD for a million, input at 0.15 USD; rounded up once.
    let input = number(&priced[0], "tokens.input");
    assert_eq!(number(&priced[0], "cost_nano_usd"), 7 * 600 + input * 150);
    let table = home.xai("usage --by model --unpriced").await;
    assert!(table.out.contains("UNPRICED") && table.out.contains("nobody-knows-this"));
    gateway.stop().await;
}
