//! How a gateway leaves and comes back: in good order, told twice, and killed.

use std::{collections::BTreeSet, time::Duration};

use proxyxai_proto::usage::v1::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

use super::{
    events::{booked, events, sums},
    process::{Ask, Gateway, Home, PATIENCE, mode, number, until},
};

#[tokio::test]
async fn a_restart_keeps_accounts_keys_and_usage() {
    let home = Home::new();
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let first = home.first_key();
    assert!(gateway.said().contains(&format!("Virtual key  {first}")));
    for (file, rights) in [
        ("first-key", 0o600),
        ("admin-credential", 0o600),
        ("key-encryption-key", 0o600),
        (".", 0o700),
    ] {
        assert_eq!(mode(&home.data().join(file)), rights, "{file}");
    }
    home.json("account create team").await;
    let (_, other) = home.new_key("root/team").await;
    for key in [&first, &other] {
        let reply = gateway.ask(&Ask::chat(key, "gpt-4o-mini", "")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    home.usage("", 2).await;
    let before = everything(&home).await;
    gateway.stop().await;
    assert!(!home.data().join("addresses.json").exists());

    let gateway = home.start(&[]).await;
    assert!(gateway.said().contains(&format!("Virtual key  {first}")));
    assert_eq!(everything(&home).await, before);
    for key in [&first, &other] {
        let reply = gateway.ask(&Ask::chat(key, "gpt-4o-mini", "")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    gateway.stop().await;
}

/// All that an administrator can see.
async fn everything(home: &Home) -> Vec<Value> {
    let mut all = Vec::new();
    for words in [
        "account list",
        "key list",
        "provider list",
        "upstream-key list",
        "route list",
        "usage --by account,key,model",
    ] {
        all.push(home.json(words).await);
    }
    all
}

#[tokio::test]
async fn the_first_key_is_shown_until_it_is_deleted() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let first = home.json("key first").await["secret"].clone();
    assert_eq!(first, home.first_key());
    let id = home.json("key list").await["keys"][0]["id"].clone();
    home.json(&format!("key delete {}", id.as_str().unwrap()))
        .await;
    let gone = home.xai("key first").await;
    assert_eq!(gone.code, Some(4), "{gone:?}");
    assert!(gone.err.contains("make one with `xai key create`"));
    assert!(!home.data().join("first-key").exists());
    let reply = gateway
        .ask(&Ask::chat(first.as_str().unwrap(), "gpt-4o-mini", ""))
        .await;
    assert_eq!(reply.status, 401, "{reply:?}");
    gateway.stop().await;
    let gateway = home.start(&[]).await;
    assert!(gateway.said().contains("The first virtual key was deleted"));
    assert!(!home.data().join("first-key").exists());
    gateway.stop().await;
}

#[tokio::test]
async fn law_18_a_crash_under_traffic_loses_no_acknowledged_usage() {
    let home = Home::new();
    let keys = home.keys();
    let variables = [("XAI_KEYS", keys.as_str())];
    let gateway = home.start(&variables).await;
    let key = home.first_key();
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let (key, to) = (key.clone(), gateway.client);
        clients.spawn(async move {
            for number in 0.. {
                let ask = Ask::chat(&key, "gpt-4o-mini", "tokens=9 delay_ms=1");
                let ask = ask.tagged(format!("{client}-{number}"));
                let ask = if number % 2 == 0 { ask } else { ask.streamed() };
                match ask.send(to).await {
                    Ok(coming) => drop(coming.whole().await),
                    Err(_) => return,
                }
            }
        });
    }
    let before = until("some usage is booked under traffic", async || {
        let rows = home.json("usage").await["rows"].as_array().unwrap().clone();
        rows.into_iter().find(|row| number(row, "attempts") >= 60)
    })
    .await;
    gateway.kill().await;
    clients.join_all().await;

    let gateway = home.start(&variables).await;
    let all = events(&home.data());
    let count = u64::try_from(all.len()).unwrap();
    let rows = home.usage("--by account,key,model", count).await;
    let after = &home.usage("", count).await[0];
    for place in [
        "attempts",
        "reported",
        "tokens.input",
        "tokens.output",
        "cost_nano_usd",
    ] {
        assert!(
            number(after, place) >= number(&before, place),
            "{place} was {before:#}, is {after:#}"
        );
    }
    assert_eq!(booked(&rows), sums(&all));
    let attempts: BTreeSet<_> = all.iter().map(|e| (&e.request_id, e.attempt)).collect();
    assert_eq!(attempts.len(), all.len(), "one event for each attempt");
    assert!(all.iter().all(|e| e.outcome() == Outcome::Reported));
    // What a crash takes are events of the last moments alone: never more than there are charges, and none that was acknowledged.
    let bill = home.sim.bill().rows;
    assert!(all.len() <= bill.len(), "{} {}", all.len(), bill.len());
    let lost = bill.len() - all.len();
    println!("{count} attempts booked, {lost} charges of the last moments lost with the process");
    // Each request costs the same, so equal counts are equal bills.
    let each = bill.iter().find(|row| row.whole).unwrap();
    assert_eq!(number(after, "tokens.input"), count * each.input);
    assert_eq!(number(after, "tokens.output"), count * each.output);
    let reply = gateway.ask(&Ask::chat(&key, "gpt-4o-mini", "")).await;
    assert_eq!(reply.status, 200);
    gateway.stop().await;
}

/// A stream that takes so many milliseconds, begun; and its gateway.
async fn streaming(home: &Home, ms: u64, drain: &str) -> (Gateway, super::process::Coming) {
    let keys = home.keys();
    let gateway = home
        .start(&[("XAI_KEYS", &keys), ("XAI_DRAIN", drain)])
        .await;
    let steer = format!("tokens={} delay_ms=50", ms / 50);
    let ask = Ask::chat(&home.first_key(), "gpt-4o-mini", &steer).streamed();
    let mut coming = ask.send(gateway.client).await.unwrap();
    assert!(coming.next().await.is_some());
    (gateway, coming)
}

#[tokio::test]
async fn the_first_signal_drains_a_running_stream_to_its_end() {
    for signal in [Signal::INT, Signal::TERM] {
        let home = Home::new();
        let (mut gateway, coming) = streaming(&home, 1500, "60s").await;
        gateway.signal(signal);
        until("no connection is taken any more", async || {
            let connected = TcpStream::connect(gateway.client).await;
            connected.is_err().then_some(())
        })
        .await;
        assert!(gateway.said().contains("Draining"));
        let reply = coming.whole().await;
        assert!(
            !reply.broke && reply.body.ends_with("data: [DONE]\n\n"),
            "{reply:?}"
        );
        assert_eq!(gateway.ended().await, Some(0), "{}", gateway.said());
        let events = events(&home.data());
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].outcome(), Outcome::Reported);
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let home = Home::new();
    let (mut gateway, coming) = streaming(&home, 600_000, "600s").await;
    gateway.signal(Signal::INT);
    until("it says that it drains", async || {
        gateway.said().contains("Draining").then_some(())
    })
    .await;
    assert!(gateway.runs());
    // The second one is heard as soon as the process waits for it.
    until("it ends", async || {
        if gateway.runs() {
            gateway.signal(Signal::INT);
            return None;
        }
        Some(())
    })
    .await;
    assert_eq!(gateway.ended().await, Some(130));
    assert!(!coming.whole().await.body.contains("[DONE]"));
}

#[tokio::test]
async fn draining_ends_in_its_time_and_says_so_to_the_client() {
    let home = Home::new();
    let (mut gateway, coming) = streaming(&home, 600_000, "1s").await;
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    let reply = coming.whole().await;
    assert!(
        !reply.broke && reply.body.contains("the gateway is stopping"),
        "{reply:?}"
    );
    assert_eq!(gateway.ended().await, Some(0), "{}", gateway.said());
    let took = began.elapsed();
    assert!(
        Duration::from_secs(1) <= took && took < PATIENCE,
        "{took:?}"
    );
    let events = events(&home.data());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].outcome(), Outcome::Unknown);
    assert!(events[0].estimated && events[0].reason == "gateway_stopped");
}
