//! XAI_BASE and XAI_KEYS of the real process: what they describe is added, changed and removed at each start, and nothing else is touched.

use serde_json::Value;

use super::process::{Ask, Home};

/// Starts with these variables; gives the lines that it printed of the environment, and its objects as `id kind base managed_by`.
async fn start(home: &Home, variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let gateway = home.start(variables).await;
    let said = gateway.said();
    let lines = said
        .lines()
        .filter(|line| line.starts_with("environment: "));
    let lines = lines.map(str::to_owned).collect();
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let mut objects = Vec::new();
    for provider in home.json("provider list").await["providers"]
        .as_array()
        .unwrap()
    {
        objects.push(
            ["id", "kind", "base_url", "managed_by"]
                .map(|name| text(provider, name))
                .join(" "),
        );
    }
    for key in home.json("upstream-key list").await["upstream_keys"]
        .as_array()
        .unwrap()
    {
        objects.push(format!(
            "key of {} {}",
            text(key, "provider_id"),
            text(key, "managed_by")
        ));
    }
    objects.sort();
    gateway.stop().await;
    (lines, objects)
}

/// Variables, what each printed line begins with, and the objects afterwards.
type Step = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static [&'static str],
);

#[tokio::test]
async fn what_the_environment_describes_follows_it_and_nothing_else_does() {
    let home = Home::new();
    let steps: [Step; 8] = [
        (&[], &[], &[]),
        (
            &[("XAI_KEYS", "sk-1,sk-ant-1::https://api.anthropic.com/v1")],
            &[
                "added provider openai (openai, https://api.openai.com)",
                "added provider anthropic (anthropic, https://api.anthropic.com)",
                "added upstream key env-",
                "added upstream key env-",
            ],
            &[
                "anthropic anthropic https://api.anthropic.com env",
                "key of anthropic env",
                "key of openai env",
                "openai openai https://api.openai.com env",
            ],
        ),
        // Neither variable is set: nothing changes.
        (
            &[],
            &[],
            &[
                "anthropic anthropic https://api.anthropic.com env",
                "key of anthropic env",
                "key of openai env",
                "openai openai https://api.openai.com env",
            ],
        ),
        // Another secret is another key; the keys that are not named any more go, and their provider with them.
        (
            &[("XAI_KEYS", "sk-2")],
            &[
                "added upstream key env-",
                "removed upstream key env-",
                "removed upstream key env-",
                "removed provider anthropic",
            ],
            &[
                "key of openai env",
                "openai openai https://api.openai.com env",
            ],
        ),
        // A bare host means https, `/v1` is joined once, and a virtual key of another gateway means a gateway.
        (
            &[("XAI_BASE", "parent.example/v1"), ("XAI_KEYS", "sk-pxai-1")],
            &[
                "added provider gateway-parent-example (gateway, https://parent.example)",
                "added upstream key env-",
                "removed upstream key env-",
                "removed provider openai",
            ],
            &[
                "gateway-parent-example gateway https://parent.example env",
                "key of gateway-parent-example env",
            ],
        ),
        // A base without keys is a provider for keys that come later; it removes nothing.
        (
            &[("XAI_BASE", "api.openai.com")],
            &["added provider openai (openai, https://api.openai.com)"],
            &[
                "gateway-parent-example gateway https://parent.example env",
                "key of gateway-parent-example env",
                "openai openai https://api.openai.com env",
            ],
        ),
        // No keys: all that came from the environment goes.
        (
            &[("XAI_KEYS", "")],
            &[
                "removed upstream key env-",
                "removed provider gateway-parent-example",
                "removed provider openai",
            ],
            &[],
        ),
        (&[("XAI_KEYS", "")], &[], &[]),
    ];
    for (variables, printed, expected) in steps {
        let (lines, objects) = start(&home, variables).await;
        assert_eq!(lines.len(), printed.len(), "{variables:?}: {lines:#?}");
        for begins in printed {
            let begins = format!("environment: {begins}");
            let found = lines.iter().any(|line| line.starts_with(&begins));
            assert!(found, "{variables:?}: no `{begins}` in {lines:#?}");
        }
        assert_eq!(objects, expected, "{variables:?}");
    }
}

#[tokio::test]
async fn what_administrators_made_is_left_alone() {
    let home = Home::new();
    let base = home.providers();
    let gateway = home.start(&[]).await;
    // The very name that the environment would take, for another place.
    home.json(&format!(
        "provider create openai --kind openai --base {base} --allow-private"
    ))
    .await;
    home.json("upstream-key create --provider openai --id mine --secret sk-mine")
        .await;
    gateway.stop().await;
    let keys = "sk-env::https://api.openai.com";
    for _ in 0..2 {
        let (_, objects) = start(&home, &[("XAI_KEYS", keys)]).await;
        assert_eq!(
            objects,
            [
                "key of openai admin",
                "key of openai-env env",
                &format!("openai openai {base} admin"),
                "openai-env openai https://api.openai.com env",
            ]
        );
    }
    let (_, objects) = start(&home, &[("XAI_KEYS", "")]).await;
    assert_eq!(
        objects,
        [
            "key of openai admin",
            &format!("openai openai {base} admin")
        ]
    );
    let gateway = home.start(&[]).await;
    let ask = Ask::chat(&home.first_key(), "gpt-4o-mini", "");
    assert_eq!(gateway.ask(&ask).await.status, 200);
    assert_eq!(home.sim.bill().rows[0].upstream_key, "sk-mine");
    gateway.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_its_number_without_its_secret() {
    let home = Home::new();
    for (variable, value, expected) in [
        ("XAI_BASE", "ftp://x", "XAI_BASE cannot be used: "),
        (
            "XAI_KEYS",
            "sk-good,sk wrong",
            "key number 2 of XAI_KEYS cannot be used: ",
        ),
        (
            "XAI_KEYS",
            "sk-secret::nonsense@x",
            "key number 1 of XAI_KEYS cannot be used: `nonsense` is no kind",
        ),
    ] {
        let done = home
            .finish(home.command(&["up"], &[(variable, value)]), "")
            .await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.err.contains(expected), "{done:?}");
        assert_eq!(done.err.lines().count(), 1, "{done:?}");
        assert!(
            !done.err.contains("sk-secret") && !done.err.contains("sk wrong"),
            "{done:?}"
        );
    }
}
