//! The real binary as a process: started in a directory of its own on ports that the system chooses, called as clients and administrators
//! call it, ended by its process id.
//!
//! Invariants: nothing of the caller's environment reaches the process; whatever becomes of a test, dropping kills what it started;
//! every wait has an end.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proxyxai_testkit::{Running, Simulator};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// The longest that anything here may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("in {PATIENCE:?} it did not happen that {what}"))
}

/// A data directory and simulated providers: what stays when a gateway is ended and started again.
pub(crate) struct Home {
    work: TempDir,
    pub(crate) sim: Simulator,
    providers: Running,
}

/// What a command that ended left behind.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let sim = Simulator::new();
        let providers = sim.start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let work = TempDir::with_prefix("xai-it-").unwrap();
        Self {
            work,
            sim,
            providers,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.work.path().join("data")
    }

    /// Where the simulated providers are.
    pub(crate) fn providers(&self) -> String {
        self.providers.url()
    }

    /// The heads of the requests that the simulated providers saw last.
    pub(crate) async fn seen(&self) -> Value {
        let url = self.providers();
        let address = url.trim_start_matches("http://").parse().unwrap();
        Gateway::get(address, "/_sim/requests", &[]).await.json()
    }

    /// Two upstream keys of each dialect, for XAI_KEYS.
    pub(crate) fn keys(&self) -> String {
        let base = self.providers();
        let key = |kind: &str, number: u8| format!("sk-{kind}-{number}::{kind}@{base}");
        [
            key("openai", 1),
            key("openai", 2),
            key("anthropic", 1),
            key("anthropic", 2),
        ]
        .join(",")
    }

    /// The binary with these arguments, as a login shell of nobody in particular would start it.
    pub(crate) fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        self.program(&binary(), arguments, variables)
    }

    /// Another copy of the binary, likewise.
    pub(crate) fn program(
        &self,
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        self.prepare(&mut command, variables);
        command
    }

    /// A shell that ends as the binary does.
    pub(crate) fn shell(&self, script: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(binary());
        self.prepare(&mut command, variables);
        command
    }

    fn prepare(&self, command: &mut Command, variables: &[(&str, &str)]) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("XAI_DATA", self.data())
            .env("XAI_CORES", "1")
            .envs(["XAI_LISTEN", "XAI_GRPC", "XAI_OPS"].map(|name| (name, "127.0.0.1:0")))
            .envs(variables.iter().copied())
            .current_dir(self.work.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
    }

    /// Starts a gateway and waits until it serves.
    pub(crate) async fn start(&self, variables: &[(&str, &str)]) -> Gateway {
        self.start_by(self.command(&["up"], variables)).await
    }

    /// Starts a gateway with this command.
    pub(crate) async fn start_by(&self, command: Command) -> Gateway {
        self.start_seen(command, |_| self.data()).await.0
    }

    /// Starts a gateway with disks of its own; gives its data directory as it is seen from here.
    pub(crate) async fn start_within(&self, command: Command) -> (Gateway, PathBuf) {
        let data = self.data();
        let inside = data.strip_prefix("/").unwrap();
        self.start_seen(command, |pid| {
            PathBuf::from(format!("/proc/{pid}/root")).join(inside)
        })
        .await
    }

    async fn start_seen(
        &self,
        mut command: Command,
        data: impl FnOnce(u32) -> PathBuf,
    ) -> (Gateway, PathBuf) {
        // Those of a process that was killed would lead nowhere.
        let _there_may_be_none = fs::remove_file(self.data().join("addresses.json"));
        let log = self.work.path().join("log");
        let file = fs::File::create(&log).unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let data = data(child.id().unwrap());
        let mut gateway = Gateway {
            child,
            log,
            client: nowhere,
            ops: nowhere,
            grpc: nowhere,
            authority: String::new(),
        };
        let found = until("a gateway starts", async || {
            let ended = gateway.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended ({ended:?}): {}", gateway.said());
            let addresses = fs::read_to_string(data.join("addresses.json")).ok()?;
            serde_json::from_str::<Value>(&addresses).ok()
        })
        .await;
        let address = |name: &str| found[name].as_str().unwrap().parse().unwrap();
        (gateway.client, gateway.ops, gateway.grpc) =
            (address("client"), address("ops"), address("grpc"));
        gateway.authority = found["authority"].as_str().unwrap().to_owned();
        until("a gateway greets", async || {
            gateway.said().contains("Ctrl-C stops it").then_some(())
        })
        .await;
        (gateway, data)
    }

    /// Runs a command to its end.
    pub(crate) async fn finish(&self, mut command: Command, input: &str) -> Done {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _it_may_not_read = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.expect("a command ends").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Runs a command with these words.
    pub(crate) async fn xai(&self, words: &str) -> Done {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.finish(self.command(&words, &[]), "").await
    }

    /// What a command prints for programs; it must succeed.
    pub(crate) async fn json(&self, words: &str) -> Value {
        let done = self.xai(&format!("{words} --output json")).await;
        assert_eq!(done.code, Some(0), "xai {words}: {}", done.err);
        serde_json::from_str(&done.out).unwrap()
    }

    /// A new virtual key: its id and itself.
    pub(crate) async fn new_key(&self, account: &str) -> (String, String) {
        let made = self.json(&format!("key create --account {account}")).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["key"]["id"]), text(&made["secret"]))
    }

    pub(crate) fn first_key(&self) -> String {
        fs::read_to_string(self.data().join("first-key"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Usage as `xai usage` shows it, once so many attempts are in it.
    pub(crate) async fn usage(&self, words: &str, attempts: u64) -> Vec<Value> {
        let words = format!("usage {words}");
        until("all usage is booked", async || {
            let rows = self.json(&words).await["rows"].as_array().unwrap().clone();
            let sum: u64 = rows.iter().map(|row| number(row, "attempts")).sum();
            assert!(
                sum <= attempts,
                "{sum} attempts of {attempts} are booked: {rows:#?}"
            );
            (sum == attempts).then_some(rows)
        })
        .await
    }
}

/// A number of a row, also of `tokens.input` and the like.
pub(crate) fn number(row: &Value, place: &str) -> u64 {
    let value = place.split('.').fold(row, |value, name| &value[name]);
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{place} in {row:#}"))
}

/// The binary under test: that of this build, or a release of it.
fn binary() -> PathBuf {
    let named = std::env::var_os("XAI_BINARY");
    named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_xai")), PathBuf::from)
}

/// A gateway that runs.
pub(crate) struct Gateway {
    child: Child,
    log: PathBuf,
    pub(crate) client: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// Fingerprint of the authority at `grpc`.
    pub(crate) authority: String,
}

impl Gateway {
    /// All that it printed.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Its exit code, once it ends.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("a gateway ends").unwrap().code()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it as a service manager does.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().await, Some(0), "{}", self.said());
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.ended().await, None);
    }

    /// One request, its answer read to the end.
    pub(crate) async fn ask(&self, ask: &Ask) -> Reply {
        timeout(PATIENCE, ask.send(self.client))
            .await
            .expect("an answer comes")
            .unwrap()
            .whole()
            .await
    }

    /// Posts JSON to the clients' port with these headers.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, String)], body: &Value) -> Reply {
        let mut request = Request::post(path)
            .header("host", self.client.to_string())
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(body.to_string().into()).unwrap();
        timeout(PATIENCE, send(self.client, request))
            .await
            .expect("an answer comes")
            .unwrap()
            .whole()
            .await
    }

    /// A page of the operations port, or of the clients' port.
    pub(crate) async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::get(path).header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        timeout(PATIENCE, send(address, request))
            .await
            .expect("an answer comes")
            .unwrap()
            .whole()
            .await
    }
}

/// A request of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    pub(crate) key: String,
    pub(crate) tag: String,
    pub(crate) body: Value,
}

impl Ask {
    /// A chat; `steer` tells the simulated provider how to answer.
    pub(crate) fn chat(key: &str, model: &str, steer: &str) -> Self {
        let message =
            json!({ "role": "user", "content": format!("Tell me of the sea. [[sim {steer}]]") });
        Self {
            path: "/v1/chat/completions",
            key: key.to_owned(),
            tag: String::new(),
            body: json!({ "model": model, "messages": [message] }),
        }
    }

    /// The same for Anthropic.
    pub(crate) fn messages(key: &str, model: &str, steer: &str) -> Self {
        let mut ask = Self::chat(key, model, steer);
        ask.path = "/v1/messages";
        ask.body["max_tokens"] = json!(1000);
        ask
    }

    pub(crate) fn streamed(mut self) -> Self {
        self.body["stream"] = json!(true);
        self
    }

    pub(crate) fn tagged(mut self, tag: impl Into<String>) -> Self {
        self.tag = tag.into();
        self
    }

    /// Sends it over a connection of its own; gives the head of the answer.
    pub(crate) async fn send(&self, to: SocketAddr) -> Result<Coming, Lost> {
        let mut request = Request::post(self.path)
            .header("host", to.to_string())
            .header("content-type", "application/json")
            .header("x-sim-tag", &self.tag);
        request = if self.path.starts_with("/v1/messages") {
            request
                .header("x-api-key", &self.key)
                .header("anthropic-version", "2023-06-01")
        } else {
            request.header("authorization", format!("Bearer {}", self.key))
        };
        send(to, request.body(self.body.to_string().into()).unwrap()).await
    }
}

/// Why there is no answer.
pub(crate) type Lost = Box<dyn std::error::Error + Send + Sync>;

async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Coming, Lost> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async {
        let _how_it_ends_is_seen_in_the_body = connection.await;
    });
    let response = sender.send_request(request).await;
    Ok(Coming {
        response: response?,
        connection: Connection(connection),
    })
}

/// Closed when dropped.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still coming; dropping it hangs up.
pub(crate) struct Coming {
    pub(crate) response: Response<Incoming>,
    connection: Connection,
}

impl Coming {
    /// The next bytes; `None` at the end, also at a broken one.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let frame = timeout(PATIENCE, self.response.frame()).await;
        frame.expect("an answer goes on")?.ok()?.into_data().ok()
    }

    pub(crate) async fn whole(self) -> Reply {
        let (head, mut body) = self.response.into_parts();
        let (mut bytes, mut broke) = (Vec::new(), false);
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.expect("a body ends") {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
                Err(_) => {
                    broke = true;
                    break;
                }
            }
        }
        drop(self.connection);
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(bytes).unwrap(),
            broke,
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Whether the connection ended before the body did.
    pub(crate) broke: bool,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// The rights of a file.
pub(crate) fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}
