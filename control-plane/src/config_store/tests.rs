//! Replicas on one store: they publish the same, in order, whatever happens to their watches and whatever stands in the store.

#![expect(clippy::arithmetic_side_effects, reason = "numbers of tests are small")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::{
    prelude::{any, prop},
    strategy::Strategy as _,
    test_runner::TestRunner,
};
use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Role},
    ports::{Clock, Random},
    secret::seal::SealKey,
    snapshot::{ResourceKind, ResourceName, Version},
};
use proxyxai_proto::{
    admin::v1::ManagedBy,
    config::v1::{
        Account, PriceTable, Provider, Resource, Route, UpstreamKey, VirtualKey, resource::Kind,
    },
    store::v1::{Counter, StoredResource},
};
use tokio::sync::mpsc;

use super::{ConfigStore, Edit};
use crate::{
    audit::Trail,
    publish::{Point, Publisher, ViewKey},
    status::Fault,
    store::{
        Leadership, Op, Page, Range, Reply, Store, StoreError, Txn, TxnResult, Watch, WatchEvent,
        embedded::EmbeddedStore, keyspace::Key,
    },
};

mod million;
mod poison;
mod rotated;
mod staged;
mod unanswered;

const PRICES: &str =
    r#"{"version": "VERSION", "date": "2026-01-01", "source": "none", "families": {}}"#;
/// Longest that anything here may take, in paused time.
const PATIENCE: Duration = Duration::from_secs(600);

struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_ms(&self) -> i64 {
        1_767_225_600_000
    }
}

struct Sequence(AtomicU64);

impl Random for Sequence {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            *byte = u8::try_from((next >> 33) % 256).unwrap();
        }
    }
}

/// A store whose watches break: after some messages they end, or say that their place is gone.
#[derive(Clone)]
struct Breaking {
    inner: EmbeddedStore,
    /// Decides about each watch; 0 leaves all alone.
    seed: Arc<AtomicU64>,
    /// While it is away it answers nothing, its watches end, and new ones say nothing.
    away: tokio::sync::watch::Receiver<bool>,
}

impl Breaking {
    fn is_there(&self) -> Result<(), StoreError> {
        if *self.away.borrow() {
            return Err(StoreError::Closed);
        }
        Ok(())
    }

    /// A watch that is lost when the store goes away, and silent until it is back.
    async fn watch_until_away(&self, prefix: &str, from: u64) -> Result<Watch, StoreError> {
        let mut inner = self.inner.watch(prefix, from).await?;
        let mut away = self.away.clone();
        let (sender, changes) = mpsc::channel(4);
        tokio::spawn(async move {
            until(&mut away, false).await;
            loop {
                let event = tokio::select! {
                    biased;
                    () = until(&mut away, true) => WatchEvent::Lost,
                    event = inner.next() => event,
                };
                let lost = event == WatchEvent::Lost;
                if sender.send(event).await.is_err() || lost {
                    return;
                }
            }
        });
        Ok(Watch { changes })
    }
}

/// Waits until the store is away, or back; for ever when the test is over.
async fn until(away: &mut tokio::sync::watch::Receiver<bool>, wanted: bool) {
    if away.wait_for(|away| *away == wanted).await.is_err() {
        std::future::pending().await
    }
}

impl Store for Breaking {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<crate::store::Entry>> {
        Box::pin(async move {
            self.is_there()?;
            self.inner.get(key).await
        })
    }
    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move {
            self.is_there()?;
            self.inner.range(range).await
        })
    }
    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(async move {
            self.is_there()?;
            self.inner.txn(txn).await
        })
    }
    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        Box::pin(async move {
            let seed = self.seed.load(Ordering::SeqCst);
            if seed == 0 {
                return self.watch_until_away(prefix, from).await;
            }
            let dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
            self.seed.store(dice | 1, Ordering::SeqCst);
            match dice % 8 {
                0 => {
                    return Err(StoreError::Failed {
                        place: "test".to_owned(),
                        what: "gone".to_owned(),
                        next: "try again",
                    });
                }
                1 => return Err(StoreError::Compacted),
                _ => {}
            }
            let mut watch = self.inner.watch(prefix, from).await?;
            let (sender, changes) = mpsc::channel(4);
            tokio::spawn(async move {
                for _ in 0..dice % 5 {
                    if sender.send(watch.next().await).await.is_err() {
                        return;
                    }
                }
                let end = if dice.is_multiple_of(3) {
                    WatchEvent::Compacted
                } else {
                    WatchEvent::Lost
                };
                let _replica_may_be_gone = sender.send(end).await;
            });
            Ok(Watch { changes })
        })
    }
    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        self.inner.campaign(name)
    }
}

/// A store with a deployment in it, and replicas on it.
struct World {
    store: EmbeddedStore,
    starts: AtomicU64,
}

impl World {
    async fn new() -> Self {
        let store = EmbeddedStore::in_memory().unwrap();
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let random = Sequence(AtomicU64::new(7));
        let clock = TestClock(tokio::time::Instant::now());
        crate::bootstrap::deployment(&shared, &random, &clock, kek().into())
            .await
            .unwrap();
        let world = Self {
            store,
            starts: AtomicU64::new(1),
        };
        world.few_prices().await;
        world
    }

    /// Puts a small price table in place of the shipped one, which takes long to read.
    async fn few_prices(&self) {
        let page = self.store.range(Range::prefix("cfg/")).await.unwrap();
        for entry in page.entries {
            if let Some(Key::Config(name) | Key::Good(name)) = Key::parse(&entry.key)
                && name.kind == ResourceKind::PriceTable
            {
                let table = PriceTable {
                    content: PRICES.replace("VERSION", &name.id).into_bytes(),
                    version: name.id,
                    active: true,
                };
                let value = stored(Kind::PriceTable(table)).encode_to_vec();
                self.write(vec![Op::Put(entry.key, value)]).await;
            }
        }
        self.raise().await;
    }

    async fn replica(&self, breaks: u64) -> ConfigStore {
        let (there, away) = tokio::sync::watch::channel(false);
        let replica = self.replica_on(breaks, away).await;
        // It stays for as long as the test lasts.
        tokio::spawn(async move { there.closed().await });
        replica
    }

    async fn replica_on(
        &self,
        breaks: u64,
        away: tokio::sync::watch::Receiver<bool>,
    ) -> ConfigStore {
        let seed = self.starts.fetch_add(1, Ordering::SeqCst) << 20;
        let random = Arc::new(Sequence(AtomicU64::new(seed)));
        let store = Breaking {
            inner: self.store.clone(),
            seed: Arc::new(AtomicU64::new(breaks)),
            away,
        };
        let clock: Arc<dyn Clock> = Arc::new(TestClock(tokio::time::Instant::now()));
        let publisher = Arc::new(Publisher::new(ViewKey::new(
            Arc::clone(&random) as Arc<dyn Random>
        )));
        let store: Arc<dyn Store> = Arc::new(store);
        let trail = Trail::new(Arc::clone(&store), Arc::clone(&clock)).unwrap();
        let shared: Arc<dyn Store> = Arc::new(self.store.clone());
        let deployment = crate::bootstrap::deployment(&shared, &*random, &*clock, kek().into());
        let keyring = deployment.await.unwrap().keyring;
        ConfigStore::load(store, random, clock, keyring, 1, Arc::new(trail), publisher)
            .await
            .unwrap()
    }

    /// Writes by hand.
    async fn write(&self, ops: Vec<Op>) {
        let txn = Txn {
            compares: Vec::new(),
            then: ops,
        };
        assert!(self.store.txn(txn).await.unwrap().succeeded);
    }

    /// Raises the head by hand, as a change through the admin API does.
    async fn raise(&self) -> u64 {
        let entry = self.store.get("cfg/head").await.unwrap().unwrap();
        let value = Counter::decode(entry.value.as_slice()).unwrap().value + 1;
        self.write(vec![Op::Put(
            Key::Head.to_string(),
            Counter { value }.encode_to_vec(),
        )])
        .await;
        value
    }
}

fn root() -> Caller {
    Caller::of_deployment("test", Role::Root)
}

fn kek() -> SealKey {
    SealKey::new([5; 32])
}

fn stored(kind: Kind) -> StoredResource {
    StoredResource {
        resource: Some(Resource { kind: Some(kind) }),
        managed_by: ManagedBy::Admin.into(),
        created_unix_ms: 1,
        ..StoredResource::default()
    }
}

fn name(kind: ResourceKind, id: &str) -> ResourceName {
    ResourceName {
        kind,
        id: id.to_owned(),
    }
}

fn provider(id: &str, number: u8) -> Kind {
    Kind::Provider(Provider {
        id: id.to_owned(),
        kind: 1,
        base_url: format!("https://{number}.example.com"),
        ..Provider::default()
    })
}

fn account(id: &str, parent: &str, suspended: bool) -> Kind {
    Kind::Account(Account {
        id: id.to_owned(),
        parent_id: parent.to_owned(),
        name: id.to_owned(),
        suspended,
        ..Account::default()
    })
}

fn key(number: u8, account: &str, disabled: bool) -> Kind {
    Kind::VirtualKey(VirtualKey {
        id: format!("key{number:09}"),
        account_id: account.to_owned(),
        disabled,
        digest: vec![number; 16],
        ..VirtualKey::default()
    })
}

fn route(id: &str, model: &str, providers: &[&str]) -> Kind {
    let mut route = Route {
        id: id.to_owned(),
        ..Route::default()
    };
    route.model = model.to_owned();
    route.provider_ids = providers.iter().map(ToString::to_string).collect();
    Kind::Route(route)
}

/// One step of a random run.
#[derive(Debug, Clone)]
enum Act {
    Edit {
        replica: usize,
        what: u8,
        flag: bool,
    },
    Delete {
        replica: usize,
        what: u8,
    },
    /// More than one transaction takes.
    Large {
        replica: usize,
        flag: bool,
    },
    /// A row by hand: whole, damaged or gone; with the head or without.
    Hand {
        what: u8,
        damage: u8,
        raise: bool,
    },
    Wait,
}

fn acts() -> impl proptest::strategy::Strategy<Value = Vec<Act>> {
    use proptest::prop_oneof;
    let act = prop_oneof![
        6 => (0_usize..2, 0_u8..16, any::<bool>()).prop_map(|(replica, what, flag)| Act::Edit { replica, what, flag }),
        2 => (0_usize..2, 0_u8..16).prop_map(|(replica, what)| Act::Delete { replica, what }),
        3 => (0_u8..16, 0_u8..4, any::<bool>()).prop_map(|(what, damage, raise)| Act::Hand { what, damage, raise }),
        1 => (0_usize..2, any::<bool>()).prop_map(|(replica, flag)| Act::Large { replica, flag }),
        1 => proptest::strategy::Just(Act::Wait),
    ];
    prop::collection::vec(act, 1..40)
}

/// Sixteen objects that depend on one another.
fn object(what: u8, flag: bool) -> Kind {
    match what % 16 {
        0..=3 => account(
            &format!("acc{what}"),
            if what == 0 || !flag { "root" } else { "acc0" },
            flag,
        ),
        4..=8 => key(what, if flag { "root" } else { "acc1" }, !flag),
        9..=11 => provider(&format!("p{what}"), u8::from(flag)),
        12 | 13 => Kind::UpstreamKey(UpstreamKey {
            id: format!("up{what}"),
            provider_id: "p9".to_owned(),
            secret: if flag {
                b"sk-one".to_vec()
            } else {
                b"sk-two".to_vec()
            },
            ..UpstreamKey::default()
        }),
        _ => route(
            &format!("r{what}"),
            "gpt-*",
            &["p9", if flag { "p10" } else { "p11" }],
        ),
    }
}

fn name_of(kind: Kind) -> ResourceName {
    ResourceName::of(&Resource { kind: Some(kind) }).unwrap()
}

/// What each version looked like, on whichever replica.
#[derive(Default)]
struct Witness {
    seen: BTreeMap<Version, Point>,
    last: BTreeMap<usize, Version>,
}

impl Witness {
    fn look(&mut self, number: usize, replica: &ConfigStore) {
        let point = replica.publisher().latest().point;
        let last = self.last.entry(number).or_default();
        assert!(
            point.version >= *last,
            "law 9: {} after {last}",
            point.version
        );
        *last = point.version;
        let known = *self.seen.entry(point.version).or_insert(point);
        assert_eq!(
            known, point,
            "law 9: one version, one content, on every replica"
        );
    }
}

async fn settle(world: &World, replicas: &[ConfigStore]) {
    let wanted = world.raise().await;
    for replica in replicas {
        let mut published = replica.publisher().subscribe();
        let reached = published.wait_for(|latest| latest.point.version.revision >= wanted);
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn run(acts: Vec<Act>, breaks: u64) {
    let world = World::new().await;
    let mut replicas = vec![
        world.replica(breaks).await,
        world.replica(breaks.rotate_left(7)).await,
    ];
    let mut witness = Witness::default();
    for act in acts {
        match act {
            Act::Edit {
                replica,
                what,
                flag,
            } => {
                let edit = |_: &super::State| Ok((vec![Edit::Put(stored(object(what, flag)))], ()));
                tolerable(replicas[replica].edit(&root(), "Test", edit).await);
            }
            Act::Delete { replica, what } => {
                let edit =
                    |_: &super::State| Ok((vec![Edit::Delete(name_of(object(what, false)))], ()));
                tolerable(replicas[replica].edit(&root(), "Test", edit).await);
            }
            Act::Large { replica, flag } => {
                let edit = |_: &super::State| {
                    let put = |number| Edit::Put(stored(key(number, "root", flag)));
                    Ok(((100..200).map(put).collect(), ()))
                };
                tolerable(replicas[replica].edit(&root(), "Test", edit).await);
            }
            Act::Hand {
                what,
                damage,
                raise,
            } => {
                let kind = object(what, true);
                let key = Key::Config(name_of(kind.clone())).to_string();
                let mut value = stored(kind).encode_to_vec();
                let op = match damage {
                    0 => Op::Delete(key),
                    1 => Op::Put(key, value),
                    2 => {
                        value.truncate(value.len() / 2);
                        Op::Put(key, value)
                    }
                    _ => Op::Put(key, b"\xff".to_vec()),
                };
                world.write(vec![op]).await;
                if raise {
                    world.raise().await;
                }
            }
            Act::Wait => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        for (number, replica) in replicas.iter().enumerate() {
            witness.look(number, replica);
        }
    }
    settle(&world, &replicas).await;
    // One that starts now comes to the same.
    replicas.push(world.replica(0).await);
    settle(&world, &replicas).await;
    let points: Vec<Point> = replicas
        .iter()
        .map(|r| r.publisher().latest().point)
        .collect();
    assert!(points.iter().all(|point| *point == points[0]), "{points:?}");
    for (number, replica) in replicas.iter().enumerate() {
        witness.look(number, replica);
        assert!(replica.is_following() || breaks != 0);
        let state = replica.state();
        assert_eq!(
            state.withheld,
            replicas[0].state().withheld,
            "replica {number}"
        );
        assert_eq!(state.snapshot.digest, state.content.digest());
    }
}

/// Edits may be refused for what they are, never fail for what stands in the store.
fn tolerable(result: Result<(), Fault>) {
    match result {
        Ok(()) | Err(Fault::Rejected(_) | Fault::Contended) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn law_9_replicas_publish_the_same_versions_whatever_becomes_of_their_watches() {
    let config = proptest::test_runner::Config {
        cases: 48,
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    TestRunner::new(config)
        .run(&(acts(), any::<u64>()), |(acts, breaks)| {
            runtime.block_on(run(acts, breaks));
            Ok(())
        })
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_store_is_away_does_not_claim_to_be_up_to_date() {
    let world = World::new().await;
    let (store, away) = tokio::sync::watch::channel(false);
    let replica = world.replica_on(0, away).await;
    let pause = || tokio::time::sleep(Duration::from_secs(20));
    let put = |number: u8| {
        let kind = provider("p9", number);
        move |_: &super::State| Ok((vec![Edit::Put(stored(kind.clone()))], ()))
    };
    pause().await;
    assert!(replica.is_following());
    replica.edit(&root(), "Test", put(1)).await.unwrap();
    let version = replica.state().snapshot.version;
    store.send_replace(true);
    pause().await;
    assert!(
        !replica.is_following(),
        "a watch that begins proves nothing"
    );
    assert!(matches!(
        replica.edit(&root(), "Test", put(2)).await,
        Err(Fault::Store(_))
    ));
    assert_eq!(
        replica.state().snapshot.version,
        version,
        "it serves what it has"
    );
    // What others wrote meanwhile is seen when it is back.
    let head = world.raise().await;
    store.send_replace(false);
    pause().await;
    assert!(replica.is_following());
    assert_eq!(replica.state().snapshot.version.revision, head);
    replica.edit(&root(), "Test", put(2)).await.unwrap();
}
