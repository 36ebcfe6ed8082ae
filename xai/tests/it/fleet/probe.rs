//! Real nodes, and clients that look whether a change is enforced.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use proxyxai_proto::admin::v1::{UpdateKeyRequest, WaitAppliedRequest};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};
use xai::admin::api::Api;

use super::{
    super::{
        machines::Machine,
        process::{Home, PATIENCE},
    },
    figures::Times,
    plane::Plane,
};

/// Between two looks of a client.
const PACE: Duration = Duration::from_millis(2);
/// Between two changes: longer than changes are gathered for.
const PAUSE: Duration = Duration::from_millis(200);

/// Nodes as processes of their own.
pub(super) struct Nodes(Vec<Machine>);

/// How long changes took, from the call on.
#[derive(Default)]
pub(super) struct Changes {
    /// Until the call returned: the change is committed.
    pub(super) committed: Times,
    /// Until a request to each node was answered by the change.
    pub(super) enforced: Times,
    /// Until the control plane knew that all nodes enforce it.
    pub(super) known: Times,
}

impl Nodes {
    /// Starts so many nodes, one after the other.
    pub(super) async fn start(
        home: &Home,
        plane: &Plane,
        name: &str,
        count: usize,
        max: u64,
    ) -> Self {
        let mut nodes = Vec::with_capacity(count);
        let (planes, token) = (
            format!("https://{}", plane.grpc()),
            plane.token.expose().to_owned(),
        );
        for number in 0..count {
            let data = home.data().with_file_name(format!("{name}-{number}"));
            let variables = [
                ("XAI_CONTROL_PLANES", planes.as_str()),
                ("XAI_JOIN_TOKEN", token.as_str()),
                ("XAI_PRELOAD_MAX", &max.to_string()),
            ];
            let node = Machine::start(home, data, "xai-data-plane", &variables).await;
            node.ready().await;
            nodes.push(node);
        }
        Self(nodes)
    }

    /// Process ids.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(Machine::pid)
    }

    /// Disables and enables a key, so many times in all, and looks when each node does as it was told.
    pub(super) async fn change(&self, api: &Api, id: &str, key: &str, times: usize) -> Changes {
        let mut clients = Vec::new();
        for node in &self.0 {
            clients.push(Client::connect(node.address("client")).await);
        }
        let mut changes = Changes::default();
        for number in 0..times {
            let disable = number % 2 == 0;
            sleep(PAUSE).await;
            let mut looking = JoinSet::new();
            for mut client in clients.drain(..) {
                let key = key.to_owned();
                looking.spawn(async move {
                    let at = client.until(&key, !disable).await;
                    (at, client)
                });
            }
            let begun = Instant::now();
            set(api, id, disable).await;
            changes.committed.push(begun.elapsed());
            let all = WaitAppliedRequest {
                version: None,
                timeout_ms: 30_000,
            };
            let waited = api.nodes().wait_applied(all).await.unwrap().into_inner();
            assert_eq!(
                usize::try_from(waited.applied).unwrap(),
                self.0.len(),
                "{waited:?}"
            );
            changes.known.push(begun.elapsed());
            let mut last = begun;
            while let Some(looked) = looking.join_next().await {
                let (at, client) = looked.unwrap();
                last = last.max(at);
                clients.push(client);
            }
            changes.enforced.push(last.duration_since(begun));
        }
        changes
    }

    /// Ends them.
    pub(super) async fn stop(self) {
        for node in self.0 {
            node.kill().await;
        }
    }
}

/// Disables or enables a key.
pub(super) async fn set(api: &Api, id: &str, disabled: bool) {
    let request = UpdateKeyRequest {
        id: id.to_owned(),
        disabled: Some(disabled),
        ..UpdateKeyRequest::default()
    };
    api.keys().update_key(request).await.unwrap();
}

/// A client that keeps its connection.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async {
            let _how_it_ends_is_seen_in_the_answers = connection.await;
        });
        Self {
            sender,
            host: to.to_string(),
        }
    }

    /// Whether the node lets this key in, which it answers by itself; `None` while it cannot tell.
    async fn admits(&mut self, key: &str) -> Option<bool> {
        // Who is let in is told that this names no model.
        let request = Request::post("/v1/chat/completions")
            .header("host", &self.host)
            .header("authorization", format!("Bearer {key}"))
            .body("{}".into());
        let response = self.sender.send_request(request.unwrap()).await.unwrap();
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        match status {
            400 => Some(true),
            401 | 403 => Some(false),
            503 => None,
            other => panic!("a node answered {other}"),
        }
    }

    /// When it was first answered so.
    async fn until(&mut self, key: &str, admitted: bool) -> Instant {
        let looking = async {
            while self.admits(key).await != Some(admitted) {
                sleep(PACE).await;
            }
        };
        timeout(PATIENCE, looking)
            .await
            .expect("a change is enforced");
        Instant::now()
    }
}
