//! The same laws on real etcd, and what etcd alone can do to us. Tests that take long are ignored:
//! `cargo test -p proxyxai-control-plane --test it -- --ignored etcd`.

mod cluster;
mod mute;
mod planes;
mod server;
mod staged;

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use proxyxai_control_plane::store::{
    Compare, Range, Store, StoreError, WatchEvent,
    etcd::{EtcdSettings, EtcdStore, EtcdTls},
};
use proxyxai_control_plane::transfer::TransferError;
use proxyxai_proto::admin::v1::RotateKeyringRequest;

use super::{Subject, conformance, crash, in_time, next, put, sequences, simulated, write};
use crate::{
    editor::upstream_key,
    harness::{World, ok},
    rotation::{as_made, secrets},
    secrets::with_secrets,
    transfer::{export, read_into},
};
use mute::MuteProxy;
use server::{Cluster, connect};

/// Where nobody listens: the port of discarding, which needs privileges to serve.
const NOBODY: &str = "http://127.0.0.1:9";

async fn subject(cluster: &Cluster, prefix: &str) -> Subject {
    let client = cluster.client(0).await;
    Subject {
        store: Arc::new(cluster.store(prefix).await),
        compact: Box::new(move |revision| {
            let client = client.clone();
            Box::pin(async move {
                let revision = i64::try_from(revision).unwrap();
                let mut client = client.kv_client();
                in_time(client.compact(revision, None)).await.unwrap();
            })
        }),
    }
}

#[tokio::test]
async fn law_20_etcd_conforms() {
    let cluster = Cluster::start(1, &[]).await;
    conformance::check(&subject(&cluster, "suite").await).await;
}

#[tokio::test]
async fn a_gateway_moves_from_the_embedded_store_to_etcd_and_back() {
    let world = with_secrets().await;
    let authority = world.start().await.plane.authority().fingerprint();
    let embedded: Arc<dyn Store> = Arc::new(world.store.clone());
    let cluster = Cluster::start(1, &[]).await;
    let etcd: Arc<dyn Store> = Arc::new(cluster.store("moved").await);
    let file = export(embedded).await.unwrap();
    let imported = read_into(Arc::clone(&etcd), &file, world.kek, false).await;
    assert_eq!(imported.unwrap().generation, 2);
    let refused = read_into(Arc::clone(&etcd), &file, world.kek, false).await;
    assert!(matches!(refused, Err(TransferError::NotEmpty { .. })));
    let plane = world.start_on(Arc::clone(&etcd)).await;
    assert_eq!(plane.plane.authority().fingerprint(), authority);
    assert_eq!(secrets(&plane).await, as_made(&["u1", "u2"]));
    ok(plane
        .secrets()
        .rotate_keyring(RotateKeyringRequest::default())
        .await);
    upstream_key(&plane, "u3", "p").await;
    drop(plane);
    let file = export(Arc::clone(&etcd)).await.unwrap();
    let back = World::new();
    let store: Arc<dyn Store> = Arc::new(back.store.clone());
    let imported = read_into(store, &file, back.kek, false).await.unwrap();
    assert_eq!((imported.generation, imported.unopened.len()), (3, 0));
    let plane = back.start().await;
    assert_eq!(plane.plane.authority().fingerprint(), authority);
    assert_eq!(secrets(&plane).await, as_made(&["u1", "u2", "u3"]));
}

#[test]
fn law_20_random_sequences_give_the_same_on_etcd() {
    compare_sequences(16);
}

#[test]
#[ignore = "minutes"]
fn law_20_etcd_full_random_sequences_give_the_same() {
    compare_sequences(500);
}

fn compare_sequences(cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cluster = runtime.block_on(Cluster::start(1, &[]));
    let mut runner = sequences::runner(cases);
    let number = std::sync::atomic::AtomicU64::new(0);
    let property = |steps: Vec<sequences::Step>| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        runtime.block_on(async {
            let etcd = subject(&cluster, &format!("case{number}")).await;
            let simulated = sequences::run(&simulated(), &steps).await;
            prop_assert_eq!(&sequences::run(&etcd, &steps).await, &simulated);
            Ok(())
        })
    };
    runner.run(&sequences::steps(), property).unwrap();
}

#[tokio::test]
#[ignore = "prints figures"]
async fn measure_etcd() {
    let cluster = Cluster::start(1, &[]).await;
    crash::measure("etcd, one member", &subject(&cluster, "one").await).await;
    let cluster = Cluster::start(3, &[]).await;
    crash::measure("etcd, three members", &subject(&cluster, "three").await).await;
}

#[tokio::test]
async fn etcd_below_the_floor_is_refused_unless_the_setting_allows_it() {
    let cluster = Cluster::start(1, &[]).await;
    let version = in_time(cluster.client(0).await.status())
        .await
        .unwrap()
        .version()
        .to_owned();
    let strict = EtcdSettings {
        allow_old_version: false,
        ..cluster.settings("version")
    };
    let connected = in_time(EtcdStore::connect(strict)).await.map(|_| ());
    if version.starts_with("3.4.") {
        let refusal = connected.unwrap_err().to_string();
        assert!(refusal.contains(&version), "{refusal}");
        assert!(refusal.contains("`etcd_allow_old_version`"), "{refusal}");
    } else {
        connected.unwrap();
    }
    in_time(EtcdStore::connect(cluster.settings("version")))
        .await
        .unwrap();
}

#[tokio::test]
async fn etcd_that_is_not_there_is_named_with_what_to_do() {
    let settings = EtcdSettings::new(vec![NOBODY.to_owned()]);
    let refusal = in_time(EtcdStore::connect(settings))
        .await
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains(NOBODY) && refusal.contains("see whether etcd runs"),
        "{refusal}"
    );
    assert!(
        in_time(EtcdStore::connect(EtcdSettings::new(Vec::new())))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn gateways_share_an_etcd_under_prefixes_of_their_own() {
    let cluster = Cluster::start(1, &[]).await;
    let (a, b) = (cluster.store("a").await, cluster.store("a0/").await);
    let mut watch = in_time(b.watch("", 1)).await.unwrap();
    write(&a, Vec::new(), vec![put("x", "a")]).await.unwrap();
    write(&b, vec![Compare::absent("x")], vec![put("x", "b")])
        .await
        .unwrap();
    let keys = |page: proxyxai_control_plane::store::Page| {
        page.entries
            .into_iter()
            .map(|e| (e.key, e.value))
            .collect::<Vec<_>>()
    };
    let all = in_time(a.range(Range::default())).await.unwrap();
    assert_eq!(keys(all), [("x".to_owned(), b"a".to_vec())]);
    match next(&mut watch).await {
        WatchEvent::Changes { events, .. } => assert_eq!(events[0].key(), "x"),
        other @ (WatchEvent::Compacted | WatchEvent::Lost) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn etcd_with_users_wants_a_password_and_lets_one_in_below_the_prefix() {
    let cluster = Cluster::start(1, &[]).await;
    let admin = cluster.client(0).await;
    let mut auth = admin.auth_client();
    let below = etcd_client::Permission::read_write("ours/").with_prefix();
    in_time(auth.user_add("root", "r", None)).await.unwrap();
    in_time(auth.user_grant_role("root", "root")).await.unwrap();
    in_time(auth.role_add("gateway")).await.unwrap();
    in_time(auth.role_grant_permission("gateway", below))
        .await
        .unwrap();
    in_time(auth.user_add("xai", "secret", None)).await.unwrap();
    in_time(auth.user_grant_role("xai", "gateway"))
        .await
        .unwrap();
    in_time(admin.auth_client().auth_enable()).await.unwrap();
    let with = |password: &str, prefix: &str| EtcdSettings {
        user: Some(("xai".to_owned(), password.to_owned().into())),
        ..cluster.settings(prefix)
    };
    let store = in_time(EtcdStore::connect(with("secret", "ours")))
        .await
        .unwrap();
    assert!(
        write(&store, Vec::new(), vec![put("a", "1")])
            .await
            .unwrap()
            .succeeded
    );
    let mut watch = in_time(store.watch("", 1)).await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));
    in_time(store.campaign("x")).await.unwrap();
    let wrong = in_time(EtcdStore::connect(with("guess", "ours")))
        .await
        .map(|_| ());
    let wrong = wrong.unwrap_err().to_string();
    assert!(
        wrong.contains("check the user and password") && !wrong.contains("guess"),
        "{wrong}"
    );
    let theirs = connect(with("secret", "theirs")).await;
    let refused = write(&theirs, Vec::new(), vec![put("a", "1")])
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("below the prefix"), "{refused}");
    // Newer versions refuse already to say which they are.
    let refused = match in_time(EtcdStore::connect(cluster.settings("ours"))).await {
        Ok(nobody) => in_time(nobody.get("a")).await.unwrap_err(),
        Err(refused) => refused,
    };
    let refused = refused.to_string();
    assert!(refused.contains("check the user and password"), "{refused}");
}

#[tokio::test]
async fn etcd_over_tls_shows_a_certificate_and_wants_one() {
    let cluster = Cluster::start_tls().await;
    let store = cluster.store("tls").await;
    let done = write(&store, Vec::new(), vec![put("a", "1")]).await;
    assert!(done.unwrap().succeeded);
    let ours = server::certificates();
    let unknown = EtcdTls {
        authority: None,
        ..ours.clone()
    };
    let nobody = EtcdTls {
        identity: None,
        ..ours
    };
    for (tls, said) in [
        (unknown, "check the certificate files"),
        (nobody, "failed: "),
    ] {
        let settings = EtcdSettings {
            tls,
            ..cluster.settings("tls")
        };
        let refused = in_time(EtcdStore::connect(settings)).await.map(|_| ());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

#[tokio::test]
async fn a_write_without_an_answer_is_ambiguous_and_never_sent_again() {
    let cluster = Cluster::start(1, &[]).await;
    let way = MuteProxy::open(&cluster.endpoint(0)).await;
    let settings = EtcdSettings {
        endpoints: vec![way.endpoint(), cluster.endpoint(0)],
        ..cluster.settings("mute")
    };
    let store = connect(settings).await;
    let compares = |key: &str| vec![Compare::absent(key)];
    let done = write(&store, compares("a"), vec![put("a", "1")]).await;
    assert!(done.unwrap().succeeded);
    way.mute();
    // Sent again by the other way, it would find itself done.
    let answer = write(&store, compares("b"), vec![put("b", "1")]).await;
    assert!(
        matches!(answer, Err(StoreError::Ambiguous { .. })),
        "{answer:?}"
    );
    assert_eq!(in_time(store.get("b")).await.unwrap().unwrap().version, 1);
    let done = write(&store, compares("c"), vec![put("c", "1")]).await;
    assert!(done.unwrap().succeeded, "the next one goes the other way");
}

#[tokio::test]
async fn a_silent_member_costs_a_read_some_time_and_no_failure() {
    let cluster = Cluster::start(1, &[]).await;
    let way = MuteProxy::open(&cluster.endpoint(0)).await;
    let settings = EtcdSettings {
        endpoints: vec![way.endpoint(), cluster.endpoint(0)],
        ..cluster.settings("silent")
    };
    let store = connect(settings).await;
    write(&store, Vec::new(), vec![put("a", "1")])
        .await
        .unwrap();
    way.mute();
    assert!(in_time(store.get("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_dead_member_costs_no_call() {
    let cluster = Cluster::start(1, &[]).await;
    let settings = EtcdSettings {
        endpoints: vec![NOBODY.to_owned(), cluster.endpoint(0), NOBODY.to_owned()],
        ..cluster.settings("dead")
    };
    let store = connect(settings).await;
    for number in 0..50 {
        let key = format!("k{number}");
        let done = write(
            &store,
            vec![Compare::absent(key.clone())],
            vec![put(&key, "1")],
        )
        .await;
        assert!(done.unwrap().succeeded);
        assert!(in_time(store.get(&key)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_watch_that_hears_nothing_is_lost_and_a_tick_keeps_it() {
    let cluster = Cluster::start(1, &[]).await;
    let settings = EtcdSettings {
        freshness: Duration::from_secs(1),
        ..cluster.settings("tick")
    };
    let store = connect(settings).await;
    let mut silent = in_time(store.watch("cfg/", 1)).await.unwrap();
    assert_eq!(next(&mut silent).await, WatchEvent::Lost);
    // Ticks come until the watch outlived its freshness several times.
    let patient = EtcdSettings {
        freshness: Duration::from_secs(10),
        ..cluster.settings("tick")
    };
    let store = connect(patient).await;
    let mut watch = in_time(store.watch("cfg/", 1)).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..24 {
        ticks.tick().await;
        write(&store, Vec::new(), vec![put("meta/tick", "")])
            .await
            .unwrap();
    }
    let revision = write(&store, Vec::new(), vec![put("cfg/a", "1")])
        .await
        .unwrap()
        .revision;
    match next(&mut watch).await {
        WatchEvent::Changes { revision: seen, .. } => assert_eq!(seen, revision),
        other @ (WatchEvent::Compacted | WatchEvent::Lost) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn law_6_a_leader_whose_lease_is_gone_learns_of_it_and_cannot_write() {
    let cluster = Cluster::start(1, &[]).await;
    let (store, other) = (cluster.store("lead").await, cluster.store("lead").await);
    let leader = in_time(store.campaign("x")).await.unwrap();
    let mut client = cluster.client(0).await;
    let key = in_time(client.get("lead/leader/x", None)).await.unwrap();
    let lease = key.kvs()[0].lease();
    in_time(client.lease_client().revoke(lease)).await.unwrap();
    let next = in_time(other.campaign("x")).await.unwrap();
    let stale = write(&store, vec![leader.fence.clone()], vec![put("a", "1")]).await;
    assert!(!stale.unwrap().succeeded);
    in_time(leader.lost()).await;
    let wrote = write(&other, vec![next.fence.clone()], vec![put("a", "1")]).await;
    assert!(wrote.unwrap().succeeded);
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart_and_misses_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    let store = cluster.store("restart").await;
    let begun = write(&store, Vec::new(), vec![put("k/0", "")])
        .await
        .unwrap()
        .revision;
    let mut watch = in_time(store.watch("k/", begun)).await.unwrap();
    let mut revisions = vec![begun];
    cluster.kill(0);
    let dead = write(&store, Vec::new(), vec![put("k/x", "")]).await;
    assert!(
        matches!(
            dead,
            Err(StoreError::Failed { .. } | StoreError::Ambiguous { .. })
        ),
        "{dead:?}"
    );
    cluster.begin(0);
    let again = connect(cluster.settings("restart")).await;
    for number in 0..3 {
        let done = write(&again, Vec::new(), vec![put(&format!("k/{number}"), "")]).await;
        revisions.push(done.unwrap().revision);
    }
    for wanted in revisions {
        match next(&mut watch).await {
            WatchEvent::Changes { revision, .. } => assert_eq!(revision, wanted),
            other @ (WatchEvent::Compacted | WatchEvent::Lost) => panic!("{other:?}"),
        }
    }
}
