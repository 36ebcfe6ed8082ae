//! A whole gateway over simulated sockets: control plane, node, provider and client are hosts of one simulated network, on one thread
//! and in simulated time. The same seed gives the same run, to the millisecond.

mod settings;
mod staleness;

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ::turmoil::net::{TcpListener, TcpStream};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use proxyxai_control_plane::{
    app as control_plane,
    keyring::NoNextKey,
    store::{Store, embedded::EmbeddedStore},
};
use proxyxai_core::{
    ports::{Clock, Random},
    route::base_url::BaseUrl,
    secret::{SecretString, seal::SealKey},
};
use proxyxai_data_plane::{
    config::control::with_timeouts,
    context,
    net::{Accept, Dial, DialError, Io, Listener, Local},
    node,
    report::{FileWork, MemoryDisk},
};
use proxyxai_proto::{
    admin::v1::{
        CreateKeyRequest, CreateKeyResponse, CreateProviderRequest, CreateUpstreamKeyRequest,
        ManagedBy, QueryUsageRequest, UsageRow,
    },
    config::v1::ProviderKind,
};
use proxyxai_testkit::{Fault, Simulator};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, server::Connected};
use xai::admin::api::Api;

const ADMIN: &str = "pxai-admin-of-the-simulation";
const EPOCH_MS: i64 = 1_795_521_600_000;
const TICK: Duration = Duration::from_millis(50);

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    status: u16,
    body: Bytes,
    usage: UsageRow,
    requests_at_provider: u64,
    ended_at: Duration,
}

#[test]
fn a_request_goes_through_and_its_usage_is_booked() {
    let outcome = run(7);
    assert_eq!(outcome.status, 200);
    assert!(
        outcome
            .body
            .windows(17)
            .any(|part| part == b"chat.completion\",")
    );
    let usage = &outcome.usage;
    // The first attempt meets a 500 and is discarded; the second one is what the client sees and what costs.
    assert_eq!(outcome.requests_at_provider, 2);
    assert_eq!(
        (usage.attempts, usage.rejected, usage.reported),
        (2, 1, 1),
        "{usage:?}"
    );
    assert!(usage.tokens.unwrap().output > 0);
    assert!(usage.cost_nano_usd > 0 && usage.unpriced == 0, "{usage:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(11), run(11));
}

fn run(seed: u64) -> Outcome {
    let mut sim = simulation(seed, Duration::from_secs(120));
    let (node_credential, outcome) = (Arc::new(OnceLock::new()), Rc::new(RefCell::new(None)));
    let provider = Simulator::new();
    let shared = Arc::clone(&node_credential);
    sim.host("control", move || control(seed, Arc::clone(&shared)));
    let simulator = provider.clone();
    sim.host("provider", move || serve_provider(simulator.clone()));
    sim.host("node", move || {
        serve_node(seed, Arc::clone(&node_credential))
    });
    let found = Rc::clone(&outcome);
    sim.client("client", async move {
        let (status, body, usage) = client(&provider).await;
        *found.borrow_mut() = Some(Outcome {
            status,
            body,
            usage,
            requests_at_provider: provider.requests(),
            ended_at: ::turmoil::sim_elapsed().unwrap(),
        });
        Ok(())
    });
    sim.run().unwrap();
    drop(sim);
    let outcome = outcome.borrow_mut().take();
    outcome.unwrap()
}

/// A network whose run takes at most so long.
fn simulation(seed: u64, longest: Duration) -> ::turmoil::Sim<'static> {
    ::turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(longest)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .build()
}

/// Uses a gateway as a client does.
async fn client(provider: &Simulator) -> (u16, Bytes, UsageRow) {
    let (api, key) = furnished().await;
    // Whichever of the two keys has its turn first meets an error once.
    provider.script("*", [Fault::status(500)]);
    let (status, body) = until_served(&key.secret).await;
    loop {
        let query = QueryUsageRequest {
            key_id: key.key.clone().unwrap().id,
            ..QueryUsageRequest::default()
        };
        let rows = api.usage().query_usage(query).await.unwrap().into_inner();
        match rows.rows.into_iter().next() {
            Some(row) if row.attempts >= 2 => return (status, body, row),
            Some(_) | None => sleep(TICK).await,
        }
    }
}

/// Sets a gateway up as an administrator does: its API, and a virtual key.
async fn furnished() -> (Api, CreateKeyResponse) {
    let place = "the simulated control plane".to_owned();
    let api = Api::new(channel(), &ADMIN.into(), place).unwrap();
    let wanted = CreateProviderRequest {
        id: "simulated".to_owned(),
        kind: ProviderKind::Openai.into(),
        base_url: "http://provider:9001".to_owned(),
        allow_private: true,
        managed_by: ManagedBy::Admin.into(),
        ..CreateProviderRequest::default()
    };
    while api
        .providers()
        .create_provider(wanted.clone())
        .await
        .is_err()
    {
        sleep(TICK).await;
    }
    for secret in ["sk-one", "sk-two"] {
        let wanted = CreateUpstreamKeyRequest {
            provider_id: "simulated".to_owned(),
            secret: secret.to_owned(),
            ..CreateUpstreamKeyRequest::default()
        };
        api.upstream_keys()
            .create_upstream_key(wanted)
            .await
            .unwrap();
    }
    let wanted = CreateKeyRequest {
        account: "root".to_owned(),
        name: "client".to_owned(),
        ..CreateKeyRequest::default()
    };
    let key = api.keys().create_key(wanted).await.unwrap().into_inner();
    (api, key)
}

/// Asks until there is an answer.
async fn until_served(key: &str) -> (u16, Bytes) {
    loop {
        match ask(key).await {
            Ok((200, body)) => return (200, body),
            Ok(_) | Err(_) => sleep(TICK).await,
        }
    }
}

/// One request to the node over a connection of its own.
async fn ask(key: &str) -> Result<(u16, Bytes), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect("node:3443").await?;
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::task::spawn_local(connection);
    let body =
        r#"{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}"#;
    let request = http::Request::post("/v1/chat/completions")
        .header("host", "node:3443")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(body.as_bytes())))?;
    let answer = send.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

async fn control(seed: u64, node_credential: Arc<OnceLock<SecretString>>) -> ::turmoil::Result {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory()?);
    let ports = control_plane::Ports {
        clock: Arc::new(SimulatedClock),
        random: Arc::new(SeededRandom::new(seed, 1)),
        store,
        key_encryption_key: SealKey::new([7; 32]),
        next_key_encryption_key: Arc::new(NoNextKey),
        admin_credential: ADMIN.into(),
        authority: None,
    };
    let control = control_plane::build(control_plane::Settings::default(), ports).await?;
    node_credential
        .set(control.node_credential())
        .map_err(|_| "the control plane starts once")?;
    let listener = TcpListener::bind("0.0.0.0:3444").await?;
    let (connections, incoming) = tokio::sync::mpsc::unbounded_channel();
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            if connections.send(Ok(SimulatedIo(stream))).is_err() {
                return;
            }
        }
    };
    let serving = control.serve(
        UnboundedReceiverStream::new(incoming),
        CancellationToken::new(),
    );
    let ((), served) = tokio::join!(accepting, serving);
    Ok(served?)
}

async fn serve_provider(simulator: Simulator) -> ::turmoil::Result {
    let listener = TcpListener::bind("0.0.0.0:9001").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let simulator = simulator.clone();
        tokio::task::spawn_local(async move {
            let _clients_come_and_go = simulator.serve_connection(stream).await;
        });
    }
}

async fn serve_node(seed: u64, credential: Arc<OnceLock<SecretString>>) -> ::turmoil::Result {
    let credential = loop {
        match credential.get() {
            Some(credential) => break credential.clone(),
            None => sleep(TICK).await,
        }
    };
    let ports = node::Ports {
        clock: Arc::new(SimulatedClock),
        random: Arc::new(SeededRandom::new(seed, 2)),
        channels: vec![channel()],
        credential: Some(credential),
        node_id: "node-simulated".to_owned(),
        disk: Arc::new(MemoryDisk::default()),
        copy: None,
        file_work: FileWork::Inline,
        dial: Arc::new(|| Rc::new(SimulatedDial)),
    };
    let node::Parts {
        cores, background, ..
    } = node::build(context::Settings::default(), ports)?.split();
    let listener = TcpListener::bind("0.0.0.0:3443").await?;
    let core = cores.into_iter().next().ok_or("a node has a core")?;
    let listener = Listener::Other(Box::new(SimulatedAccept(listener)));
    tokio::join!(
        core.serve(listener),
        background.run(CancellationToken::new())
    );
    Ok(())
}

/// A way to the control plane that is dialled when it is needed.
fn channel() -> Channel {
    // As a node does it: the simulated network loses what is sent while it is cut, for ever.
    with_timeouts(Endpoint::from_static("http://control:3444")).connect_with_connector_lazy(
        tower::service_fn(|_| async { TcpStream::connect("control:3444").await.map(TokioIo::new) }),
    )
}

struct SimulatedClock;

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        ::turmoil::sim_elapsed().unwrap_or_default()
    }

    fn unix_ms(&self) -> i64 {
        i64::try_from(self.monotonic().as_millis())
            .map_or(EPOCH_MS, |ms| EPOCH_MS.saturating_add(ms))
    }
}

/// Bytes that follow from a seed (SplitMix64).
struct SeededRandom(AtomicU64);

impl SeededRandom {
    fn new(seed: u64, stream: u64) -> Self {
        Self(AtomicU64::new(seed ^ (stream << 56)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        for chunk in bytes.chunks_mut(8) {
            let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let word = (mixed ^ (mixed >> 31)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

struct SimulatedDial;

impl Dial for SimulatedDial {
    fn dial<'a>(&'a self, base: &'a BaseUrl, _: bool) -> Local<'a, Result<Io, DialError>> {
        Box::pin(async move {
            let stream = TcpStream::connect((base.host(), base.port())).await;
            stream
                .map(|stream| Io::Other(Box::new(stream)))
                .map_err(DialError::Connect)
        })
    }
}

struct SimulatedAccept(TcpListener);

impl Accept for SimulatedAccept {
    fn accept(&mut self) -> Local<'_, io::Result<(Io, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((Io::Other(Box::new(stream)), from))
        })
    }
}

/// A simulated connection, as the gRPC server takes one.
struct SimulatedIo(TcpStream);

impl Connected for SimulatedIo {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for SimulatedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimulatedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
