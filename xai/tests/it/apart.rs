//! The planes as programs of their own, on one etcd: nodes join, serve, follow changes, outlive their control planes, and say in one
//! sentence what keeps them from starting.

use std::{fs, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    machines::{Machine, Site, control_planes},
    process::{Ask, mode, until},
};

/// The status of a chat with this key.
async fn chat(node: &Machine, key: &str) -> u16 {
    node.ask(&Ask::chat(key, "gpt-4o-mini", "tokens=3"))
        .await
        .status
}

/// Waits until every node answers a chat with this key in this way.
async fn everywhere(nodes: &[Machine], key: &str, status: u16) {
    for node in nodes {
        until("a change reaches a node", async || {
            (chat(node, key).await == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn nodes_serve_through_the_death_of_a_control_plane_and_without_any() {
    let site = Site::new(1).await;
    let any = "127.0.0.1:0";
    let (first, second) = (
        site.control_plane("control-1", any).await,
        site.control_plane("control-2", any).await,
    );
    assert!(
        first.said().contains("join-token create"),
        "{}",
        first.said()
    );
    let (_, key) = site.furnish(&first).await;
    let token = site.token(&first, "--uses 3").await;
    let planes = control_planes(&[&first, &second]);
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2", "node-3"] {
        nodes.push(site.node(name, &planes, &token).await);
    }
    for node in &nodes {
        assert_eq!(chat(node, &key).await, 200, "{}", node.said());
        for secret in ["node-identity.json", "ops-credential"] {
            assert_eq!(mode(&node.data().join(secret)), 0o600, "{secret}");
        }
        assert!(node.get("/metrics").await.body.contains("xai_node_state"));
        let config = node.get("/config").await.json();
        assert_eq!(config["settings"]["control_planes"], planes);
    }
    let config = first.get("/config").await.json();
    assert_eq!(config["settings"]["store"], "etcd");

    let (id, brief) = site.key(&second).await;
    everywhere(&nodes, &brief, 200).await;
    let words = format!("key disable {id} --wait=30s");
    site.json(&first, &words).await;
    for node in &nodes {
        assert_ne!(chat(node, &brief).await, 200, "{}", node.name);
    }

    first.kill().await;
    let (id, late) = site.key(&second).await;
    everywhere(&nodes, &late, 200).await;
    site.json(&second, &format!("key delete {id}")).await;
    everywhere(&nodes, &late, 401).await;

    // Whatever the copy of a node holds, it holds the key that was there from the beginning.
    let node = nodes.pop().unwrap();
    until("a copy is written", async || {
        let copy = node.data().join("config/config.copy");
        copy.exists().then_some(())
    })
    .await;
    let leaving = nodes.pop().unwrap();
    let slow = Ask::chat(&key, "gpt-4o-mini", "tokens=20 delay_ms=50").streamed();
    let coming = slow.send(leaving.address("client")).await.unwrap();
    leaving.signal(Signal::TERM);
    let reply = coming.whole().await;
    assert_eq!((reply.status, reply.broke), (200, false), "{reply:?}");
    assert!(reply.body.contains("[DONE]"), "{reply:?}");
    leaving.has_stopped().await;

    second.stop().await;
    node.kill().await;
    let begun = Instant::now();
    let node = site.node("node-3", &planes, "").await;
    assert_eq!(chat(&node, &key).await, 200, "{}", node.said());
    let took = begun.elapsed();
    println!("from the start to the first answer, without a control plane: {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    // Nothing takes their usage now, for which a node that is stopped would wait ten seconds.
    node.kill().await;
    for node in nodes {
        assert_eq!(chat(&node, &key).await, 200, "{}", node.name);
        node.kill().await;
    }
}

#[tokio::test]
async fn what_keeps_a_node_from_joining_is_said_in_one_sentence() {
    let site = Site::new(1).await;
    let control = site.control_plane("control-1", "127.0.0.1:0").await;
    let planes = control_planes(&[&control]);
    let (once, revoked) = (
        site.token(&control, "--uses 1").await,
        site.token(&control, "--uses 0").await,
    );
    let id = revoked.split('-').nth(2).unwrap();
    site.json(&control, &format!("join-token revoke {id}"))
        .await;
    let node = site.node("node-1", &planes, &once).await;
    let foreign = {
        let (rest, pin) = once.rsplit_once('-').unwrap();
        format!("{rest}-{}", "0".repeat(pin.len()))
    };
    let program = "xai-data-plane";
    let busy = node.address("client").to_string();
    for (code, variables, said) in [
        (2, vec![], "this node has not joined a gateway"),
        (2, vec![("XAI_JOIN_TOKEN", "sk-1")], "this is no join token"),
        (
            1,
            vec![("XAI_JOIN_TOKEN", once.as_str())],
            "as many nodes as it may",
        ),
        (1, vec![("XAI_JOIN_TOKEN", revoked.as_str())], "was revoked"),
        (
            1,
            vec![("XAI_JOIN_TOKEN", foreign.as_str())],
            "whose authority is pinned",
        ),
        (
            1,
            vec![("XAI_LISTEN", busy.as_str())],
            "is used by another program",
        ),
        (
            2,
            vec![("XAI_CONTROL_PLANES", "a:1")],
            "control planes are https://HOST:PORT",
        ),
        (1, vec![("XAI_DATA", "/proc/nowhere")], "choose another"),
    ] {
        let data = site.data("node-2");
        let mut all = vec![
            ("XAI_CONTROL_PLANES", planes.as_str()),
            ("XAI_DATA", data.to_str().unwrap()),
        ];
        all.extend(variables);
        let done = site.refused(program, &all).await;
        assert_eq!(done.code, Some(code), "{said}: {done:?}");
        let last = done
            .err
            .lines()
            .filter(|line| line.starts_with("xai-data-plane: "));
        let sentences: Vec<&str> = last.collect();
        assert_eq!(sentences.len(), 1, "{done:?}");
        assert!(sentences[0].contains(said), "{done:?}");
        assert!(!done.err.contains("panicked"), "{done:?}");
    }
    node.stop().await;
    control.stop().await;
}

#[tokio::test]
async fn a_node_that_was_off_for_too_long_renews_its_certificate_and_goes_on() {
    let site = Site::new(1).await;
    let control = site.control_plane("control-1", "127.0.0.1:0").await;
    let (_, key) = site.furnish(&control).await;
    let (planes, token) = (
        control_planes(&[&control]),
        site.token(&control, "--uses 1").await,
    );
    let node = site.node("node-1", &planes, &token).await;
    let file = node.data().join("node-identity.json");
    let read = || -> Value { serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap() };
    let joined = read();
    node.kill().await;
    // As if the certificate had run out a while ago.
    let mut old = joined.clone();
    (old["since_unix_ms"], old["until_unix_ms"]) = (1.into(), 2.into());
    fs::write(&file, old.to_string()).unwrap();
    let node = site.node("node-1", &planes, "").await;
    let renewed = until("the certificate is renewed", async || {
        let now = read();
        (now["until_unix_ms"].as_u64() > Some(2)).then_some(now)
    })
    .await;
    assert_eq!(mode(&file), 0o600);
    for (field, same) in [
        ("node_id", true),
        ("authority", true),
        ("renewal_secret", true),
        ("key", false),
        ("certificates", false),
    ] {
        assert_eq!(renewed[field] == joined[field], same, "{field}");
    }
    assert_eq!(chat(&node, &key).await, 200);
    node.stop().await;

    // A second control plane that brings another key-encryption key is told so.
    let data = site.data("control-2");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("key-encryption-key"), "66".repeat(32)).unwrap();
    let variables = [
        ("XAI_DATA", data.to_str().unwrap()),
        ("XAI_STORE", "etcd"),
        ("XAI_ETCD_ENDPOINTS", &site.etcd.endpoints()),
        ("XAI_ETCD_ALLOW_OLD_VERSION", "true"),
    ];
    let done = site.refused("xai-control-plane", &variables).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("put the right key file back"), "{done:?}");
    control.stop().await;
}

#[tokio::test]
async fn a_gateway_of_one_process_keeps_its_state_in_etcd() {
    let site = Site::new(1).await;
    let (endpoints, keys) = (site.etcd.endpoints(), site.home.keys());
    let variables = [
        ("XAI_STORE", "etcd"),
        ("XAI_ETCD_ENDPOINTS", endpoints.as_str()),
        ("XAI_ETCD_ALLOW_OLD_VERSION", "true"),
        ("XAI_KEYS", keys.as_str()),
    ];
    let gateway = site.home.start(&variables).await;
    let key = site.home.first_key();
    let ask = Ask::chat(&key, "gpt-4o-mini", "tokens=3");
    assert_eq!(gateway.ask(&ask).await.status, 200);
    site.home.usage("", 1).await;
    gateway.kill().await;
    let gateway = site.home.start(&variables).await;
    assert_eq!(gateway.ask(&ask).await.status, 200);
    site.home.usage("", 2).await;
    gateway.stop().await;
}
