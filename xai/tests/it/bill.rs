//! Money is exact: mixed requests against the real binary while providers fail in every way they know and clients hang up; then what was
//! booked is compared with what the simulated providers say they charge, attempt by attempt and row by row.
//!
//! `make test` runs a few hundred requests, `make prove SUITE=bill` ten thousand against the release build. `BILL_SEED` and
//! `BILL_REQUESTS` choose others; the seed is printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proxyxai_proto::usage::v1::{Outcome, Tokens, UsageEvent};
use proxyxai_testkit::{BillRow, Chaos, Fault};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    events::{booked, events, sums},
    process::{Ask, Gateway, Home},
};

/// Requests in flight.
const AT_ONCE: usize = 16;
/// Timeouts of the gateway, so that stalls end soon.
const TIMEOUTS: [(&str, &str); 3] = [
    ("XAI_IDLE_TIMEOUT", "3s"),
    ("XAI_FIRST_BYTE_TIMEOUT", "6s"),
    ("XAI_REQUEST_TIMEOUT", "30s"),
];
/// Models that no table has a price for; the number of the request follows.
const GONE: &str = "gone-";

#[tokio::test]
async fn law_18_usage_equals_the_bill_and_every_attempt_is_one_event() {
    let of = |name: &str, otherwise| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
    };
    let (seed, count) = (of("BILL_SEED", 18), of("BILL_REQUESTS", 400));
    println!("BILL_SEED={seed} BILL_REQUESTS={count}");
    let home = Home::new();
    let gateway = home.start(&TIMEOUTS).await;
    let keys = set_up(&home).await;
    home.sim.chaos(chaos(seed));
    let asked = send_all(gateway, &keys, seed, count).await;
    let events = events(&home.data());
    let found = check(&asked, &events, &home.sim.bill().rows, &home.sim.tagged());
    let gateway = home.start(&TIMEOUTS).await;
    let attempts = u64::try_from(events.len()).unwrap();
    let rows = home.usage("--by account,key,model", attempts).await;
    assert_eq!(
        booked(&rows),
        sums(&events),
        "sums are those of the events, exactly"
    );
    gateway.stop().await;
    println!("{found}");
}

/// Accounts, virtual keys, providers and upstream keys, made as an administrator makes them; gives the virtual keys.
async fn set_up(home: &Home) -> Vec<String> {
    for (provider, kind, count) in [("o", "openai", 5), ("a", "anthropic", 4)] {
        let base = home.providers();
        home.json(&format!(
            "provider create {provider} --kind {kind} --base {base} --allow-private"
        ))
        .await;
        for number in 1..=count {
            let id = format!("{provider}-{number}");
            let words = [
                "upstream-key",
                "create",
                "--provider",
                provider,
                "--id",
                &id,
                "--secret-file",
                "-",
            ];
            let secret = format!("sk-{id}\n");
            let done = home.finish(home.command(&words, &[]), &secret).await;
            assert_eq!(done.code, Some(0), "{done:?}");
        }
    }
    home.json("account create team").await;
    home.json("account create app --parent root/team").await;
    let mut keys = Vec::new();
    for account in ["root", "root/team", "root/team/app", "root/team/app"] {
        keys.push(home.new_key(account).await.1);
    }
    keys
}

/// What goes wrong, and in how many of a thousand attempts.
fn chaos(seed: u64) -> Chaos {
    let status = |share, status| (share, Fault::status(status));
    let cut = |share, at| {
        let cut_at_byte = Some(at);
        (
            share,
            Fault {
                cut_at_byte,
                ..Fault::default()
            },
        )
    };
    let stall = |share, at| {
        let stall_at_byte = Some(at);
        (
            share,
            Fault {
                stall_at_byte,
                ..Fault::default()
            },
        )
    };
    let per_mille = vec![
        status(40, 500),
        status(30, 503),
        status(5, 529),
        status(30, 429),
        status(20, 401),
        status(5, 402),
        status(5, 403),
        status(10, 400),
        cut(6, 1),
        cut(10, 60),
        cut(10, 400),
        cut(10, 900),
        cut(10, 2500),
        cut(10, 4000),
        stall(3, 200),
        stall(3, 1500),
        (
            20,
            Fault {
                close: true,
                ..Fault::default()
            },
        ),
        (
            20,
            Fault {
                delay_ms: 30,
                ..Fault::default()
            },
        ),
        (
            20,
            Fault {
                first_event_error: true,
                ..Fault::default()
            },
        ),
        (
            20,
            Fault {
                malformed: true,
                ..Fault::default()
            },
        ),
        (
            20,
            Fault {
                no_usage: true,
                ..Fault::default()
            },
        ),
    ];
    Chaos { seed, per_mille }
}

/// When a client hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HangsUp {
    Never,
    /// After so many milliseconds, the head of an answer seen or not.
    Early(u64),
    /// After so many pieces of the body.
    Within(u64),
}

/// A request, and what its client knows of it.
struct Asked {
    tag: String,
    hangs_up: HangsUp,
    /// The gateway's name for it, when the head of an answer came.
    request_id: Option<String>,
    status: u16,
}

/// SplitMix64: the same requests for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(u64::try_from(all.len()).unwrap())).unwrap()]
    }
}

/// The request with this number.
fn request(number: u64, keys: &[String], dice: &mut Dice) -> (Ask, HangsUp) {
    let (key, kind) = (
        keys[usize::try_from(dice.below(4)).unwrap()].clone(),
        dice.below(100),
    );
    let hangs_up = match dice.below(100) {
        0..3 => HangsUp::Early(dice.below(12)),
        3..7 => HangsUp::Within(1 + dice.below(5)),
        _ => HangsUp::Never,
    };
    let mut steer = format!("tokens={}", 1 + dice.below(30));
    if hangs_up != HangsUp::Never {
        steer += " delay_ms=2";
    }
    for more in ["cached", "reasoning"] {
        if dice.below(4) == 0 {
            steer += &format!(" {more}={}", dice.below(9));
        }
    }
    let mut ask = if kind < 70 {
        let model = dice.of(&["gpt-4o-mini", "gpt-4.1", "nobody-knows-this"]);
        let mut ask = Ask::chat(&key, model, &steer);
        ask.body["n"] = json!(1 + dice.below(2));
        if dice.below(3) == 0 {
            ask.body["max_tokens"] = json!(10);
        }
        ask
    } else {
        steer += &format!(
            " cache_write={} cache_write_1h={}",
            dice.below(3),
            dice.below(3)
        );
        Ask::messages(
            &key,
            dice.of(&["claude-sonnet-4-5", "claude-haiku-4-5"]),
            &steer,
        )
    };
    match kind {
        0..28 | 70..85 => {}
        28..60 => {
            ask = ask.streamed();
            if dice.below(2) == 0 {
                ask.body["stream_options"] = json!({ "include_usage": true });
            }
        }
        60..70 => {
            ask.path = "/v1/embeddings";
            ask.body =
                json!({ "model": "text-embedding-3-small", "input": ["the sea", "the sky"] });
        }
        _ => ask = ask.streamed(),
    }
    if matches!(hangs_up, HangsUp::Early(_)) {
        // Its client may never learn the gateway's name for it, so its model tells which one it was.
        ask.body["model"] = json!(format!("{GONE}{number}"));
    }
    (ask.tagged(number.to_string()), hangs_up)
}

/// Sends all requests, then stops the gateway in good order, so that all events are in its files.
async fn send_all(gateway: Gateway, keys: &[String], seed: u64, count: u64) -> Vec<Asked> {
    let (mut dice, mut running) = (Dice(seed), JoinSet::new());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    for number in 0..count {
        let (ask, hangs_up) = request(number, keys, &mut dice);
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let to = gateway.client;
        running.spawn(async move {
            let asked = send(ask, hangs_up, to).await;
            drop(place);
            asked
        });
    }
    let asked = running.join_all().await;
    gateway.stop().await;
    asked
}

async fn send(ask: Ask, hangs_up: HangsUp, to: std::net::SocketAddr) -> Asked {
    let mut asked = Asked {
        tag: ask.tag.clone(),
        hangs_up,
        request_id: None,
        status: 0,
    };
    let coming = match hangs_up {
        HangsUp::Early(ms) => timeout(Duration::from_millis(ms), ask.send(to)).await,
        HangsUp::Never | HangsUp::Within(_) => Ok(ask.send(to).await),
    };
    let Ok(coming) = coming else { return asked };
    let mut coming = coming.expect("every request is answered");
    let id = coming
        .response
        .headers()
        .get("x-proxyxai-request-id")
        .unwrap();
    asked.request_id = Some(id.to_str().unwrap().to_owned());
    asked.status = coming.response.status().as_u16();
    match hangs_up {
        HangsUp::Early(_) => {}
        HangsUp::Within(pieces) => {
            for _ in 0..pieces {
                if coming.next().await.is_none() {
                    break;
                }
            }
        }
        HangsUp::Never => {
            coming.whole().await;
        }
    }
    asked
}

/// An attempt: the tag of its request, and the secret of the upstream key. A request tries no key twice.
type Attempt = (String, String);

/// Compares what was booked with what the providers saw and charge; gives a line to print.
fn check(
    asked: &[Asked],
    events: &[UsageEvent],
    bill: &[BillRow],
    tagged: &[(String, String)],
) -> String {
    let by_id: BTreeMap<&str, &Asked> = asked
        .iter()
        .filter_map(|asked| Some((asked.request_id.as_deref()?, asked)))
        .collect();
    let by_tag: BTreeMap<&str, &Asked> = asked.iter().map(|a| (a.tag.as_str(), a)).collect();
    let asked_of = |event: &UsageEvent| match event.model.strip_prefix(GONE) {
        Some(tag) => by_tag[tag],
        None => by_id[event.request_id.as_str()],
    };
    let mut booked: BTreeMap<Attempt, &UsageEvent> = BTreeMap::new();
    let mut numbers: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for event in events {
        let attempt = (
            asked_of(event).tag.clone(),
            format!("sk-{}", event.upstream_key_id),
        );
        let before = booked.insert(attempt, event);
        assert!(
            before.is_none(),
            "one attempt, two events: {event:?} {before:?}"
        );
        numbers
            .entry(&event.request_id)
            .or_default()
            .insert(event.attempt);
    }
    for (request, numbers) in &numbers {
        let expected: BTreeSet<u32> = (1..=u32::try_from(numbers.len()).unwrap().min(3)).collect();
        assert_eq!(
            numbers, &expected,
            "attempts of {request} count from 1, to 3 at most"
        );
    }
    let arrived: BTreeSet<Attempt> = tagged.iter().cloned().collect();
    assert_eq!(arrived.len(), tagged.len(), "no key is tried twice");
    for attempt in &arrived {
        let event = booked.get(attempt);
        assert!(
            event.is_some_and(|event| event.outcome() != Outcome::NotSent),
            "{attempt:?} arrived at the provider, booked is {event:?}"
        );
    }
    let charged: BTreeMap<Attempt, &BillRow> = bill
        .iter()
        .map(|row| ((row.tag.clone(), row.upstream_key.clone()), row))
        .collect();
    assert_eq!(charged.len(), bill.len());
    for (attempt, event) in &booked {
        let row = charged.get(attempt).copied();
        check_one(asked_of(event), event, row, arrived.contains(attempt));
    }
    for asked in asked.iter().filter(|a| a.hangs_up == HangsUp::Never) {
        let id = asked.request_id.as_deref().unwrap_or_default();
        assert!(
            numbers.contains_key(id),
            "no attempt of {} is booked",
            asked.tag
        );
    }
    let count = |outcome| booked.values().filter(|e| e.outcome() == outcome).count();
    let statuses = asked.iter().fold(BTreeMap::new(), |mut all, asked| {
        *all.entry(asked.status).or_insert(0) += 1;
        all
    });
    format!(
        "{} requests (answers by status: {statuses:?}), {} attempts: {} reported as billed, {} rejected, {} not sent, {} unknown; {} arrived, {} charged",
        asked.len(),
        booked.len(),
        count(Outcome::Reported),
        count(Outcome::Rejected),
        count(Outcome::NotSent),
        count(Outcome::Unknown),
        arrived.len(),
        charged.len(),
    )
}

/// One attempt: its event against its charge.
fn check_one(asked: &Asked, event: &UsageEvent, row: Option<&BillRow>, arrived: bool) {
    let tokens = event.tokens.unwrap_or_default();
    let context = || format!("{event:?}\n{row:?}\n{:?}", asked.hangs_up);
    let usage_went_out = row.is_some_and(|row| row.whole && row.usage_sent);
    match event.outcome() {
        Outcome::Reported => {
            assert!(usage_went_out && !event.estimated, "{}", context());
            assert_eq!(Some(tokens), row.map(charged_tokens), "{}", context());
        }
        Outcome::Unknown => {
            assert!(event.estimated && tokens.input > 0, "{}", context());
            if usage_went_out {
                // The provider said it, but nobody listened any more.
                let hung_up = event.client_gone && asked.hangs_up != HangsUp::Never;
                let too_late = ["timed_out", "upstream_silent"].contains(&event.reason.as_str());
                assert!(hung_up || too_late, "{}", context());
            }
            let lost = event.client_gone || event.reason == "connection_lost";
            assert!(arrived || lost, "{}", context());
        }
        Outcome::Rejected | Outcome::NotSent => {
            assert_eq!(row, None, "{}", context());
            assert_eq!(
                (tokens, event.cost_nano_usd),
                (Tokens::default(), 0),
                "{}",
                context()
            );
            assert_eq!(
                arrived,
                event.outcome() == Outcome::Rejected,
                "{}",
                context()
            );
        }
        Outcome::Unspecified => panic!("{}", context()),
    }
}

fn charged_tokens(row: &BillRow) -> Tokens {
    Tokens {
        input: row.input,
        cache_read: row.cache_read,
        cache_write_5m: row.cache_write_5m,
        cache_write_1h: row.cache_write_1h,
        output: row.output,
    }
}
