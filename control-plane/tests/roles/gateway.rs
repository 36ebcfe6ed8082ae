//! A control plane in memory, with a clock that is set by hand, and clients of it that show any credential.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proxyxai_control_plane::{
    app::{self, ControlPlane, Ports, Settings},
    keyring::{KeySource, NextKey},
    store::{Store, embedded::EmbeddedStore},
};
use proxyxai_core::{
    ports::{Clock, Random},
    secret::seal::{SealKey, SealKeyId},
};
use proxyxai_proto::{
    admin::v1::{
        account_service_client::AccountServiceClient, audit_service_client::AuditServiceClient,
        backup_service_client::BackupServiceClient,
        credential_service_client::CredentialServiceClient,
        join_token_service_client::JoinTokenServiceClient, key_service_client::KeyServiceClient,
        log_service_client::LogServiceClient, manifest_service_client::ManifestServiceClient,
        node_service_client::NodeServiceClient, price_service_client::PriceServiceClient,
        provider_service_client::ProviderServiceClient, route_service_client::RouteServiceClient,
        secret_service_client::SecretServiceClient, settings_service_client::SettingsServiceClient,
        upstream_key_service_client::UpstreamKeyServiceClient,
        usage_query_service_client::UsageQueryServiceClient,
    },
    config::v1::config_service_client::ConfigServiceClient,
    node::v1::join_service_client::JoinServiceClient,
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};

/// The credential of the first administrator.
pub(crate) const ADMIN: &str = "pxai-admin-of-the-tests";
/// When the clock starts.
pub(crate) const BEGIN: i64 = 1_795_521_600_000;

/// Shows a credential, if there is one.
#[derive(Clone)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(secret) = &self.0 {
            let value = format!("Bearer {secret}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

type Way = InterceptedService<Channel, Bearer>;

/// A control plane that serves.
pub(crate) struct Gateway {
    pub(crate) control: Arc<ControlPlane>,
    pub(crate) store: EmbeddedStore,
    pub(crate) clock: Arc<HandClock>,
    channel: Channel,
}

impl Gateway {
    /// An empty one.
    pub(crate) async fn start(seed: u64) -> Self {
        Self::on(
            EmbeddedStore::in_memory().unwrap(),
            seed,
            Settings::default(),
        )
        .await
    }

    /// One on this store; several may share it.
    pub(crate) async fn on(store: EmbeddedStore, seed: u64, settings: Settings) -> Self {
        let clock = Arc::new(HandClock(AtomicI64::new(BEGIN)));
        let ports = Ports {
            clock: Arc::clone(&clock) as _,
            random: Arc::new(Seeded(AtomicU64::new(seed))),
            store: Arc::new(store.clone()) as Arc<dyn Store>,
            key_encryption_key: SealKey::new([7; 32]),
            next_key_encryption_key: Arc::new(AlwaysAnother(AtomicU8::new(8))),
            admin_credential: ADMIN.into(),
            authority: None,
        };
        let control = Arc::new(app::build(settings, ports).await.unwrap());
        let channel = serve(&control);
        Self {
            control,
            store,
            clock,
            channel,
        }
    }

    /// Goes on over another connection: one ends by itself after about a thousand calls that were refused before they were read.
    pub(crate) fn reconnect(&mut self) {
        self.channel = serve(&self.control);
    }

    /// Clients that show this credential.
    pub(crate) fn with(&self, secret: &str) -> Hand {
        Hand(InterceptedService::new(
            self.channel.clone(),
            Bearer(Some(secret.to_owned())),
        ))
    }

    /// Clients that show none.
    pub(crate) fn anonymous(&self) -> Hand {
        Hand(InterceptedService::new(self.channel.clone(), Bearer(None)))
    }
}

/// Clients of one caller.
#[derive(Clone)]
pub(crate) struct Hand(Way);

impl Hand {
    pub(crate) fn accounts(&self) -> AccountServiceClient<Way> {
        AccountServiceClient::new(self.0.clone())
    }
    pub(crate) fn keys(&self) -> KeyServiceClient<Way> {
        KeyServiceClient::new(self.0.clone())
    }
    pub(crate) fn credentials(&self) -> CredentialServiceClient<Way> {
        CredentialServiceClient::new(self.0.clone())
    }
    pub(crate) fn nodes(&self) -> NodeServiceClient<Way> {
        NodeServiceClient::new(self.0.clone())
    }
    pub(crate) fn secrets(&self) -> SecretServiceClient<Way> {
        SecretServiceClient::new(self.0.clone())
    }
    pub(crate) fn backups(&self) -> BackupServiceClient<Way> {
        BackupServiceClient::new(self.0.clone())
    }
    pub(crate) fn audit(&self) -> AuditServiceClient<Way> {
        AuditServiceClient::new(self.0.clone())
    }
    pub(crate) fn providers(&self) -> ProviderServiceClient<Way> {
        ProviderServiceClient::new(self.0.clone())
    }
    pub(crate) fn upstream_keys(&self) -> UpstreamKeyServiceClient<Way> {
        UpstreamKeyServiceClient::new(self.0.clone())
    }
    pub(crate) fn prices(&self) -> PriceServiceClient<Way> {
        PriceServiceClient::new(self.0.clone())
    }
    pub(crate) fn settings(&self) -> SettingsServiceClient<Way> {
        SettingsServiceClient::new(self.0.clone())
    }
    pub(crate) fn logs(&self) -> LogServiceClient<Way> {
        LogServiceClient::new(self.0.clone())
    }
    pub(crate) fn join_tokens(&self) -> JoinTokenServiceClient<Way> {
        JoinTokenServiceClient::new(self.0.clone())
    }
    pub(crate) fn manifests(&self) -> ManifestServiceClient<Way> {
        ManifestServiceClient::new(self.0.clone()).max_decoding_message_size(64 << 20)
    }
    pub(crate) fn routes(&self) -> RouteServiceClient<Way> {
        RouteServiceClient::new(self.0.clone())
    }
    pub(crate) fn usage(&self) -> UsageQueryServiceClient<Way> {
        UsageQueryServiceClient::new(self.0.clone())
    }
    pub(crate) fn joins(&self) -> JoinServiceClient<Way> {
        JoinServiceClient::new(self.0.clone())
    }
    pub(crate) fn config(&self) -> ConfigServiceClient<Way> {
        ConfigServiceClient::new(self.0.clone())
    }
}

fn serve(control: &Arc<ControlPlane>) -> Channel {
    let (channel, incoming) = pipe();
    let control = Arc::clone(control);
    tokio::spawn(async move {
        let _ends_with_the_test = control.serve(incoming, CancellationToken::new()).await;
    });
    channel
}

fn pipe() -> (Channel, UnboundedReceiverStream<io::Result<DuplexStream>>) {
    let (connections, incoming) = mpsc::unbounded_channel();
    let connect = tower::service_fn(move |_: Uri| {
        let (near, far) = duplex(64 << 10);
        let sent = connections
            .send(Ok(far))
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused));
        std::future::ready(sent.map(|()| TokioIo::new(near)))
    });
    let channel = Endpoint::from_static("http://pipe").connect_with_connector_lazy(connect);
    (channel, UnboundedReceiverStream::new(incoming))
}

/// Key-encryption keys, one after the other.
struct AlwaysAnother(AtomicU8);

impl KeySource for AlwaysAnother {
    fn read(&self) -> NextKey<'_> {
        let key = SealKey::new([self.0.load(Ordering::Relaxed); 32]);
        Box::pin(std::future::ready(Ok(Some(key))))
    }

    fn adopted(&self, _: SealKeyId) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A clock that stands still until it is moved.
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn advance(&self, milliseconds: i64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.unix_ms() - BEGIN).unwrap())
    }
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes that follow from a seed (SplitMix64).
pub(crate) struct Seeded(pub(crate) AtomicU64);

impl Seeded {
    /// A number below `limit`.
    pub(crate) fn draw(&self, limit: usize) -> usize {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap() % limit
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = u8::try_from(self.draw(256)).unwrap();
        }
    }
}
