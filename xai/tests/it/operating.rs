//! A node that is cordoned, drained and let serve again, and logs whose levels are changed, against the real process.

use super::process::{Ask, Gateway, Home, number, until};

async fn probe(gateway: &Gateway) -> (u16, String) {
    let reply = Gateway::get(gateway.ops, "/ready", &[]).await;
    (reply.status, reply.body)
}

async fn node(home: &Home) -> serde_json::Value {
    home.json("nodes").await["nodes"][0].clone()
}

async fn done(home: &Home, words: &str) {
    let done = home.xai(words).await;
    assert_eq!(done.code, Some(0), "{words}: {done:?}");
}

#[tokio::test]
async fn a_node_is_cordoned_and_drained_and_that_outlives_a_restart() {
    let home = Home::new();
    let keys = home.keys();
    let variables = [("XAI_KEYS", keys.as_str())];
    let gateway = home.start(&variables).await;
    let id = node(&home).await["id"].as_str().unwrap().to_owned();
    let ask = Ask::chat(&home.first_key(), "gpt-4o-mini", "tokens=9");
    assert_eq!(probe(&gateway).await.0, 200);

    done(&home, &format!("node cordon {id}")).await;
    let said = until("the probe says so", async || {
        let (status, said) = probe(&gateway).await;
        (status == 503).then_some(said)
    });
    let said = said.await;
    assert!(said.contains("cordoned"), "{said}");
    assert_eq!(
        gateway.ask(&ask).await.status,
        200,
        "it serves all the same"
    );
    assert_eq!(node(&home).await["schedule"], "cordoned");
    gateway.stop().await;

    let gateway = home.start(&variables).await;
    assert_eq!(probe(&gateway).await.0, 503);
    assert_eq!(gateway.ask(&ask).await.status, 200);
    let long = ask_slowly(&gateway, &home.first_key()).await;
    let waits = home.xai(&format!("node drain {id} --wait=2s")).await;
    assert_eq!(waits.code, Some(1), "{waits:?}");
    assert!(waits.err.contains("1 requests are open"), "{waits:?}");
    drop(long);
    done(&home, &format!("node drain {id} --wait=30s")).await;
    let shown = node(&home).await;
    assert_eq!(
        (&shown["schedule"], number(&shown, "open_requests")),
        (&"drained".into(), 0)
    );
    done(&home, &format!("node uncordon {id}")).await;
    until("it is ready again", async || {
        (probe(&gateway).await.0 == 200).then_some(())
    })
    .await;
    let remove = home.xai(&format!("node remove {id}")).await;
    assert!(remove.err.contains("has a stream"), "{remove:?}");
    let remove = home.xai(&format!("node remove {id} --force")).await;
    assert!(remove.err.contains("no certificate"), "{remove:?}");
    let nobody = home.xai("node drain nobody").await;
    assert_eq!(nobody.code, Some(4), "{nobody:?}");
    gateway.stop().await;
}

/// A stream that is open until it is dropped.
async fn ask_slowly(gateway: &Gateway, key: &str) -> super::process::Coming {
    let ask = Ask::chat(key, "gpt-4o-mini", "tokens=100000 delay_ms=200").streamed();
    let mut coming = ask.send(gateway.client).await.unwrap();
    assert!(coming.next().await.is_some());
    coming
}

#[tokio::test]
async fn levels_of_logs_change_while_a_gateway_runs() {
    let home = Home::new();
    let gateway = home.start(&[("XAI_LOG", "info")]).await;
    let id = node(&home).await["id"].as_str().unwrap().to_owned();
    let in_force = "configuration in force";
    let count = || gateway.said().matches(in_force).count();
    done(&home, &format!("log set error --node {id} --for 1h")).await;
    until("the node says so", async || {
        let shown = home.json("log show").await;
        (shown["logs"][1]["in_force"] == "error").then_some(())
    })
    .await;
    let shown = home.json("log show").await;
    assert_eq!(shown["logs"][0]["level"], "settings");
    assert!(shown["logs"][1]["until_unix_ms"].is_number(), "{shown}");
    let before = count();
    done(&home, "account create quiet --wait").await;
    assert_eq!(count(), before, "it is too little for this level");
    done(&home, &format!("log reset --node {id}")).await;
    until("the node says so", async || {
        let shown = home.json("log show").await;
        (shown["logs"][1]["in_force"] == "settings").then_some(())
    })
    .await;
    done(&home, "account create loud --wait").await;
    until("it is written again", async || {
        (count() > before).then_some(())
    })
    .await;
    done(&home, "log set debug --control-plane --for 2s").await;
    until("it is in force, and over", async || {
        let said = gateway.said();
        let set = said.contains("level=\"debug\"") || said.contains("level=debug");
        (set && said.contains("that of the settings")).then_some(())
    })
    .await;
    for (words, said) in [
        ("log set debug", "--node"),
        ("log set loud --control-plane", "error, warn, info"),
        ("log set debug --node nobody", "nobody"),
    ] {
        let refused = home.xai(words).await;
        assert!(
            refused.code != Some(0) && refused.err.contains(said),
            "{refused:?}"
        );
    }
    gateway.stop().await;
}
