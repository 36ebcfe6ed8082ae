//! A client of the simulated providers over a pipe in memory.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use proxyxai_testkit::Simulator;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// Longer than any delay of a test, in paused time.
const SILENT: Duration = Duration::from_secs(60);

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// The connection broke off.
    Broken,
    /// Nothing more comes.
    Silent,
}

/// What came.
#[derive(Debug)]
pub(crate) struct Reply {
    /// 0 when there was no head.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) end: End,
    pub(crate) took: Duration,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Which API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Openai,
    Anthropic,
}

impl Dialect {
    pub(crate) const BOTH: [Self; 2] = [Self::Openai, Self::Anthropic];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Openai => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
        }
    }

    fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Openai => &[("authorization", "Bearer sk-1")],
            Self::Anthropic => &[("x-api-key", "sk-1"), ("anthropic-version", "2023-06-01")],
        }
    }
}

/// A request that asks for a chat, which both APIs take.
pub(crate) fn chat(steer: &str, more: Value) -> Value {
    let text = format!("Hello [[sim {steer}]]");
    let mut body = json!({ "model": "m", "max_tokens": 50, "messages": [{ "role": "user", "content": text }] });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

/// A request for a response.
pub(crate) fn respond(steer: &str, more: Value) -> Value {
    let mut body = json!({ "model": "m", "input": format!("Hello [[sim {steer}]]") });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

/// Posts a body, or gets a page when it is null.
pub(crate) async fn call(sim: &Simulator, dialect: Dialect, path: &str, body: &Value) -> Reply {
    let mut request = if body.is_null() {
        Request::get(path)
    } else {
        Request::post(path)
    };
    for (name, value) in dialect.headers() {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    send(
        sim,
        request.header("x-sim-tag", "t").body(body.into()).unwrap(),
    )
    .await
}

/// Sends a request over a connection of its own.
pub(crate) async fn send(sim: &Simulator, request: Request<Full<Bytes>>) -> Reply {
    let began = Instant::now();
    let (near, far) = tokio::io::duplex(64 << 10);
    let serving = async {
        let _cuts_are_part_of_the_script = sim.serve_connection(far).await;
    };
    let asking = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
            .await
            .unwrap();
        let reading = async {
            let mut reply = Reply {
                status: 0,
                headers: HeaderMap::new(),
                body: String::new(),
                end: End::Broken,
                took: Duration::ZERO,
            };
            let Ok(response) = sender.send_request(request).await else {
                return reply;
            };
            let (head, mut body) = response.into_parts();
            (reply.status, reply.headers) = (head.status.as_u16(), head.headers);
            reply.end = loop {
                match timeout(SILENT, body.frame()).await {
                    Err(_) => break End::Silent,
                    Ok(None) => break End::Whole,
                    Ok(Some(Err(_))) => break End::Broken,
                    Ok(Some(Ok(frame))) => {
                        let data = frame.into_data().unwrap_or_default();
                        reply.body.push_str(std::str::from_utf8(&data).unwrap());
                    }
                }
            };
            reply.took = began.elapsed();
            reply
        };
        let mut connection = std::pin::pin!(connection);
        let mut reading = std::pin::pin!(reading);
        tokio::select! {
            biased;
            reply = &mut reading => reply,
            _ = &mut connection => reading.await,
        }
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        reply = &mut asking => reply,
        () = serving => asking.await,
    }
}
