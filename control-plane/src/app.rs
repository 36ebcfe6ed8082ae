//! Puts a control plane together: build → serve → stop. Everything that touches the world is handed in.

mod first_key;

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use proxyxai_core::{
    account::key::{Pepper, base62},
    ports::{Clock, Random, random_bytes},
    secret::{SecretString, seal::SealKey},
};
use proxyxai_proto::{
    admin::v1::{
        account_service_server::AccountServiceServer, backup_service_server::BackupServiceServer,
        key_service_server::KeyServiceServer, node_service_server::NodeServiceServer,
        provider_service_server::ProviderServiceServer, route_service_server::RouteServiceServer,
        secret_service_server::SecretServiceServer,
        upstream_key_service_server::UpstreamKeyServiceServer,
        usage_query_service_server::UsageQueryServiceServer,
    },
    usage::v1::usage_service_server::UsageServiceServer,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};

use crate::{
    admin::{
        accounts::AccountServer, backup::BackupServer, keys::KeyServer, providers::ProviderServer,
        routes::RouteServer, secrets::SecretServer, upstream_keys::UpstreamKeyServer,
    },
    admission::Admission,
    auth::{Credentials, Guard},
    books::Books,
    bootstrap,
    config_service::{ConfigServer, ConfigServiceServer},
    config_store::ConfigStore,
    keyring::{KeySource, Keyring, rotate},
    node_service::NodeServer,
    nodes::Nodes,
    publish::{Publisher, ViewKey},
    roster::Roster,
    status::Fault,
    store::{
        Store, StoreError,
        keyspace::{self, Key},
    },
    usage_query::UsageQueryServer,
    usage_service::UsageServer,
};

pub use bootstrap::key_encryption_key_id;
pub use first_key::FirstKey;

/// What a control plane is given to touch the world with.
pub struct Ports {
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Makes keys.
    pub random: Arc<dyn Random>,
    /// Keeps state.
    pub store: Arc<dyn Store>,
    /// Seals secrets in the store.
    pub key_encryption_key: SealKey,
    /// Where the key comes from that is to seal them next.
    pub next_key_encryption_key: Arc<dyn KeySource>,
    /// What administrators show.
    pub admin_credential: SecretString,
}

/// How a control plane behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between proofs of freshness to nodes.
    pub bookmark_interval: Duration,
    /// Changes that follow one within this time are sent together.
    pub debounce: Duration,
    /// Streams of nodes that may begin in a second.
    pub streams_per_second: u32,
    /// Whether other control planes may use the same store: then they ask each other for their nodes.
    pub shared_store: bool,
    /// Between folds of old rows of usage.
    pub fold_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmark_interval: Duration::from_secs(2),
            debounce: Duration::from_millis(100),
            streams_per_second: 50,
            shared_store: false,
            fold_interval: Duration::from_secs(3600),
        }
    }
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store is of another program.
    #[error(
        "the store has format {found}, this program reads format {}; start the version of xai that wrote it",
        keyspace::FORMAT
    )]
    Format {
        /// What was found.
        found: u64,
    },
    /// Secrets cannot be opened.
    #[error(
        "the secrets in the store are sealed under key {sealed_by}, but the key-encryption key given is {given}; put the right key file back, or name it by the setting `key_encryption_key`"
    )]
    OtherKey {
        /// Id of the key that is needed.
        sealed_by: String,
        /// Id of the key at hand.
        given: String,
    },
    /// An import did not end.
    #[error("an import into the store did not end; run `xai store import` again")]
    HalfImported,
    /// Something that every store holds is missing.
    #[error("the store lacks what every store holds; restore it from a backup")]
    Incomplete,
    /// The store failed, or what it holds does not compile.
    #[error("{0}")]
    Failed(String),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.to_string())
    }
}

/// A control plane that is ready to serve.
pub struct ControlPlane {
    settings: Settings,
    config: Arc<ConfigStore>,
    keyring: Arc<Keyring>,
    random: Arc<dyn Random>,
    store: Arc<dyn Store>,
    books: Arc<Books>,
    credentials: Arc<Credentials>,
    node_credential: SecretString,
    deployment_id: String,
    pepper: Pepper,
    config_server: Arc<ConfigServer>,
    nodes: Arc<Nodes>,
    roster: Arc<Roster>,
    stopping: CancellationToken,
}

/// Opens the books and reads the configuration.
///
/// # Errors
/// When the store, its format or its keys do not fit.
pub async fn build(settings: Settings, ports: Ports) -> Result<ControlPlane, StartError> {
    let Ports {
        clock,
        random,
        store,
        key_encryption_key,
        next_key_encryption_key,
        admin_credential,
    } = ports;
    let owner = bootstrap::Owner {
        key: Arc::new(key_encryption_key),
        next: next_key_encryption_key,
    };
    let deployment = bootstrap::deployment(&store, &*random, &*clock, owner).await?;
    let config = ConfigStore::load(
        Arc::clone(&store),
        Arc::clone(&random),
        Arc::clone(&clock),
        Arc::clone(&deployment.keyring),
        deployment.generation,
        Arc::new(Publisher::new(ViewKey::new(Arc::clone(&random)))),
    )
    .await?;
    let config = Arc::new(config);
    let nodes = Arc::new(Nodes::new(Arc::clone(&clock), settings.bookmark_interval));
    let stopping = CancellationToken::new();
    let roster = Arc::new(Roster::new(
        Arc::clone(&store),
        Arc::clone(&clock),
        Arc::clone(&random),
        Arc::clone(&config),
        Arc::clone(&nodes),
        settings.shared_store,
    ));
    tokio::spawn(Arc::clone(&roster).run(stopping.clone()));
    let config_server = ConfigServer {
        config: Arc::clone(&config),
        clock: Arc::clone(&clock),
        deployment_id: deployment.id.clone(),
        pepper: deployment.pepper.clone(),
        bookmark_interval: settings.bookmark_interval,
        debounce: settings.debounce,
        nodes: Arc::clone(&nodes),
        roster: Arc::clone(&roster),
        admission: Admission::new(settings.streams_per_second),
        drained: AtomicU32::new(0),
        stopping: stopping.clone(),
    };
    let node_secret = format!("pxai-node-{}", base62(&random_bytes(&*random), 40));
    Ok(ControlPlane {
        settings,
        keyring: deployment.keyring,
        random,
        config,
        books: Arc::new(Books {
            store: Arc::clone(&store),
            clock,
        }),
        store,
        credentials: Arc::new(Credentials {
            admin: admin_credential,
            node: node_secret.clone().into(),
        }),
        node_credential: node_secret.into(),
        deployment_id: deployment.id,
        pepper: deployment.pepper,
        config_server: Arc::new(config_server),
        nodes,
        roster,
        stopping,
    })
}

impl ControlPlane {
    /// Names the deployment.
    pub fn deployment_id(&self) -> &str {
        &self.deployment_id
    }

    /// What the node of this process shows; made anew at every start.
    pub fn node_credential(&self) -> SecretString {
        self.node_credential.clone()
    }

    /// Serves all services on connections that come in, until `shutdown`. May be called for several sources at once.
    ///
    /// # Errors
    /// When the server itself fails; a failing connection ends only itself.
    pub async fn serve<I, C>(&self, incoming: I, shutdown: CancellationToken) -> io::Result<()>
    where
        I: Stream<Item = io::Result<C>> + Send,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (health, health_service) = tonic_health::server::health_reporter();
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let reflection = |builder: tonic_reflection::server::Builder<'static>| {
            builder
                .register_encoded_file_descriptor_set(proxyxai_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection_v1 = reflection(tonic_reflection::server::Builder::configure())
            .build_v1()
            .map_err(io::Error::other)?;
        let reflection_v1alpha = reflection(tonic_reflection::server::Builder::configure())
            .build_v1alpha()
            .map_err(io::Error::other)?;
        let config = || Arc::clone(&self.config);
        Server::builder()
            .timeout(Duration::from_secs(300))
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .max_concurrent_streams(Some(128))
            .layer(Guard(Arc::clone(&self.credentials)))
            .add_service(health_service)
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha)
            .add_service(AccountServiceServer::new(AccountServer {
                config: config(),
            }))
            .add_service(KeyServiceServer::new(KeyServer {
                config: config(),
                pepper: self.pepper.clone(),
            }))
            .add_service(ProviderServiceServer::new(ProviderServer {
                config: config(),
            }))
            .add_service(UpstreamKeyServiceServer::new(UpstreamKeyServer {
                config: config(),
                pepper: self.pepper.clone(),
            }))
            .add_service(RouteServiceServer::new(RouteServer { config: config() }))
            .add_service(NodeServiceServer::new(NodeServer {
                config: config(),
                roster: Arc::clone(&self.roster),
            }))
            .add_service(UsageQueryServiceServer::new(UsageQueryServer {
                config: config(),
                store: Arc::clone(&self.store),
            }))
            .add_service(SecretServiceServer::new(SecretServer {
                keyring: Arc::clone(&self.keyring),
                random: Arc::clone(&self.random),
                clock: Arc::clone(&self.config.clock),
            }))
            .add_service(BackupServiceServer::new(BackupServer {
                store: Arc::clone(&self.store),
                clock: Arc::clone(&self.config.clock),
            }))
            .add_service(ConfigServiceServer(Arc::clone(&self.config_server)))
            .add_service(UsageServiceServer::new(UsageServer {
                books: Arc::clone(&self.books),
                stopping: self.stopping.clone(),
            }))
            .serve_with_incoming_shutdown(incoming, async move { shutdown.cancelled().await })
            .await
            .map_err(io::Error::other)
    }

    /// Keeps the store in order, now and then, until stopped: folds old rows of usage, ends what a rotation of keys left.
    pub async fn keep_house(&self) {
        loop {
            if let Err(error) = rotate::tidy(&self.keyring, &*self.random).await {
                tracing::warn!(%error, "secrets under older keys were not sealed anew; it is tried again");
            }
            if let Err(error) = self.books.fold().await {
                tracing::warn!(%error, "old rows of usage were not folded; it is tried again");
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(self.settings.fold_interval) => {}
            }
        }
    }

    /// Keeps the tick, by which all who follow the store know that it lives, until stopped.
    pub async fn keep_tick(&self) {
        crate::tick::keep(&*self.store, &self.config.clock, &self.stopping).await;
    }

    /// Ends the streams of all nodes, so that a server can stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether the store answers.
    pub async fn is_ready(&self) -> Result<(), StoreError> {
        self.store.get(&Key::Format.to_string()).await.map(|_| ())
    }

    /// Adds this side's metrics in Prometheus' text format.
    pub fn metrics(&self, out: &mut String) {
        let state = self.config.state();
        let nodes = self.nodes.all();
        let connected = nodes
            .values()
            .filter(|(node, _)| node.stream.is_some())
            .count();
        let current = nodes
            .values()
            .filter(|(node, _)| node.applied == state.snapshot.version)
            .count();
        let mut gauge = |name: &str, help: &str, value: u64| {
            let _writing_to_a_string_works = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
            );
        };
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        gauge(
            "xai_config_revision",
            "Revision of the configuration.",
            state.snapshot.version.revision,
        );
        gauge(
            "xai_config_objects",
            "Objects of the configuration.",
            count(state.records.len()),
        );
        gauge(
            "xai_config_withheld",
            "Rows of the store that are not in force as they stand there.",
            count(state.withheld.len()),
        );
        gauge(
            "xai_nodes_connected",
            "Nodes with an open stream.",
            count(connected),
        );
        gauge(
            "xai_nodes_current",
            "Nodes that serve from the newest configuration.",
            count(current),
        );
    }
}
