//! The ops port: live, ready, metrics, and what is configured. Nothing here changes anything.
//!
//! Invariant: metrics and configuration are shown to the machine itself, and to others only with the admin credential, which for a
//! node that runs alone is the one in its file `ops-credential`.

mod process;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use proxyxai_control_plane::app::ControlPlane;
use proxyxai_core::{
    exposition::Page,
    secret::{ExposeSecret as _, SecretString},
};
use proxyxai_data_plane::node::Handle;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    settings::{Line, networks::Networks},
    traces::{Counters, Traces},
};

/// How long its last answers may take.
pub(crate) const LAST: Duration = Duration::from_secs(2);

/// What the ops port of a process shows: of its node, of its control plane, or of both.
pub(crate) struct Ops {
    node: Option<Handle>,
    control_plane: Option<Arc<ControlPlane>>,
    /// What is shown by whoever is not on this machine.
    credential: SecretString,
    lines: Vec<Line>,
    traces: Option<Arc<Counters>>,
    certificate: Option<Remaining>,
    /// Who sees metrics without the credential.
    metrics_from: Networks,
}

/// Tells how long a certificate is still accepted.
type Remaining = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Serves until told to stop.
pub(crate) fn serve(listener: TcpListener, ops: Ops, stop: CancellationToken) -> JoinHandle<()> {
    let router = Router::new()
        .route(
            "/",
            get(|| async { "ProxyXAI operations: /live, /ready, /metrics, /config\n" }),
        )
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .with_state(Arc::new(ops));
    tokio::spawn(async move {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(listener, service)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the ops port ended");
        }
    })
}

async fn ready(State(ops): State<Arc<Ops>>) -> Response {
    let said = match ops.readiness().await {
        Ok(what) => return format!("ready: {what}\n").into_response(),
        Err(why) => format!("not ready: {why}\n"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, said).into_response()
}

async fn metrics(
    State(ops): State<Arc<Ops>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !ops.metrics_from.contain(peer.ip()) && !ops.admits(peer, &headers) {
        return refused();
    }
    let mut text = String::new();
    if let Some(node) = &ops.node {
        node.metrics(&mut text);
    }
    if let Some(control_plane) = &ops.control_plane {
        control_plane.metrics(&mut text);
    }
    let mut page = Page::new(&mut text);
    if let Some(traces) = &ops.traces {
        traces.metrics(&mut page);
    }
    if let Some(left) = ops.certificate.as_ref().and_then(|left| left()) {
        let name = "xai_node_certificate_remaining_seconds";
        let help = "How long the certificate of this node is still accepted; 0 when it is not.";
        page.gauge(name, help, left);
    }
    process::metrics(&mut page);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn config(
    State(ops): State<Arc<Ops>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !ops.admits(peer, &headers) {
        return refused();
    }
    (
        [(header::CONTENT_TYPE, "application/json")],
        ops.dump().to_string(),
    )
        .into_response()
}

impl Ops {
    pub(crate) fn new(
        credential: SecretString,
        node: Option<Handle>,
        control_plane: Option<Arc<ControlPlane>>,
        lines: Vec<Line>,
    ) -> Self {
        Self {
            node,
            control_plane,
            credential,
            lines,
            traces: None,
            certificate: None,
            metrics_from: Networks::default(),
        }
    }

    /// Shows metrics to these networks without a credential.
    pub(crate) fn with_metrics_from(self, metrics_from: Networks) -> Self {
        Self {
            metrics_from,
            ..self
        }
    }

    /// Shows also how long the certificate of a node is accepted.
    pub(crate) fn with_certificate(self, remaining: Remaining) -> Self {
        let certificate = Some(remaining);
        Self {
            certificate,
            ..self
        }
    }

    /// Shows also what becomes of traces, if there are any.
    pub(crate) fn with_traces(self, traces: Option<&Traces>) -> Self {
        let traces = traces.map(|traces| Arc::clone(&traces.counters));
        Self { traces, ..self }
    }

    /// What is ready, or why it is not.
    async fn readiness(&self) -> Result<String, String> {
        let mut said = Vec::new();
        if let Some(node) = &self.node {
            let age = node.age().map(|age| format!(", {} s old", age.as_secs()));
            let state = format!("{}{}", node.state().as_str(), age.unwrap_or_default());
            if node.can_serve() && !node.is_ready() {
                let (schedule, open) = (node.schedule().as_str(), node.open_requests());
                return Err(format!("the node is {schedule}, with {open} open requests"));
            }
            if !node.is_ready() {
                return Err(format!("the node is {state}"));
            }
            said.push(format!("the node is {state} at {}", node.version()));
        }
        if let Some(control_plane) = &self.control_plane {
            let answers = control_plane.is_ready().await;
            answers.map_err(|error| error.to_string())?;
            if self.node.is_none() {
                said.push("the store answers".to_owned());
            }
        }
        Ok(said.join(", "))
    }

    /// What is in force: the node's configuration, and the settings of the process.
    fn dump(&self) -> Value {
        let node = self.node.as_ref().map(Handle::config_dump);
        let mut dump = node.unwrap_or_else(|| json!({}));
        let settings: BTreeMap<&str, &str> = self
            .lines
            .iter()
            .map(|line| (line.name, line.value.as_str()))
            .collect();
        if let Some(dump) = dump.as_object_mut() {
            dump.insert("settings".to_owned(), json!(settings));
            if let Some(control_plane) = &self.control_plane {
                let (id, authority) = (
                    control_plane.deployment_id(),
                    control_plane.authority().fingerprint(),
                );
                dump.insert("deployment_id".to_owned(), json!(id));
                dump.insert("authority".to_owned(), json!(authority));
            }
        }
        dump
    }

    fn admits(&self, peer: SocketAddr, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let known = given.is_some_and(|given| {
            bool::from(given.ct_eq(self.credential.expose_secret().as_bytes()))
        });
        // A proxy on this machine would make everybody look local, so whoever was forwarded shows the credential.
        let forwarded =
            headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded");
        known || (peer.ip().is_loopback() && !forwarded && is_local_name(headers))
    }
}

/// Whether the caller named this machine as itself. A web page that points a name of its own at 127.0.0.1 does not.
fn is_local_name(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    host.is_some_and(|host| {
        let name = host.rsplit_once(':').map_or(
            host,
            |(name, port)| {
                if port.contains(']') { host } else { name }
            },
        );
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || literal.parse::<std::net::IpAddr>().is_ok()
    })
}

fn refused() -> Response {
    (
        StatusCode::UNAUTHORIZED,
        "off this machine, send `Authorization: Bearer <admin credential>`, or what the file `ops-credential` of a node that runs alone says\n",
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::is_local_name;

    #[test]
    fn only_this_machine_named_as_itself_needs_no_credential() {
        let check = |host: &'static str, local: bool| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_local_name(&headers), local, "{host}");
        };
        for host in [
            "localhost",
            "localhost:3445",
            "127.0.0.1:3445",
            "127.0.0.1",
            "[::1]:3445",
            "[::1]",
        ] {
            check(host, true);
        }
        for host in [
            "evil.example",
            "evil.example:3445",
            "localhost.evil.example",
            "",
        ] {
            check(host, false);
        }
        assert!(!is_local_name(&HeaderMap::new()));
    }
}
