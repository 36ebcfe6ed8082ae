//! `xai up`: a whole gateway in one process. Both planes are joined by the same gRPC services over an in-memory pipe, so there is no
//! second way of doing anything.
//!
//! Order: take the data directory → bind all ports → control plane → managed objects → node → greet → wait → drain, the node
//! first and the control plane last.

pub(crate) mod data;
mod greeting;
mod managed;
mod managed_env;
mod ops;
mod pipe;
mod sim;
mod sockets;
pub(crate) mod store;

use std::{sync::Arc, time::Duration};

use proxyxai_control_plane::app::{self as control_plane, ControlPlane, FirstKey};
use proxyxai_core::{
    account::key,
    ports::random_bytes,
    secret::{SecretString, seal::SealKey},
};
use proxyxai_data_plane::{
    app as data_plane,
    config::{CopyPorts, NodeCredential},
    context, dial, node, report,
};
use tokio::{signal, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use sim::sim;

use crate::{
    environment::Environment,
    failure::Failure,
    keys,
    logs::{Logs, Part},
    settings::{Line, Settings, store::StoreKind},
    system::{SystemClock, SystemRandomness},
};
use data::DataDir;
use sockets::Sockets;

/// How long the first configuration may take to reach the node of this process.
const FIRST_CONFIG: Duration = Duration::from_secs(20);

/// What the key-encryption key is derived for: sealing the node's copy of its configuration.
const COPY_KEY: &str = "proxyxai 2026 disk copy of the configuration of a node";

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// In one sentence, what keeps it from starting.
pub fn run(
    settings: Settings,
    lines: Vec<Line>,
    demo: bool,
    environment: &Environment,
) -> Result<(), Failure> {
    let logs = Logs::start(&settings)?;
    let wanted = managed_env::read(environment)?;
    let data = DataDir::open(&settings.data.0)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Failure::failed(format!("the system gives no runtime: {error}")))?;
    runtime.block_on(async {
        let sockets = Sockets::bind(&settings).await?;
        let demo = if demo { Some(sim::start_demo()?) } else { None };
        let gateway = Gateway::start(
            &settings,
            &data,
            environment,
            sockets,
            demo.as_ref(),
            wanted,
            lines,
            &logs,
        )
        .await?;
        gateway.run(&data).await
    })
}

/// A gateway that has started.
struct Gateway {
    control_plane: Arc<ControlPlane>,
    node: data_plane::Running,
    background: std::pin::Pin<Box<dyn Future<Output = ()>>>,
    greeting: greeting::Greeting,
    servers: Vec<JoinHandle<()>>,
    servers_stop: CancellationToken,
}

impl Gateway {
    async fn start(
        settings: &Settings,
        data: &DataDir,
        environment: &Environment,
        sockets: Sockets,
        demo: Option<&sim::Demo>,
        wanted: Option<managed::Wanted>,
        lines: Vec<Line>,
        logs: &Logs,
    ) -> Result<Self, Failure> {
        let clock = Arc::new(SystemClock::start());
        let random =
            Arc::new(SystemRandomness::open().map_err(|error| Failure::failed(error.to_string()))?);
        let admin_credential = data.admin_credential(&*random)?;
        let store = store::open(settings, data).await?;
        let key = keys::choose(settings, environment, &store, Some(&*random)).await?;
        let copy_key = key.derive(COPY_KEY);
        let control_ports = control_plane::Ports {
            clock: Arc::clone(&clock) as _,
            random: Arc::clone(&random) as _,
            store,
            key_encryption_key: key,
            next_key_encryption_key: Arc::new(keys::Next::new(settings, environment)),
            admin_credential: admin_credential.clone(),
        };
        let control_settings = control_plane::Settings {
            names: settings.grpc_names.0.clone(),
            audit_keep: settings.audit_keep.0,
            shared_store: settings.store == StoreKind::Etcd,
            ..control_plane::Settings::default()
        };
        let control = control_plane::build(control_settings, control_ports).await;
        let control = Arc::new(control.map_err(|error| Failure::failed(error.to_string()))?);
        let first_key = first_key(data, &control, &random).await?;
        let addresses = sockets.addresses(control.authority().fingerprint());
        data.write_authority(&control.authority().certificate_pem())?;
        let servers_stop = CancellationToken::new();
        let (channel, incoming) = pipe::pipe();
        let mut servers = vec![
            serve(&control, incoming, &servers_stop),
            serve(&control, control.tls().accept(sockets.grpc), &servers_stop),
            tokio::spawn({
                let control = Arc::clone(&control);
                async move { control.keep_house().await }
            }),
            tokio::spawn({
                let control = Arc::clone(&control);
                async move { control.keep_tick().await }
            }),
            tokio::spawn({
                let (control, log) = (Arc::clone(&control), logs.control(Part::ControlPlane));
                async move { control.keep_log(&*log).await }
            }),
        ];
        let objects_of = |owner: managed::Owner| -> Result<managed::Objects, Failure> {
            let secret = control.managing_credential(owner.managed_by());
            let secret = secret.unwrap_or_else(|| admin_credential.clone());
            Ok(managed::Objects::new(
                credential(&secret)?.on(channel.clone()),
                owner,
            ))
        };
        let mut objects = objects_of(managed::Owner::Demo)?;
        objects
            .reconcile(demo.map(sim::Demo::wanted).unwrap_or_default())
            .await?;
        if let Some(wanted) = wanted {
            objects_of(managed::Owner::Environment)?
                .reconcile(wanted)
                .await?;
        }
        let node = build_node(settings, data, &control, channel, copy_key, clock, random)?;
        let node = node.with_log(logs.control(Part::Node));
        let (node, background) = data_plane::start(node, sockets.clients)
            .map_err(|error| Failure::failed(format!("the node cannot start: {error}")))?;
        servers.push(ops::serve(
            sockets.ops,
            node.handle.clone(),
            Arc::clone(&control),
            admin_credential,
            servers_stop.clone(),
        ));
        data.write_addresses(&addresses)?;
        let greeting = greeting::Greeting {
            addresses,
            first_key,
            demo: demo.is_some(),
            lines,
            has_upstream: objects.any_upstream_key().await?,
        };
        Ok(Self {
            control_plane: control,
            node,
            background: Box::pin(background),
            greeting,
            servers,
            servers_stop,
        })
    }

    /// Serves until a signal comes, then drains: the node first, the control plane last.
    async fn run(self, data: &DataDir) -> Result<(), Failure> {
        let Self {
            control_plane,
            node,
            background,
            greeting,
            servers,
            servers_stop,
        } = self;
        let life = async {
            wait_ready(&node).await;
            greeting.print();
            stop_signal().await;
            greeting::say(
                "Draining: requests in flight may end; press Ctrl-C again to stop at once.",
            );
            let _ends_with_the_process = tokio::spawn(async {
                stop_signal().await;
                std::process::exit(130);
            });
            node.drain().await;
        };
        tokio::join!(life, background);
        control_plane.stop();
        servers_stop.cancel();
        for server in servers {
            let _ended_either_way = tokio::time::timeout(Duration::from_secs(2), server).await;
        }
        data.remove_addresses();
        Ok(())
    }
}

/// Serves connections of one kind until told to stop.
fn serve<I, C>(control: &Arc<ControlPlane>, incoming: I, stop: &CancellationToken) -> JoinHandle<()>
where
    I: tokio_stream::Stream<Item = std::io::Result<C>> + Send + 'static,
    C: tokio::io::AsyncRead
        + tokio::io::AsyncWrite
        + tonic::transport::server::Connected
        + Unpin
        + Send
        + 'static,
{
    let (control, stop) = (Arc::clone(control), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = control.serve(incoming, stop).await {
            tracing::error!(%error, "the gRPC server ended");
        }
    })
}

fn build_node(
    settings: &Settings,
    data: &DataDir,
    control: &ControlPlane,
    channel: Channel,
    copy_key: SealKey,
    clock: Arc<SystemClock>,
    random: Arc<SystemRandomness>,
) -> Result<node::Node, Failure> {
    let node_settings = context::Settings {
        cores: settings.cores.max(1),
        body_limit: settings.body_limit.0,
        connect_timeout: settings.connect_timeout.0,
        first_byte_timeout: settings.first_byte_timeout.0,
        idle_timeout: settings.idle_timeout.0,
        request_timeout: settings.request_timeout.0,
        head_timeout: settings.head_timeout.0,
        keep_alive: settings.keep_alive.0,
        max_connections: settings.max_connections,
        max_in_flight: settings.max_in_flight,
        drain: settings.drain.0,
        ..context::Settings::default()
    };
    let disk = report::FsDisk::open(&data.events_dir())
        .map_err(|error| data.failed("the event files", &error))?;
    let copy_disk = report::FsDisk::open(&data.config_dir())
        .map_err(|error| data.failed("the copy of the configuration", &error))?;
    let dial = dial::factory(Arc::clone(&clock) as _, node_settings.connect_timeout);
    let ports = node::Ports {
        node_id: data.node_id(&*random)?,
        clock,
        random,
        channels: vec![channel],
        credential: control.node_credential(),
        disk: Arc::new(disk),
        copy: Some(CopyPorts {
            disk: Arc::new(copy_disk),
            key: copy_key,
        }),
        file_work: report::FileWork::Threads,
        dial: dial.map_err(|error| Failure::failed(format!("TLS cannot be used: {error}")))?,
    };
    node::build(node_settings, ports).map_err(|error| Failure::failed(error.to_string()))
}

fn credential(secret: &SecretString) -> Result<NodeCredential, Failure> {
    NodeCredential::new(secret)
        .map_err(|_| Failure::failed("the file `admin-credential` holds characters that cannot be sent; delete it to get a new one"))
}

/// The first virtual key: written to its file before it exists, so that no crash can lose it.
async fn first_key(
    data: &DataDir,
    control: &ControlPlane,
    random: &SystemRandomness,
) -> Result<Option<String>, Failure> {
    let kept = data.first_key()?;
    let candidate = match &kept {
        Some(text) => key::GeneratedKey {
            id: key::parse(text)
                .map_err(|error| {
                    Failure::failed(format!(
                        "the file `first-key` holds no key: {error}; delete it"
                    ))
                })?
                .id()
                .to_owned(),
            text: text.clone().into(),
        },
        None => {
            let made = key::generate(random_bytes(random));
            data.write_first_key(&made.text)?;
            made
        }
    };
    let id = candidate.id.clone();
    let adopted = control
        .adopt_first_key(&candidate)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let ours = adopted == FirstKey::Created || adopted == (FirstKey::Exists { id });
    if ours && control.knows(&candidate) {
        return data.first_key();
    }
    data.remove_first_key();
    Ok(None)
}

async fn wait_ready(node: &data_plane::Running) {
    let ready = async {
        while !node.handle.can_serve() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(FIRST_CONFIG, ready).await.is_err() {
        tracing::error!("the node has no configuration yet; it goes on trying");
    }
}

/// Ctrl-C, or what service managers send.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                biased;
                _ = signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _without_signals_nothing_stops_it = signal::ctrl_c().await;
}
