//! Puts a control plane together: build → serve → stop. Everything that touches the world is handed in.

mod first_key;
mod house;
mod join_token;
mod metrics;
mod serve;

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use proxyxai_core::{
    access::{Caller, Role},
    account::key::{Pepper, base62},
    ports::{Clock, Random, random_bytes},
    secret::{SecretString, seal::SealKey},
    trace::{Sampling, SpanSource},
};
use proxyxai_proto::admin::v1::ManagedBy;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    audit::Trail,
    auth::{Credentials, ProcessCredential},
    authority::{Authority, Kept},
    books::Books,
    bootstrap,
    calls::Calls,
    config_service::ConfigServer,
    config_store::ConfigStore,
    join::{self, Door},
    keyring::{KeySource, Keyring},
    nodes::Nodes,
    orders::{Orders, Wishes},
    publish::{Publisher, ViewKey},
    roster::Roster,
    status::Fault,
    store::{
        Store, StoreError,
        keyspace::{self, Key},
        measured::Measured,
    },
    tls::{Tls, TlsError},
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
    /// How long records of the audit trail are kept, where the settings of the deployment say nothing.
    pub audit_keep: Duration,
    /// Which traces of calls are kept; `None` for no traces at all.
    pub trace: Option<Sampling>,
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
            trace: None,
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
    measured: Arc<Measured>,
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
    calls: Arc<Calls>,
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
    let measured = Arc::new(Measured::new(store, Arc::clone(&clock)));
    let store: Arc<dyn Store> = Arc::clone(&measured) as _;
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
    let calls = Calls::new(Arc::clone(&clock), &*random, settings.trace);
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
        measured,
        deployment_id: deployment.id,
        pepper: deployment.pepper,
        config_server: Arc::new(config_server),
        nodes,
        roster,
        orders,
        door,
        tls,
        calls: Arc::new(calls),
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

    /// Where the spans of calls are to be had.
    pub fn spans(&self) -> Arc<dyn SpanSource> {
        Arc::clone(&self.calls) as _
    }

    /// Ends the streams of all nodes, so that a server can stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether the store answers.
    pub async fn is_ready(&self) -> Result<(), StoreError> {
        self.store.get(&Key::Format.to_string()).await.map(|_| ())
    }
}
