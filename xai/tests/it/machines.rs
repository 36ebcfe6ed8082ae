//! A gateway on several machines, each of which is a process here: one etcd, control planes, nodes, and simulated providers.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{process::Child, time::timeout};

use super::{
    etcd::Etcd,
    process::{Ask, Done, Gateway, Home, PATIENCE, Reply, until},
};

/// A process that is one machine of the gateway; it is killed when this is dropped.
pub(crate) struct Machine {
    pub(crate) name: String,
    child: Child,
    data: PathBuf,
    log: PathBuf,
    addresses: Value,
}

impl Machine {
    /// Starts a machine on this data directory and waits for its addresses.
    pub(crate) async fn start(
        home: &Home,
        data: PathBuf,
        program: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let name = data.file_name().unwrap().to_str().unwrap().to_owned();
        let _there_may_be_none = fs::remove_file(data.join("addresses.json"));
        let log = data.with_extension("log");
        let file = fs::File::create(&log).unwrap();
        let mut command = home.program(&built(program), &[], variables);
        let child = command
            .env("XAI_DATA", &data)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut machine = Self {
            name,
            child,
            data,
            log,
            addresses: Value::Null,
        };
        machine.addresses = until("a machine starts", async || {
            let ended = machine.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{} ended ({ended:?}): {}",
                machine.name,
                machine.said()
            );
            let text = fs::read_to_string(machine.data.join("addresses.json")).ok()?;
            serde_json::from_str(&text).ok()
        })
        .await;
        machine
    }

    /// All that it printed.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// An address that it serves on.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Its exit code, once it ends.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("a machine ends").unwrap().code()
    }

    /// Ends it as a service manager does.
    pub(crate) async fn stop(self) {
        self.signal(Signal::TERM);
        self.has_stopped().await;
    }

    /// Waits until it has ended as it should, after a signal.
    pub(crate) async fn has_stopped(mut self) {
        assert_eq!(self.ended().await, Some(0), "{}", self.said());
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.ended().await, None);
    }

    /// One request to a node, its answer read to the end.
    pub(crate) async fn ask(&self, ask: &Ask) -> Reply {
        timeout(PATIENCE, ask.send(self.address("client")))
            .await
            .expect("an answer comes")
            .unwrap()
            .whole()
            .await
    }

    /// A page of the operations port.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        Gateway::get(self.address("ops"), path, &[]).await
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) {
        until("a machine is ready", async || {
            (self.get("/ready").await.status == 200).then_some(())
        })
        .await;
    }
}

/// What all machines of a gateway share.
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) etcd: Etcd,
}

impl Site {
    pub(crate) async fn new(members: usize) -> Self {
        Self {
            home: Home::new(),
            etcd: Etcd::start(members).await,
        }
    }

    /// The data directory of a machine.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.home.data().with_file_name(name)
    }

    /// Starts a machine and waits for its addresses.
    async fn start(&self, name: &str, program: &str, variables: &[(&str, &str)]) -> Machine {
        Machine::start(&self.home, self.data(name), program, variables).await
    }

    /// Starts a control plane; all have one key-encryption key. `grpc` is its address, for one that comes back.
    pub(crate) async fn control_plane(&self, name: &str, grpc: &str) -> Machine {
        let data = self.data(name);
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("key-encryption-key"), "5a".repeat(32)).unwrap();
        let variables = [
            ("XAI_GRPC", grpc),
            ("XAI_STORE", "etcd"),
            ("XAI_ETCD_ENDPOINTS", &self.etcd.endpoints()),
            ("XAI_ETCD_ALLOW_OLD_VERSION", "true"),
        ];
        let program = "xai-control-plane";
        let machine = self.start(name, program, &variables).await;
        machine.ready().await;
        machine
    }

    /// Starts a node of these control planes.
    pub(crate) async fn node(&self, name: &str, control_planes: &str, token: &str) -> Machine {
        let machine = self.node_at_once(name, control_planes, token).await;
        machine.ready().await;
        machine
    }

    /// Starts a node that may have nothing to serve yet.
    pub(crate) async fn node_at_once(
        &self,
        name: &str,
        control_planes: &str,
        token: &str,
    ) -> Machine {
        let variables = [
            ("XAI_CONTROL_PLANES", control_planes),
            ("XAI_JOIN_TOKEN", token),
        ];
        self.start(name, "xai-data-plane", &variables).await
    }

    /// What becomes of a program that does not start.
    pub(crate) async fn refused(&self, program: &str, variables: &[(&str, &str)]) -> Done {
        let command = self.home.program(&built(program), &[], variables);
        self.home.finish(command, "").await
    }

    /// Runs a command against a control plane.
    pub(crate) async fn xai(&self, machine: &Machine, words: &str) -> Done {
        let data = machine.data().to_str().unwrap();
        let words: Vec<&str> = words.split_whitespace().collect();
        let command = self.home.command(&words, &[("XAI_DATA", data)]);
        self.home.finish(command, "").await
    }

    /// What such a command prints for programs; it must succeed.
    pub(crate) async fn json(&self, machine: &Machine, words: &str) -> Value {
        let done = self.xai(machine, &format!("{words} --output json")).await;
        assert_eq!(done.code, Some(0), "xai {words}: {}", done.err);
        serde_json::from_str(&done.out).unwrap()
    }

    /// A token that lets nodes in.
    pub(crate) async fn token(&self, machine: &Machine, words: &str) -> String {
        let made = self
            .json(machine, &format!("join-token create {words}"))
            .await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// Makes a provider with an upstream key, and a virtual key of the root account; gives its id and itself.
    pub(crate) async fn furnish(&self, machine: &Machine) -> (String, String) {
        let base = self.home.providers();
        self.json(
            machine,
            &format!("provider create openai --kind openai --base {base} --allow-private"),
        )
        .await;
        let data = machine.data().to_str().unwrap();
        let words = "upstream-key create --provider openai --secret-file -";
        let words: Vec<&str> = words.split(' ').collect();
        let command = self.home.command(&words, &[("XAI_DATA", data)]);
        let done = self.home.finish(command, "sk-upstream-1").await;
        assert_eq!(done.code, Some(0), "{done:?}");
        self.key(machine).await
    }

    /// A new virtual key: its id and itself.
    pub(crate) async fn key(&self, machine: &Machine) -> (String, String) {
        let made = self.json(machine, "key create --account root").await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["key"]["id"]), text(&made["secret"]))
    }
}

/// A program of this build, or that of a release beside XAI_BINARY.
fn built(program: &str) -> PathBuf {
    let own = || PathBuf::from(env!("CARGO_BIN_EXE_xai"));
    std::env::var_os("XAI_BINARY")
        .map_or_else(own, PathBuf::from)
        .with_file_name(program)
}

/// The addresses of control planes, as nodes take them.
pub(crate) fn control_planes(machines: &[&Machine]) -> String {
    let all: Vec<String> = machines
        .iter()
        .map(|machine| format!("https://{}", machine.address("grpc")))
        .collect();
    all.join(",")
}
