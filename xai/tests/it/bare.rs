//! A node that starts while no control plane can be reached, with its disk copy and without: what it enforces, what clients are told, and that
//! it serves as soon as a control plane is back.

use std::fs;

use proxyxai_core::{account::key, secret::ExposeSecret as _};
use serde_json::Value;

use super::{
    machines::{Machine, Site, control_planes},
    process::{Ask, Gateway, Reply, until},
};

async fn config(node: &Machine) -> Value {
    node.get("/config").await.json()
}

/// What a client of each dialect is told, and one that asks for the models.
async fn answers(node: &Machine, key: &str) -> [Reply; 3] {
    let chat = Ask::chat(key, "gpt-4o-mini", "tokens=3");
    let messages = Ask::messages(key, "claude-sonnet-4", "tokens=3");
    let bearer = format!("Bearer {key}");
    let models = [("authorization", bearer.as_str())];
    [
        node.ask(&chat).await,
        node.ask(&messages).await,
        Gateway::get(node.address("client"), "/v1/models", &models).await,
    ]
}

#[tokio::test]
async fn law_12_a_node_without_control_plane_and_copy_answers_503_until_one_comes() {
    let site = Site::new(1).await;
    let control = site.control_plane("control-1", "127.0.0.1:0").await;
    let grpc = control.address("grpc").to_string();
    let (_, key) = site.furnish(&control).await;
    let (other, deleted) = site.key(&control).await;
    let token = site.token(&control, "--uses 1").await;
    let planes = control_planes(&[&control]);
    let node = site.node("node-1", &planes, &token).await;
    let set = site
        .json(&control, "settings set --max-stale 1h --wait=30s")
        .await;
    assert_eq!(set["settings"]["in_force"]["max_stale_seconds"], 3_600);
    assert_eq!(config(&node).await["max_stale_seconds"], 3_600);
    site.json(&control, &format!("key delete {other} --wait=30s"))
        .await;
    // It writes its copy once more.
    node.stop().await;
    control.kill().await;

    let node = site.node("node-1", &planes, "").await;
    let shown = config(&node).await;
    assert_eq!(
        (&shown["state"], &shown["max_stale_seconds"]),
        (&"cached".into(), &3_600.into()),
        "what the deployment said is in the copy"
    );
    node.kill().await;

    let folder = site.data("node-1").join("config");
    fs::remove_dir_all(&folder).unwrap();
    let node = site.node_at_once("node-1", &planes, "").await;
    // Its form is right, and nobody made it.
    let nobodys = key::generate([9; 64]).text;
    for key in [&key, &deleted, nobodys.expose_secret()] {
        for reply in answers(&node, key).await {
            assert_eq!(reply.status, 503, "{reply:?}");
            let error = &reply.json()["error"];
            let said = error["message"].as_str().unwrap();
            assert!(said.contains("no control plane has sent one"), "{reply:?}");
            assert!(error["type"].is_string(), "{reply:?}");
            assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
        }
    }
    let anthropic = node.ask(&Ask::messages(&key, "claude-sonnet-4", "")).await;
    assert_eq!(anthropic.json()["type"], "error", "{anthropic:?}");
    let probe = node.get("/ready").await;
    assert_eq!(probe.status, 503, "{probe:?}");
    assert!(probe.body.contains("the node is waiting"), "{probe:?}");
    assert_eq!(config(&node).await["state"], "waiting");
    until("it says so in its log", async || {
        let said = node.said();
        said.contains("no control plane can be reached and there is no copy")
            .then_some(())
    })
    .await;

    let control = site.control_plane("control-1", &grpc).await;
    node.ready().await;
    let [chat, ..] = answers(&node, &key).await;
    assert_eq!(chat.status, 200, "{chat:?}");
    let [chat, ..] = answers(&node, &deleted).await;
    assert_eq!(chat.status, 401, "now it is known: {chat:?}");
    assert_eq!(config(&node).await["state"], "current");
    node.stop().await;
    control.stop().await;
}
