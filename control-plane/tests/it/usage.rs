//! Usage from nodes: exactly once under loss, repetition and reordering, durable when acknowledged, and never too much for the store.

use std::{collections::BTreeMap, time::Duration};

use prost::Message as _;
use proxyxai_proto::{
    admin::v1::{QueryUsageRequest, UsageGroup, UsageRow},
    usage::v1::{
        Outcome, Register, ReportRequest, ReportResponse, Tokens, UsageBatch, UsageEvent,
        report_request, report_response::Message,
    },
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    editor::Dice,
    harness::{EPOCH_MS, PATIENCE, Plane, World, ok, refused},
};

pub(crate) const HOUR_MS: i64 = 3_600_000;

/// An open report.
pub(crate) struct Report {
    to_plane: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
}

impl Report {
    /// Registers; the last batch that is durable.
    pub(crate) async fn open(plane: &Plane, node: &str, epoch: u64) -> (Self, u64) {
        let (to_plane, requests) = mpsc::channel(64);
        let register = Register {
            node_id: node.into(),
            epoch,
        };
        let message = Some(report_request::Message::Register(register));
        to_plane.send(ReportRequest { message }).await.unwrap();
        let answers = plane
            .reports()
            .report(ReceiverStream::new(requests))
            .await
            .unwrap();
        let mut report = Self {
            to_plane,
            answers: answers.into_inner(),
        };
        match report.answer().await.unwrap() {
            Message::Registered(registered) => (report, registered.applied_through),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn answer(&mut self) -> Result<Message, Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await.unwrap()?;
        let answer = answer.ok_or_else(|| Status::cancelled("the stream ended"))?;
        Ok(answer.message.unwrap())
    }

    pub(crate) async fn send(&mut self, batch: UsageBatch) -> Result<Message, Status> {
        let message = Some(report_request::Message::Batch(batch.encode_to_vec().into()));
        self.to_plane.send(ReportRequest { message }).await.unwrap();
        self.answer().await
    }
}

pub(crate) fn event(account: &str, key: &str, model: &str) -> UsageEvent {
    UsageEvent {
        account_id: account.into(),
        key_id: key.into(),
        model: model.into(),
        outcome: Outcome::Reported.into(),
        tokens: Some(Tokens {
            input: 10,
            output: 1,
            ..Tokens::default()
        }),
        cost_nano_usd: 7,
        started_unix_ms: EPOCH_MS,
        ..UsageEvent::default()
    }
}

pub(crate) fn batch(sequence: u64, events: Vec<UsageEvent>) -> UsageBatch {
    UsageBatch {
        node_id: "n".into(),
        epoch: 1,
        sequence,
        events,
    }
}

pub(crate) async fn query(plane: &Plane, query: QueryUsageRequest) -> Vec<UsageRow> {
    ok(plane.queries().query_usage(query).await).rows
}

pub(crate) fn by_everything() -> QueryUsageRequest {
    QueryUsageRequest {
        group_by: [UsageGroup::Account, UsageGroup::Key, UsageGroup::Model]
            .map(Into::into)
            .to_vec(),
        ..QueryUsageRequest::default()
    }
}

/// The row of everything.
pub(crate) async fn total(plane: &Plane) -> UsageRow {
    query(plane, QueryUsageRequest::default())
        .await
        .pop()
        .unwrap_or_default()
}

fn random_events(dice: &mut Dice) -> Vec<UsageEvent> {
    let one = |dice: &mut Dice| {
        let mut event = event(
            ["root", "a/b", ""][dice.roll(3)],
            ["k1", "k2"][dice.roll(2)],
            ["m", "org/m", "m\u{1f}odd/", "ü", ""][dice.roll(5)],
        );
        event.outcome = [
            Outcome::Reported,
            Outcome::Rejected,
            Outcome::NotSent,
            Outcome::Unknown,
        ][dice.roll(4)]
        .into();
        event.estimated = dice.roll(3) == 0;
        event.unpriced = dice.roll(4) == 0;
        event.started_unix_ms = [EPOCH_MS, EPOCH_MS - HOUR_MS, 0, i64::MAX, i64::MIN][dice.roll(5)];
        event.tokens = (dice.roll(5) > 0).then(|| Tokens {
            input: u64::try_from(dice.roll(100)).unwrap(),
            ..Tokens::default()
        });
        event
    };
    (0..dice.roll(12)).map(|_| one(dice)).collect()
}

/// What a query must answer, added up event by event.
fn expected(batches: &[Vec<UsageEvent>]) -> BTreeMap<(String, String, String), [i64; 6]> {
    let mut sums: BTreeMap<_, [i64; 6]> = BTreeMap::new();
    for event in batches.iter().flatten() {
        let row = (
            event.account_id.replace('/', "_"),
            event.key_id.clone(),
            event.model.clone(),
        );
        let tokens = i64::try_from(event.tokens.unwrap_or_default().input).unwrap();
        let [exact, guess] = if event.estimated { [0, 1] } else { [1, 0] };
        let adds = [
            1,
            tokens * exact,
            tokens * guess,
            7 * exact,
            7 * guess,
            i64::from(event.unpriced),
        ];
        let sum = sums.entry(row).or_default();
        sum.iter_mut()
            .zip(adds)
            .for_each(|(sum, more)| *sum += more);
    }
    sums
}

async fn booked(plane: &Plane) -> BTreeMap<(String, String, String), [i64; 6]> {
    let number = |n: u64| i64::try_from(n).unwrap();
    let rows = query(plane, by_everything()).await.into_iter().map(|row| {
        let sums = [
            number(row.attempts),
            number(row.tokens.unwrap().input),
            number(row.estimated_tokens.unwrap().input),
            row.cost_nano_usd,
            row.estimated_cost_nano_usd,
            number(row.unpriced),
        ];
        ((row.account_id, row.key_id, row.model), sums)
    });
    rows.collect()
}

#[tokio::test(start_paused = true)]
async fn law_4_usage_is_booked_once_under_loss_repetition_reordering_and_restarts() {
    for seed in 1..=10 {
        let world = World::new();
        let (mut plane, mut dice) = (world.start().await, Dice::new(seed));
        let batches: Vec<_> = (0..20).map(|_| random_events(&mut dice)).collect();
        let (mut report, mut durable) = Report::open(&plane, "n", 1).await;
        assert_eq!(durable, 0);
        while durable < 20 {
            // Any batch, also one that was sent before or is not due yet.
            let sequence = match dice.roll(3) {
                0 => u64::try_from(dice.roll(22)).unwrap(),
                _ => durable + 1,
            };
            let events = batches
                .get(usize::try_from(sequence).unwrap().wrapping_sub(1))
                .cloned();
            let sent = batch(sequence, events.unwrap_or_default());
            let answer = if dice.roll(6) == 0 {
                // The answer is lost with its stream, or the control plane starts again.
                let message = Some(report_request::Message::Batch(sent.encode_to_vec().into()));
                report
                    .to_plane
                    .send(ReportRequest { message })
                    .await
                    .unwrap();
                sleep(Duration::from_millis(u64::try_from(dice.roll(2)).unwrap())).await;
                drop(report);
                if dice.roll(2) == 0 {
                    drop(plane);
                    plane = world.start().await;
                }
                let (again, through) = Report::open(&plane, "n", 1).await;
                report = again;
                assert!(through == durable || through == durable + 1, "seed {seed}");
                durable = through;
                continue;
            } else {
                report.send(sent).await.unwrap()
            };
            match answer {
                Message::Ack(ack) => {
                    assert!(sequence <= durable + 1, "seed {seed}");
                    durable = durable.max(sequence);
                    assert_eq!(
                        (ack.epoch, ack.applied_through),
                        (1, durable),
                        "seed {seed}"
                    );
                }
                Message::Gap(gap) => {
                    assert!(sequence > durable + 1, "seed {seed}");
                    assert_eq!(gap.expected, durable + 1, "seed {seed}");
                }
                Message::Registered(_) => panic!("seed {seed}: registered again"),
            }
        }
        drop(plane);
        let plane = world.start().await;
        assert_eq!(booked(&plane).await, expected(&batches), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn law_4_epochs_and_nodes_are_counted_apart_and_two_streams_of_one_do_not_count_twice() {
    let plane = World::new().start().await;
    let (mut one, _) = Report::open(&plane, "n", 1).await;
    let (mut two, _) = Report::open(&plane, "n", 1).await;
    let events = || vec![event("root", "k", "m")];
    for report in [&mut one, &mut two] {
        let Ok(Message::Ack(ack)) = report.send(batch(1, events())).await else {
            panic!("no ack")
        };
        assert_eq!(ack.applied_through, 1);
    }
    for (node, epoch) in [("n", 2), ("n/1", 1), ("other", 1)] {
        let (mut report, through) = Report::open(&plane, node, epoch).await;
        assert_eq!(through, 0);
        let batch = UsageBatch {
            node_id: node.into(),
            epoch,
            ..batch(1, events())
        };
        assert!(matches!(report.send(batch).await, Ok(Message::Ack(_))));
    }
    assert_eq!(total(&plane).await.attempts, 4);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_does_not_belong_is_refused_and_books_nothing() {
    let plane = World::new().start().await;
    let events = || vec![event("root", "k", "m")];
    let too_many = (0..100)
        .map(|n| event("root", &format!("k{n}"), "m"))
        .collect();
    for (sent, words) in [
        (
            UsageBatch {
                node_id: "m".into(),
                ..batch(1, events())
            },
            "another node or epoch",
        ),
        (
            UsageBatch {
                epoch: 2,
                ..batch(1, events())
            },
            "another node or epoch",
        ),
        (batch(1, too_many), "at most 99 rows; this one has 100"),
    ] {
        let (mut report, _) = Report::open(&plane, "n", 1).await;
        let answer = report.send(sent).await.map(tonic::Response::new);
        refused(answer, Code::InvalidArgument, &[words]);
    }
    let (mut report, _) = Report::open(&plane, "n", 1).await;
    let message = Some(report_request::Message::Batch("no batch".into()));
    let garbage = ReportRequest { message };
    report.to_plane.send(garbage).await.unwrap();
    let answer = report.answer().await.map(tonic::Response::new);
    refused(answer, Code::InvalidArgument, &["is no batch"]);
    let no_register = ReportRequest {
        message: Some(report_request::Message::Batch(
            batch(1, events()).encode_to_vec().into(),
        )),
    };
    let answer = plane
        .reports()
        .report(tokio_stream::once(no_register))
        .await;
    refused(answer, Code::InvalidArgument, &["begins with Register"]);
    assert!(query(&plane, by_everything()).await.is_empty());
    let (_, through) = Report::open(&plane, "n", 1).await;
    assert_eq!(through, 0);
}

#[tokio::test(start_paused = true)]
async fn sums_stop_at_their_end_instead_of_going_round() {
    let plane = World::new().start().await;
    let (mut report, _) = Report::open(&plane, "n", 1).await;
    let huge = UsageEvent {
        tokens: Some(Tokens {
            input: u64::MAX,
            output: u64::MAX - 1,
            ..Tokens::default()
        }),
        cost_nano_usd: i64::MAX,
        web_searches: u64::MAX,
        ..event("root", "k", "m")
    };
    for sequence in 1..=2 {
        let sent = batch(sequence, vec![huge.clone(), huge.clone()]);
        assert!(matches!(report.send(sent).await, Ok(Message::Ack(_))));
    }
    let row = total(&plane).await;
    assert_eq!(
        (row.attempts, row.cost_nano_usd, row.web_searches),
        (4, i64::MAX, u64::MAX)
    );
    assert_eq!(row.tokens.unwrap().output, u64::MAX);
}

#[tokio::test(start_paused = true)]
async fn the_largest_batch_of_a_node_fits_into_one_transaction() {
    let plane = World::new().start().await;
    let (mut report, _) = Report::open(&plane, "n", 1).await;
    let events = (0..40).map(|n| {
        let long = format!("{n:0>63}");
        UsageEvent {
            unpriced: true,
            ..event(&long, &long, &"m".repeat(1024))
        }
    });
    assert!(matches!(
        report.send(batch(1, events.collect())).await,
        Ok(Message::Ack(_))
    ));
    assert_eq!(total(&plane).await.attempts, 40);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_makes_models_up_does_not_fill_the_store() {
    let world = World::new();
    let plane = world.start().await;
    let (mut report, _) = Report::open(&plane, "n", 1).await;
    let long = "x".repeat(5000);
    for sequence in 1..=30 {
        let made_up = (0..39).map(|n| event("root", "k", &format!("{sequence}-{n}-{long}")));
        let known = event("root", "k", "gpt-4o");
        let events = std::iter::once(known).chain(made_up).collect();
        assert!(matches!(
            report.send(batch(sequence, events)).await,
            Ok(Message::Ack(_))
        ));
    }
    let honest = vec![event("root", "other-key", "brand-new")];
    assert!(matches!(
        report.send(batch(31, honest)).await,
        Ok(Message::Ack(_))
    ));
    let rows = query(&plane, by_everything()).await;
    assert!(rows.len() <= 130, "{} rows", rows.len());
    assert_eq!(
        rows.iter().map(|row| row.attempts).sum::<u64>(),
        30 * 40 + 1
    );
    let of = |model: &str| {
        rows.iter()
            .find(|row| row.model == model)
            .map(|row| row.attempts)
    };
    assert_eq!((of("gpt-4o"), of("brand-new")), (Some(30), Some(1)));
    assert!(of("(other models)").is_some_and(|attempts| attempts > 900));
    for (key, _) in world.entries().await {
        assert!(key.len() < 600, "a key of {} bytes", key.len());
    }
}
