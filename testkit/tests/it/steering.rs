//! The providers are steered over HTTP as `testkit/README.md` says, and the same seed gives the same faults.

use proxyxai_testkit::{Chaos, Fault, Simulator};
use serde_json::{Value, json};

use super::client::{Dialect, call, chat};

async fn steer(sim: &Simulator, path: &str, body: Value) -> (u16, Value) {
    let reply = call(sim, Dialect::Openai, path, &body).await;
    (reply.status, reply.json())
}

async fn statuses(sim: &Simulator, count: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..count {
        let body = chat("", json!({}));
        all.push(
            call(sim, Dialect::Openai, Dialect::Openai.path(), &body)
                .await
                .status,
        );
    }
    all
}

#[tokio::test(start_paused = true)]
async fn every_call_of_the_readme_does_what_it_says() {
    let sim = Simulator::new();
    let push = |key: &str, status: u16| json!({ "key": key, "faults": [{ "status": status }] });
    for (key, status) in [("sk-2", 500), ("sk-1", 503), ("*", 429)] {
        assert_eq!(
            steer(&sim, "/_sim/script", push(key, status)).await,
            (200, json!({}))
        );
    }
    // One's own come first, then those of any key; those of another key stay.
    assert_eq!(statuses(&sim, 3).await, [503, 429, 200]);
    let all = json!({ "seed": 1, "per_mille": [[1000, { "status": 402 }]] });
    assert_eq!(steer(&sim, "/_sim/chaos", all).await.0, 200);
    assert_eq!(statuses(&sim, 1).await, [402]);
    let (_, seen) = steer(&sim, "/_sim/requests", Value::Null).await;
    assert_eq!(
        (&seen["count"], seen["requests"].as_array().unwrap().len()),
        (&json!(4), 4)
    );
    assert_eq!(seen["requests"][0]["path"], "/v1/chat/completions");
    let (_, bill) = steer(&sim, "/_sim/bill", Value::Null).await;
    assert_eq!(bill["rows"].as_array().unwrap().len(), 1);
    assert_eq!(bill, serde_json::to_value(sim.bill()).unwrap());
    assert_eq!(sim.tagged(), vec![("t".to_owned(), "sk-1".to_owned()); 4]);
    steer(&sim, "/_sim/reset", json!({})).await;
    assert_eq!(statuses(&sim, 1).await, [200]);
    assert_eq!(
        (sim.requests(), sim.bill().rows.len(), sim.tagged().len()),
        (1, 1, 1)
    );
    for (path, wrong) in [
        (
            "/_sim/script",
            json!({ "key": "k", "faults": [{ "statu": 1 }] }),
        ),
        ("/_sim/chaos", json!({ "seeds": 1 })),
    ] {
        assert_eq!(
            steer(&sim, path, wrong).await.0,
            400,
            "what is misspelt is refused"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults_in_their_shares() {
    let run = async |seed| {
        let sim = Simulator::new();
        let per_mille = vec![(200, Fault::status(500)), (100, Fault::status(429))];
        sim.chaos(Chaos { seed, per_mille });
        statuses(&sim, 600).await
    };
    let once = run(7).await;
    assert_eq!(once, run(7).await);
    assert_ne!(once, run(8).await);
    for (status, least, most) in [(500, 80, 160), (429, 35, 90), (200, 360, 480)] {
        let count = once.iter().filter(|found| **found == status).count();
        assert!((least..most).contains(&count), "{count} times {status}");
    }
}
