//! One core on the test's own thread, upstreams that play scripts, and clients that speak raw bytes.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proxyxai_core::{
    account::key::{self, GeneratedKey, Pepper},
    ports::{Clock, Random},
    secret::{ExposeSecret, seal::SealKey},
};
use proxyxai_data_plane::{
    config::CopyPorts,
    context::Settings,
    dial,
    net::Listener,
    node::{self, Handle, Parts, Ports},
    report::{FileWork, MemoryDisk},
};
use proxyxai_proto::{
    config::v1::{self as proto, resource::Kind},
    usage::v1::UsageEvent,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::plane::{self, Events, PEPPER, Wanted};

/// Longest that anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on one thread.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        timeout(Duration::from_secs(60), test()).await.unwrap();
    });
}

struct TestClock(Instant);

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    #[expect(clippy::disallowed_methods, reason = "the clock of the tests")]
    fn unix_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        i64::try_from(since.unwrap().as_millis()).unwrap()
    }
}

struct TestRandom;

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// What a test may change about its core.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    /// Whether unknown keys can be asked for.
    pub(crate) control_plane: bool,
    pub(crate) resources: Vec<Kind>,
    /// Where the copy of the configuration is kept, if it is.
    pub(crate) copy: Option<Arc<MemoryDisk>>,
    /// No control plane can be reached at all.
    pub(crate) alone: bool,
    /// Whether the core is expected to serve.
    pub(crate) serves: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            control_plane: true,
            resources: Vec::new(),
            copy: None,
            alone: false,
            serves: true,
        }
    }
}

/// A running core.
pub(crate) struct Core {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) done: tokio::task::JoinHandle<()>,
    events: Events,
    wanted: Wanted,
}

/// A virtual key of the account `root`, of `root/team` (gpt-4o* only), of the suspended `root/gone`, and of `root/gateway`, a child gateway's.
pub(crate) fn key_of(account: &str) -> GeneratedKey {
    key::generate([account.len() as u8; 64])
}

const PRICES: &str = r#"{"version":"test-1","date":"2026-01-01","source":"test","families":{"openai":[{"model":"gpt-4o-mini","match":["gpt-4o-mini*"],"standard":{"rates":{"input":150000,"cache_read":75000,"output":600000}}}],"anthropic":[{"model":"claude","match":["claude*"],"standard":{"rates":{"input":3000000,"cache_read":300000,"output":15000000}}}]}}"#;

/// Its text.
pub(crate) fn secret(account: &str) -> String {
    key_of(account).text.expose_secret().to_owned()
}

fn accounts_and_keys(pepper: &Pepper) -> Vec<Kind> {
    let account = |id: &str, parent: &str| proto::Account {
        id: id.into(),
        name: id.into(),
        parent_id: parent.into(),
        ..proto::Account::default()
    };
    let key = |account: &str, disabled| {
        let key = key_of(if disabled { "disabled" } else { account });
        Kind::VirtualKey(proto::VirtualKey {
            digest: pepper.digest_of(&key).0.to_vec(),
            id: key.id,
            account_id: account.into(),
            name: account.into(),
            disabled,
            ..proto::VirtualKey::default()
        })
    };
    vec![
        Kind::Account(account("root", "")),
        Kind::Account(proto::Account {
            allowed_models: vec!["gpt-4o*".into()],
            ..account("team1", "root")
        }),
        Kind::Account(proto::Account {
            suspended: true,
            ..account("gone99", "root")
        }),
        Kind::Account(proto::Account {
            gateway: true,
            ..account("gateway", "root")
        }),
        key("gateway", false),
        key("root", false),
        key("root", true),
        key("team1", false),
        key("gone99", false),
        Kind::PriceTable(proto::PriceTable {
            version: "test-1".into(),
            content: PRICES.as_bytes().to_vec(),
            active: true,
        }),
    ]
}

/// A provider at an upstream, and its keys.
pub(crate) fn provider(
    id: &str,
    kind: proto::ProviderKind,
    at: SocketAddr,
    keys: &[&str],
) -> Vec<Kind> {
    let provider = Kind::Provider(proto::Provider {
        id: id.into(),
        kind: kind.into(),
        base_url: format!("http://{at}"),
        allow_private: true,
        disabled: false,
    });
    let keys = keys.iter().map(|key| {
        Kind::UpstreamKey(proto::UpstreamKey {
            id: (*key).into(),
            provider_id: id.into(),
            disabled: false,
            secret: format!("sk-{key}").into_bytes(),
            ..proto::UpstreamKey::default()
        })
    });
    std::iter::once(provider).chain(keys).collect()
}

/// Starts a core, and waits until it holds its configuration.
pub(crate) async fn core(setup: Setup) -> Core {
    let mut resources = accounts_and_keys(&Pepper::new(PEPPER));
    resources.extend(setup.resources);
    let wanted = Wanted::default();
    let (channel, events) = match setup.alone {
        true => (plane::nowhere(), Events::default()),
        false => plane::start(resources, setup.control_plane, wanted.clone()),
    };
    let clock: Arc<dyn Clock> = Arc::new(TestClock(Instant::now()));
    let dial = dial::factory(Arc::clone(&clock), setup.settings.connect_timeout).unwrap();
    let ports = Ports {
        clock,
        random: Arc::new(TestRandom),
        channels: vec![channel],
        credential: Some("node".to_owned().into()),
        node_id: "node".into(),
        disk: Arc::new(MemoryDisk::default()),
        copy: setup.copy.map(|disk| CopyPorts {
            disk,
            key: SealKey::new([8; 32]),
        }),
        file_work: FileWork::Inline,
        dial,
    };
    let Parts {
        mut cores,
        background,
        handle,
    } = node::build(setup.settings, ports).unwrap().split();
    tokio::spawn(background.run(CancellationToken::new()));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let core = cores.pop().unwrap();
    let done = tokio::task::spawn_local(core.serve(Listener::Tcp(socket)));
    let ready = async {
        while setup.serves && !handle.is_ready() {
            assert_eq!(
                metric(&handle, "xai_config_refused_total"),
                0,
                "the node refuses its configuration"
            );
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, ready).await.unwrap();
    Core {
        address,
        handle,
        done,
        events,
        wanted,
    }
}

impl Core {
    /// Waits for so many events; fails when there are more.
    pub(crate) async fn events(&self, count: usize) -> Vec<UsageEvent> {
        let enough = async {
            while self.events.lock().unwrap().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _in_time = timeout(PATIENCE, enough).await;
        // Long enough for one that should not be there: a flush takes 50 ms.
        sleep(Duration::from_millis(120)).await;
        let events = self.events.lock().unwrap().clone();
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }

    /// Wants this of the node, and waits until it says that it does so.
    pub(crate) async fn want(&self, schedule: proto::Schedule) -> proto::Vitals {
        let obeyed = async {
            loop {
                self.wanted.schedule.send_replace(schedule);
                let vitals = *self.wanted.vitals.lock().unwrap();
                if vitals.schedule() == schedule {
                    return vitals;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, obeyed).await.unwrap()
    }

    /// What it says of itself once this holds.
    pub(crate) async fn says(&self, holds: impl Fn(&proto::Vitals) -> bool) -> proto::Vitals {
        let said = async {
            loop {
                // Every bookmark is answered.
                self.wanted.schedule.send_modify(|_| {});
                sleep(Duration::from_millis(5)).await;
                let vitals = *self.wanted.vitals.lock().unwrap();
                if holds(&vitals) {
                    return vitals;
                }
            }
        };
        timeout(PATIENCE, said).await.unwrap()
    }

    /// One line of the metrics.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        metric(&self.handle, name)
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own, and reads one answer.
    pub(crate) async fn send(&self, request: &[u8]) -> Answer {
        let mut connection = self.connect().await;
        connection.write_all(request).await.unwrap();
        read_answer(&mut connection).await
    }

    /// Posts JSON with the root account's key.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&post_as("root", path, body)).await
    }
}

fn metric(handle: &Handle, name: &str) -> u64 {
    let mut text = String::new();
    handle.metrics(&mut text);
    let line = text
        .lines()
        .find(|line| line.rsplit_once(' ').is_some_and(|(n, _)| n == name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// A request with a key.
pub(crate) fn post_as(account: &str, path: &str, body: &str) -> Vec<u8> {
    let key = secret(account);
    format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An answer as a client reads it.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The connection ended before the answer did.
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// Reads one answer, to its end by length, last chunk or close.
pub(crate) async fn read_answer(connection: &mut TcpStream) -> Answer {
    timeout(PATIENCE, read_message(connection)).await.unwrap()
}

async fn read_message(connection: &mut TcpStream) -> Answer {
    let (head, mut rest) = loop {
        match read_head(connection).await {
            Some((head, _)) if head.contains(" 100 ") => {}
            Some(found) => break found,
            None => {
                return Answer {
                    broken: true,
                    ..Answer::default()
                };
            }
        }
    };
    let mut answer = Answer {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0),
        head,
        ..Answer::default()
    };
    let length: Option<usize> = answer
        .header("content-length")
        .map(|text| text.parse().unwrap());
    let chunked = answer.header("transfer-encoding").is_some();
    loop {
        if let Some(length) = length.filter(|length| rest.len() >= *length) {
            answer.body = rest[..length].to_vec();
            return answer;
        }
        if chunked && let Some(body) = unchunk(&rest) {
            answer.body = body;
            return answer;
        }
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                answer.broken = chunked || length.is_some();
                answer.body = rest;
                return answer;
            }
            Ok(read) => rest.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Byte by byte, so that nothing of what follows is taken.
async fn read_head(connection: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).await.unwrap_or(0) == 0 {
            return None;
        }
        head.extend_from_slice(&byte);
    }
    Some((String::from_utf8(head).unwrap(), Vec::new()))
}

/// The content of a chunked body, once its last chunk came.
pub(crate) fn unchunk(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut out) = (bytes, Vec::new());
    loop {
        let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// A step of a scripted answer.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// Reset the connection.
    Cut,
    /// Say nothing more until the other side leaves.
    Hang,
}

/// An upstream that answers each request with the next script, and the last one again and again.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Rc<RefCell<Vec<Seen>>>,
    scripts: Rc<RefCell<VecDeque<Vec<Step>>>>,
    gone: Rc<RefCell<usize>>,
}

/// A request as an upstream saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) connection: usize,
}

impl Upstream {
    pub(crate) async fn start(scripts: impl IntoIterator<Item = Vec<Step>>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: socket.local_addr().unwrap(),
            seen: Rc::default(),
            scripts: Rc::new(RefCell::new(scripts.into_iter().collect())),
            gone: Rc::default(),
        };
        let this = upstream.clone();
        tokio::task::spawn_local(async move {
            for number in 0.. {
                let (stream, _) = socket.accept().await.unwrap();
                let this = this.clone();
                tokio::task::spawn_local(async move {
                    this.serve(stream, number).await;
                    *this.gone.borrow_mut() += 1;
                });
            }
        });
        upstream
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until so many connections ended.
    pub(crate) async fn gone(&self, count: usize) {
        let enough = async {
            while *self.gone.borrow() < count {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, enough).await.unwrap();
    }

    async fn serve(&self, mut stream: TcpStream, connection: usize) {
        while let Some((head, _)) = read_head(&mut stream).await {
            let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
            self.seen.borrow_mut().push(Seen {
                head,
                body,
                connection,
            });
            let script = {
                let mut scripts = self.scripts.borrow_mut();
                if scripts.len() > 1 {
                    scripts.pop_front().unwrap()
                } else {
                    scripts[0].clone()
                }
            };
            for step in script {
                match step {
                    Step::Bytes(bytes) => {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Step::Wait(time) => sleep(time).await,
                    Step::Cut => {
                        socket_reset(&stream);
                        return;
                    }
                    Step::Hang => {
                        let mut buffer = [0; 64];
                        while stream.read(&mut buffer).await.unwrap_or(0) > 0 {}
                        return;
                    }
                }
            }
        }
    }
}

fn socket_reset(stream: &TcpStream) {
    let _lingers = stream.set_zero_linger();
}

/// A plain answer.
pub(crate) fn plain(status: &str, headers: &str, body: &str) -> Vec<Step> {
    vec![Step::Bytes(
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )]
}

/// A stream in one chunk per part; ends properly.
pub(crate) fn stream(parts: &[&str]) -> Vec<Step> {
    let mut steps = stream_open(parts);
    steps.push(Step::Bytes(b"0\r\n\r\n".to_vec()));
    steps
}

/// A stream that has not ended.
pub(crate) fn stream_open(parts: &[&str]) -> Vec<Step> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for part in parts {
        bytes.extend_from_slice(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes());
    }
    vec![Step::Bytes(bytes)]
}

pub(crate) const CHAT: &str =
    r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}"#;
pub(crate) const CHAT_STREAM: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
pub(crate) const COMPLETION: &str = r#"{"id":"c1","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;

/// A core in front of one OpenAI upstream with these keys and scripts.
pub(crate) async fn openai(keys: &[&str], scripts: Vec<Vec<Step>>) -> (Core, Upstream) {
    openai_with(keys, scripts, Settings::default()).await
}

pub(crate) async fn openai_with(
    keys: &[&str],
    scripts: Vec<Vec<Step>>,
    settings: Settings,
) -> (Core, Upstream) {
    let upstream = Upstream::start(scripts).await;
    let resources = provider("sim", proto::ProviderKind::Openai, upstream.address, keys);
    let setup = Setup {
        resources,
        settings,
        ..Setup::default()
    };
    (core(setup).await, upstream)
}
