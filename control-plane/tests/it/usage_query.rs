//! Queries of usage, before, while and after rows by hour become rows by day.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxyxai_control_plane::store::{
    Entry, Leadership, Page, Range, Reply, Store, Txn, TxnResult, Watch, embedded::EmbeddedStore,
};
use proxyxai_proto::{
    admin::v1::{DeleteAccountRequest, QueryUsageRequest, UsageGroup},
    usage::v1::{Outcome, UsageEvent, report_response::Message},
};
use tokio::time::sleep;
use tonic::Code;

use crate::{
    editor::{account, key},
    harness::{EPOCH_MS, Plane, World, ok, refused},
    usage::{HOUR_MS, Report, batch, by_everything, event, query, total},
};

async fn report(plane: &Plane, events: Vec<UsageEvent>) {
    let (mut report, through) = Report::open(plane, "n", 1).await;
    assert!(matches!(
        report.send(batch(through + 1, events)).await,
        Ok(Message::Ack(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn usage_is_found_by_subtree_key_model_time_and_missing_price() {
    let world = World::new();
    let plane = world.start().await;
    let mut ids = BTreeMap::new();
    for (parent, name) in [("root", "a"), ("root/a", "b"), ("root", "c")] {
        let made = account(&plane, parent, name).await;
        ids.insert(name, made.account.unwrap().id);
    }
    let (named, _) = key(&plane, "root/a", "laptop").await;
    let at = |hours: i64, event: UsageEvent| UsageEvent {
        started_unix_ms: EPOCH_MS + hours * HOUR_MS,
        ..event
    };
    world.clock.forward(5 * HOUR_MS);
    report(
        &plane,
        vec![
            at(0, event(&ids["a"], &named.id, "m")),
            at(1, event(&ids["b"], "k2", "m")),
            at(2, event(&ids["b"], "k2", "org/m")),
            at(3, event(&ids["c"], "k3", "m")),
            at(4, event("root", "k4", "m")),
            at(
                4,
                UsageEvent {
                    unpriced: true,
                    cost_nano_usd: 0,
                    ..event("root", "k4", "new")
                },
            ),
            at(
                4,
                UsageEvent {
                    outcome: Outcome::NotSent.into(),
                    tokens: None,
                    cost_nano_usd: 0,
                    ..event("gone", "k5", "m")
                },
            ),
        ],
    )
    .await;
    let under = |under: &str| QueryUsageRequest {
        under: under.into(),
        ..QueryUsageRequest::default()
    };
    let time = |from: i64, to: i64| QueryUsageRequest {
        from_unix_ms: EPOCH_MS + from,
        to_unix_ms: if to == 0 { 0 } else { EPOCH_MS + to },
        ..QueryUsageRequest::default()
    };
    let cases: [(QueryUsageRequest, u64); 15] = [
        (QueryUsageRequest::default(), 7),
        (under("root"), 7),
        (under("root/a"), 3),
        (under(&ids["b"]), 2),
        (under("root/c"), 1),
        (
            QueryUsageRequest {
                key_id: "k2".into(),
                ..under("root/a")
            },
            2,
        ),
        (
            QueryUsageRequest {
                key_id: "k3".into(),
                ..under("root/a")
            },
            0,
        ),
        (
            QueryUsageRequest {
                model: "org/m".into(),
                ..under("")
            },
            1,
        ),
        (
            QueryUsageRequest {
                unpriced_only: true,
                ..under("")
            },
            1,
        ),
        (time(HOUR_MS, 0), 6),
        (time(HOUR_MS + 1, 0), 6),
        (time(HOUR_MS, 2 * HOUR_MS), 1),
        (time(HOUR_MS, 2 * HOUR_MS + 1), 2),
        (time(5 * HOUR_MS, 0), 0),
        (time(2 * HOUR_MS, HOUR_MS), 0),
    ];
    for (asked, want) in cases {
        let found: u64 = query(&plane, asked.clone())
            .await
            .iter()
            .map(|row| row.attempts)
            .sum();
        assert_eq!(found, want, "{asked:?}");
    }
    refused(
        plane.queries().query_usage(under("root/x")).await,
        Code::NotFound,
        &["no account `root/x`"],
    );

    let rows = query(&plane, by_everything()).await;
    let row = rows.iter().find(|row| row.key_id == named.id).unwrap();
    assert_eq!(
        (
            row.account_path.as_str(),
            row.key_name.as_str(),
            row.model.as_str()
        ),
        ("root/a", "laptop", "m")
    );
    let by_model = QueryUsageRequest {
        group_by: vec![UsageGroup::Model.into()],
        ..QueryUsageRequest::default()
    };
    let rows = query(&plane, by_model).await;
    let sums: Vec<_> = rows
        .iter()
        .map(|row| (row.model.as_str(), row.attempts, row.cost_nano_usd))
        .collect();
    assert_eq!(sums, [("m", 5, 28), ("new", 1, 0), ("org/m", 1, 7)]);
    assert!(
        rows.iter()
            .all(|row| row.account_id.is_empty() && row.key_id.is_empty())
    );

    // What a deleted account used stays in the books.
    ok(plane
        .accounts()
        .delete_account(DeleteAccountRequest {
            account: ids["c"].clone(),
            ..DeleteAccountRequest::default()
        })
        .await);
    assert_eq!(query(&plane, under("root")).await[0].attempts, 7);
}

/// Runs the housekeeping for a while.
async fn keep_house(plane: &Plane) {
    let until = sleep(Duration::from_secs(10));
    tokio::select! {
        () = plane.plane.keep_house() => {}
        () = until => {}
    }
}

#[tokio::test(start_paused = true)]
async fn hours_become_days_and_days_end_and_the_sums_stay() {
    let world = World::new();
    let plane = world.start().await;
    world.clock.forward(30 * HOUR_MS);
    let events: Vec<_> = (0..30)
        .map(|n| UsageEvent {
            started_unix_ms: EPOCH_MS + n * HOUR_MS,
            ..event("root", "k", ["m", "org/m"][usize::from(n % 2 == 1)])
        })
        .collect();
    report(&plane, events).await;
    let before = query(&plane, by_everything()).await;
    let mut days = 0;
    for _ in 0..20 {
        keep_house(&plane).await;
        assert_eq!(query(&plane, by_everything()).await, before);
        let entries = world.entries().await;
        days = entries
            .iter()
            .filter(|(key, _)| key.starts_with("usage/day/"))
            .count();
        world.clock.forward(5 * HOUR_MS);
    }
    assert_eq!(days, 4, "two days of two models");
    assert!(
        !world
            .entries()
            .await
            .iter()
            .any(|(key, _)| key.starts_with("usage/hour/"))
    );
    // A late event of a folded hour is booked to the present one.
    report(&plane, vec![event("root", "k", "m")]).await;
    assert_eq!(total(&plane).await.attempts, 31);
    world.clock.forward(60 * 24 * HOUR_MS);
    keep_house(&plane).await;
    assert_eq!(total(&plane).await.attempts, 1, "62 days are kept");
}

/// A store whose answers to lists take ten seconds.
struct Slow(EmbeddedStore);

impl Store for Slow {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        self.0.get(key)
    }
    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move {
            let page = self.0.range(range).await;
            sleep(Duration::from_secs(10)).await;
            page
        })
    }
    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        self.0.txn(txn)
    }
    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        self.0.watch(prefix, from)
    }
    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        self.0.campaign(name)
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_while_hours_become_days_counts_everything_once() {
    let world = World::new();
    let plane = world.start_on(Arc::new(Slow(world.store.clone()))).await;
    report(
        &plane,
        vec![event("root", "k", "m"), event("root", "k", "org/m")],
    )
    .await;
    world.clock.forward(72 * HOUR_MS);
    let housekeeper = Arc::clone(&plane.plane);
    let keeping = tokio::spawn(async move { housekeeper.keep_house().await });
    sleep(Duration::from_secs(5)).await;
    assert_eq!(total(&plane).await.attempts, 2);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(total(&plane).await.attempts, 2);
    assert!(
        world
            .entries()
            .await
            .iter()
            .any(|(key, _)| key.starts_with("usage/day/"))
    );
    plane.plane.stop();
    keeping.await.unwrap();
}
