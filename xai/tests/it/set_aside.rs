//! Usage that a real control plane can never take again, because its store went back: the node's report goes on all the same.

use std::{io, sync::Arc, time::Duration};

use proxyxai_control_plane::{
    app as control_plane,
    keyring::NoNextKey,
    store::{Op, Range, Store, Txn, embedded::EmbeddedStore, keyspace::MARK_PREFIX},
};
use proxyxai_core::secret::seal::SealKey;
use proxyxai_data_plane::{
    config::{ControlPlanes, NodeCredential},
    report::{self, Disk as _, EventSender, FileWork, MemoryDisk},
};
use proxyxai_proto::{admin::v1::QueryUsageRequest, usage::v1::UsageEvent};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use xai::{
    admin::api::Api,
    system::{SystemClock, SystemRandomness},
};

const ADMIN: &str = "pxai-admin-of-the-test";
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

/// Attempts that are booked.
async fn booked(api: &Api) -> u64 {
    let query = QueryUsageRequest::default();
    let rows = api.usage().query_usage(query).await.unwrap().into_inner();
    rows.rows.iter().map(|row| row.attempts).sum()
}

fn channel(connections: mpsc::UnboundedSender<io::Result<DuplexStream>>) -> Channel {
    let connect = move |_| {
        let (near, far) = duplex(64 * 1024);
        let sent = connections.send(Ok(far));
        std::future::ready(
            sent.map(|()| hyper_util::rt::TokioIo::new(near))
                .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused)),
        )
    };
    Endpoint::from_static("http://control").connect_with_connector_lazy(tower::service_fn(connect))
}

fn push(events: &EventSender<UsageEvent>, id: &str, clock: &dyn proxyxai_core::ports::Clock) {
    events.push(UsageEvent {
        request_id: id.to_owned(),
        account_id: "root".to_owned(),
        model: "m".to_owned(),
        started_unix_ms: clock.unix_ms(),
        ..UsageEvent::default()
    });
}

#[tokio::test]
async fn law_4_a_store_that_lost_its_marks_gets_all_later_usage_once() {
    let clock = Arc::new(SystemClock::start());
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let ports = control_plane::Ports {
        clock: Arc::clone(&clock) as _,
        random: Arc::new(SystemRandomness::open().unwrap()),
        store: Arc::clone(&store),
        key_encryption_key: SealKey::new([7; 32]),
        next_key_encryption_key: Arc::new(NoNextKey),
        admin_credential: ADMIN.into(),
        authority: None,
    };
    let control = control_plane::build(control_plane::Settings::default(), ports);
    let control = Arc::new(control.await.unwrap());
    let (connections, incoming) = mpsc::unbounded_channel();
    let (serving, stop) = (Arc::clone(&control), CancellationToken::new());
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        let incoming = UnboundedReceiverStream::new(incoming);
        serving.serve(incoming, stopped).await
    });
    let place = "the control plane of the test".to_owned();
    let api = Api::new(channel(connections.clone()), &ADMIN.into(), place).unwrap();
    let credential = NodeCredential::new(&control.node_credential()).unwrap();
    let planes = vec![credential.on(channel(connections))];
    let disk = Arc::new(MemoryDisk::default());
    let ports = report::Ports {
        disk: Arc::clone(&disk) as _,
        work: FileWork::Inline,
        planes: ControlPlanes::new(planes, &SystemRandomness::open().unwrap()).unwrap(),
        clock: Arc::clone(&clock) as _,
        random: Arc::new(SystemRandomness::open().unwrap()),
    };
    let (events, reporter) = report::open("node-1", report::EVENTS_KEEP, ports).unwrap();
    let node = tokio::spawn(reporter.run(stop.clone()));

    push(&events, "before", &*clock);
    until("the first is booked", async || booked(&api).await == 1).await;
    // The next file; then retention takes the first one, and a backup from before all of it takes the place of the store's marks.
    disk.set_sync_fails(true);
    push(&events, "between", &*clock);
    let failures = &events.counters().disk_failures;
    let failed = async || failures.load(std::sync::atomic::Ordering::Relaxed) > 0;
    until("the disk fails", failed).await;
    disk.set_sync_fails(false);
    until("the second is booked", async || booked(&api).await == 2).await;
    let mut files: Vec<String> = disk.list().unwrap().into_iter().map(|f| f.name).collect();
    files.retain(|name| name.ends_with("-1.log"));
    assert_eq!(files.len(), 1, "{files:?}");
    disk.remove(&files[0]).unwrap();
    let marks = store.range(Range::prefix(MARK_PREFIX)).await.unwrap();
    let then: Vec<Op> = marks
        .entries
        .into_iter()
        .map(|e| Op::Delete(e.key))
        .collect();
    assert_eq!(then.len(), 1, "{then:?}");
    let compares = Vec::new();
    store.txn(Txn { compares, then }).await.unwrap();

    push(&events, "meanwhile", &*clock);
    let aside = &events.counters().set_aside_files;
    let set_aside = async || aside.load(std::sync::atomic::Ordering::Relaxed) == 1;
    until("the files are set aside", set_aside).await;
    push(&events, "after", &*clock);
    until("what follows is booked", async || booked(&api).await == 3).await;
    stop.cancel();
    node.await.unwrap();
    server.await.unwrap().unwrap();
}
