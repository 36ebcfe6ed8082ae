//! `xai up`: a whole gateway in one process. Both planes are joined by the same gRPC services over an in-memory pipe, so there is no
//! second way of doing anything.
//!
//! Order: take the data directory → bind all ports → control plane → managed objects → node → greet → wait → drain, the node
//! first and the control plane last.

pub(crate) mod data;
mod greeting;
pub(crate) mod managed;
pub(crate) mod managed_env;
pub(crate) mod pipe;
mod sim;
pub(crate) mod sockets;
pub(crate) mod store;

use std::{sync::Arc, time::Duration};

use proxyxai_data_plane::app as data_plane;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use sim::sim;

use crate::{
    client_tls::{self, CertificateFiles},
    control::{Control, StateAt},
    environment::Environment,
    failure::Failure,
    first_key,
    logs::{Logs, Part},
    node::{self, Member},
    ops::{self, Ops},
    process, request_log,
    settings::{Line, Settings},
    system::{SystemClock, SystemRandomness},
    traces::{self, Source, Traces},
};
use data::DataDir;
use sockets::Sockets;

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
    let logs = Logs::start(&settings.log, settings.log_format)?;
    let wanted = managed_env::read(environment)?;
    let data = DataDir::open(&settings.data.0)?;
    process::run(async {
        let sockets = Sockets::bind(&settings).await?;
        let demo = if demo { Some(sim::start_demo()?) } else { None };
        let gateway = Gateway::start(
            &settings,
            &data,
            environment,
            sockets,
            (demo.as_ref(), wanted),
            lines,
            &logs,
        )
        .await?;
        gateway.run(&data).await
    })
}

/// A gateway that has started.
struct Gateway {
    control: Control,
    node: data_plane::Running,
    background: std::pin::Pin<Box<dyn Future<Output = ()>>>,
    greeting: greeting::Greeting,
    ops: JoinHandle<()>,
    ops_stop: CancellationToken,
    traces: Option<Traces>,
    certificate: Option<CertificateFiles>,
}

impl Gateway {
    async fn start(
        settings: &Settings,
        data: &DataDir,
        environment: &Environment,
        sockets: Sockets,
        (demo, wanted): (Option<&sim::Demo>, Option<managed::Wanted>),
        lines: Vec<Line>,
        logs: &Logs,
    ) -> Result<Self, Failure> {
        let clock = Arc::new(SystemClock::start());
        let random =
            Arc::new(SystemRandomness::open().map_err(|error| Failure::failed(error.to_string()))?);
        let state = StateAt {
            store: settings.store(),
            keys: settings.keys(),
            environment,
            admin_credential: None,
            authority: None,
        };
        let (mut control, copy_key) =
            Control::start(settings.control(), state, data, &clock, &random, logs).await?;
        let first_key = first_key::ensure(data, &control.plane, &random).await?;
        let addresses = sockets.addresses(control.plane.authority().fingerprint());
        let (channel, incoming) = pipe::pipe();
        control.serve(incoming);
        control.serve_tls(sockets.grpc);
        let objects_of = |owner| managed::Objects::of(&control, owner, channel.clone());
        let mut objects = objects_of(managed::Owner::Demo)?;
        objects
            .reconcile(demo.map(sim::Demo::wanted).unwrap_or_default())
            .await?;
        if let Some(wanted) = wanted {
            objects_of(managed::Owner::Environment)?
                .reconcile(wanted)
                .await?;
        }
        let node_settings = settings.node();
        let node_id = data.node_id(&*random)?;
        let member = Member {
            id: node_id.clone(),
            channels: vec![channel],
            credential: Some(control.plane.node_credential()),
            copy_key,
        };
        let node = node::build(node_settings, member, data, clock, random)?;
        let certificate =
            CertificateFiles::read(&settings.tls_certificate_file, &settings.tls_key_file)?;
        let tls = certificate.as_ref().map(CertificateFiles::tls);
        let node = node.with_log(logs.control(Part::Node)).with_tls(tls);
        let node = request_log::open(node, &settings.request_log)?;
        let (node, background) = data_plane::start(node, sockets.clients)
            .map_err(|error| Failure::failed(format!("the node cannot start: {error}")))?;
        let sources = vec![
            Source {
                service: "proxyxai-node",
                instance: node_id,
                spans: node.handle.spans(),
            },
            Source {
                service: "proxyxai-control-plane",
                instance: control.plane.deployment_id().to_owned(),
                spans: control.plane.spans(),
            },
        ];
        let traces = traces::start(&settings.traces(), sources)?;
        let ops_stop = CancellationToken::new();
        let ops = Ops::new(
            control.admin_credential.clone(),
            Some(node.handle.clone()),
            Some(Arc::clone(&control.plane)),
            lines.clone(),
        )
        .with_traces(traces.as_ref())
        .with_metrics_from(settings.metrics_from.clone());
        let ops = ops::serve(sockets.ops.listener, ops, ops_stop.clone());
        data.write_addresses(&addresses)?;
        let greeting = greeting::Greeting {
            addresses,
            first_key,
            demo: demo.is_some(),
            lines,
            has_upstream: objects.any_upstream_key().await?,
        };
        Ok(Self {
            control,
            node,
            background: Box::pin(background),
            greeting,
            ops,
            ops_stop,
            traces,
            certificate,
        })
    }

    /// Serves until a signal comes, then drains: the node first, the control plane last.
    async fn run(self, data: &DataDir) -> Result<(), Failure> {
        let Self {
            control,
            node,
            background,
            greeting,
            ops,
            ops_stop,
            traces,
            certificate,
        } = self;
        let life = async {
            wait_ready(&node).await;
            greeting.print();
            tokio::select! {
                biased;
                () = process::told_to_stop() => {}
                () = client_tls::follow(certificate) => {}
            }
            node.drain().await;
        };
        tokio::join!(life, background);
        control.end().await;
        if let Some(traces) = traces {
            traces.end().await;
        }
        ops_stop.cancel();
        let _ended_either_way = tokio::time::timeout(ops::LAST, ops).await;
        data.remove_addresses();
        Ok(())
    }
}

async fn wait_ready(node: &data_plane::Running) {
    let ready = async {
        while !node.handle.can_serve() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(node::FIRST_CONFIG, ready)
        .await
        .is_err()
    {
        tracing::error!("the node has no configuration yet; it goes on trying");
    }
}
