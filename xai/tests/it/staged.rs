//! A manifest that is larger than one transaction, on three members of etcd, while whoever works at it is killed: nodes and exports see all of
//! it or nothing, a second apply goes through, and nothing is left.

use std::{collections::BTreeSet, fs};

use proxyxai_control_plane::store::{
    Event, Range, Store as _, WatchEvent,
    etcd::{EtcdSettings, EtcdStore},
};

use rustix::process::Signal;

use super::{
    machines::{Machine, Site, control_planes},
    process::until,
};

/// Accounts of the manifest: some twenty portions. A node lists a thousand.
const ACCOUNTS: usize = 900;
/// What a control plane puts before its keys.
const PREFIX: &str = "proxyxai/";

/// When the process dies that works at the change.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Some portions are written.
    Staging,
    /// The change is in force, and on its way into the rows.
    Bringing,
}

/// The store as the control planes have it.
async fn store(site: &Site) -> EtcdStore {
    let endpoints = site.etcd.endpoints();
    let settings = EtcdSettings {
        prefix: PREFIX.to_owned(),
        allow_old_version: true,
        ..EtcdSettings::new(endpoints.split(',').map(str::to_owned).collect())
    };
    EtcdStore::connect(settings).await.unwrap()
}

/// Comes to its end when it is that moment.
async fn comes(store: &EtcdStore, moment: Moment) {
    let page = store.range(Range::prefix("cfg/head")).await.unwrap();
    let mut watch = store.watch("cfg/stage", page.revision + 1).await.unwrap();
    let mut left = 5;
    loop {
        let WatchEvent::Changes { events, .. } = watch.next().await else {
            panic!("the watch is lost");
        };
        for event in events {
            let counts = match (&event, moment) {
                (Event::Put(entry), Moment::Staging) => entry.key.starts_with("cfg/stage/"),
                (Event::Put(entry), Moment::Bringing) => entry.key == "cfg/staged",
                (Event::Delete(_), _) => false,
            };
            left -= u32::from(counts);
            if left == 0 {
                return;
            }
        }
    }
}

/// How many of the accounts a control plane exports.
async fn exported(site: &Site, control: &Machine) -> usize {
    let done = site.xai(control, "export").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    done.out.matches("path: root/a").count()
}

/// How many a node serves from.
async fn served(node: &Machine) -> usize {
    let config = node.get("/config").await.json();
    let paths = config["accounts"].as_array().unwrap();
    paths.iter().filter(|path| **path != "root").count()
}

fn manifest(name: &str) -> String {
    let account = |number: usize| format!("  - path: root/{name}{number}\n");
    let accounts: String = (0..ACCOUNTS).map(account).collect();
    format!("accounts:\n{accounts}")
}

/// Kills the control plane that works at a change, at that moment; the other one and a node look on.
async fn check(moment: Moment) {
    let site = Site::new(3).await;
    let (first, second) = (
        site.control_plane("control-1", "127.0.0.1:0").await,
        site.control_plane("control-2", "127.0.0.1:0").await,
    );
    let token = site.token(&first, "--uses 1").await;
    let node = site
        .node("node-1", &control_planes(&[&second]), &token)
        .await;
    let file = site.data("manifest.yaml");
    fs::write(&file, manifest("a")).unwrap();
    let words = format!("apply -f {}", file.display());
    let store = store(&site).await;
    let (mut seen, mut answer) = (BTreeSet::new(), None);
    let answer = {
        let (dead, applying) = (comes(&store, moment), site.xai(&first, &words));
        tokio::pin!(dead, applying);
        loop {
            tokio::select! {
                biased;
                () = &mut dead => break,
                done = &mut applying, if answer.is_none() => answer = Some(done),
                count = served(&node) => {
                    seen.insert(count);
                }
            }
        }
        first.signal(Signal::KILL);
        match answer {
            Some(done) => done,
            None => applying.await,
        }
    };
    let grpc = first.address("grpc").to_string();
    first.kill().await;
    seen.insert(served(&node).await);
    seen.insert(exported(&site, &second).await);
    // Whoever finds a change in force brings it into the rows.
    let is_in_force = seen.contains(&ACCOUNTS);
    match moment {
        Moment::Staging => assert!(!is_in_force, "{seen:?}"),
        Moment::Bringing => assert!(answer.code != Some(0) || is_in_force, "{seen:?} {answer:?}"),
    }
    let first = site.control_plane("control-1", &grpc).await;
    let again = site.xai(&first, &format!("{words} --wait=30s")).await;
    assert!(
        again.code == Some(0)
            || again.err.contains("does not answer")
            || again.err.contains("did not answer"),
        "{again:?}"
    );
    for control in [&first, &second] {
        until("a replica has all of it", async || {
            (exported(&site, control).await == ACCOUNTS).then_some(())
        })
        .await;
    }
    until("the node has all of it", async || {
        let count = served(&node).await;
        seen.insert(count);
        (count == ACCOUNTS).then_some(())
    })
    .await;
    assert!(seen.is_subset(&BTreeSet::from([0, ACCOUNTS])), "{seen:?}");
    until("nothing is left of either change", async || {
        let left = store.range(Range::prefix("cfg/stage")).await.unwrap();
        left.entries.is_empty().then_some(())
    })
    .await;
    let verified = site.xai(&second, "audit verify").await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    node.stop().await;
}

#[tokio::test]
#[ignore = "processes on three members of etcd"]
async fn chaos_a_large_apply_is_whole_when_its_control_plane_is_killed_while_it_is_staged() {
    check(Moment::Staging).await;
}

#[tokio::test]
#[ignore = "processes on three members of etcd"]
async fn chaos_a_large_apply_is_whole_when_its_control_plane_is_killed_while_it_is_published() {
    check(Moment::Bringing).await;
}
