//! Real etcd servers on loopback, started and ended by tests. `scripts/etcd` finds the program.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::Client;
use proxyxai_control_plane::store::{
    Range, Store as _,
    etcd::{EtcdSettings, EtcdStore, EtcdTls},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::store::{PATIENCE, in_time};

/// Some members, which end with this.
pub(super) struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
    flags: Vec<String>,
    /// Each sync of a file takes so much longer.
    slowness: Duration,
}

struct Member {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl Cluster {
    /// Starts so many members and waits until they have a leader.
    pub(super) async fn start(members: usize, flags: &[&str]) -> Self {
        Self::start_slow(members, flags, Duration::ZERO).await
    }

    /// Starts one member that shows a certificate and wants one.
    pub(super) async fn start_tls() -> Self {
        let flag = |name: &str, file: &str| format!("--{name}={}", fixture(file).display());
        let flags = [
            flag("cert-file", "server.pem"),
            flag("key-file", "server-key.pem"),
            flag("trusted-ca-file", "ca.pem"),
            "--client-cert-auth".to_owned(),
        ];
        Self::start(1, &flags.each_ref().map(String::as_str)).await
    }

    /// The same on a disk that takes so much longer for each sync.
    pub(super) async fn start_slow(members: usize, flags: &[&str], slowness: Duration) -> Self {
        // Another process may take a port between our looking and etcd's binding it.
        for _ in 0..3 {
            let mut cluster = Self {
                folder: tempfile::tempdir().unwrap(),
                members: free_ports(members),
                flags: flags.iter().map(ToString::to_string).collect(),
                slowness,
            };
            for at in 0..members {
                cluster.begin(at);
            }
            if cluster.is_up().await {
                return cluster;
            }
        }
        panic!("etcd does not start; its last words are above");
    }

    pub(super) fn endpoint(&self, at: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.members[at].client)
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        (0..self.members.len())
            .map(|at| self.endpoint(at))
            .collect()
    }

    fn scheme(&self) -> &'static str {
        if self
            .flags
            .iter()
            .any(|flag| flag.starts_with("--cert-file"))
        {
            "https"
        } else {
            "http"
        }
    }

    /// Settings with times that suit servers on the same machine, and any version.
    pub(super) fn settings(&self, prefix: &str) -> EtcdSettings {
        EtcdSettings {
            prefix: prefix.to_owned(),
            tls: if self.scheme() == "https" {
                certificates()
            } else {
                EtcdTls::default()
            },
            request_timeout: Duration::from_secs(3),
            // Nobody ticks here.
            freshness: PATIENCE * 2,
            allow_old_version: true,
            ..EtcdSettings::new(self.endpoints())
        }
    }

    /// A store below this prefix.
    pub(super) async fn store(&self, prefix: &str) -> EtcdStore {
        connect(self.settings(prefix)).await
    }

    /// A plain client of one member.
    pub(super) async fn client(&self, at: usize) -> Client {
        let endpoint = [self.endpoint(at)];
        in_time(Box::pin(Client::connect(endpoint, None)))
            .await
            .unwrap()
    }

    /// Which member leads, as one of the others says.
    pub(super) async fn leader(&self, asked: usize) -> usize {
        let status = in_time(self.client(asked).await.status()).await.unwrap();
        for at in 0..self.members.len() {
            let says = in_time(self.client(at).await.status()).await.unwrap();
            if says.header().unwrap().member_id() == status.leader() {
                return at;
            }
        }
        panic!("no member leads");
    }

    /// Starts a member, anew if it ran before.
    pub(super) fn begin(&mut self, at: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let client = self.endpoint(at);
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(n, m)| format!("m{n}={}", url(m.peer)))
            .collect();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(at))
            .unwrap();
        let member = &self.members[at];
        let process = program(self.slowness)
            .arg(format!("--name=m{at}"))
            .arg(format!(
                "--data-dir={}",
                self.folder.path().join(format!("m{at}")).display()
            ))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={}", url(member.peer)))
            .arg(format!(
                "--initial-advertise-peer-urls={}",
                url(member.peer)
            ))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .args([
                "--initial-cluster-token=test",
                "--initial-cluster-state=new",
            ])
            .args([
                "--heartbeat-interval=50",
                "--election-timeout=500",
                "--log-level=warn",
            ])
            .args(&self.flags)
            .env_remove("ETCDCTL_API")
            .env_remove("ETCD_BIN")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.members[at].process = Some(process);
    }

    /// Kills a member, without warning.
    pub(super) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops a member where it stands, connections open.
    pub(super) fn freeze(&self, at: usize) {
        self.signal(at, Signal::STOP);
    }

    /// Lets a frozen member go on.
    pub(super) fn thaw(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    fn signal(&self, at: usize, signal: Signal) {
        let process = self.members[at].process.as_ref().unwrap();
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("m{at}.log"))
    }

    #[expect(clippy::print_stderr, reason = "shown when a server does not start")]
    async fn is_up(&mut self) -> bool {
        let up = async {
            loop {
                if let Ok(store) = EtcdStore::connect(self.settings("up")).await
                    && store.range(Range::default()).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let up = tokio::time::timeout(PATIENCE, up).await.is_ok();
        if !up {
            for at in 0..self.members.len() {
                eprintln!(
                    "{}",
                    std::fs::read_to_string(self.log(at)).unwrap_or_default()
                );
            }
        }
        up
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self
            .members
            .iter_mut()
            .filter_map(|member| member.process.as_mut())
        {
            let _may_have_ended = process.kill();
            let _ended = process.wait();
        }
    }
}

/// Connects, as often as it takes.
pub(super) async fn connect(settings: EtcdSettings) -> EtcdStore {
    in_time(async {
        loop {
            match EtcdStore::connect(settings.clone()).await {
                Ok(store) => return store,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}

/// Our side of the connection to a member of [`Cluster::start_tls`].
pub(super) fn certificates() -> EtcdTls {
    let read = |file: &str| std::fs::read(fixture(file)).unwrap();
    let key = String::from_utf8(read("client-key.pem")).unwrap();
    EtcdTls {
        authority: Some(read("ca.pem")),
        identity: Some((read("client.pem"), key.into())),
    }
}

fn fixture(file: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    PathBuf::from(folder).join(file)
}

/// Two free ports for each member, held together so that none comes twice.
fn free_ports(members: usize) -> Vec<Member> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listeners: Vec<[TcpListener; 2]> = (0..members).map(|_| [listen(), listen()]).collect();
    let ports = listeners
        .iter()
        .map(|pair| pair.each_ref().map(|l| l.local_addr().unwrap().port()));
    let member = |[client, peer]: [u16; 2]| Member {
        client,
        peer,
        process: None,
    };
    ports.map(member).collect()
}

/// The server, on a disk as slow as that.
fn program(slowness: Duration) -> Command {
    let etcd = script("etcd", &[]);
    if slowness.is_zero() {
        return Command::new(etcd);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("strace");
    let delay = slowness.as_micros();
    // With -D it is strace that is the child, and etcd the process that we started.
    command
        .env(
            "PATH",
            format!("{path}:{}", script("tools", &["strace:strace"])),
        )
        .args([
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
        ])
        .arg(format!("inject=fdatasync,fsync:delay_enter={delay}"))
        .arg(etcd);
    command
}

/// What a script of ours prints.
fn script(name: &str, arguments: &[&str]) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let script = format!("{root}/scripts/{name}");
    let found = Command::new(script)
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "{said}");
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}
