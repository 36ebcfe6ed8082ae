//! What a million virtual keys cost a node: figures, not assertions on time. Run it alone and optimised:
//! `cargo test --release -p proxyxai-data-plane --lib -- million --ignored --nocapture`.

use std::{fs, hint::black_box, net::IpAddr};

use proxyxai_core::{
    account::{admission, key::KeyDigest, limits::Asked, staleness, terms::Key},
    dialect::Endpoint,
    secret::seal::SealKey,
};
use tokio::time::Instant;

use super::*;
use crate::{
    config::copy::{self, Age, CopyPorts, leftovers},
    keys::Remembered,
    report::FsDisk,
};

/// What is shipped: each allocator rounds and holds back in its own way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u32 = 1_000_000;
const ACCOUNTS: u32 = 10_000;

/// Resident bytes of this process, when what was freed is given back, as a node does it.
fn resident() -> u64 {
    std::thread::sleep(std::time::Duration::from_secs(2));
    leftovers::give_back();
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse().ok());
    pages.unwrap_or(0_u64).saturating_mul(4096)
}

fn text(number: u32) -> String {
    format!("sk-pxai-{number:050}")
}

fn key(number: u32, disabled: bool) -> VirtualKey {
    VirtualKey {
        id: format!(
            "{:012}",
            u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 1_000_000_000_000
        ),
        account_id: format!("acc{}", number % ACCOUNTS),
        name: format!("key {number} of a team"),
        disabled,
        digest: view().pepper.digest(&text(number)).0.to_vec(),
        ..VirtualKey::default()
    }
}

fn team(number: u32, suspended: bool) -> Account {
    Account {
        id: format!("acc{number}"),
        name: format!("team {number}"),
        parent_id: "root".into(),
        suspended,
        ..Account::default()
    }
}

fn upsert(kind: Kind) -> Change {
    Change::Upsert(Arc::new(sample::resource(kind)))
}

/// Microseconds of each of some runs: the median, and the 99th of a hundred.
fn times(name: &str, mut runs: Vec<u128>) {
    runs.sort_unstable();
    let hundredth = runs.len().div_ceil(100);
    let at = |part: usize| {
        runs.chunks(hundredth)
            .nth(part)
            .map_or(0.0, |part| part[0] as f64)
    };
    println!(
        "{name}: p50 {:.1} µs, p99 {:.1} µs",
        at(50) / 1e3,
        at(99) / 1e3
    );
}

/// Applies changes one after the other, each with the digest that it leads to.
fn apply(held: &mut Held, from: u64, changes: impl Iterator<Item = (Change, Change)>) -> Vec<u128> {
    let mut digest = held.digest();
    let mut runs = Vec::new();
    for (number, (old, new)) in (from..).zip(changes) {
        let mut sum = Content::default();
        sum.apply(new.clone());
        let mut before = Content::default();
        before.apply(old);
        digest = shifted(digest, before.digest(), sum.digest());
        let changes = [new];
        let begun = Instant::now();
        held.advance(version(number), digest, &changes, &view())
            .unwrap();
        runs.push(begun.elapsed().as_nanos());
    }
    runs
}

fn shifted(digest: Digest, less: Digest, more: Digest) -> Digest {
    let mut out = digest;
    let (lanes, _) = out.0.as_chunks_mut::<8>();
    let (less, _) = less.0.as_chunks::<8>();
    let (more, _) = more.0.as_chunks::<8>();
    for ((lane, less), more) in lanes.iter_mut().zip(less).zip(more) {
        let value = u64::from_le_bytes(*lane);
        let value = value.wrapping_sub(u64::from_le_bytes(*less));
        *lane = value.wrapping_add(u64::from_le_bytes(*more)).to_le_bytes();
    }
    out
}

#[test]
#[ignore = "measures; needs a quiet machine and an optimised build"]
fn a_million_keys() {
    let before = resident();
    let each = |before: u64| resident().saturating_sub(before) as f64 / f64::from(KEYS);
    let mut incoming = Incoming::default();
    for resource in sample::resources(&["a"]) {
        incoming.add(Arc::new(resource));
    }
    for number in 0..ACCOUNTS {
        incoming.add(Arc::new(sample::resource(Kind::Account(team(
            number, false,
        )))));
    }
    let begun = Instant::now();
    incoming.keys.reserve(KEYS.try_into().unwrap());
    for number in 0..KEYS {
        incoming.add(Arc::new(sample::resource(Kind::VirtualKey(key(
            number, false,
        )))));
    }
    println!(
        "{KEYS} keys received (made, hashed, gathered): {:?}",
        begun.elapsed()
    );
    let begun = Instant::now();
    let snapshot = Snapshot::assemble(version(1), &incoming.rest, incoming.keys).unwrap();
    println!("table of them: {:?}", begun.elapsed());
    let holding = Holding {
        pinned: Arc::new(Pinned::build(snapshot, view(), &Pinned::empty()).unwrap()),
        rest: Arc::new(incoming.rest),
    };
    println!("resident, received: {:.1} bytes a key", each(before));

    let folder = tempfile::tempdir().unwrap();
    let ports = CopyPorts {
        disk: Arc::new(FsDisk::open(folder.path()).unwrap()),
        key: SealKey::new([1; 32]),
    };
    let age = Age {
        age: std::time::Duration::ZERO,
        proved_unix_ms: 0,
        limit: None,
        schedule: proxyxai_core::order::Schedule::Serve,
    };
    let begun = Instant::now();
    let bytes = copy::write(&ports, [2; 32], &holding, Remembered::default(), age).unwrap();
    println!(
        "disk copy: {:.1} bytes a key, written and synced in {:?}",
        bytes as f64 / f64::from(KEYS),
        begun.elapsed()
    );
    drop(holding);
    for _ in 0..3 {
        let before = resident();
        let (begun, work) = (Instant::now(), worked());
        let loaded = copy::load(&ports, 0).unwrap();
        println!(
            "from the disk copy to serving: {:?}, {} ms of the CPU",
            begun.elapsed(),
            worked().saturating_sub(work) / 1_000_000
        );
        println!(
            "resident: {:.1} bytes a key (this process took {} MB before)",
            each(before),
            before >> 20
        );
        drop(loaded);
    }
    let loaded = copy::load(&ports, 0).unwrap();
    let mut held = Held::new(ConfigHandle::default(), watch::Sender::new(None));
    held.restore(loaded.holding);

    let toggles = (0..2_000_u32).map(|n| {
        let number = n.wrapping_mul(7919) % KEYS;
        (
            upsert(Kind::VirtualKey(key(number, false))),
            upsert(Kind::VirtualKey(key(number, true))),
        )
    });
    times("one key changed", apply(&mut held, 2, toggles));
    let suspended = (0..100_u32).map(|n| {
        (
            upsert(Kind::Account(team(n, false))),
            upsert(Kind::Account(team(n, true))),
        )
    });
    times(
        &format!("one of {ACCOUNTS} accounts changed"),
        apply(&mut held, 10_000, suspended),
    );

    hot_path(&held.config.current());
}

/// CPU time of each step of admission: over so few keys that they stay in the cache, and over all in an order without a pattern.
fn hot_path(pinned: &Pinned) {
    let asked = Asked::call(Endpoint::ChatCompletions, IpAddr::from([127, 0, 0, 1]));
    let now = 1_767_225_600_000;
    let admit = |key: &Key| {
        let held = staleness::Held::fresh();
        admission::admit(key, &pinned.snapshot.accounts, now, &asked, held)
    };
    // Without those that were disabled or suspended before.
    let digests: Vec<KeyDigest> = (0..KEYS)
        .map(|n| {
            pinned
                .digest(&text(n.wrapping_mul(104_729) % KEYS))
                .unwrap()
        })
        .filter(|digest| admit(&pinned.snapshot.key(digest).unwrap()).is_ok())
        .collect();
    let shown = text(1);
    step("digest of a key", &digests, |_| {
        black_box(pinned.digest(black_box(&shown)));
    });
    for (name, some) in [("hot", &digests[..1_000]), ("cold", &digests[..])] {
        step(&format!("look-up, {name}"), some, |digest| {
            black_box(pinned.snapshot.key(digest));
        });
        let keys: Vec<Key> = some
            .iter()
            .map(|digest| pinned.snapshot.key(digest).unwrap())
            .collect();
        step(&format!("admission, {name}"), &keys, |key| {
            black_box(admit(key)).unwrap();
        });
        step(
            &format!("digest, look-up and admission, {name}"),
            some,
            |known| {
                let digest = black_box(pinned.digest(black_box(&shown))).unwrap();
                // The look-up waits for the digest, and goes to a key of its own.
                let [tie, ..] = digest.0;
                let mut digest = *known;
                digest.0[15] ^= tie ^ black_box(tie);
                black_box(admit(&pinned.snapshot.key(&digest).unwrap())).unwrap();
            },
        );
    }
}

/// Nanoseconds that this thread had a CPU: also true beside the work of others.
fn worked() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|text| text.parse().ok());
    first.unwrap_or_default()
}

/// Does a step for each of these, a million times in all.
fn step<T>(name: &str, each: &[T], mut act: impl FnMut(&T)) {
    let rounds = usize::try_from(KEYS).unwrap().div_ceil(each.len());
    let acts = rounds.saturating_mul(each.len()) as f64;
    let mut runs: Vec<f64> = (0..5)
        .map(|_| {
            let before = worked();
            for _ in 0..rounds {
                each.iter().for_each(&mut act);
            }
            worked().saturating_sub(before) as f64 / acts
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    println!(
        "{name}: {:.0} ns (of five runs {:.0} to {:.0})",
        runs[2], runs[0], runs[4]
    );
}
