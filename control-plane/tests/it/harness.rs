//! Starts control planes on a store that outlives them, and calls them as an administrator or as a node.
//!
//! Invariant: no answer that [`ok`] sees holds a secret (law 21).

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use prost::Message;
use proxyxai_control_plane::{
    app::{self, ControlPlane, Ports, Settings, StartError},
    keyring::{KeySource, NextKey as Next},
    store::{Range, Store, embedded::EmbeddedStore},
};
use proxyxai_core::{
    account::key::PREFIX,
    ports::{Clock, Random},
    secret::{
        ExposeSecret as _,
        seal::{SealKey, SealKeyId},
    },
};
use proxyxai_proto::{
    admin::v1::{
        account_service_client::AccountServiceClient, backup_service_client::BackupServiceClient,
        credential_service_client::CredentialServiceClient, key_service_client::KeyServiceClient,
        log_service_client::LogServiceClient, manifest_service_client::ManifestServiceClient,
        node_service_client::NodeServiceClient, provider_service_client::ProviderServiceClient,
        route_service_client::RouteServiceClient, secret_service_client::SecretServiceClient,
        settings_service_client::SettingsServiceClient,
        upstream_key_service_client::UpstreamKeyServiceClient,
        usage_query_service_client::UsageQueryServiceClient,
    },
    config::v1::config_service_client::ConfigServiceClient,
    usage::v1::usage_service_client::UsageServiceClient,
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::Instant,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// Every upstream secret of the tests begins with this, so that it can be looked for.
pub(crate) const SECRET: &str = "sk-upstream-secret-";
/// What administrators show.
pub(crate) const ADMIN: &str = "pxai-admin-of-the-tests";
/// 2026-01-01T00:00:00Z, a whole day and hour.
pub(crate) const EPOCH_MS: i64 = 1_767_225_600_000;
/// Longest that anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Wall clock that moves with the paused time and can be set forward.
pub(crate) struct TestClock {
    start: Instant,
    base: AtomicI64,
}

impl TestClock {
    pub(crate) fn forward(&self, ms: i64) {
        self.base.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    fn unix_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap();
        self.base.load(Ordering::SeqCst) + elapsed
    }
}

/// A sequence that differs for every seed and never repeats.
pub(crate) struct Sequence(pub(crate) AtomicU64);

impl Random for Sequence {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            let mixed = (next ^ (next >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = mixed ^ (mixed >> 29);
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// What outlives a control plane: its store and the time.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: EmbeddedStore,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) kek: [u8; 32],
    /// The next key-encryption key, where there is one.
    pub(crate) next_kek: Arc<Mutex<Option<[u8; 32]>>>,
    pub(crate) settings: Settings,
    starts: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            store: EmbeddedStore::in_memory().unwrap(),
            clock: Arc::new(TestClock {
                start: Instant::now(),
                base: AtomicI64::new(EPOCH_MS),
            }),
            kek: [5; 32],
            next_kek: Arc::default(),
            settings: Settings::default(),
            starts: Arc::default(),
        }
    }

    /// Builds a control plane, with its own source of randomness.
    pub(crate) async fn build(&self, store: Arc<dyn Store>) -> Result<ControlPlane, StartError> {
        let seed = self.starts.fetch_add(1, Ordering::SeqCst) + 1;
        let ports = Ports {
            clock: Arc::<TestClock>::clone(&self.clock),
            random: Arc::new(Sequence(AtomicU64::new(seed << 20))),
            store,
            key_encryption_key: SealKey::new(self.kek),
            next_key_encryption_key: Arc::new(NextKey(Arc::clone(&self.next_kek))),
            admin_credential: ADMIN.into(),
            authority: None,
        };
        app::build(self.settings.clone(), ports).await
    }

    pub(crate) async fn start(&self) -> Plane {
        self.start_on(Arc::new(self.store.clone())).await
    }

    /// Starts one on another view of a store.
    pub(crate) async fn start_on(&self, store: Arc<dyn Store>) -> Plane {
        let plane = Arc::new(self.build(store).await.unwrap());
        let (line, incoming) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let (serving, until) = (Arc::clone(&plane), shutdown.clone());
        tokio::spawn(async move {
            let incoming = UnboundedReceiverStream::new(incoming);
            serving.serve(incoming, until).await.unwrap();
        });
        let channel =
            Endpoint::from_static("http://control").connect_with_connector_lazy(Line(line));
        Plane {
            channel,
            plane,
            shutdown,
        }
    }

    /// Every entry of the store.
    pub(crate) async fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let page = self.store.range(Range::prefix("")).await.unwrap();
        page.entries.into_iter().map(|e| (e.key, e.value)).collect()
    }
}

/// Where the next key-encryption key of a world comes from.
struct NextKey(Arc<Mutex<Option<[u8; 32]>>>);

impl KeySource for NextKey {
    fn read(&self) -> Next<'_> {
        let key = self.0.lock().unwrap().map(SealKey::new);
        Box::pin(std::future::ready(Ok(key)))
    }

    fn adopted(&self, _: SealKeyId) {}
}

/// A running control plane; stops when dropped.
pub(crate) struct Plane {
    pub(crate) channel: Channel,
    pub(crate) plane: Arc<ControlPlane>,
    shutdown: CancellationToken,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.plane.stop();
        self.shutdown.cancel();
    }
}

type Authorized = InterceptedService<Channel, Bearer>;

/// Shows a credential, or none.
#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(credential) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {credential}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

impl Plane {
    fn admin(&self) -> Authorized {
        InterceptedService::new(self.channel.clone(), Bearer(Some(ADMIN.to_owned())))
    }
    fn node(&self) -> Authorized {
        let credential = self.plane.node_credential().expose_secret().to_owned();
        InterceptedService::new(self.channel.clone(), Bearer(Some(credential)))
    }
    pub(crate) fn manifests(&self) -> ManifestServiceClient<Authorized> {
        ManifestServiceClient::new(self.admin()).max_decoding_message_size(64 << 20)
    }
    pub(crate) fn accounts(&self) -> AccountServiceClient<Authorized> {
        AccountServiceClient::new(self.admin())
    }
    pub(crate) fn keys(&self) -> KeyServiceClient<Authorized> {
        KeyServiceClient::new(self.admin())
    }
    pub(crate) fn providers(&self) -> ProviderServiceClient<Authorized> {
        ProviderServiceClient::new(self.admin())
    }
    pub(crate) fn upstream_keys(&self) -> UpstreamKeyServiceClient<Authorized> {
        UpstreamKeyServiceClient::new(self.admin())
    }
    pub(crate) fn routes(&self) -> RouteServiceClient<Authorized> {
        RouteServiceClient::new(self.admin())
    }
    pub(crate) fn backups(&self) -> BackupServiceClient<Authorized> {
        BackupServiceClient::new(self.admin())
    }
    pub(crate) fn secrets(&self) -> SecretServiceClient<Authorized> {
        SecretServiceClient::new(self.admin())
    }
    pub(crate) fn settings(&self) -> SettingsServiceClient<Authorized> {
        SettingsServiceClient::new(self.admin())
    }
    pub(crate) fn nodes(&self) -> NodeServiceClient<Authorized> {
        NodeServiceClient::new(self.admin())
    }
    pub(crate) fn credentials(&self) -> CredentialServiceClient<Authorized> {
        CredentialServiceClient::new(self.admin())
    }
    pub(crate) fn logs(&self) -> LogServiceClient<Authorized> {
        LogServiceClient::new(self.admin())
    }
    pub(crate) fn queries(&self) -> UsageQueryServiceClient<Authorized> {
        UsageQueryServiceClient::new(self.admin())
    }
    pub(crate) fn config(&self) -> ConfigServiceClient<Authorized> {
        ConfigServiceClient::new(self.node())
    }
    pub(crate) fn reports(&self) -> UsageServiceClient<Authorized> {
        UsageServiceClient::new(self.node())
    }

    /// The value of a gauge.
    pub(crate) fn gauge(&self, name: &str) -> u64 {
        let mut text = String::new();
        self.plane.metrics(&mut text);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }

    /// Revision of the configuration.
    pub(crate) fn head(&self) -> u64 {
        self.gauge("xai_config_revision ")
    }
}

/// The answer of a call that must work and must not tell a secret.
pub(crate) fn ok<T: Message>(answer: Result<Response<T>, Status>) -> T {
    let answer = answer.unwrap().into_inner();
    assert!(!tells_a_secret(&answer.encode_to_vec()));
    answer
}

/// Checks a refusal: its code, and words of its message that say what is wrong or what to do.
#[track_caller]
pub(crate) fn refused<T>(answer: Result<Response<T>, Status>, code: Code, words: &[&str]) {
    let Err(status) = answer else {
        panic!("accepted, but {code:?} ({words:?}) is right")
    };
    let message = status.message();
    assert_eq!(status.code(), code, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    assert!(!tells_a_secret(message.as_bytes()), "{message}");
}

/// Whether an upstream secret or a whole virtual key stands in there.
pub(crate) fn tells_a_secret(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let whole = |rest: &str| {
        rest.bytes()
            .take(50)
            .filter(u8::is_ascii_alphanumeric)
            .count()
            == 50
    };
    text.contains(SECRET) || text.split(PREFIX).skip(1).any(whole)
}

#[derive(Clone)]
struct Line(mpsc::UnboundedSender<io::Result<DuplexStream>>);

impl tower::Service<http::Uri> for Line {
    type Response = hyper_util::rt::TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (near, far) = duplex(64 * 1024);
        let sent = self.0.send(Ok(far));
        std::future::ready(
            sent.map(|()| hyper_util::rt::TokioIo::new(near))
                .map_err(io::Error::other),
        )
    }
}
