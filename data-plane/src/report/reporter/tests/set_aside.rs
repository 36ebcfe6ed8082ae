//! Batches that a control plane never takes, and marks that went back further than the files reach: usage goes on all the same.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::report::ReportCounters;

const SUFFIX: &str = ".set-aside";
/// Longer than any wait of a report, and than the pause between two fresh epochs.
const LONG: Duration = Duration::from_secs(1_800);

/// A node and its control plane; ends both.
struct World {
    line: Line,
    disk: Arc<MemoryDisk>,
    books: Shared,
    server: JoinHandle<()>,
    all: Vec<String>,
}

impl World {
    fn new() -> Self {
        let (line, books) = (Line::default(), Shared::default());
        let server = tokio::spawn(serve(books.clone(), line.clone(), usage_plane(&line)));
        let (disk, all) = (Arc::new(MemoryDisk::default()), Vec::new());
        Self {
            line,
            disk,
            books,
            server,
            all,
        }
    }

    fn boot(&self) -> Node {
        boot(&self.disk, &self.line)
    }

    /// Hands in so many events, and waits until they are written and, if they ever will be, reported.
    async fn use_it(&mut self, node: &mut Node, events: usize) {
        node.push(events, &mut self.all);
        sleep(LONG).await;
    }

    fn refuse(&self, request_id: &str) {
        self.books.lock().unwrap().refused = Some(request_id.to_owned());
    }

    fn booked(&self) -> Vec<String> {
        let mut booked = self.books.lock().unwrap().events.clone();
        booked.sort();
        booked
    }

    /// What is booked is all that was handed in but for these, each once.
    fn check_booked(&self, but: &[&str]) {
        let mut owed = self.all.clone();
        owed.retain(|id| !but.contains(&id.as_str()));
        owed.sort();
        assert_eq!(self.booked(), owed);
    }

    fn files(&self, suffix: &str) -> Vec<String> {
        let files = self.disk.list().unwrap().into_iter();
        let mut names: Vec<String> = files.map(|file| file.name).collect();
        names.retain(|name| name.ends_with(suffix));
        names.sort();
        names
    }

    /// What an operator does who knows that the control plane takes the batches by now.
    fn put_back(&self) {
        for name in self.files(SUFFIX) {
            let before = name.strip_suffix(SUFFIX).unwrap();
            self.disk.rename(&name, before).unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn law_5_a_refused_batch_is_set_aside_and_what_follows_is_reported() {
    let mut world = World::new();
    let mut node = world.boot();
    world.use_it(&mut node, 3).await;
    world.refuse("r4");
    world.use_it(&mut node, 2).await;
    world.use_it(&mut node, 4).await;
    world.check_booked(&["r3", "r4"]);
    assert_eq!(world.files(SUFFIX).len(), 1, "{:?}", world.files(""));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn law_4_what_was_set_aside_is_booked_once_when_it_is_put_back() {
    let mut world = World::new();
    let mut node = world.boot();
    world.use_it(&mut node, 3).await;
    world.refuse("r3");
    world.use_it(&mut node, 2).await;
    let counters = node.sender.counters();
    let said = |counters: &ReportCounters| {
        (
            load(&counters.unreported_starts),
            load(&counters.set_aside_files),
        )
    };
    assert_eq!(said(counters), (1, 1));
    assert_eq!(load(&counters.set_aside_events), 2);
    assert_eq!(node.sender.unreported(), 0, "no more than that may follow");
    assert_eq!(load(&counters.acknowledged), 3);
    node.stop().await;

    let mut node = world.boot();
    world.use_it(&mut node, 1).await;
    assert_eq!(said(node.sender.counters()), (1, 1), "nobody looked yet");
    world.check_booked(&["r3", "r4"]);
    node.stop().await;

    world.refuse("none");
    world.put_back();
    let node = world.boot();
    sleep(LONG).await;
    assert_eq!(said(node.sender.counters()), (0, 0));
    world.check_booked(&[]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn law_5_a_mark_that_went_back_beyond_the_files_holds_up_nothing_that_follows() {
    let mut world = World::new();
    let mut node = world.boot();
    world.use_it(&mut node, 3).await;
    // A failed write begins another file.
    world.disk.set_sync_fails(true);
    node.push(2, &mut world.all);
    sleep(Duration::from_secs(5)).await;
    world.disk.set_sync_fails(false);
    sleep(Duration::from_secs(5)).await;
    world.check_booked(&[]);
    let files = world.files(".log");
    assert_eq!(files.len(), 2, "{files:?}");
    world.disk.remove(&files[0]).unwrap();
    {
        let mut books = world.books.lock().unwrap();
        books.applied.clear();
        books.events.clear();
    }
    world.line.cut();
    world.use_it(&mut node, 2).await;
    world.use_it(&mut node, 2).await;
    assert_eq!(world.booked(), ["r7", "r8"]);
    assert_eq!(world.files(SUFFIX), [format!("{}{SUFFIX}", files[1])]);
    assert_eq!(load(&node.sender.counters().missing_batches), 1);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_refuses_everything_does_not_fill_the_disk_with_epochs() {
    let mut world = World::new();
    let mut node = world.boot();
    world.refuse("r");
    for _ in 0..200 {
        node.push(1, &mut world.all);
        sleep(Duration::from_secs(9)).await;
    }
    let aside = world.files(SUFFIX).len();
    assert!((2..=4).contains(&aside), "{aside} in half an hour");
    world.refuse("none");
    sleep(LONG).await;
    node.stop().await;
    world.put_back();
    let node = world.boot();
    sleep(LONG).await;
    world.check_booked(&[]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn law_5_usage_of_another_node_that_may_not_be_reported_stays_and_holds_up_nothing() {
    let mut world = World::new();
    let mut node = world.boot();
    world.use_it(&mut node, 3).await;
    node.stop().await;
    let file = world.files(".log").pop().unwrap();
    let of_another = file.replace("node-1", "node-0");
    world.disk.rename(&file, &of_another).unwrap();
    world.books.lock().unwrap().denied = Some("node-0".to_owned());
    let mut node = world.boot();
    world.use_it(&mut node, 2).await;
    world.check_booked(&[]);
    assert!(world.files(".log").contains(&of_another));
    assert!(world.files(SUFFIX).is_empty());
    assert_eq!(load(&node.sender.counters().unreported_starts), 1);
    node.stop().await;
}

/// A disk that takes so many changes, and then fails until somebody else takes it over.
struct Dying {
    disk: Arc<MemoryDisk>,
    left: AtomicU64,
}

impl Dying {
    fn spend(&self) -> io::Result<()> {
        let one = |left: u64| left.checked_sub(1);
        self.left
            .try_update(Ordering::Relaxed, Ordering::Relaxed, one)
            .map(drop)
            .map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

impl Disk for Dying {
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.spend()?;
        self.disk.append(name, bytes)
    }
    fn sync(&self, name: &str) -> io::Result<()> {
        self.spend()?;
        self.disk.sync(name)
    }
    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.spend()?;
        self.disk.truncate(name, len)
    }
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        self.disk.read(name, offset, max)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.spend()?;
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.spend()?;
        self.disk.remove(name)
    }
    fn list(&self) -> io::Result<Vec<crate::report::disk::FileInfo>> {
        self.disk.list()
    }
}

/// Ends the node after so many changes of its disk that follow the refusal; whether that was before all was set aside.
async fn crash_after(changes: u64, kept: usize) -> bool {
    let mut world = World::new();
    let disk = Arc::new(Dying {
        disk: world.disk.clone(),
        left: AtomicU64::new(1_000),
    });
    let mut node = boot_on(disk.clone(), &world.line);
    // Two files, so that there are two to be moved.
    world.use_it(&mut node, 3).await;
    world.disk.set_sync_fails(true);
    node.push(1, &mut world.all);
    sleep(Duration::from_secs(5)).await;
    world.disk.set_sync_fails(false);
    sleep(Duration::from_secs(5)).await;
    world.refuse("r4");
    disk.left.store(changes, Ordering::Relaxed);
    world.use_it(&mut node, 2).await;
    world.use_it(&mut node, 2).await;
    let ran_out = load(&disk.left) == 0;
    let mut owed = node.kill().await;
    world.disk.crash(kept);

    let mut node = world.boot();
    world.use_it(&mut node, 2).await;
    let all = world.all.clone();
    owed.extend(all.into_iter().skip(8));
    let refused = ["r4".to_owned(), "r5".to_owned()];
    let booked = world.booked();
    let mut once = booked.clone();
    once.dedup();
    assert_eq!(once, booked, "law 4, after {changes} changes");
    let follows = |id: &&String| !refused.contains(id) && !booked.contains(id);
    let held_up: Vec<&String> = owed.iter().filter(follows).collect();
    let aside = world.files(SUFFIX).len();
    assert!(
        held_up.is_empty() || aside > 0,
        "law 5, after {changes} changes: {held_up:?}"
    );
    assert!(
        booked.contains(&"r9".to_owned()),
        "after {changes} changes: usage goes on"
    );
    node.stop().await;

    world.refuse("none");
    world.put_back();
    let node = world.boot();
    sleep(LONG).await;
    let booked = world.booked();
    let mut once = booked.clone();
    once.dedup();
    assert_eq!(once, booked, "law 4, after {changes} changes");
    let lost: Vec<&String> = owed.iter().filter(|id| !booked.contains(id)).collect();
    assert!(lost.is_empty(), "law 5, after {changes} changes: {lost:?}");
    assert_eq!(load(&node.sender.counters().unreported_starts), 0);
    node.stop().await;
    ran_out
}

#[tokio::test(start_paused = true)]
async fn law_19_a_crash_at_any_step_of_setting_aside_loses_and_doubles_nothing() {
    for kept in [0, 7] {
        let mut changes = 0;
        while crash_after(changes, kept).await {
            changes += 1;
            assert!(changes < 50, "it never comes to an end");
        }
        assert!(changes > 6, "the steps were not reached: {changes}");
    }
}
