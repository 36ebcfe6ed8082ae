//! Puts a control plane together: build → serve → stop. Everything that touches the world is handed in.

mod first_key;
mod join_token;

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use proxyxai_core::{
    access::{Caller, Role},
    account::key::{Pepper, base62},
    ports::{Clock, LogControl, Random, random_bytes},
    secret::{SecretString, seal::SealKey},
};
use proxyxai_proto::{
    admin::v1::{
        ManagedBy, account_service_server::AccountServiceServer,
        audit_service_server::AuditServiceServer, backup_service_server::BackupServiceServer,
        credential_service_server::CredentialServiceServer,
        join_token_service_server::JoinTokenServiceServer, key_service_server::KeyServiceServer,
        log_service_server::LogServiceServer, node_service_server::NodeServiceServer,
        price_service_server::PriceServiceServer, provider_service_server::ProviderServiceServer,
        route_service_server::RouteServiceServer, secret_service_server::SecretServiceServer,
        upstream_key_service_server::UpstreamKeyServiceServer,
        usage_query_service_server::UsageQueryServiceServer,
    },
    node::v1::join_service_server::JoinServiceServer,
    usage::v1::usage_service_server::UsageServiceServer,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};

use crate::{
    admin::{
        accounts::AccountServer, backup::BackupServer, credentials::CredentialServer,
        keys::KeyServer, prices::PriceServer, providers::ProviderServer, routes::RouteServer,
        secrets::SecretServer, upstream_keys::UpstreamKeyServer,
    },
    admission::Admission,
    audit::{Trail, service::AuditServer},
    auth::{Credentials, Gate, Guard, ProcessCredential},
    authority::{Authority, Kept, SERVER_RENEWAL},
    books::Books,
    bootstrap,
    config_service::{ConfigServer, ConfigServiceServer},
    config_store::ConfigStore,
    join::{self, Door, JoinServer, JoinTokenServer},
    keyring::{KeySource, Keyring, rotate},
    log_service::LogServer,
    manifest::service::ManifestServer,
    node_service::NodeServer,
    nodes::Nodes,
    orders::{Orders, Wishes},
    publish::{Publisher, ViewKey},
    roster::Roster,
    status::Fault,
    store::{
        Store, StoreError,
        keyspace::{self, Key},
    },
    tls::{Tls, TlsError},
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
    /// The authority that a new deployment takes up; without one it makes its own.
    pub authority: Option<Kept>,
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
    /// Between folds of old rows of usage, and prunings of the audit trail.
    pub fold_interval: Duration,
    /// Names and addresses that its certificate bears, besides those of this machine and the one that clients ask for who pin the
    /// authority.
    pub names: Vec<String>,
    /// How long records of the audit trail are kept.
    pub audit_keep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmark_interval: Duration::from_secs(2),
            debounce: Duration::from_millis(100),
            streams_per_second: 50,
            shared_store: false,
            fold_interval: Duration::from_secs(3600),
            names: Vec::new(),
            audit_keep: Duration::from_secs(365 * 24 * 3600),
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

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Failed(error.to_string())
    }
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
    trail: Arc<Trail>,
    credentials: Arc<Credentials>,
    own: OwnCredentials,
    deployment_id: String,
    pepper: Pepper,
    config_server: Arc<ConfigServer>,
    nodes: Arc<Nodes>,
    roster: Arc<Roster>,
    orders: Arc<Orders>,
    wishes: Arc<Wishes>,
    door: Arc<Door>,
    tls: Tls,
    stopping: CancellationToken,
}

/// Ids of the credentials that processes of the deployment hold, as the audit trail names them.
mod process {
    /// The one in the file `admin-credential`.
    pub(super) const ADMIN: &str = "admin";
    /// Of the node of this process.
    pub(super) const NODE: &str = "node";
    /// `xai up` when it brings objects in line with the environment.
    pub(super) const ENV: &str = "env";
    /// `xai up --demo`, likewise.
    pub(super) const DEMO: &str = "demo";
    /// The first start.
    pub(super) const START: &str = "start";
}

/// Credentials that are made anew at every start, for other parts of this process.
struct OwnCredentials {
    node: SecretString,
    env: SecretString,
    demo: SecretString,
}

impl OwnCredentials {
    fn make(random: &dyn Random) -> Self {
        let secret = |word: &str| -> SecretString {
            format!("pxai-{word}-{}", base62(&random_bytes(random), 40)).into()
        };
        Self {
            node: secret("node"),
            env: secret("env"),
            demo: secret("demo"),
        }
    }

    /// All that are known without a look into the store.
    fn with_admin(&self, admin: SecretString) -> Vec<ProcessCredential> {
        let one = |id: &str, role: Role, secret: &SecretString| ProcessCredential {
            caller: Caller::of_deployment(id, role),
            secret: secret.clone(),
        };
        vec![
            one(process::ADMIN, Role::Root, &admin),
            one(process::NODE, Role::Node, &self.node),
            one(process::ENV, Role::Root, &self.env),
            one(process::DEMO, Role::Root, &self.demo),
        ]
    }
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
        authority,
    } = ports;
    let owner = bootstrap::Owner {
        key: Arc::new(key_encryption_key),
        next: next_key_encryption_key,
    };
    let deployment = bootstrap::deployment(&store, &*random, &*clock, owner).await?;
    let authority = join::authority(
        &store,
        &*random,
        &*clock,
        &deployment.keyring,
        &deployment.id,
        authority.as_ref(),
    );
    let authority = Arc::new(authority.await?);
    let certificate = authority
        .server(&settings.names, clock.unix_ms())
        .map_err(TlsError::from)?;
    let tls = Tls::new(Arc::clone(&authority), certificate)?;
    let trail = Arc::new(Trail::new(Arc::clone(&store), Arc::clone(&clock))?);
    let config = ConfigStore::load(
        Arc::clone(&store),
        Arc::clone(&random),
        Arc::clone(&clock),
        Arc::clone(&deployment.keyring),
        deployment.generation,
        Arc::clone(&trail),
        Arc::new(Publisher::new(ViewKey::new(Arc::clone(&random)))),
    )
    .await?;
    let config = Arc::new(config);
    let nodes = Arc::new(Nodes::new(Arc::clone(&clock), settings.bookmark_interval));
    let stopping = CancellationToken::new();
    let orders = Arc::new(Orders::new(Arc::clone(&clock)));
    let (followed, its_store, until) = (Arc::clone(&orders), Arc::clone(&store), stopping.clone());
    tokio::spawn(async move { until.run_until_cancelled(followed.follow(&its_store)).await });
    let roster = Arc::new(Roster::new(
        Arc::clone(&store),
        Arc::clone(&clock),
        Arc::clone(&random),
        Arc::clone(&config),
        Arc::clone(&nodes),
        Arc::clone(&orders),
        settings.shared_store,
    ));
    tokio::spawn(Arc::clone(&roster).run(stopping.clone()));
    let door = Arc::new(Door {
        store: Arc::clone(&store),
        random: Arc::clone(&random),
        clock: Arc::clone(&clock),
        pepper: deployment.pepper.clone(),
        authority,
        trail: Arc::clone(&trail),
        config: Arc::clone(&config),
    });
    let config_server = ConfigServer {
        config: Arc::clone(&config),
        clock: Arc::clone(&clock),
        deployment_id: deployment.id.clone(),
        pepper: deployment.pepper.clone(),
        bookmark_interval: settings.bookmark_interval,
        debounce: settings.debounce,
        nodes: Arc::clone(&nodes),
        roster: Arc::clone(&roster),
        orders: Arc::clone(&orders),
        door: Arc::clone(&door),
        admission: Admission::new(settings.streams_per_second),
        drained: AtomicU32::new(0),
        stopping: stopping.clone(),
    };
    let own = OwnCredentials::make(&*random);
    Ok(ControlPlane {
        wishes: Arc::new(Wishes {
            store: Arc::clone(&store),
            trail: Arc::clone(&trail),
            config: Arc::clone(&config),
        }),
        settings,
        keyring: deployment.keyring,
        random,
        config,
        books: Arc::new(Books {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
        }),
        trail,
        credentials: Arc::new(Credentials {
            store: Arc::clone(&store),
            clock,
            pepper: deployment.pepper.clone(),
            processes: own.with_admin(admin_credential),
        }),
        own,
        store,
        deployment_id: deployment.id,
        pepper: deployment.pepper,
        config_server: Arc::new(config_server),
        nodes,
        roster,
        orders,
        door,
        tls,
        stopping,
    })
}

impl ControlPlane {
    /// Names the deployment.
    pub fn deployment_id(&self) -> &str {
        &self.deployment_id
    }

    /// Encrypts connections that come from elsewhere.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The authority that clients pin.
    pub fn authority(&self) -> &Authority {
        &self.door.authority
    }

    /// What the node of this process shows; made anew at every start.
    pub fn node_credential(&self) -> SecretString {
        self.own.node.clone()
    }

    /// What the part of this process shows that manages objects by itself; made anew at every start. `None` for administrators, whose
    /// credential is handed in.
    pub fn managing_credential(&self, for_whom: ManagedBy) -> Option<SecretString> {
        match for_whom {
            ManagedBy::Env => Some(self.own.env.clone()),
            ManagedBy::Demo => Some(self.own.demo.clone()),
            ManagedBy::Admin | ManagedBy::Apply | ManagedBy::Unspecified => None,
        }
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
            .layer(Guard(Arc::new(Gate {
                config: config(),
                credentials: Arc::clone(&self.credentials),
                door: Arc::clone(&self.door),
            })))
            .add_service(health_service)
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha)
            .add_service(AccountServiceServer::new(AccountServer {
                config: config(),
                credentials: Arc::clone(&self.credentials),
            }))
            .add_service(CredentialServiceServer::new(CredentialServer {
                config: config(),
                credentials: Arc::clone(&self.credentials),
                trail: Arc::clone(&self.trail),
                deployment_id: self.deployment_id.clone(),
            }))
            .add_service(AuditServiceServer::new(AuditServer {
                config: config(),
                trail: Arc::clone(&self.trail),
                deployment_id: self.deployment_id.clone(),
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
            .add_service(PriceServiceServer::new(PriceServer { config: config() }))
            .add_service(
                ManifestServer::service(
                    config(),
                    Arc::clone(&self.credentials),
                    self.pepper.clone(),
                )
                .map_err(io::Error::other)?,
            )
            .add_service(NodeServiceServer::new(NodeServer {
                config: config(),
                roster: Arc::clone(&self.roster),
                door: Arc::clone(&self.door),
                wishes: Arc::clone(&self.wishes),
            }))
            .add_service(LogServiceServer::new(LogServer {
                orders: Arc::clone(&self.orders),
                wishes: Arc::clone(&self.wishes),
                clock: Arc::clone(&self.books.clock),
            }))
            .add_service(UsageQueryServiceServer::new(UsageQueryServer {
                config: config(),
                store: Arc::clone(&self.store),
            }))
            .add_service(JoinTokenServiceServer::new(JoinTokenServer(Arc::clone(
                &self.door,
            ))))
            .add_service(JoinServiceServer::new(JoinServer(Arc::clone(&self.door))))
            .add_service(SecretServiceServer::new(SecretServer {
                keyring: Arc::clone(&self.keyring),
                random: Arc::clone(&self.random),
                config: config(),
                trail: Arc::clone(&self.trail),
            }))
            .add_service(BackupServiceServer::new(BackupServer {
                store: Arc::clone(&self.store),
                config: config(),
                trail: Arc::clone(&self.trail),
            }))
            .add_service(ConfigServiceServer(Arc::clone(&self.config_server)))
            .add_service(UsageServiceServer::new(UsageServer {
                books: Arc::clone(&self.books),
                door: Arc::clone(&self.door),
                orders: Arc::clone(&self.orders),
                stopping: self.stopping.clone(),
            }))
            .serve_with_incoming_shutdown(incoming, async move { shutdown.cancelled().await })
            .await
            .map_err(io::Error::other)
    }

    /// Keeps the store in order and the certificate fresh, now and then, until stopped: folds old rows of usage, prunes the audit trail,
    /// ends what a rotation of keys left.
    pub async fn keep_house(&self) {
        let mut renewed = self.books.clock.monotonic();
        loop {
            let age = self.books.clock.monotonic().saturating_sub(renewed);
            if age > SERVER_RENEWAL {
                match self.renew_certificate() {
                    Ok(()) => renewed = self.books.clock.monotonic(),
                    Err(error) => {
                        tracing::error!(%error, "the certificate of this control plane was not renewed; it is tried again")
                    }
                }
            }
            let keep = i64::try_from(self.settings.audit_keep.as_millis()).unwrap_or(i64::MAX);
            let before = self.books.clock.unix_ms().saturating_sub(keep);
            if let Err(error) = self.trail.prune(before).await {
                tracing::warn!(%error, "the audit trail was not pruned; it is tried again");
            }
            if let Err(error) = rotate::tidy(&self.keyring, &*self.random).await {
                tracing::warn!(%error, "secrets under older keys were not sealed anew; it is tried again");
            }
            if let Err(error) = self.books.fold().await {
                tracing::warn!(%error, "old rows of usage were not folded; it is tried again");
            }
            if let Err(error) = self.books.prune_marks().await {
                tracing::warn!(%error, "marks of removed nodes were not dropped; it is tried again");
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(self.settings.fold_interval) => {}
            }
        }
    }

    fn renew_certificate(&self) -> Result<(), TlsError> {
        let now = self.books.clock.unix_ms();
        let certificate = self.door.authority.server(&self.settings.names, now)?;
        self.tls.replace(certificate)
    }

    /// Keeps the tick, by which all who follow the store know that it lives, until stopped.
    pub async fn keep_tick(&self) {
        crate::tick::keep(&*self.store, &self.config.clock, &self.stopping).await;
    }

    /// Keeps a log at the level that administrators want of control planes, until stopped.
    pub async fn keep_log(&self, log: &dyn LogControl) {
        let keep = self.orders.keep_log(log);
        self.stopping.run_until_cancelled(keep).await;
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
