//! Law 19 for the embedded store: after `kill -9` it opens, and holds all that was acknowledged. And what it costs, in figures.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use proxyxai_control_plane::store::{Range, Store};

use super::{Subject, embedded_in, in_time, put, write};

/// Tells the child where to write.
const FOLDER: &str = "STORE_CRASH_FOLDER";
/// Acknowledged writes before the child is killed.
const WRITES: usize = 60;

#[tokio::test]
async fn law_19_a_killed_store_opens_with_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    fill(&embedded_in(folder.path())).await;
    for round in 0..3 {
        let acknowledged = kill_a_writer(folder.path());
        let opened = started();
        let subject = embedded_in(folder.path());
        Subject::say(&format!("opened after {:?}", opened.elapsed()));
        let page = in_time(subject.store.range(Range::prefix("k/")))
            .await
            .unwrap();
        assert!(page.entries.len() >= acknowledged, "round {round}");
        assert!(page.revision >= u64::try_from(acknowledged).unwrap());
        // It can be written to, and numbers go on.
        let done = write(&*subject.store, Vec::new(), vec![put("after", "")])
            .await
            .unwrap();
        assert!(done.revision > page.revision);
    }
}

/// Five thousand keys of a kilobyte, so that opening has something to go through.
async fn fill(subject: &Subject) {
    let value = "x".repeat(1000);
    for part in 0..50 {
        let ops = (0..100).map(|n| put(&format!("fill/{part}/{n}"), &value));
        write(&*subject.store, Vec::new(), ops.collect())
            .await
            .unwrap();
    }
}

/// Runs this program again as a writer, kills it, and says how many keys under `k/` there must be.
fn kill_a_writer(folder: &Path) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::crash::writes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    let mut count = 0;
    for line in lines.map_while(Result::ok) {
        // The harness writes lines of its own.
        if let Some(number) = line
            .rsplit("acknowledged ")
            .next()
            .and_then(|n| n.parse::<usize>().ok())
        {
            last = number;
            count += 1;
        }
        if count == WRITES {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= WRITES, "the writer ended by itself after {count}");
    last
}

#[tokio::test]
#[ignore = "run by the test above, as a process of its own"]
async fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let subject = embedded_in(Path::new(&folder));
    let held = in_time(subject.store.range(Range::prefix("k/")))
        .await
        .unwrap();
    for number in held.entries.len().. {
        let done = write(
            &*subject.store,
            Vec::new(),
            vec![put(&format!("k/{number:08}"), "value")],
        )
        .await;
        assert!(done.unwrap().succeeded);
        Subject::say(&format!("acknowledged {}", number + 1));
    }
}

/// `cargo test -p proxyxai-control-plane --test it -- --ignored --nocapture measure`
#[tokio::test]
#[ignore = "prints figures"]
async fn measure_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    measure("embedded", &embedded_in(folder.path())).await;
    let opened = started();
    let again =
        proxyxai_control_plane::store::embedded::EmbeddedStore::open(&folder.path().join("again"));
    Subject::say(&format!("an empty file is made in {:?}", opened.elapsed()));
    drop(again);
}

/// Commits per second with so many writers, and what memory they took.
pub(super) async fn measure(name: &str, subject: &Subject) {
    for (writers, each) in [(1, 300), (16, 100), (256, 40)] {
        let before = resident_kib();
        let begun = started();
        let mut running = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let store = std::sync::Arc::clone(&subject.store);
            running.spawn(async move { write_many(&*store, writer, each).await });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        let rate = f64::from(writers * each) / seconds;
        let more = resident_kib().saturating_sub(before) / 1024;
        Subject::say(&format!(
            "{name}: {writers} writers, {rate:.0} commits/s, {more} MiB more"
        ));
    }
}

async fn write_many(store: &dyn Store, writer: u32, each: u32) {
    let value = "x".repeat(300);
    for number in 0..each {
        let key = format!("m/{writer}/{number}");
        write(store, Vec::new(), vec![put(&key, &value)])
            .await
            .unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn started() -> Instant {
    Instant::now()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_default()
}
