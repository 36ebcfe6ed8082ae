//! Bad rows of every kind, written straight into the store: nothing ends, good ones keep working, each bad one is named (law 10).

use std::collections::BTreeMap;

use proxyxai_core::snapshot::{Content, Snapshot};

use super::*;

/// What stands in the store and is in force before anything bad comes.
fn good() -> Vec<Kind> {
    vec![
        account("acc0", "root", false),
        account("acc1", "acc0", true),
        key(1, "root", false),
        key(2, "acc1", false),
        provider("p9", 1),
        provider("p10", 2),
        route("r1", "gpt-*", &["p9", "p10"]),
    ]
}

fn upstream_key() -> Kind {
    Kind::UpstreamKey(UpstreamKey {
        id: "up1".to_owned(),
        provider_id: "p9".to_owned(),
        secret: b"sk-secret".to_vec(),
        ..UpstreamKey::default()
    })
}

/// Field 1000 of a length of 3, and an enum value that is not known yet.
const UNKNOWN_FIELD: &[u8] = &[0xc2, 0x3e, 3, b'n', b'e', b'w'];

/// Ways to damage a row that stands in the store.
fn damages(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let step = (value.len() / 32).max(1);
    for at in (0..value.len()).step_by(step) {
        for bit in [0, 7] {
            let mut flipped = value.to_vec();
            flipped[at] ^= 1 << bit;
            out.push((format!("bit {bit} of byte {at} flipped"), flipped));
        }
    }
    for part in 1..10 {
        let mut short = value.to_vec();
        short.truncate(value.len() * part / 10);
        out.push((format!("{part}/10 of it"), short));
    }
    out.push(("empty".to_owned(), Vec::new()));
    out.push(("zeroes".to_owned(), vec![0; value.len()]));
    out.push(("twice".to_owned(), [value, value].concat()));
    out.push((
        "an unknown field".to_owned(),
        [value, UNKNOWN_FIELD].concat(),
    ));
    out.push(("a long text".to_owned(), vec![b'x'; 900_000]));
    out.push(("managed by the future".to_owned(), {
        let mut stored = StoredResource::decode(value).unwrap();
        stored.managed_by = 77;
        stored.encode_to_vec()
    }));
    out
}

/// Objects that do not fit as they are, under their own names, beside good ones.
fn misfits() -> Vec<(&'static str, Kind)> {
    let giant = "g".repeat(300_000);
    let deep = |n: u32| account(&format!("deep{n}"), &format!("deep{}", n + 1), false);
    let mut out = vec![
        ("dangling parent", account("bad", "nobody", false)),
        ("its own parent", account("bad", "bad", false)),
        ("a second root", account("bad", "", false)),
        (
            "no provider",
            Kind::UpstreamKey(UpstreamKey {
                id: "bad".to_owned(),
                provider_id: "nobody".to_owned(),
                secret: b"sk".to_vec(),
                ..UpstreamKey::default()
            }),
        ),
        ("a route to nobody", route("bad", "*", &["p9", "nobody"])),
        ("a route to none", route("bad", "*", &[])),
        ("a giant pattern", route("bad", "", &["p9"])),
        ("key of nobody", key(77, "nobody", false)),
        (
            "the digest of another key",
            Kind::VirtualKey(VirtualKey {
                id: "aaa000000000".to_owned(),
                account_id: "root".to_owned(),
                digest: vec![1; 16],
                name: "k".to_owned(),
                ..VirtualKey::default()
            }),
        ),
        (
            "a short digest",
            Kind::VirtualKey(VirtualKey {
                id: "aaa000000001".to_owned(),
                account_id: "root".to_owned(),
                digest: vec![7; 3],
                name: "k".to_owned(),
                ..VirtualKey::default()
            }),
        ),
        (
            "an odd id",
            Kind::VirtualKey(VirtualKey {
                id: "é".to_owned(),
                account_id: "root".to_owned(),
                digest: vec![9; 16],
                name: "k".to_owned(),
                ..VirtualKey::default()
            }),
        ),
        (
            "a future kind",
            Kind::Provider(Provider {
                id: "bad".to_owned(),
                kind: 4_000,
                base_url: "https://x.example.com".to_owned(),
                ..Provider::default()
            }),
        ),
        (
            "metadata address",
            Kind::Provider(Provider {
                id: "bad".to_owned(),
                kind: 1,
                base_url: "http://169.254.169.254".to_owned(),
                ..Provider::default()
            }),
        ),
        ("no base", provider("BAD/../x", 1)),
        (
            "a giant base",
            Kind::Provider(Provider {
                id: "bad".to_owned(),
                kind: 1,
                base_url: giant.clone(),
                ..Provider::default()
            }),
        ),
        (
            "a sibling's name",
            Kind::Account(Account {
                id: "aaa".to_owned(),
                parent_id: "root".to_owned(),
                name: "acc0".to_owned(),
                ..Account::default()
            }),
        ),
        (
            "a giant name",
            Kind::Account(Account {
                id: "bad".to_owned(),
                parent_id: "root".to_owned(),
                name: giant.clone(),
                ..Account::default()
            }),
        ),
        ("a giant id", account(&giant, "root", false)),
        (
            "no pattern",
            Kind::Account(Account {
                id: "bad".to_owned(),
                parent_id: "root".to_owned(),
                name: "bad".to_owned(),
                allowed_models: vec![String::new()],
                ..Account::default()
            }),
        ),
        (
            "no prices",
            Kind::PriceTable(PriceTable {
                version: "9999-99-99".to_owned(),
                content: b"{".to_vec(),
                ..PriceTable::default()
            }),
        ),
    ];
    out.extend((0..40).map(|n| ("a path without end", deep(n))));
    out.push(("a path in a ring", account("deep40", "deep0", false)));
    out
}

struct Bench {
    world: World,
    replica: ConfigStore,
    /// Names and rows of what is good.
    rows: BTreeMap<ResourceName, Vec<u8>>,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let replica = world.replica(0).await;
        for kind in good().into_iter().chain([upstream_key()]) {
            let edit = |_: &super::super::State| Ok((vec![Edit::Put(stored(kind.clone()))], ()));
            replica.edit(&root(), "Test", edit).await.unwrap();
        }
        let mut rows = BTreeMap::new();
        let page = world.store.range(Range::prefix("cfg/")).await.unwrap();
        for entry in page.entries {
            if let Some(Key::Config(name)) = Key::parse(&entry.key) {
                rows.insert(name, entry.value);
            }
        }
        Self {
            world,
            replica,
            rows,
        }
    }

    async fn write(&self, name: &ResourceName, value: Vec<u8>) {
        let key = Key::Config(name.clone()).to_string();
        self.world.write(vec![Op::Put(key, value)]).await;
        settle(&self.world, std::slice::from_ref(&self.replica)).await;
    }

    /// Everything that was good is in force, as it was, but for one name.
    fn check_good(&self, before: &Content, but: Option<&ResourceName>, what: &str) {
        let state = self.replica.state();
        for (name, resource) in before.iter() {
            if Some(name) != but {
                assert_eq!(state.content.get(name), Some(resource), "{what}: {name}");
            }
        }
        Snapshot::compile(state.snapshot.version, &state.content).unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn law_10_a_damaged_row_is_withheld_and_its_last_good_version_stands_in() {
    runtime().block_on(async {
        let bench = Bench::new().await;
        let before = bench.replica.state().content.clone();
        let (mut named, mut harmless) = (0, 0);
        for (name, row) in &bench.rows {
            if name.kind == ResourceKind::PriceTable {
                continue;
            }
            let others = bench
                .rows
                .iter()
                .filter(|(other, _)| other.kind != name.kind);
            let swapped = others.map(|(other, row)| (format!("the row of {other}"), row.clone()));
            for (what, value) in damages(row).into_iter().chain(swapped) {
                let what = format!("{name}: {what}");
                bench.write(name, value.clone()).await;
                let state = bench.replica.state();
                let key = format!("{}/{}", name.kind.as_str(), name.id);
                match state.withheld.get(&key) {
                    Some(withheld) => {
                        named += 1;
                        assert!(
                            withheld.stand_in && !withheld.reason.is_empty(),
                            "{what}: {:?}",
                            state.withheld
                        );
                        assert_eq!(state.withheld.len(), 1, "{what}: {:?}", state.withheld);
                        bench.check_good(&before, None, &what);
                    }
                    None => {
                        // What was written is another object that fits.
                        harmless += 1;
                        let stored = state.get(name.kind, &name.id).unwrap();
                        assert_eq!(stored.encode_to_vec(), value, "{what}");
                        bench.check_good(&before, Some(name), &what);
                    }
                }
                bench.write(name, row.clone()).await;
                assert_eq!(
                    bench.replica.state().content.digest(),
                    before.digest(),
                    "{what}, repaired"
                );
            }
        }
        assert!(
            named >= 500,
            "{named} kinds were named, {harmless} were harmless"
        );
    });
}

#[test]
fn law_10_what_does_not_fit_is_withheld_by_name_also_after_a_restart() {
    runtime().block_on(async {
        let bench = Bench::new().await;
        let before = bench.replica.state().content.clone();
        let mut expected = Vec::new();
        for (what, kind) in misfits() {
            let name = name_of(kind.clone());
            let key = format!("{}/{}", name.kind.as_str(), name.id);
            bench.write(&name, stored(kind).encode_to_vec()).await;
            bench.check_good(&before, None, what);
            let state = bench.replica.state();
            assert!(
                state.withheld.contains_key(&key),
                "{what} is not named: {:?}",
                state.withheld
            );
            expected.push(key);
        }
        for key in ["cfg/future/x", "cfg/", "cfg/good/future/y", "cfg/provider"] {
            bench
                .world
                .write(vec![Op::Put(key.to_owned(), b"?".to_vec())])
                .await;
            expected.push(key.strip_prefix("cfg/").unwrap().to_owned());
        }
        let waiting = stored(provider("waits", 3)).encode_to_vec();
        bench
            .world
            .write(vec![Op::Put("cfg/provider/waits".to_owned(), waiting)])
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let state = bench.replica.state();
        expected
            .iter()
            .for_each(|key| assert!(state.withheld.contains_key(key), "{key}"));
        let reason = &state.withheld.get("provider/waits").unwrap().reason;
        assert!(reason.contains("cfg/head"), "{reason}");
        // A replica that starts now finds the same, and takes what waited.
        let again = bench.world.replica(0).await;
        let state = again.state();
        expected
            .iter()
            .for_each(|key| assert!(state.withheld.contains_key(key), "{key}"));
        bench.check_good(&before, None, "with all of them");
        assert!(state.get(ResourceKind::Provider, "waits").is_some());
        settle(&bench.world, std::slice::from_ref(&bench.replica)).await;
        settle(&bench.world, std::slice::from_ref(&again)).await;
        assert_eq!(
            bench.replica.state().content.digest(),
            again.state().content.digest()
        );
        // The admin API replaces and deletes what is withheld.
        let edit = |_: &super::super::State| {
            let put = Edit::Put(stored(provider("bad", 5)));
            Ok((
                vec![put, Edit::Delete(name(ResourceKind::Account, "aaa"))],
                (),
            ))
        };
        again.edit(&root(), "Test", edit).await.unwrap();
        let state = again.state();
        assert!(state.get(ResourceKind::Provider, "bad").is_some());
        assert!(
            !state.withheld.contains_key("provider/bad")
                && !state.withheld.contains_key("account/aaa")
        );
    });
}

#[test]
fn law_10_a_row_that_vanishes_or_a_head_that_cannot_be_changes_nothing() {
    runtime().block_on(async {
        let bench = Bench::new().await;
        let before = bench.replica.state().content.clone();
        let all: Vec<Op> = bench
            .rows
            .keys()
            .map(|name| Op::Delete(Key::Config(name.clone()).to_string()))
            .collect();
        bench.world.write(all).await;
        settle(&bench.world, std::slice::from_ref(&bench.replica)).await;
        bench.check_good(&before, None, "all rows are gone");
        assert_eq!(bench.replica.state().withheld.len(), bench.rows.len());
        for head in [
            Some(b"\xff\xff".to_vec()),
            Some(Counter { value: 1 }.encode_to_vec()),
            Some(Counter { value: u64::MAX }.encode_to_vec()),
            None,
        ] {
            let op = match head.clone() {
                Some(value) => Op::Put(Key::Head.to_string(), value),
                None => Op::Delete(Key::Head.to_string()),
            };
            let version = bench.replica.state().snapshot.version;
            bench.world.write(vec![op]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let state = bench.replica.state();
            assert_eq!(state.snapshot.version, version, "{head:?}");
            assert!(state.withheld.contains_key("head"), "{head:?}");
            bench.check_good(&before, None, "a bad head");
            let edit =
                |_: &super::super::State| Ok((vec![Edit::Put(stored(provider("p10", 2)))], ()));
            bench.replica.edit(&root(), "Test", edit).await.unwrap();
            let state = bench.replica.state();
            assert!(
                state.snapshot.version > version && !state.withheld.contains_key("head"),
                "{head:?}"
            );
        }
        // One that starts on a head that cannot be used goes on from a later version.
        let version = bench.replica.state().snapshot.version;
        bench
            .world
            .write(vec![Op::Put(Key::Head.to_string(), b"\xff".to_vec())])
            .await;
        let again = bench.world.replica(0).await;
        assert!(again.state().snapshot.version > version);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            bench.replica.publisher().latest().point,
            again.publisher().latest().point
        );
        bench.check_good(&before, None, "after a bad head");
    });
}
