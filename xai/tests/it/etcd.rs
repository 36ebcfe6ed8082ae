//! One etcd server on loopback, on a disk of its own; `scripts/etcd` finds the program. It ends when this is dropped.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::{process::until, structure::root};

/// A cluster of some members.
pub(crate) struct Etcd {
    folder: TempDir,
    ports: Vec<(u16, u16)>,
    members: Vec<Child>,
}

impl Etcd {
    /// Starts so many members and waits until each listens.
    pub(crate) async fn start(members: usize) -> Self {
        let program = Command::new(root().join("scripts/etcd"))
            .output()
            .await
            .unwrap();
        let program = String::from_utf8(program.stdout).unwrap();
        let mut etcd = Self {
            folder: TempDir::with_prefix("xai-etcd-").unwrap(),
            ports: free_ports(members),
            members: Vec::new(),
        };
        for at in 0..members {
            let member = etcd.begin(program.trim(), at);
            etcd.members.push(member);
        }
        for (client, _) in &etcd.ports {
            until("etcd listens", async || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, *client))
                    .await
                    .ok()
            })
            .await;
        }
        etcd
    }

    fn begin(&self, program: &str, at: usize) -> Child {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = self.ports[at];
        let all: Vec<String> = self
            .ports
            .iter()
            .enumerate()
            .map(|(at, (_, peer))| format!("m{at}={}", url(*peer)))
            .collect();
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        Command::new(program)
            .env_clear()
            .args([
                flag("name", &format!("m{at}")),
                flag(
                    "data-dir",
                    self.folder.path().join(format!("m{at}")).to_str().unwrap(),
                ),
                flag("listen-client-urls", &url(client)),
                flag("advertise-client-urls", &url(client)),
                flag("listen-peer-urls", &url(peer)),
                flag("initial-advertise-peer-urls", &url(peer)),
                flag("initial-cluster", &all.join(",")),
                flag("log-level", "error"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Ends a member as a crash does, and starts it anew.
    pub(crate) async fn crash(&mut self, at: usize) {
        let pid = i32::try_from(self.members[at].id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        self.members[at].wait().await.unwrap();
        let program = Command::new(root().join("scripts/etcd"))
            .output()
            .await
            .unwrap();
        let program = String::from_utf8(program.stdout).unwrap();
        self.members[at] = self.begin(program.trim(), at);
    }

    /// As the setting has it.
    pub(crate) fn endpoints(&self) -> String {
        let all: Vec<String> = self
            .ports
            .iter()
            .map(|(client, _)| format!("http://127.0.0.1:{client}"))
            .collect();
        all.join(",")
    }
}

/// Two ports for each member. All are held until the last one is found, so that none is named twice.
fn free_ports(members: usize) -> Vec<(u16, u16)> {
    let held: Vec<TcpListener> = (0..members * 2)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    held.chunks(2)
        .map(|pair| (port(&pair[0]), port(&pair[1])))
        .collect()
}
