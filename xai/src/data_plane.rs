//! `xai-data-plane`: one node, alone: it joins once, and serves from then on, with its control planes or without them.
//!
//! Order: take the data directory → bind the ports → know who it is (joining if need be) → serve → greet → wait → drain.

mod identity;
mod joining;

use std::{process::ExitCode, sync::Arc};

use proxyxai_core::{ports::Clock as _, trace::Outbox};
use proxyxai_data_plane::{
    app,
    control_tls::{self, ClientIdentity},
    enroll::Renewal,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::identity::Identity;
use crate::{
    client_tls::{self, CertificateFiles},
    environment::Environment,
    failure::Failure,
    logs::{Logs, Part},
    node::{self, Member},
    ops::{self, Ops},
    process::{self, say},
    request_log,
    role::Program,
    settings::{data_plane::Given, data_plane::Settings, load::Loaded},
    system::{SystemClock, SystemRandomness},
    traces::{self, Source},
    up::{data::DataDir, sockets},
};

/// Does what the arguments of this process ask for.
pub fn main() -> ExitCode {
    let program = Program {
        name: "xai-data-plane",
        about: "A node of a gateway: takes requests of clients and sends them to providers",
    };
    program.main::<Given>(run)
}

fn run(loaded: Loaded<Settings>, environment: &Environment) -> Result<(), Failure> {
    let settings = loaded.settings;
    let logs = Logs::start(&settings.log, settings.log_format)?;
    let data = Arc::new(DataDir::open(&settings.data.0)?);
    process::run(async {
        let clients = sockets::clients(settings.listen, settings.cores)?;
        let ops = sockets::socket("ops", settings.ops).await?;
        let certificate =
            CertificateFiles::read(&settings.tls_certificate_file, &settings.tls_key_file)?;
        let tls = certificate.as_ref().map(CertificateFiles::tls);
        let clock = Arc::new(SystemClock::start());
        let random = SystemRandomness::open().map_err(|e| Failure::failed(e.to_string()))?;
        let random = Arc::new(random);
        let credential = data.ops_credential(&*random)?;
        let joined = Arc::new(Outbox::new(1));
        let identity = match Identity::read(&data)? {
            Some(identity) => identity,
            None => {
                joining::join(&settings, environment, &data, &*clock, &*random, &joined).await?
            }
        };
        let shown = Arc::new(ClientIdentity::default());
        let refuse = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
        identity
            .enrolled
            .show(&shown)
            .map_err(|error| refuse(&error))?;
        let channels = |shown: Option<&Arc<ClientIdentity>>| -> Result<Vec<Channel>, Failure> {
            let all = settings.control_planes.all().iter();
            all.map(|address| control_tls::channel(address, identity.authority, shown.cloned()))
                .collect::<Result<_, _>>()
                .map_err(|error| Failure::usage(error.to_string()))
        };
        let member = Member {
            id: identity.enrolled.node_id.clone(),
            channels: channels(Some(&shown))?,
            credential: None,
            copy_key: identity.copy_key(),
        };
        let (id, authority) = (member.id.clone(), identity.authority);
        let renewal_channels = channels(None)?;
        let renewal = Renewal {
            enrolled: identity.enrolled,
            channels: renewal_channels,
            identity: shown,
            clock: Arc::clone(&clock) as _,
            random: Arc::clone(&random) as _,
        };
        let (shown_identity, clock_of_certificate) =
            (Arc::clone(&renewal.identity), Arc::clone(&clock));
        let built = node::build(settings.node(), member, &data, clock, random)?;
        let built = built.with_log(logs.control(Part::Node)).with_tls(tls);
        let built = request_log::open(built, &settings.request_log)?;
        let address = clients.address();
        let (node, background) = app::start(built, clients)
            .map_err(|error| Failure::failed(format!("the node cannot start: {error}")))?;
        let source = Source {
            service: "proxyxai-node",
            instance: id.clone(),
            spans: node.handle.spans(),
        };
        let joined = Source {
            service: "proxyxai-node",
            instance: id.clone(),
            spans: joined,
        };
        let traces = traces::start(&settings.traces(), vec![joined, source])?;
        let stop = CancellationToken::new();
        let keep = Arc::clone(&data);
        let save = move |next: &_| identity::save(&keep, authority, next);
        let renewal = tokio::spawn(renewal.run(save, stop.clone()));
        let shown = Ops::new(credential, Some(node.handle.clone()), None, loaded.lines)
            .with_traces(traces.as_ref())
            .with_metrics_from(settings.metrics_from.clone())
            .with_certificate(Box::new(move || {
                shown_identity.remaining(clock_of_certificate.unix_ms())
            }));
        let ops_address = ops.address;
        let ops = ops::serve(ops.listener, shown, stop.clone());
        data.write_addresses(&json!({ "client": address, "ops": ops_address, "node": id }))?;
        say("");
        say(&format!("Node           {id}"));
        say(&format!(
            "Gateway        http://{address}    for OpenAI clients http://{address}/v1"
        ));
        say(&format!(
            "Operations     http://{ops_address}/ready, /metrics, /config"
        ));
        say(&format!("Control planes {}", settings.control_planes));
        say("Ctrl-C stops it: requests in flight may end; a second Ctrl-C does not wait.");
        let without = node.handle.clone();
        let life = async {
            tokio::select! {
                biased;
                () = process::told_to_stop() => {}
                () = warn_without_configuration(without) => {}
                () = client_tls::follow(certificate) => {}
            }
            node.drain().await;
        };
        tokio::join!(life, background);
        stop.cancel();
        if let Some(traces) = traces {
            traces.end().await;
        }
        for task in [ops, renewal] {
            let _ended_either_way = tokio::time::timeout(ops::LAST, task).await;
        }
        data.remove_addresses();
        Ok(())
    })
}

/// Says it when neither a copy nor a control plane gave the node anything to serve.
async fn warn_without_configuration(node: proxyxai_data_plane::node::Handle) {
    tokio::time::sleep(node::FIRST_CONFIG).await;
    if !node.can_serve() && node.age().is_none() {
        tracing::error!(
            "no control plane can be reached and there is no copy of the configuration, so every request is refused; start a control plane, or correct `control_planes`; the node goes on trying"
        );
    }
    std::future::pending().await
}
