//! A benchmark: a control plane with a million keys, and a thousand nodes. `scripts/prove fleet` runs it optimised, and
//! docs/benchmarks.md has its figures.
//!
//! Every process is real but for the thousand nodes, which are tasks of this one: they join, speak the stream of configuration over TLS
//! on a connection each, and forget what they are sent. FLEET_KEYS, FLEET_ACCOUNTS, FLEET_NODES, FLEET_REAL and FLEET_CHANGES choose
//! smaller numbers.

mod figures;
mod plane;
mod probe;
mod seed;
mod sims;

use tokio::time::{Duration, Instant, sleep};

use self::{
    figures::{Times, each, memory, ms, row},
    plane::Plane,
    probe::{Nodes, set},
    seed::{Size, key_id, seed},
    sims::{Entrance, Fleet, Seen, What},
};
use super::process::Home;

/// Time for what follows a large event to be over, before memory is read.
const SETTLE: Duration = Duration::from_secs(4);
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(200);

fn number(name: &str, unless_set: u32) -> u32 {
    let set = std::env::var(name).ok();
    set.map_or(unless_set, |text| text.parse().unwrap())
}

fn count(name: &str, unless_set: u32) -> usize {
    usize::try_from(number(name, unless_set)).unwrap()
}

#[tokio::test]
#[ignore = "a benchmark that takes minutes: scripts/prove fleet"]
async fn a_million_keys_and_a_thousand_nodes() {
    let size = Size {
        accounts: number("FLEET_ACCOUNTS", 10_000),
        keys: number("FLEET_KEYS", 1_000_000),
    };
    let changes = count("FLEET_CHANGES", 100).next_multiple_of(2);
    let home = Home::new();

    let plane = Plane::first(&home).await;
    let (id, key) = plane.key().await;
    sleep(SETTLE).await;
    let (empty, token) = (plane.memory(), plane.token.clone());
    row("control plane without keys: start, memory", plane.started());
    plane.stop().await;
    let begun = Instant::now();
    seed(&home.data().join("store.redb"), size).await;
    row(
        "rows written",
        format!("{:.0} s", begun.elapsed().as_secs_f64()),
    );

    let plane = Plane::again(&home, &token, None).await;
    sleep(SETTLE).await;
    let full = plane.memory();
    let what = format!(
        "with {} keys in {} accounts: start, memory",
        size.keys, size.accounts
    );
    row(&what, plane.started());
    row(
        "… each key",
        format!("{} bytes", each(empty, full, size.keys.into())),
    );

    real(&home, &plane, "looked-up", 0, (&id, &key, changes)).await;
    let plane = many(&home, plane, size, changes).await;
    whole(&plane).await;
    // Of the simulated nodes nothing was heard for a while, so that they are not waited for.
    sleep(SETTLE * 2).await;
    real(&home, &plane, "preloaded", u64::MAX, (&id, &key, changes)).await;
    plane.stop().await;
}

/// Ten real nodes: how long changes take until they are enforced.
async fn real(
    home: &Home,
    plane: &Plane,
    view: &str,
    max: u64,
    (id, key, changes): (&str, &str, usize),
) {
    let count = count("FLEET_REAL", 10);
    let begun = Instant::now();
    let nodes = Nodes::start(home, plane, view, count, max).await;
    row(
        &format!("{count} nodes, keys {view}: start of all"),
        format!("{} ms", ms(begun.elapsed())),
    );
    let took = nodes.change(&plane.api(), id, key, changes).await;
    row("… a change until the call returned", &took.committed);
    row(
        "… until requests to all nodes were answered by it",
        &took.enforced,
    );
    row("… until the control plane knew that of all", &took.known);
    let most = nodes.pids().map(memory).max_by_key(|memory| memory.now);
    row("… memory of the largest node", most.unwrap());
    nodes.stop().await;
}

/// A thousand nodes: what they take, how long a change is under way to all, how they come back.
async fn many(home: &Home, plane: Plane, size: Size, changes: usize) -> Plane {
    let count = count("FLEET_NODES", 1_000);
    let before = plane.memory();
    let entrance = Entrance {
        address: plane.grpc(),
        token: plane.token.clone(),
        preload_max: 0,
    };
    let begun = Instant::now();
    let mut fleet = Fleet::join("sim", count, &entrance).await;
    row(
        &format!("{count} nodes, keys looked-up: all joined"),
        format!("{} ms", ms(begun.elapsed())),
    );
    let begun = Instant::now();
    home_again("… all have a stream", &mut fleet, begun).await;
    sleep(SETTLE).await;
    let with = plane.memory();
    row("… memory of the control plane", with);
    row(
        "… each node",
        format!("{} bytes", each(before, with, count.try_into().unwrap())),
    );

    let api = plane.api();
    let worked = plane.worked();
    let (mut committed, mut half, mut all) = (Times::default(), Times::default(), Times::default());
    for number in 0..changes {
        let id = key_id(u32::try_from(number).unwrap().wrapping_mul(7919) % size.keys);
        sleep(PAUSE).await;
        fleet.forget();
        let begun = Instant::now();
        let change = async {
            set(&api, &id, true).await;
            committed.push(begun.elapsed());
        };
        let told = |what: &What| matches!(what, What::Told(name) if *name == id);
        let ((), seen) = tokio::join!(change, fleet.all(told));
        half.push(seen[seen.len() / 2].at.duration_since(begun));
        all.push(last(&seen, begun));
    }
    let each = (plane.worked() - worked) * 1e3 / f64::from(u32::try_from(changes).unwrap());
    row(
        "… CPU of the control plane from change to change",
        format!("{each:.1} ms"),
    );
    row("… a change until the call returned", committed);
    row("… until half of the nodes had it", half);
    row("… until all had it", all);

    plane.begin_peak();
    fleet.forget();
    let begun = Instant::now();
    fleet.cut();
    home_again("… all cut at once, and back", &mut fleet, begun).await;
    row("… memory of the control plane meanwhile", plane.memory());

    let (address, token) = (plane.grpc(), plane.token.clone());
    fleet.forget();
    let begun = Instant::now();
    plane.kill().await;
    let plane = Plane::again(home, &token, Some(address)).await;
    row("… control plane killed: start", plane.started());
    plane.begin_peak();
    home_again("… and all back", &mut fleet, begun).await;
    row("… memory of the control plane meanwhile", plane.memory());
    plane
}

/// Nodes that take everything: one for which it is encoded, one that is sent the same, and ten at once.
async fn whole(plane: &Plane) {
    for (name, count) in [("first", 1), ("second", 1), ("others", 10)] {
        let entrance = Entrance {
            address: plane.grpc(),
            token: plane.token.clone(),
            preload_max: u64::MAX,
        };
        plane.begin_peak();
        let mut fleet = Fleet::join(name, count, &entrance).await;
        let seen = fleet.all(|what| matches!(what, What::Whole(..))).await;
        let took = seen.iter().filter_map(|seen| match &seen.what {
            What::Whole(bytes, took) => Some((*took, *bytes)),
            What::Home | What::Told(_) => None,
        });
        let (took, bytes) = took.max().unwrap();
        let (what, size) = (format!("all keys to {count} at once, {name}"), bytes >> 20);
        let figures = format!("{} ms, {size} MiB each; {}", ms(took), plane.memory());
        row(&what, figures);
    }
}

/// Says how long it took until all nodes were at the head.
async fn home_again(what: &str, fleet: &mut Fleet, begun: Instant) {
    let seen = fleet.all(|what| matches!(what, What::Home)).await;
    row(what, format!("{} ms", ms(last(&seen, begun))));
}

fn last(seen: &[Seen], begun: Instant) -> Duration {
    let last = seen.last().map_or(begun, |seen| seen.at);
    last.duration_since(begun)
}
