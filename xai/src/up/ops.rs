//! The ops port: live, ready, metrics, and what is configured. Nothing here changes anything.
//!
//! Invariant: metrics and configuration are shown to the machine itself, and to others only with the admin credential.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use proxyxai_control_plane::app::ControlPlane;
use proxyxai_core::secret::{ExposeSecret as _, SecretString};
use proxyxai_data_plane::node::Handle;
use subtle::ConstantTimeEq as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

struct Ops {
    node: Handle,
    control_plane: Arc<ControlPlane>,
    credential: SecretString,
}

/// Serves until told to stop.
pub(super) fn serve(
    listener: TcpListener,
    node: Handle,
    control_plane: Arc<ControlPlane>,
    credential: SecretString,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let router = Router::new()
        .route(
            "/",
            get(|| async { "ProxyXAI operations: /live, /ready, /metrics, /config\n" }),
        )
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .with_state(Arc::new(Ops {
            node,
            control_plane,
            credential,
        }));
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
    let age = ops
        .node
        .age()
        .map(|age| format!(", {} s old", age.as_secs()));
    let state = format!("{}{}", ops.node.state().as_str(), age.unwrap_or_default());
    if ops.node.can_serve() && !ops.node.is_ready() {
        let (schedule, open) = (ops.node.schedule().as_str(), ops.node.open_requests());
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: the node is {schedule}, with {open} open requests\n"),
        )
            .into_response();
    }
    if !ops.node.is_ready() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: the node is {state}\n"),
        )
            .into_response();
    }
    match ops.control_plane.is_ready().await {
        Ok(()) => format!("ready: the node is {state} at {}\n", ops.node.version()).into_response(),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {error}\n"),
        )
            .into_response(),
    }
}

async fn metrics(
    State(ops): State<Arc<Ops>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !ops.admits(peer, &headers) {
        return refused();
    }
    let mut text = String::new();
    ops.node.metrics(&mut text);
    ops.control_plane.metrics(&mut text);
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
        ops.node.config_dump().to_string(),
    )
        .into_response()
}

impl Ops {
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
        "off this machine, send `Authorization: Bearer <admin credential>`\n",
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
