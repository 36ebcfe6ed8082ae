//! What a change costs with a million virtual keys. Prints figures; run it in release, alone:
//! `cargo test --release -p proxyxai-control-plane --lib a_million_keys -- --ignored --nocapture`

use std::collections::BTreeSet;

use super::*;

const KEYS: u64 = 1_000_000;

fn key_number(number: u64) -> Kind {
    let mut digest = [0; 16];
    Sequence(AtomicU64::new(number)).fill(&mut digest);
    digest[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Kind::VirtualKey(VirtualKey {
        id: format!("k{number:011}"),
        account_id: "root".to_owned(),
        name: format!("key {number}"),
        digest: digest.to_vec(),
        ..VirtualKey::default()
    })
}

fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or_default() * 4 / 1024
}

struct Timer(tokio::time::Instant);

impl Timer {
    fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
    fn ms(&self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }
}

async fn measure(replica: &ConfigStore, what: &str, kinds: impl Iterator<Item = Kind>) {
    let mut times: Vec<f64> = Vec::new();
    for kind in kinds {
        let edit = |_: &super::super::State| Ok((vec![Edit::Put(stored(kind.clone()))], ()));
        let timer = Timer::start();
        replica.edit(edit).await.unwrap();
        times.push(timer.ms());
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{what}: p50 {:.2} ms, worst {:.2} ms",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

#[test]
#[ignore = "prints figures, takes minutes"]
fn a_million_keys() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new().await;
        for first in (0..KEYS).step_by(50) {
            let rows = (first..first + 50).flat_map(|number| {
                let (name, value) = (
                    name_of(key_number(number)),
                    stored(key_number(number)).encode_to_vec(),
                );
                let put = |key: Key| Op::Put(key.to_string(), value.clone());
                [put(Key::Config(name.clone())), put(Key::Good(name))]
            });
            world.write(rows.collect()).await;
        }
        world.raise().await;
        let before = resident_mib();
        let timer = Timer::start();
        let replica = world.replica(0).await;
        println!(
            "start: {:.0} ms, {} MiB",
            timer.ms(),
            resident_mib() - before
        );
        measure(
            &replica,
            "disable a key",
            (0..200).map(|n| {
                let Kind::VirtualKey(mut key) = key_number(n * 4_999) else {
                    unreachable!("a key")
                };
                key.disabled = true;
                Kind::VirtualKey(key)
            }),
        )
        .await;
        measure(
            &replica,
            "suspend an account",
            (0..20).map(|n| account("acc", "root", n % 2 == 0)),
        )
        .await;
        measure(
            &replica,
            "change a provider",
            (0..20).map(|n| provider("p9", n)),
        )
        .await;
        let published = replica.publisher().latest();
        for view in [crate::publish::View::Full, crate::publish::View::Keyed] {
            let timer = Timer::start();
            let whole = replica
                .publisher()
                .snapshot(published.point.version, view)
                .await
                .unwrap();
            let bytes: usize = whole.frames.iter().map(bytes::Bytes::len).sum();
            println!(
                "encode {view:?}: {:.0} ms, {} KiB in {} messages",
                timer.ms(),
                bytes / 1024,
                whole.frames.len()
            );
        }
        let names: BTreeSet<ResourceName> = replica.state().records.keys().cloned().collect();
        assert!(names.len() > 1_000_000);
        let poison = Op::Put("cfg/provider/bad".to_owned(), b"\xff".to_vec());
        world.write(vec![poison]).await;
        let timer = Timer::start();
        measure(
            &replica,
            "a bad row comes, with a key",
            (0..1).map(|_| key_number(1)),
        )
        .await;
        println!("a bad row: {:.0} ms", timer.ms());
        measure(&replica, "a key, beside a bad row", (0..20).map(key_number)).await;
        println!("all: {} MiB", resident_mib() - before);
    });
}
