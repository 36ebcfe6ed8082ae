//! Gateways behind gateways as real processes: a chain of three before the simulated providers, and circles of one, two and five.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proxyxai_proto::usage::v1::Outcome;
use proxyxai_testkit::{Chaos, Fault};
use serde_json::json;
use tokio::time::Instant;

use super::{
    events::events,
    process::{Ask, Gateway, Home, Reply, number, until},
};

/// Headers of an answer that gateways add, that belong to one connection, or that say what o'clock it is.
const OWN: [&str; 6] = [
    "x-proxyxai-request-id",
    "x-accel-buffering",
    "cache-control",
    "connection",
    "date",
    "transfer-encoding",
];

/// Three gateways: clients call the top, the bottom calls the providers.
struct Chain {
    homes: Vec<Home>,
    gateways: Vec<Gateway>,
    deployments: Vec<String>,
}

impl Chain {
    /// From the bottom upwards, each with the settings for its level.
    async fn start(settings: [&[(&str, &str)]; 3]) -> Self {
        let mut chain = Self {
            homes: Vec::new(),
            gateways: Vec::new(),
            deployments: Vec::new(),
        };
        let mut keys = None;
        for level in settings.iter().rev() {
            let home = Home::new();
            let keys_here = keys.unwrap_or_else(|| {
                let base = home.providers();
                let key = |kind: &str, number: u8| format!("sk-{kind}-{number}::{kind}@{base}");
                let kinds = ["openai", "anthropic"];
                let all = kinds.iter().flat_map(|kind| (1..5).map(|n| key(kind, n)));
                all.collect::<Vec<_>>().join(",")
            });
            let mut variables = vec![("XAI_KEYS", keys_here.as_str())];
            variables.extend_from_slice(level);
            let gateway = home.start(&variables).await;
            home.json("account create child --gateway").await;
            let key = home.new_key("root/child").await.1;
            keys = Some(format!("{key}::http://{}", gateway.client));
            let whoami = home.json("whoami").await;
            let deployment = whoami["identity"]["deployment_id"]
                .as_str()
                .unwrap()
                .to_owned();
            chain.homes.insert(0, home);
            chain.gateways.insert(0, gateway);
            chain.deployments.insert(0, deployment);
        }
        chain
    }

    fn bottom(&self) -> &Home {
        &self.homes[2]
    }

    async fn ask(&self, ask: &Ask) -> Reply {
        self.gateways[0].ask(ask).await
    }

    async fn stop(self) {
        for gateway in self.gateways {
            gateway.stop().await;
        }
    }
}

/// A request for a response.
fn respond(key: &str, steer: &str) -> Ask {
    Ask {
        path: "/v1/responses",
        key: key.to_owned(),
        tag: String::new(),
        body: json!({ "model": "gpt-4o-mini", "input": format!("Tell me of the sea. [[sim {steer}]]") }),
    }
}

/// What a client sees, but for the provider's name of this very request.
fn seen(reply: &Reply) -> (u16, BTreeMap<String, String>, String) {
    // Where the provider has another header for its name, gateways add this one.
    let name = ["request-id", "x-request-id"];
    let name = name.iter().find_map(|name| reply.headers.get(*name));
    let name = name.unwrap().to_str().unwrap();
    let headers = reply.headers.iter().map(|(key, value)| {
        let value = value.to_str().unwrap().replace(name, "NAME");
        (key.as_str().to_owned(), value)
    });
    let added = reply
        .headers
        .contains_key("request-id")
        .then_some("x-request-id");
    let headers = headers.filter(|(key, _)| !OWN.contains(&key.as_str()) && added != Some(key));
    (
        reply.status,
        headers.collect(),
        reply.body.replace(name, "NAME"),
    )
}

#[tokio::test]
async fn three_levels_answer_as_the_provider_does_and_book_it_at_each() {
    let chain = Chain::start([&[], &[], &[]]).await;
    let provider: SocketAddr = chain.bottom().providers()["http://".len()..]
        .parse()
        .unwrap();
    let key = chain.homes[0].first_key();
    let asks = |key: &str| {
        let steer = "tokens=30 cached=2 reasoning=3";
        let all = [
            Ask::chat(key, "gpt-4o-mini", steer),
            Ask::chat(key, "gpt-4o-mini", steer).streamed(),
            respond(key, steer),
            respond(key, steer).streamed(),
            Ask::messages(key, "claude-sonnet-4-5", steer),
            Ask::messages(key, "claude-sonnet-4-5", steer).streamed(),
        ];
        let mut count = Ask::messages(key, "claude-sonnet-4-5", steer);
        count.path = "/v1/messages/count_tokens";
        all.into_iter().chain([count]).collect::<Vec<_>>()
    };
    let mut names = Vec::new();
    for (ask, direct) in asks(&key).into_iter().zip(asks("sk-direct")) {
        let direct = seen(&direct.send(provider).await.unwrap().whole().await);
        let reply = chain.ask(&ask.tagged("t")).await;
        let (status, headers, body) = seen(&reply);
        assert_eq!((status, body), (direct.0, direct.2), "{}", direct.0);
        for (name, value) in &headers {
            assert_eq!(
                direct.1.get(name),
                Some(value),
                "{name} is not the provider's"
            );
        }
        names.push(
            reply.headers["x-proxyxai-request-id"]
                .to_str()
                .unwrap()
                .to_owned(),
        );
    }
    // What an error of the provider says is not changed on the way, either.
    chain.bottom().sim.script("*", [Fault::status(400)]);
    let refused = chain
        .ask(&Ask::chat(&key, "gpt-4o-mini", "").tagged("t"))
        .await;
    names.push(
        refused.headers["x-proxyxai-request-id"]
            .to_str()
            .unwrap()
            .to_owned(),
    );
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["code"], "invalid_value");

    let bill = chain.bottom().sim.bill().rows;
    let billed = |pick: fn(&proxyxai_testkit::BillRow) -> u64| {
        let tagged = bill.iter().filter(|row| row.tag == "t");
        tagged.map(pick).sum::<u64>()
    };
    for home in &chain.homes {
        let rows = home.usage("--by model", 8).await;
        let sum = |place: &str| rows.iter().map(|row| number(row, place)).sum::<u64>();
        let outcomes = (sum("reported"), sum("rejected"));
        assert_eq!(outcomes, (7, 1), "{rows:#?}");
        assert_eq!(sum("tokens.input"), billed(|row| row.input));
        assert_eq!(sum("tokens.cache_read"), billed(|row| row.cache_read));
        assert_eq!(sum("tokens.output"), billed(|row| row.output));
        assert!(sum("cost_nano_usd") > 0);
    }
    let Chain {
        gateways, homes, ..
    } = chain;
    for gateway in gateways {
        gateway.stop().await;
    }
    for home in homes {
        let mut events = events(&home.data());
        events.sort_by_key(|event| event.started_unix_ms);
        let booked = events.iter().map(|event| event.request_id.as_str());
        let booked: Vec<&str> = booked.collect();
        assert_eq!(booked, names, "one name at every level");
        let count = &events[6];
        assert_eq!(
            (count.endpoint.as_str(), count.cost_nano_usd),
            ("messages.count_tokens", 0)
        );
    }
}

#[tokio::test]
async fn law_16_a_total_outage_at_the_bottom_costs_three_attempts_at_most() {
    let chain = Chain::start([&[], &[], &[]]).await;
    let key = chain.homes[0].first_key();
    chain.bottom().sim.chaos(Chaos {
        seed: 16,
        per_mille: vec![(1000, Fault::status(500))],
    });
    for number in 0..8 {
        let tag = format!("request-{number}");
        let ask = match number % 3 {
            0 => Ask::chat(&key, "gpt-4o-mini", ""),
            1 => Ask::messages(&key, "claude-sonnet-4-5", ""),
            _ => respond(&key, "").streamed(),
        };
        let reply = chain.ask(&ask.tagged(&tag)).await;
        assert_eq!(reply.status, 502, "{reply:?}");
        assert_eq!(reply.headers["x-should-retry"], "false");
        let bottom = &chain.deployments[2];
        assert_eq!(reply.headers["x-proxyxai-deployment"], bottom.as_str());
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.ends_with(&format!("(gateway {bottom})")),
            "{message}"
        );
        let tried = chain.bottom().sim.tagged();
        let tried = tried.iter().filter(|(its, _)| *its == tag).count();
        assert_eq!(tried, 3, "counted at the provider");
    }
    for (home, attempts) in chain.homes.iter().zip([8, 8, 24]) {
        let rows = home.usage("--by model", attempts).await;
        assert_eq!(
            rows.iter().map(|row| number(row, "rejected")).sum::<u64>(),
            attempts
        );
    }
    // One upstream key that works is found within the three.
    chain.bottom().sim.chaos(Chaos::default());
    chain
        .bottom()
        .sim
        .script("*", [Fault::status(500), Fault::status(429)]);
    let reply = chain.ask(&Ask::chat(&key, "gpt-4o-mini", "")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    chain.stop().await;
}

#[tokio::test]
async fn law_17_the_shortest_time_of_the_chain_is_that_of_all() {
    let short: &[(&str, &str)] = &[
        ("XAI_REQUEST_TIMEOUT", "3s"),
        ("XAI_FIRST_BYTE_TIMEOUT", "3s"),
    ];
    let chain = Chain::start([short, &[], &[]]).await;
    let key = chain.homes[0].first_key();
    let slow = Fault {
        delay_ms: 600_000,
        ..Fault::default()
    };
    chain.bottom().sim.script("*", [slow]);
    let began = Instant::now();
    let reply = chain.ask(&Ask::chat(&key, "gpt-4o-mini", "")).await;
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // Each level gave up in its time, or was told so: nobody waits for the minutes that the lower ones allow.
    for home in &chain.homes {
        home.usage("--by model", 1).await;
    }
    let Chain {
        gateways, homes, ..
    } = chain;
    for gateway in gateways {
        gateway.stop().await;
    }
    for (level, home) in homes.iter().enumerate() {
        let event = &events(&home.data())[0];
        let gave_up = event.outcome() == Outcome::Unknown
            && ["timed_out", "client_gone"].contains(&event.reason.as_str());
        assert!(gave_up || level < 2 && event.status == 504, "{event:?}");
        assert!((1_000..60_000).contains(&event.duration_ms), "{event:?}");
    }
}

#[tokio::test]
async fn law_17_circles_of_one_two_and_five_end_at_the_second_visit() {
    let mut gateways = Vec::new();
    for _ in 0..5 {
        let home = Home::new();
        let gateway = home.start(&[]).await;
        gateways.push((home, gateway));
    }
    // Who calls whom, for which models; a circle of each length goes through the first one.
    for (from, to, models) in [
        (0, 0, "one"),
        (0, 1, "other-*"),
        (1, 0, "other-two"),
        (1, 2, "other-five"),
        (2, 3, "*"),
        (3, 4, "*"),
        (4, 0, "*"),
    ] {
        let (next, key) = (&gateways[to].1, gateways[to].0.new_key("root").await.1);
        let home = &gateways[from].0;
        let id = format!("to-{to}");
        let base = format!("http://{}", next.client);
        home.json(&format!(
            "provider create {id} --kind gateway --base {base} --allow-private"
        ))
        .await;
        let words = [
            "upstream-key",
            "create",
            "--provider",
            &id,
            "--secret-file",
            "-",
        ];
        let done = home.finish(home.command(&words, &[]), &key).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        home.json(&format!(
            "route create {id} --model {models} --provider {id} --wait"
        ))
        .await;
    }
    let key = gateways[0].0.first_key();
    let first = gateways[0].0.json("whoami").await["identity"]["deployment_id"].clone();
    let mut visits = BTreeMap::from([(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    for (model, length) in [("one", 1), ("other-two", 2), ("other-five", 5)] {
        for ask in [
            Ask::chat(&key, model, ""),
            Ask::messages(&key, model, "").streamed(),
        ] {
            let reply = gateways[0].1.ask(&ask).await;
            assert_eq!(reply.status, 508, "{model}: {reply:?}");
            assert_eq!(reply.headers["x-should-retry"], "false");
            assert_eq!(
                reply.headers["x-proxyxai-deployment"],
                first.as_str().unwrap()
            );
            let message = reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(
                message.contains("has come to this gateway before"),
                "{message}"
            );
            for visited in 0..length {
                *visits.get_mut(&visited).unwrap() += 1;
            }
        }
    }
    for (at, (home, _)) in gateways.iter().enumerate() {
        // Each called its next one once for each request; the first one's second visits called nobody.
        let rows = home.usage("--by model", visits[&at]).await;
        let rejected = rows.iter().map(|row| number(row, "rejected")).sum::<u64>();
        assert_eq!(rejected, visits[&at], "gateway {at}");
    }
    for (_home, gateway) in gateways {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_parent_that_is_away_is_no_end() {
    let parent = Home::new();
    let gateway = parent.start(&[("XAI_KEYS", &parent.keys())]).await;
    parent.json("account create child --gateway").await;
    let key = parent.new_key("root/child").await.1;
    let child = Home::new();
    let other = format!("sk-openai-9::openai@{}", child.providers());
    let keys = format!("{key}::http://{},{other}", gateway.client);
    let below = child.start(&[("XAI_KEYS", &keys)]).await;
    let ask = Ask::chat(&child.first_key(), "gpt-4o-mini", "");
    gateway.kill().await;
    for _ in 0..4 {
        let reply = below.ask(&ask).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    until(
        "each turn of the parent's key went to the other one",
        async || {
            let usage = child.json("usage --by model").await;
            let row = usage["rows"].get(0)?;
            (number(row, "attempts") == 6).then_some(())
        },
    )
    .await;
    below.stop().await;
}
