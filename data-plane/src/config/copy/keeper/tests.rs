//! When copies are written: gathered, bounded, again after a failure, and once more at the end.

use std::sync::atomic::Ordering;

use proxyxai_core::{
    account::key::Pepper,
    order::Schedule,
    secret::seal::SealKey,
    snapshot::{Content, Snapshot, Version},
};
use tokio::{task::JoinHandle, time::sleep};

use super::*;
use crate::{
    config::{Pinned, held::View, sample},
    fakes::Still,
    orders::Load,
    report::{Disk as _, MemoryDisk},
};

struct Bench {
    disk: Arc<MemoryDisk>,
    ports: Arc<CopyPorts>,
    config: ConfigHandle,
    orders: Orders,
    holding: watch::Sender<Option<Holding>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start() -> Bench {
    let disk = Arc::new(MemoryDisk::default());
    let ports = Arc::new(CopyPorts {
        disk: Arc::clone(&disk) as _,
        key: SealKey::new([1; 32]),
    });
    let config = ConfigHandle::default();
    let (holding, receiver) = watch::channel(None);
    let stop = CancellationToken::new();
    let orders = Orders::new(Load::default);
    let keeper = Keeper {
        ports: Arc::clone(&ports),
        work: FileWork::Inline,
        clock: Arc::new(Still),
        random: Arc::new(Still),
        keys: KeyResolver::new(config.clone(), 10).0,
        orders: orders.clone(),
        config: config.clone(),
        holding: receiver,
    };
    let task = tokio::spawn(keeper.run(stop.clone()));
    Bench {
        disk,
        ports,
        config,
        orders,
        holding,
        stop,
        task,
    }
}

impl Bench {
    fn change(&self, revision: u64, keyed: bool) {
        let content: Content = sample::resources(&[]).into_iter().map(Arc::new).collect();
        let version = Version {
            generation: 1,
            revision,
        };
        let view = View {
            deployment: "d".into(),
            pepper: Pepper::new([7; 32]),
            keyed,
        };
        let snapshot = Snapshot::compile(version, &content).unwrap();
        let pinned = Pinned::build(snapshot, view, &Pinned::empty()).unwrap();
        self.config.install(pinned);
        self.config
            .note(|facts, now| facts.compared(now, true, true));
        self.holding.send_replace(Some(Holding {
            pinned: self.config.current(),
            rest: Arc::new(content),
        }));
    }

    /// The revision of the copy, and the seconds of its age.
    fn copy(&self) -> Option<(u64, u64)> {
        let loaded = super::super::read(&self.ports, 0).unwrap()?;
        let revision = loaded.holding.pinned.snapshot.version.revision;
        Some((revision, loaded.age.as_secs()))
    }

    fn written(&self) -> u64 {
        self.config.counters().copied.load(Ordering::Relaxed)
    }
}

async fn pass(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_gathered_and_copies_have_their_pauses() {
    let bench = start();
    pass(10).await;
    for revision in 1..5 {
        bench.change(revision, false);
        pass(100).await;
    }
    assert_eq!((bench.copy(), bench.written()), (None, 0));
    pass(700).await;
    assert_eq!((bench.copy(), bench.written()), (Some((4, 0)), 1));
    bench.change(5, false);
    pass(3_000).await;
    assert_eq!(bench.copy(), Some((4, 0)), "not so soon after the last one");
    pass(2_100).await;
    assert_eq!((bench.copy().unwrap().0, bench.written()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn the_age_is_written_each_minute_and_so_is_what_was_looked_up() {
    let bench = start();
    pass(10).await;
    bench.change(1, false);
    pass(50_000).await;
    assert_eq!((bench.written(), bench.copy()), (1, Some((1, 1))));
    pass(10_100).await;
    assert_eq!((bench.written(), bench.copy()), (2, Some((1, 59))));
    pass(60_000).await;
    assert_eq!((bench.written(), bench.copy()), (3, Some((1, 119))));
    bench.change(2, true);
    pass(2_000).await;
    assert_eq!((bench.written(), bench.copy()), (4, Some((2, 1))));
    pass(62_000).await;
    assert!(
        bench.written() >= 6,
        "the age, and the copy with what was looked up"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_of_the_node_is_written_at_once() {
    let bench = start();
    pass(10).await;
    bench.change(1, false);
    pass(1_100).await;
    let kept = || {
        super::super::read(&bench.ports, 0)
            .unwrap()
            .unwrap()
            .schedule
    };
    assert_eq!(kept(), Schedule::Serve);
    for wanted in [Schedule::Cordon, Schedule::Drain, Schedule::Serve] {
        bench.orders.restore(wanted);
        pass(10).await;
        assert_eq!(kept(), wanted);
    }
    bench.orders.restore(Schedule::Drain);
    bench.change(2, false);
    pass(6_000).await;
    assert_eq!((bench.copy().unwrap().0, kept()), (2, Schedule::Drain));
}

#[tokio::test(start_paused = true)]
async fn a_failed_copy_is_tried_again_and_the_one_before_stays() {
    let bench = start();
    pass(10).await;
    bench.change(1, false);
    pass(1_100).await;
    bench.disk.set_full(true);
    bench.change(2, false);
    pass(6_000).await;
    assert_eq!(bench.copy().unwrap().0, 1);
    let failures = &bench.config.counters().copy_failures;
    assert_eq!(failures.load(Ordering::Relaxed), 1);
    bench.disk.set_full(false);
    pass(5_100).await;
    assert_eq!(bench.copy().unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn the_newest_state_is_written_at_the_end() {
    let bench = start();
    pass(10).await;
    bench.change(1, false);
    pass(1_100).await;
    bench.change(2, false);
    pass(100).await;
    bench.stop.cancel();
    bench.task.await.unwrap();
    assert_eq!(
        bench.disk.list().unwrap().len(),
        1,
        "no half-written file is left"
    );
    let loaded = super::super::read(&bench.ports, 0).unwrap().unwrap();
    assert_eq!(loaded.holding.pinned.snapshot.version.revision, 2);
}
