//! The runbook of `docs/backup.md`, step by step with the real program: rotation under traffic, backups, and a gateway that comes back
//! from them, with the key-encryption key and without.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::process::{Ask, Gateway, Home, PATIENCE, mode, until};

const KEY: &str = "key-encryption-key";

/// Runs a command that must succeed; what it printed.
async fn done(home: &Home, words: &str) -> String {
    let done = home.xai(words).await;
    assert_eq!(done.code, Some(0), "xai {words}: {}", done.err);
    done.out
}

/// Runs a command that must be refused in one sentence with these words.
async fn refused(home: &Home, words: &str, expected: &[&str]) {
    let done = home.xai(words).await;
    assert_eq!(done.code, Some(1), "xai {words}: {done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    for part in expected {
        assert!(done.err.contains(part), "no `{part}` in {done:?}");
    }
}

async fn serves(gateway: &Gateway, keys: &[&str]) {
    for key in keys {
        let reply = gateway.ask(&Ask::chat(key, "gpt-4o-mini", "")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

/// An answer without the versions of objects, which belong to the store that they are in.
fn without_versions(mut answer: serde_json::Value) -> serde_json::Value {
    for list in answer.as_object_mut().unwrap().values_mut() {
        for object in list.as_array_mut().unwrap() {
            object.as_object_mut().unwrap().remove("resource_version");
        }
    }
    answer
}

fn key_id(text: &str) -> String {
    let bytes: Vec<u8> = text
        .trim()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let key = proxyxai_core::secret::seal::SealKey::new(bytes.try_into().unwrap());
    key.id().to_string()
}

#[tokio::test]
async fn keys_are_rotated_under_traffic_and_no_request_fails() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let (client, first) = (gateway.client, home.first_key());
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let traffic = (0..3).map(|_| {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        let ask = Ask::chat(&first, "gpt-4o-mini", "");
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let reply = ask.send(client).await.unwrap().whole().await;
                assert_eq!(reply.status, 200, "{reply:?}");
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let traffic: Vec<_> = traffic.collect();
    let more = async || {
        let before = served.load(Ordering::SeqCst);
        until("requests are served", async || {
            (served.load(Ordering::SeqCst) > before + 5).then_some(())
        })
        .await;
    };
    let shown = async || {
        home.json("secret show").await["data_keys"]
            .as_array()
            .unwrap()
            .clone()
    };
    let before = shown().await;
    more().await;
    for _ in 0..3 {
        done(&home, "secret rotate").await;
        more().await;
    }
    let after = shown().await;
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before[0]["id"], after[0]["id"]);
    assert_eq!(before[0]["secrets"], after[0]["secrets"]);
    // The key-encryption key: first there must be a next one.
    refused(
        &home,
        "secret rotate --key-encryption-key",
        &["secret new-key"],
    )
    .await;
    let file = home.data().join(KEY);
    let old = fs::read_to_string(&file).unwrap();
    let made = done(&home, "secret new-key").await;
    refused(&home, "secret new-key", &["nothing was changed"]).await;
    assert_eq!(mode(&home.data().join("key-encryption-key.next")), 0o600);
    done(&home, "secret rotate --key-encryption-key").await;
    more().await;
    let new = fs::read_to_string(&file).unwrap();
    assert_ne!(old, new);
    assert!(made.contains(&key_id(&new)), "{made}");
    assert_eq!(shown().await[0]["key_encryption_key_id"], key_id(&new));
    let kept = home.data().join(format!("{KEY}.{}", key_id(&old)));
    assert_eq!(fs::read_to_string(&kept).unwrap(), old);
    assert_eq!((mode(&file), mode(&kept)), (0o600, 0o600));
    stop.store(true, Ordering::SeqCst);
    for one in traffic {
        tokio::time::timeout(PATIENCE, one).await.unwrap().unwrap();
    }
    gateway.kill().await;
    let gateway = home.start(&[]).await;
    serves(&gateway, &[&first]).await;
    gateway.stop().await;
    // The old key does not open it any more.
    fs::copy(&kept, &file).unwrap();
    refused(&home, "up", &[&key_id(&old), &key_id(&new)]).await;
}

#[tokio::test]
async fn a_backup_brings_a_gateway_back_with_the_key_and_not_without_it() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let first = home.first_key();
    home.json("account create team").await;
    let (_, other) = home.new_key("root/team").await;
    serves(&gateway, &[&first, &other]).await;
    home.usage("", 2).await;
    let objects = async || {
        let mut all = Vec::new();
        for words in [
            "account list",
            "key list",
            "upstream-key list",
            "usage --by key",
        ] {
            all.push(without_versions(home.json(words).await));
        }
        all
    };
    let before = objects().await;
    let place = |name: &str| {
        home.data()
            .with_file_name(name)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let (online, offline) = (place("online.backup"), place("offline.backup"));
    let said = done(&home, &format!("backup {online}")).await;
    assert!(said.contains("generation 1"), "{said}");
    assert_eq!(mode(Path::new(&online)), 0o600);
    refused(&home, &format!("backup {online}"), &["exists already"]).await;
    refused(
        &home,
        &format!("backup --offline {offline}"),
        &["another xai uses"],
    )
    .await;
    gateway.stop().await;
    done(&home, &format!("backup --offline {offline}")).await;
    done(&home, &format!("store export {}", place("export"))).await;
    let bytes = fs::read(&online).unwrap();
    for secret in [first.as_bytes(), other.as_bytes(), b"sk-openai-1"] {
        let found = bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "law 21");
    }
    // The machine is lost: nothing is left but the backup, the key and the providers.
    let lost = place("lost");
    fs::rename(home.data(), &lost).unwrap();
    refused(
        &home,
        &format!("store export {}", place("none")),
        &["there is no store"],
    )
    .await;
    refused(&home, "store restored", &["there is no store"]).await;
    refused(
        &home,
        &format!("store import {online}"),
        &["there is no key at", KEY],
    )
    .await;
    let right = fs::read_to_string(Path::new(&lost).join(KEY)).unwrap();
    fs::create_dir_all(home.data()).unwrap();
    let wrong = "12".repeat(32);
    fs::write(home.data().join(KEY), &wrong).unwrap();
    let import = format!("store import {online}");
    refused(&home, &import, &[&key_id(&wrong), &key_id(&right)]).await;
    fs::write(home.data().join(KEY), &right).unwrap();
    let said = done(&home, &import).await;
    assert!(said.contains("generation 2"), "{said}");
    let gateway = home.start(&[]).await;
    assert_eq!(objects().await, before);
    serves(&gateway, &[&first, &other]).await;
    assert_eq!(
        home.json("secret show").await["data_keys"][0]["generation"],
        2
    );
    gateway.stop().await;
    refused(&home, &import, &["not empty", "--replace"]).await;
    let said = done(&home, &format!("store import {offline} --replace")).await;
    assert!(said.contains("generation 3"), "{said}");
    let gateway = home.start(&[]).await;
    // Usage comes back, too, but for what the node had not reported yet: that it books now.
    assert_eq!(objects().await[..3], before[..3]);
    serves(&gateway, &[&other]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_copied_disk_is_put_back_one_generation_higher() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let first = home.first_key();
    serves(&gateway, &[&first]).await;
    home.usage("", 1).await;
    gateway.stop().await;
    let (store, copy) = (
        home.data().join("store.redb"),
        home.data().with_file_name("copy"),
    );
    fs::copy(&store, &copy).unwrap();
    let gateway = home.start(&[]).await;
    home.json("account create later").await;
    serves(&gateway, &[&first]).await;
    home.usage("", 2).await;
    refused(&home, "store restored", &["another xai uses"]).await;
    gateway.stop().await;
    fs::copy(&copy, &store).unwrap();
    let (file, away) = (home.data().join(KEY), home.data().with_file_name("away"));
    fs::rename(&file, &away).unwrap();
    refused(
        &home,
        "store restored",
        &["there is no key at", "put it back"],
    )
    .await;
    refused(&home, "up", &["there is no key at", "put it back"]).await;
    assert!(
        !file.exists(),
        "no other key is made beside a store that has one"
    );
    fs::rename(&away, &file).unwrap();
    let said = done(&home, "store restored").await;
    assert!(said.contains("generation 2"), "{said}");
    let gateway = home.start(&[]).await;
    serves(&gateway, &[&first]).await;
    assert_eq!(
        home.json("secret show").await["data_keys"][0]["generation"],
        2
    );
    // What was booked after the copy is not in it, but the node has it still and reports it again; what comes now is booked, too.
    home.usage("", 3).await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_key_may_come_from_the_environment_or_a_command() {
    let home = Home::new();
    let key = "ab".repeat(32);
    let keys = home.keys();
    let from_variable = [
        ("XAI_KEYS", keys.as_str()),
        ("XAI_KEY_ENCRYPTION_KEY", "env:GATEWAY_KEY"),
        ("GATEWAY_KEY", key.as_str()),
    ];
    let gateway = home.start(&from_variable).await;
    let first = home.first_key();
    serves(&gateway, &[&first]).await;
    assert!(
        !gateway.said().contains("is no setting"),
        "{}",
        gateway.said()
    );
    gateway.stop().await;
    assert!(!home.data().join(KEY).exists());
    let command = format!("command:echo {key}");
    let gateway = home.start(&[("XAI_KEY_ENCRYPTION_KEY", &command)]).await;
    serves(&gateway, &[&first]).await;
    gateway.stop().await;
    let fails = home.command(&["up"], &[("XAI_KEY_ENCRYPTION_KEY", "command:false")]);
    let fails = home.finish(fails, "").await;
    assert_eq!(
        (fails.code, fails.err.lines().count()),
        (Some(1), 1),
        "{fails:?}"
    );
    assert!(
        fails.err.contains("command:false") && fails.err.contains("by hand"),
        "{fails:?}"
    );
}
