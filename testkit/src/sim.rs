//! The simulated providers themselves: one address for both, told apart by path.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::oneshot,
    task::{JoinSet, LocalSet},
};

use crate::{
    answer::SimBody,
    anthropic,
    bill::{Bill, BillRow},
    control,
    fault::{Chaos, Fault, Script},
    openai,
};

/// Requests whose heads are kept for looking at.
const SEEN: usize = 256;

/// Both providers. Cloning gives another handle to the same ones.
#[derive(Clone, Default)]
pub struct Simulator {
    state: Arc<State>,
}

/// What the providers remember.
#[derive(Default)]
pub(crate) struct State {
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) script: Script,
    pub(crate) bill: Bill,
    pub(crate) seen: VecDeque<Seen>,
    /// Tag and upstream key of each request that had a tag, in the order in which they came.
    pub(crate) tagged: Vec<(String, String)>,
    pub(crate) count: u64,
    /// The upstream key that made each response.
    pub(crate) made: BTreeMap<String, String>,
    accepted: Vec<String>,
    next_id: u64,
}

/// A request as a provider saw it.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body_bytes: usize,
}

impl State {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a charge into the bill.
    pub(crate) fn charge(&self, row: BillRow) {
        self.lock().bill.rows.push(row);
    }
}

/// Everything that a provider needs to answer.
pub(crate) struct Call {
    pub(crate) state: Arc<State>,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) key: String,
    pub(crate) request_id: String,
    pub(crate) fault: Fault,
}

impl Simulator {
    /// Providers that accept any key.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on only these keys are accepted; none means any.
    pub fn accept_only(&self, keys: impl IntoIterator<Item = String>) {
        self.state.lock().accepted = keys.into_iter().collect();
    }

    /// The next requests of an upstream key meet these faults, one each; `*` means any key.
    pub fn script(&self, key: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().script.push(key, faults);
    }

    /// From now on a share of all requests fails.
    pub fn chaos(&self, chaos: Chaos) {
        self.state.lock().script.set_chaos(chaos);
    }

    /// What the providers charge so far.
    pub fn bill(&self) -> Bill {
        self.state.lock().bill.clone()
    }

    /// The `x-sim-tag` and the upstream key of each request that came with such a tag, whatever became of it: what a test compares with
    /// the attempts that were booked.
    pub fn tagged(&self) -> Vec<(String, String)> {
        self.state.lock().tagged.clone()
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.state.lock().count
    }

    /// Serves one connection of any kind, until it ends.
    ///
    /// # Errors
    /// When the connection breaks; scripted cuts among them.
    pub async fn serve_connection(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> Result<(), hyper::Error> {
        let state = Arc::clone(&self.state);
        let service = service_fn(move |request| handle(Arc::clone(&state), request));
        http1::Builder::new()
            .serve_connection(TokioIo::new(io), service)
            .await
    }

    /// Serves a listener on a thread of its own.
    ///
    /// # Errors
    /// When the address is taken, or the system gives no thread.
    pub fn start(&self, address: SocketAddr) -> io::Result<Running> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let simulator = self.clone();
        let thread = std::thread::Builder::new()
            .name("sim".to_owned())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, simulator.accept(listener, stopped));
            })?;
        Ok(Running {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    async fn accept(self, listener: std::net::TcpListener, mut stopped: oneshot::Receiver<()>) {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let _nodelay_is_only_faster = stream.set_nodelay(true);
                    let simulator = self.clone();
                    connections.spawn_local(async move {
                        let _cut_connections_are_part_of_the_script = simulator.serve_connection(stream).await;
                    });
                }
            }
        }
    }
}

/// Providers that run; they stop when this is dropped.
pub struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Where they are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where they are, as a base for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _nothing_to_do_about_a_broken_thread = thread.join();
        }
    }
}

async fn handle(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path().to_owned();
    if path.starts_with("/_sim/") {
        return Ok(control::answer(&state, &path, &body));
    }
    let key = key_of(&head.headers);
    let (fault, request_id, accepted) = {
        let mut inner = state.lock();
        inner.count = inner.count.saturating_add(1);
        inner.next_id = inner.next_id.saturating_add(1);
        let seen = Seen {
            path: path.clone(),
            headers: text_of(&head.headers),
            body_bytes: body.len(),
        };
        if inner.seen.len() >= SEEN {
            inner.seen.pop_front();
        }
        inner.seen.push_back(seen);
        let tag = tag_of(&head.headers);
        if !tag.is_empty() {
            inner.tagged.push((tag.to_owned(), key.clone()));
        }
        let accepted = inner.accepted.is_empty() || inner.accepted.contains(&key);
        (
            inner.script.next(&key),
            format!("req_sim{:012}", inner.next_id),
            accepted && !key.is_empty(),
        )
    };
    if fault.close {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    if fault.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    let anthropic =
        path.starts_with("/v1/messages") || head.headers.contains_key("anthropic-version");
    let call = Call {
        state,
        path,
        headers: head.headers,
        body,
        key,
        request_id,
        fault,
    };
    let status = call.fault.status.or((!accepted).then_some(401));
    let response = match (status, anthropic) {
        (Some(status), true) => anthropic::error(&call, status, None),
        (Some(status), false) => openai::error(&call, status, None),
        (None, true) => anthropic::answer(&call),
        (None, false) => openai::answer(&call),
    };
    Ok(decorate(response, &call, anthropic))
}

/// The headers that the real ones send with every answer.
fn decorate(mut response: Response<SimBody>, call: &Call, anthropic: bool) -> Response<SimBody> {
    let headers = response.headers_mut();
    let mut put = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    put("cf-ray", "8f0000000000000a-SIM");
    put("server", "cloudflare");
    put("set-cookie", "__cf_bm=sim; path=/; HttpOnly");
    if anthropic {
        put("request-id", &call.request_id);
        put(
            "anthropic-organization-id",
            "00000000-0000-4000-8000-000000000000",
        );
        put("anthropic-ratelimit-requests-limit", "4000");
        put("anthropic-ratelimit-requests-remaining", "3999");
        put("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:00Z");
    } else {
        put("x-request-id", &call.request_id);
        put("openai-organization", "sim-organization");
        put("openai-processing-ms", "12");
        put("openai-version", "2020-10-01");
        put("x-ratelimit-limit-requests", "10000");
        put("x-ratelimit-remaining-requests", "9999");
        put("x-ratelimit-reset-requests", "6ms");
    }
    for (name, value) in &call.fault.headers {
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::try_from(name),
            HeaderValue::from_str(value),
        ) {
            headers.insert(name, value);
        }
    }
    response
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A stream of events.
pub(crate) fn events(body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Call {
    /// The row of the bill, before any output.
    pub(crate) fn row(&self, model: &str, input: u64) -> BillRow {
        BillRow {
            request_id: self.request_id.clone(),
            upstream_key: self.key.clone(),
            model: model.to_owned(),
            tag: tag_of(&self.headers).to_owned(),
            input,
            usage_sent: !self.fault.no_usage,
            ..BillRow::default()
        }
    }
}

fn tag_of(headers: &HeaderMap) -> &str {
    let tag = headers.get("x-sim-tag");
    tag.and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn key_of(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    text("x-api-key").or(bearer).unwrap_or_default().to_owned()
}

fn text_of(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}
