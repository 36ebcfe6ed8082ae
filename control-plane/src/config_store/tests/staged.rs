//! Changes that are larger than one transaction: whoever dies where, everybody sees all of it or nothing.

use std::sync::atomic::AtomicI64;

use proxyxai_core::audit::chain::{Mark, Verifier};
use proxyxai_proto::admin::v1::{AuditMark, AuditRecord};

use super::*;
use crate::store::{
    keyspace::{AUDIT_RECORD_PREFIX, STAGE_PREFIX},
    sim::SimStore,
};

/// Keys of the change: more than two portions.
const KEYS: u8 = 100;
/// Stands nowhere in plain.
pub(super) const SECRET: &str = "sk-secret-of-a-large-change";
/// Objects of the change.
const OBJECTS: usize = (KEYS + BEFORE) as usize + 2;
/// Keys that are there before, and that the change takes away.
const BEFORE: u8 = 20;

/// A store of a process that dies: after some writes nothing is answered any more, the last write is made or not.
pub(super) struct Dying {
    inner: SimStore,
    left: AtomicI64,
    made: bool,
}

impl Dying {
    /// Dies at the write after so many, which is made.
    pub(super) fn after(inner: &SimStore, writes: i64) -> Self {
        Self {
            inner: inner.clone(),
            left: AtomicI64::new(writes),
            made: true,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn is_there(&self) -> Result<(), StoreError> {
        if self.left.load(Ordering::SeqCst) < 0 {
            return Err(StoreError::Closed);
        }
        Ok(())
    }
}

impl Store for Dying {
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
            let left = self.left.fetch_sub(1, Ordering::SeqCst);
            if left > 0 {
                return self.inner.txn(txn).await;
            }
            if left == 0 && self.made {
                self.inner.txn(txn).await?;
            }
            Err(StoreError::Closed)
        })
    }
    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        Box::pin(async move {
            self.is_there()?;
            self.inner.watch(prefix, from).await
        })
    }
    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        self.inner.campaign(name)
    }
}

pub(super) async fn load(store: Arc<dyn Store>, seed: u64) -> ConfigStore {
    let random: Arc<dyn Random> = Arc::new(Sequence(AtomicU64::new(seed << 20)));
    let clock: Arc<dyn Clock> = Arc::new(TestClock(tokio::time::Instant::now()));
    let trail = Arc::new(Trail::new(Arc::clone(&store), Arc::clone(&clock)).unwrap());
    let publisher = Arc::new(Publisher::new(ViewKey::new(Arc::clone(&random))));
    let deployment = crate::bootstrap::deployment(&store, &*random, &*clock, kek().into());
    let keyring = deployment.await.unwrap().keyring;
    ConfigStore::load(store, random, clock, keyring, 1, trail, publisher)
        .await
        .unwrap()
}

/// A store with a deployment and some keys in it.
pub(super) async fn prepared(seed: u64) -> SimStore {
    let sim = SimStore::new(seed);
    let store: Arc<dyn Store> = Arc::new(sim.clone());
    let random = Sequence(AtomicU64::new(7));
    let clock = TestClock(tokio::time::Instant::now());
    crate::bootstrap::deployment(&store, &random, &clock, kek().into())
        .await
        .unwrap();
    let replica = load(store, 1).await;
    let before = |_: &super::super::State| {
        let put = |number| Edit::Put(stored(key(number, "root", false)));
        Ok(((0..BEFORE).map(put).collect(), ()))
    };
    replica.edit(&root(), "Before", before).await.unwrap();
    sim
}

/// Takes all keys away, and puts others.
pub(super) fn large(_: &super::super::State) -> Result<(Vec<Edit>, ()), Fault> {
    let gone = (0..BEFORE).map(|number| Edit::Delete(name_of(key(number, "root", false))));
    let new = (BEFORE..BEFORE + KEYS).map(|number| Edit::Put(stored(key(number, "root", true))));
    let upstream_key = Kind::UpstreamKey(UpstreamKey {
        id: "u".to_owned(),
        provider_id: "of-it".to_owned(),
        secret: SECRET.into(),
        ..UpstreamKey::default()
    });
    let upstream = [provider("of-it", 1), upstream_key].map(|kind| Edit::Put(stored(kind)));
    Ok((gone.chain(new).chain(upstream).collect(), ()))
}

fn virtual_key(stored: &StoredResource) -> Option<VirtualKey> {
    let Kind::VirtualKey(key) = stored.resource.clone()?.kind? else {
        return None;
    };
    Some(key)
}

/// Whether the change is in force; it is never in part.
pub(super) fn is_in_force(state: &super::super::State) -> bool {
    let keys: Vec<u8> = state
        .of_kind(ResourceKind::VirtualKey)
        .filter_map(|stored| virtual_key(stored)?.digest.first().copied())
        .collect();
    if keys == (0..BEFORE).collect::<Vec<u8>>() {
        return false;
    }
    assert_eq!(
        keys,
        (BEFORE..BEFORE + KEYS).collect::<Vec<u8>>(),
        "a part of it is in force"
    );
    true
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let begin = tokio::time::Instant::now();
    while !look().await {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the audit trail says of the change: how many objects it tells of. The chain holds.
async fn told(store: &SimStore) -> usize {
    let page = store
        .range(Range::prefix(AUDIT_RECORD_PREFIX))
        .await
        .unwrap();
    let head = store.get("audit/head").await.unwrap().unwrap();
    let head = AuditMark::decode(head.value.as_slice()).unwrap();
    let mut verifier = Verifier::new(Mark::START, Mark::from_proto(&head).unwrap());
    let mut objects = 0;
    for entry in page.entries {
        let record = AuditRecord::decode(entry.value.as_slice()).unwrap();
        verifier.take(&record);
        if record.action == "Large" {
            objects += record.changes.len();
        }
    }
    assert_eq!(verifier.finish().faults, []);
    objects
}

/// The process of the writer dies at its write of this number; whether it came to its end before.
async fn check(writes: i64, made: bool, with_another: bool) -> bool {
    let what = format!("dead at write {writes}, made {made}, another replica {with_another}");
    let sim = prepared(3).await;
    let another = match with_another {
        true => Some(load(Arc::new(sim.clone()), 2).await),
        false => None,
    };
    let dying = Arc::new(Dying {
        inner: sim.clone(),
        left: AtomicI64::new(writes),
        made,
    });
    let writer = load(Arc::clone(&dying) as Arc<dyn Store>, 3).await;
    let answer = writer.edit(&root(), "Large", large).await;
    let seen = is_in_force(&writer.state());
    assert!(seen || answer.is_err(), "{what}");
    let lasted = dying.left.load(Ordering::SeqCst) >= 0;
    if answer.is_ok() && lasted {
        // Its portions are taken away after the answer.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lasted = dying.left.load(Ordering::SeqCst) >= 0;
    drop(writer);
    for entry in sim.range(Range::prefix("")).await.unwrap().entries {
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        assert!(!text.contains(SECRET), "law 21: {} at {what}", entry.key);
    }
    if let Some(another) = &another {
        assert!(is_in_force(&another.state()) || !seen, "{what}");
    }

    // Who starts now sees all of it or nothing, at once; and brings it to its end.
    let late = load(Arc::new(sim.clone()), 4).await;
    let in_force = is_in_force(&late.state());
    assert!(
        in_force || !seen,
        "{what}: what was in force is not any more"
    );
    let is_clean = async || {
        let left = sim.range(Range::prefix(STAGE_PREFIX)).await.unwrap();
        let staged = sim.get("cfg/staged").await.unwrap();
        left.entries.is_empty() && staged.is_none()
    };
    eventually(
        &format!("{what}: it is brought into the rows, and nothing is left"),
        is_clean,
    )
    .await;
    eventually(&format!("{what}: it is seen"), async || {
        !late.state().staged
    })
    .await;
    assert_eq!(is_in_force(&late.state()), in_force, "{what}");
    assert_eq!(
        told(&sim).await,
        if in_force { OBJECTS } else { 0 },
        "{what}"
    );
    // The rows alone say the same, and changes go on.
    let rows = load(Arc::new(sim.clone()), 5).await;
    assert_eq!(
        rows.state().content.digest(),
        late.state().content.digest(),
        "{what}"
    );
    let version = rows.state().snapshot.version;
    assert_eq!(version, late.state().snapshot.version, "{what}");
    let small = |_: &super::super::State| Ok((vec![Edit::Put(stored(provider("p", 1)))], ()));
    rows.edit(&root(), "Small", small).await.unwrap();
    rows.edit(&root(), "Large", large).await.unwrap();
    assert!(is_in_force(&rows.state()), "{what}");
    if let Some(another) = &another {
        let wanted = rows.state().snapshot.version;
        let reached = async || another.state().snapshot.version >= wanted;
        eventually(&format!("{what}: the other follows"), reached).await;
        assert_eq!(
            another.state().content.digest(),
            rows.state().content.digest(),
            "{what}"
        );
    }
    lasted
}

#[tokio::test(start_paused = true)]
async fn law_9_a_large_change_is_whole_or_not_there_wherever_its_writer_dies() {
    for with_another in [false, true] {
        for made in [false, true] {
            let mut writes = 0;
            while !check(writes, made, with_another).await {
                writes += 1;
                assert!(writes < 100, "it does not come to an end");
            }
            // Portions, the head, bringing each, the end of that.
            assert!(
                writes > 6 || with_another,
                "only {writes} writes were tried"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_large_changes_at_once_one_is_refused() {
    let sim = prepared(5).await;
    let one = load(Arc::new(sim.clone()), 2).await;
    let two = load(Arc::new(sim.clone()), 3).await;
    let expected = one.state().snapshot.version;
    let other = |number: u8| {
        move |state: &super::super::State| {
            let current = state.snapshot.version;
            if current != expected {
                return Err(Fault::Stale {
                    what: "configuration",
                    id: "head".to_owned(),
                    given: expected.revision,
                    current: current.revision,
                });
            }
            let put = |key_number: u8| {
                Edit::Put(stored(account(
                    &format!("a{number}-{key_number}"),
                    "root",
                    false,
                )))
            };
            Ok(((0..KEYS).map(put).collect(), ()))
        }
    };
    let (caller, also) = (root(), root());
    let (first, second) = tokio::join!(
        one.edit(&caller, "Large", other(1)),
        two.edit(&also, "Large", other(2)),
    );
    let lost = match (first, second) {
        (Ok(()), Err(lost)) | (Err(lost), Ok(())) => lost,
        both => panic!("{both:?}"),
    };
    assert!(matches!(lost, Fault::Stale { .. }), "{lost}");
    let accounts = one.state().of_kind(ResourceKind::Account).count();
    assert_eq!(accounts, usize::from(KEYS) + 1);
    let left = sim.range(Range::prefix(STAGE_PREFIX)).await.unwrap();
    let of_one: std::collections::BTreeSet<_> = left
        .entries
        .iter()
        .filter_map(|entry| entry.key.split('/').nth(2).map(str::to_owned))
        .collect();
    assert!(of_one.len() <= 1, "{of_one:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_no_transaction_takes_is_refused_before_anything_is_written() {
    let sim = prepared(6).await;
    let replica = load(Arc::new(sim.clone()), 2).await;
    // With a name of so many bytes, among many others.
    let edit = |bytes: usize| {
        move |_: &super::super::State| {
            let mut huge = key(200, "root", false);
            if let Kind::VirtualKey(key) = &mut huge {
                key.name = "x".repeat(bytes);
            }
            let others = (0..KEYS).map(|number| key(number, "root", false));
            let puts = others.chain([huge]).map(|kind| Edit::Put(stored(kind)));
            Ok((puts.collect(), ()))
        }
    };
    let before = sim.range(Range::prefix("")).await.unwrap();
    let refusal = replica.edit(&root(), "Test", edit(530_000)).await;
    let refusal = refusal.unwrap_err();
    assert!(
        matches!(refusal, Fault::Store(StoreError::TooLarge { .. })),
        "{refusal}"
    );
    let after = sim.range(Range::prefix("")).await.unwrap();
    assert!(after.entries == before.entries, "something was written");
    // The largest that is taken comes into the rows.
    let (mut taken, mut refused) = (400_000, 530_000);
    while taken + 16 < refused {
        let between = usize::midpoint(taken, refused);
        match replica.edit(&root(), "Test", edit(between)).await {
            Ok(()) => taken = between,
            Err(Fault::Store(StoreError::TooLarge { .. })) => refused = between,
            Err(other) => panic!("{between}: {other}"),
        }
        assert!(!replica.state().staged, "{between}");
    }
    let small = |_: &super::super::State| Ok((vec![Edit::Put(stored(provider("p", 1)))], ()));
    replica.edit(&root(), "Small", small).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wrote_there_stops_nobody() {
    let staged = |portions: u64, brought: u64| {
        let staged = proxyxai_proto::store::v1::Staged {
            id: "x".to_owned(),
            portions,
            brought,
        };
        ("cfg/staged", staged.encode_to_vec())
    };
    for (number, rows) in [
        vec![("cfg/staged", b"\xff".to_vec())],
        vec![staged(u64::MAX, 0)],
        vec![staged(3, 9)],
        vec![staged(2, 0), ("cfg/stage/x/00000001", b"\xff".to_vec())],
        vec![("cfg/stage/y/00000001", b"\xff".to_vec())],
        vec![
            ("cfg/stage/y", b"\xff".to_vec()),
            ("cfg/stage/y/z", Vec::new()),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let sim = prepared(8).await;
        let running = load(Arc::new(sim.clone()), 2).await;
        let puts = rows
            .into_iter()
            .map(|(key, value)| Op::Put(key.to_owned(), value));
        let txn = Txn {
            compares: Vec::new(),
            then: puts.collect(),
        };
        sim.txn(txn).await.unwrap();
        let late = load(Arc::new(sim.clone()), 3).await;
        for (replica, id) in [(&running, "p"), (&late, "q")] {
            let small =
                |_: &super::super::State| Ok((vec![Edit::Put(stored(provider(id, 1)))], ()));
            let done = replica.edit(&root(), "Small", small).await;
            assert!(done.is_ok(), "case {number}: {done:?}");
        }
        running.edit(&root(), "Large", large).await.unwrap();
        let wanted = running.state().snapshot.version;
        eventually("the other follows", async || {
            late.state().snapshot.version >= wanted
        })
        .await;
        assert!(
            is_in_force(&running.state()) && is_in_force(&late.state()),
            "case {number}"
        );
    }
}

/// `cargo test --release -p proxyxai-control-plane --lib ten_thousand -- --nocapture` prints figures.
#[tokio::test]
async fn ten_thousand_objects_are_one_change() {
    const MANY: usize = 10_000;
    let folder = std::env::temp_dir().join(format!("pxai-staged-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("state");
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&file).unwrap());
    let random = Sequence(AtomicU64::new(7));
    let clock = TestClock(tokio::time::Instant::now());
    crate::bootstrap::deployment(&store, &random, &clock, kek().into())
        .await
        .unwrap();
    let replica = load(Arc::clone(&store), 1).await;
    let before = replica.state().snapshot.version.revision;
    let begin = tokio::time::Instant::now();
    let edit = |_: &super::super::State| {
        let put = |number| Edit::Put(stored(account(&format!("a{number}"), "root", false)));
        Ok(((0..MANY).map(put).collect(), ()))
    };
    let mut versions = replica.publisher().subscribe();
    let counting = async {
        let mut counts = Vec::new();
        loop {
            let seen = versions.borrow_and_update().point.version.revision;
            counts.push((seen, replica.state().of_kind(ResourceKind::Account).count()));
            if seen >= before + 2 || versions.changed().await.is_err() {
                return counts;
            }
        }
    };
    let caller = root();
    let (done, counts) = tokio::join!(replica.edit(&caller, "Large", edit), counting);
    done.unwrap();
    println!("{MANY} objects in {:?}", begin.elapsed());
    for (version, count) in &counts {
        let wanted = if *version == before { 1 } else { MANY + 1 };
        assert_eq!(*count, wanted, "version {version}");
    }
    let rows = load(store, 2).await;
    assert_eq!(
        rows.state().content.digest(),
        replica.state().content.digest()
    );
    drop((rows, replica));
    std::fs::remove_dir_all(folder).unwrap();
}

/// Whether all keys are disabled, or none is.
fn flag(state: &super::super::State) -> Option<bool> {
    let flags: std::collections::BTreeSet<bool> = state
        .of_kind(ResourceKind::VirtualKey)
        .filter_map(|stored| Some(virtual_key(stored)?.disabled))
        .collect();
    assert!(flags.len() < 2, "a part of a change is in force");
    flags.into_iter().next()
}

#[tokio::test(start_paused = true)]
async fn law_9_a_large_change_is_whole_on_a_store_that_fails_now_and_then() {
    let mut made = 0;
    for seed in 1..=12 {
        println!("seed {seed}");
        let sim = prepared(seed).await;
        let replicas = [
            load(Arc::new(sim.clone()), 2).await,
            load(Arc::new(sim.clone()), 3).await,
        ];
        sim.set_faults(crate::store::sim::Faults {
            unavailable: 20,
            ambiguous: 20,
            slow: 100,
            slowest: Duration::from_secs(1),
            lost_watches: 50,
            compaction: 30,
        });
        for round in 0..8 {
            let wanted = round % 2 == 0;
            let edit = |_: &super::super::State| {
                let put = |number| Edit::Put(stored(key(number, "root", wanted)));
                Ok(((0..BEFORE + KEYS).map(put).collect(), ()))
            };
            let replica = &replicas[round % 3 / 2];
            made += usize::from(replica.edit(&root(), "Test", edit).await.is_ok());
            for replica in &replicas {
                flag(&replica.state());
            }
        }
        sim.set_faults(crate::store::sim::Faults::default());
        let last = |_: &super::super::State| {
            let put = |number| Edit::Put(stored(key(number, "root", true)));
            let others = (0..BEFORE + KEYS).map(put);
            let one = Edit::Put(stored(provider("last", 1)));
            Ok((others.chain([one]).collect(), ()))
        };
        replicas[0].edit(&root(), "Test", last).await.unwrap();
        let wanted = replicas[0].state().snapshot.version;
        let is_level = async || replicas[1].state().snapshot.version >= wanted;
        eventually("the other replica follows", is_level).await;
        let late = load(Arc::new(sim.clone()), 4).await;
        for replica in replicas.iter().chain([&late]) {
            assert_eq!(flag(&replica.state()), Some(true));
            let digest = late.state().content.digest();
            assert_eq!(replica.state().content.digest(), digest, "seed {seed}");
        }
        let is_clean = async || {
            let left = sim.range(Range::prefix(STAGE_PREFIX)).await.unwrap();
            left.entries.is_empty() && sim.get("cfg/staged").await.unwrap().is_none()
        };
        eventually("nothing is left", is_clean).await;
    }
    assert!(made > 12, "only {made} changes were made");
}
