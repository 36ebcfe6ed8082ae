//! Files that say what the configuration should be: their schema, what is refused of them and where, that what is written is read as it
//! was, and the commands against the real process.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path};

use proptest::{collection::vec, prelude::*};
use proxyxai_proto::{
    admin::v1::{
        Manifest, ManifestAccount, ManifestKey, ManifestObject, ManifestPriceTable,
        ManifestProvider, ManifestRoute, ManifestUpstreamKey, Settings, manifest_object::Kind,
    },
    config::v1::RouteLevel,
};
use serde_json::Value;
use xai::{
    Environment,
    manifest::{read::Read, schema::schema, write::yaml},
};

use super::{process::Home, structure::root};

const EXAMPLE: &str = "deploy/manifests/example.yaml";

fn read(text: &str) -> Result<Manifest, String> {
    let mut read = Read::default();
    let environment = Environment::from([("SECRET", "sk-secret")]);
    match read.text("f.yaml", Path::new("/nowhere"), text, &environment) {
        Ok(()) => Ok(read.manifest),
        Err(failure) => Err(failure.to_string()),
    }
}

#[test]
fn the_published_schema_is_that_of_the_program() {
    let file = root().join("docs/schema/manifest.schema.json");
    let expected = format!("{:#}\n", schema());
    if env::var_os("XAI_WRITE_MANUAL").is_some() {
        fs::write(&file, expected).unwrap();
        return;
    }
    assert!(
        fs::read_to_string(&file).unwrap() == expected,
        "docs/schema/manifest.schema.json is not what the program says; run `make manual`"
    );
}

#[test]
fn the_schema_knows_every_field_of_the_example() {
    let schema = schema();
    let example = fs::read_to_string(root().join(EXAMPLE)).unwrap();
    let example: Value = serde_saphyr::from_str(&example).unwrap();
    for (list, objects) in example.as_object().unwrap() {
        let place = schema["properties"][list]["items"]["$ref"]
            .as_str()
            .unwrap();
        let kind = schema.pointer(place.trim_start_matches('#')).unwrap();
        assert_eq!(kind["additionalProperties"], false, "{list}");
        for object in objects.as_array().unwrap() {
            for field in object.as_object().unwrap().keys() {
                let known = &kind["properties"][field];
                assert!(known["description"].is_string(), "{list}: {field}: {known}");
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_line_and_column() {
    let mut wrong = Vec::new();
    let mut check = |text: &str, place: &str, what: &str| {
        let refusal = read(text).map(|_| ()).unwrap_err();
        let fits = refusal.starts_with(&format!("f.yaml {place}:")) && refusal.contains(what);
        if !fits {
            wrong.push(format!("{text}is refused so: {refusal}"));
        }
    };
    check("accounts:\n  - path: [\n", "line 2, column 11", "string");
    check("acounts: []\n", "line 1, column 1", "acounts");
    check(
        "accounts:\n  - path: root/a\n    suspend: true\n",
        "line 3, column 5",
        "suspend",
    );
    check(
        "accounts:\n  - suspended: true\n",
        "line 2, column 5",
        "path",
    );
    check(
        "accounts:\n  - path: root/a\n    suspended: maybe\n",
        "line 3, column 16",
        "bool",
    );
    check(
        "accounts:\n  - path: root/a\n    path: root/b\n",
        "line 3, column 5",
        "path",
    );
    check(
        "upstream_keys:\n  - id: a\n    provider: p\n    level: -1\n",
        "line 4, column 12",
        "",
    );
    check(
        "providers:\n  - {id: a, kind: azure, base_url: x}\n",
        "line 2, column 19",
        "azure",
    );
    check(
        "keys:\n  - account: root\n    name: k\n    expires: 30d\n",
        "line 4, column 14",
        "expires: say a date",
    );
    check(
        "upstream_keys:\n  - id: a\n    provider: p\n    secret_env: NONE\n",
        "line 4, column 17",
        "NONE is not set",
    );
    check(
        "upstream_keys:\n  - id: a\n    provider: p\n    secret_file: none\n",
        "line 4, column 18",
        "/nowhere/none cannot be read",
    );
    check(
        "upstream_keys:\n  - id: a\n    provider: p\n    secret_file: none\n    secret_env: SECRET\n",
        "line 5, column 17",
        "one of them",
    );
    check(
        "prices:\n  - version: a\n    table_file: none\n",
        "line 3, column 17",
        "cannot be read",
    );
    check(
        "settings:\n  max_stale: 5\n",
        "line 2, column 14",
        "max_stale: a time is a number and a unit",
    );
    check(
        "settings:\n  audit_keep: 1500ms\n",
        "line 2, column 15",
        "whole seconds",
    );
    check("settings:\n  stale: 5d\n", "line 2, column 3", "stale");
    check("accounts: []\n---\naccounts: []\n", "line 3, column 1", "");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_control_plane_refuses_is_told_of_its_place() {
    let mut files = Read::default();
    let environment = Environment::default();
    for (name, text) in [
        ("a.yaml", "accounts:\n  - path: root/a\n"),
        (
            "b.yaml",
            "# more\nkeys:\n  - account: root/a\n    name: k\n    expires: 2030-01-01\n",
        ),
    ] {
        files.text(name, Path::new(""), text, &environment).unwrap();
    }
    let check = |field: &str, expected: Option<&str>| {
        let located = files.located(&[(field.to_owned(), "no".to_owned())]);
        assert_eq!(
            located.map(|it| it.to_string()).as_deref(),
            expected,
            "{field}"
        );
    };
    check(
        "objects[0].path",
        Some("a.yaml line 2, column 11: path: no"),
    );
    check(
        "objects[1].expires_unix_ms",
        Some("b.yaml line 5, column 14: expires: no"),
    );
    check("objects[1].id", Some("b.yaml line 3, column 5: id: no"));
    check("objects[1]", Some("b.yaml line 3, column 5: no"));
    check("objects[2]", None);
    check("name", None);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z*/._-]{1,12}",
        "\\PC{1,12}",
        prop::sample::select(vec![
            "true",
            "null",
            "~",
            "1",
            "0x1",
            "- a",
            "a: b",
            "#",
            "'",
            "\"",
            " a",
            "2030-01-01",
            "no"
        ])
        .prop_map(str::to_owned),
    ]
}

fn object() -> impl Strategy<Value = ManifestObject> {
    let list = || vec(text(), 0..3);
    let flag = any::<bool>;
    let staleness = (
        prop_oneof![Just(0_u64), any::<u32>().prop_map(u64::from)],
        0..=2_i32,
    );
    let account = (text(), flag(), flag(), list(), list(), list(), staleness).prop_map(
        |(
            path,
            suspended,
            gateway,
            allowed_models,
            allowed_endpoints,
            allowed_networks,
            staleness,
        )| {
            Kind::Account(ManifestAccount {
                path,
                suspended,
                gateway,
                allowed_models,
                allowed_endpoints,
                allowed_networks,
                max_stale_seconds: staleness.0,
                serve_expired: staleness.1,
            })
        },
    );
    let end = prop_oneof![Just(0_i64), 1..4_000_000_000_000_i64];
    let key = (text(), text(), text(), flag(), end, list(), list()).prop_map(
        |(account, name, id, disabled, expires_unix_ms, allowed_models, allowed_networks)| {
            Kind::Key(ManifestKey {
                account,
                name,
                id,
                disabled,
                expires_unix_ms,
                allowed_models,
                allowed_networks,
                ..ManifestKey::default()
            })
        },
    );
    let provider = (text(), 1..=4_i32, text(), flag(), flag()).prop_map(
        |(id, kind, base_url, allow_private, disabled)| {
            Kind::Provider(ManifestProvider {
                id,
                kind,
                base_url,
                allow_private,
                disabled,
            })
        },
    );
    let upstream_key = (text(), text(), flag(), 0..=10_u32, 1..=100_u32, list()).prop_map(
        |(id, provider_id, disabled, level, weight, models)| {
            Kind::UpstreamKey(ManifestUpstreamKey {
                id,
                provider_id,
                disabled,
                level,
                weight,
                models,
                ..ManifestUpstreamKey::default()
            })
        },
    );
    let level = list().prop_map(|provider_ids| RouteLevel { provider_ids });
    let route = (text(), text(), text(), vec(level, 1..3), 1..=3_i32).prop_map(
        |(id, model, upstream_model, levels, switch_over)| {
            Kind::Route(ManifestRoute {
                id,
                model,
                upstream_model,
                levels,
                switch_over,
            })
        },
    );
    let lines = vec(
        prop_oneof!["[ -~]{0,20}", "\\PC{0,8}", "[\t\r#]{1,2}"],
        0..5,
    );
    let content = (lines, 0..3_usize)
        .prop_map(|(lines, ends)| Some((lines.join("\n") + &"\n".repeat(ends)).into_bytes()));
    let price_table = (text(), flag(), prop_oneof![Just(None), content]).prop_map(
        |(version, active, content)| {
            Kind::PriceTable(ManifestPriceTable {
                version,
                active,
                content,
            })
        },
    );
    prop_oneof![account, key, provider, upstream_key, route, price_table]
        .prop_map(|kind| ManifestObject { kind: Some(kind) })
}

fn settings() -> impl Strategy<Value = Option<Settings>> {
    let seconds = || {
        prop_oneof![
            Just(0),
            1..200_000_u64,
            (1..900_u64).prop_map(|days| days * 86_400)
        ]
    };
    prop::option::of(
        (seconds(), seconds()).prop_map(|(max_stale_seconds, audit_keep_seconds)| Settings {
            max_stale_seconds,
            audit_keep_seconds,
        }),
    )
}

fn list_of(object: &ManifestObject) -> u8 {
    match object.kind.as_ref().unwrap() {
        Kind::Account(_) => 0,
        Kind::Key(_) => 1,
        Kind::Provider(_) => 2,
        Kind::UpstreamKey(_) => 3,
        Kind::Route(_) => 4,
        Kind::PriceTable(_) => 5,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn what_is_written_is_read_as_it_was(mut objects in vec(object(), 0..8), settings in settings()) {
        objects.sort_by_key(list_of);
        let manifest = Manifest { objects, settings };
        let text = yaml(&manifest);
        prop_assert_eq!(read(&text), Ok(manifest), "{}", text);
    }
}

#[tokio::test]
async fn files_are_compared_applied_and_written_out_again() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let work = home.data().parent().unwrap().to_owned();
    fs::copy(root().join(EXAMPLE), work.join("example.yaml")).unwrap();
    fs::write(work.join("openai-second.secret"), "sk-secret-second\n").unwrap();
    let secrets = [
        ("OPENAI_API_KEY", "sk-secret-one"),
        ("ANTHROPIC_API_KEY", "sk-secret-two"),
    ];
    let run = async |words: &str, input: &str, code: i32, says: &[&str]| {
        let list: Vec<&str> = words.split_whitespace().collect();
        let done = home.finish(home.command(&list, &secrets), input).await;
        let both = format!("{}{}", done.out, done.err);
        assert_eq!(done.code, Some(code), "xai {words}: {both}");
        for part in says {
            assert!(
                both.contains(part),
                "xai {words} does not say {part}: {both}"
            );
        }
        assert!(!both.contains("sk-secret"), "{both}");
        done.out
    };
    run(
        "diff -f example.yaml",
        "",
        1,
        &["+ account `root/search`", "14 to create", "14 objects"],
    )
    .await;
    run("apply -f example.yaml", "", 2, &["--secrets-out"]).await;
    run("apply -f example.yaml --dry-run", "", 0, &["+ route `gpt`"]).await;
    run("route list", "", 0, &["There are no routes."]).await;
    run(
        "apply -f example.yaml --secrets-out new --wait",
        "",
        0,
        &["+ route `gpt`"],
    )
    .await;
    let made = fs::read_to_string(work.join("new")).unwrap();
    assert_eq!(
        fs::metadata(work.join("new")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let made: Value = serde_json::from_str(&made).unwrap();
    let keys = made["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3, "{made}");
    assert!(
        keys.iter()
            .all(|key| key["secret"].as_str().unwrap().starts_with("sk-pxai-"))
    );
    run("diff -f example.yaml --prune", "", 0, &["as the files say"]).await;

    let out = run("export", "", 0, &["# Its secret stays as it is."]).await;
    run("diff -f -", &out, 0, &[]).await;
    run("apply -f -", &out, 0, &["as the files say"]).await;
    assert_eq!(run("export", "", 0, &[]).await, out);
    let without: String = out.replace("switch_over: rate_limited", "switch_over: any_failure");
    run(
        "diff -f -",
        &without,
        1,
        &["~ route `gpt`", "switch_over: rate_limited -> any_failure"],
    )
    .await;
    let shown = run("diff -f - -o json", &without, 1, &[]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["changes"][0]["after"]["switch_over"], "any_failure");

    // A new key has nowhere to go: nothing is made.
    let more = "accounts: [{path: root/more}]\nkeys: [{account: root/more, name: k}]\n";
    run(
        "apply -f - --secrets-out new",
        more,
        2,
        &["nothing was changed"],
    )
    .await;
    let told = run("apply -f - --secrets-out -", more, 0, &[]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["keys"][0]["account"], "root/more");
    // A refusal takes the empty file away again.
    let wider = "accounts: [{path: root/search/x, allowed_models: [o*]}]\nkeys: [{account: root/search/x, name: k}]\n";
    run(
        "apply -f - --secrets-out other",
        wider,
        1,
        &["- line 1, column 50: allowed_models:"],
    )
    .await;
    assert!(!work.join("other").exists());
    run(
        "diff -f -",
        "routes:\n  - id: x\n    model: m\n    levels: [[no]]\n",
        2,
        &["- line 4, column 13: levels: there is no provider `no`"],
    )
    .await;
    run(
        "apply -f example.yaml --prune",
        "",
        0,
        &["- account `root/more`", "2 to delete"],
    )
    .await;
    run("diff -f none.yaml", "", 2, &["none.yaml cannot be read"]).await;
    run("apply -f - --prune", "# nothing\n", 2, &["name nothing"]).await;
    fs::create_dir(work.join("folder")).unwrap();
    run("diff -f folder", "", 2, &["no YAML files"]).await;
    fs::write(
        work.join("folder/a.yaml"),
        "accounts: [{path: root/folder}]\n",
    )
    .unwrap();
    run(
        "diff -f folder -f example.yaml",
        "",
        1,
        &["+ account `root/folder`", "1 to create"],
    )
    .await;
    let printed = run("export --schema", "", 0, &[]).await;
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), schema());
    gateway.stop().await;
}
