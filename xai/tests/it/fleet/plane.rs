//! The control plane under test, as a process, with an administrator's hand on it.

use std::{fs, net::SocketAddr};

use proxyxai_core::secret::{fingerprint::Fingerprint, join_token::JoinToken};
use proxyxai_data_plane::control_tls;
use proxyxai_proto::{
    admin::v1::{
        CreateJoinTokenRequest, CreateKeyRequest, CreateProviderRequest, CreateUpstreamKeyRequest,
    },
    config::v1::ProviderKind,
};
use tokio::time::{Duration, Instant};
use xai::admin::api::Api;

use super::{
    super::{machines::Machine, process::Home},
    figures::{Memory, memory, ms, worked},
};

const ANY: &str = "127.0.0.1:0";

/// A control plane on the embedded store.
pub(super) struct Plane {
    machine: Machine,
    /// Lets any number of nodes in.
    pub(super) token: JoinToken,
    /// Between the start of the process and its readiness.
    boot: Duration,
    /// Seconds of CPU that this took.
    boot_worked: f64,
}

impl Plane {
    /// The first start, on nothing: also makes a provider, and a token for nodes.
    pub(super) async fn first(home: &Home) -> Self {
        let (machine, boot) = start(home, ANY).await;
        let boot_worked = worked(machine.pid());
        let api = api(&machine);
        let provider = CreateProviderRequest {
            id: "openai".to_owned(),
            kind: ProviderKind::Openai.into(),
            base_url: home.providers(),
            allow_private: true,
            ..CreateProviderRequest::default()
        };
        api.providers().create_provider(provider).await.unwrap();
        let key = CreateUpstreamKeyRequest {
            provider_id: "openai".to_owned(),
            secret: "sk-upstream-1".to_owned(),
            ..CreateUpstreamKeyRequest::default()
        };
        api.upstream_keys().create_upstream_key(key).await.unwrap();
        let any = CreateJoinTokenRequest::default();
        let made = api.join_tokens().create_join_token(any).await.unwrap();
        Self {
            machine,
            token: JoinToken::parse(&made.into_inner().token).unwrap(),
            boot,
            boot_worked,
        }
    }

    /// The next start, after the last one has ended; at the same address when nodes have to find it again.
    pub(super) async fn again(home: &Home, token: &JoinToken, grpc: Option<SocketAddr>) -> Self {
        let grpc = grpc.map_or_else(|| ANY.to_owned(), |grpc| grpc.to_string());
        let (machine, boot) = start(home, &grpc).await;
        Self {
            boot_worked: worked(machine.pid()),
            machine,
            token: token.clone(),
            boot,
        }
    }

    pub(super) fn grpc(&self) -> SocketAddr {
        self.machine.address("grpc")
    }

    pub(super) fn api(&self) -> Api {
        api(&self.machine)
    }

    /// How long the start took, and what it cost.
    pub(super) fn started(&self) -> String {
        let (took, worked, memory) = (ms(self.boot), self.boot_worked, self.memory());
        format!("{took} ms ({worked:.1} s of CPU), {memory}")
    }

    pub(super) fn worked(&self) -> f64 {
        worked(self.machine.pid())
    }

    pub(super) fn memory(&self) -> Memory {
        memory(self.machine.pid())
    }

    /// Forgets what it once had at most.
    pub(super) fn begin_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.machine.pid()), "5").unwrap();
    }

    /// A new virtual key of the root account: its id and itself.
    pub(super) async fn key(&self) -> (String, String) {
        let request = CreateKeyRequest {
            account: "root".to_owned(),
            name: "probe".to_owned(),
            ..CreateKeyRequest::default()
        };
        let made = self.api().keys().create_key(request).await.unwrap();
        let made = made.into_inner();
        (made.key.unwrap().id, made.secret)
    }

    pub(super) async fn stop(self) {
        self.machine.stop().await;
    }

    /// Ends it as a crash does.
    pub(super) async fn kill(self) {
        self.machine.kill().await;
    }
}

async fn start(home: &Home, grpc: &str) -> (Machine, Duration) {
    let begun = Instant::now();
    let variables = [("XAI_GRPC", grpc), ("XAI_LOG", "warn")];
    let data = home.data();
    let machine = Machine::start(home, data, "xai-control-plane", &variables).await;
    machine.ready().await;
    (machine, begun.elapsed())
}

fn api(machine: &Machine) -> Api {
    let credential = fs::read_to_string(machine.data().join("admin-credential")).unwrap();
    let pem = fs::read(machine.data().join("authority.pem")).unwrap();
    let pin = Fingerprint::of(pem::parse(pem).unwrap().contents());
    let address = machine.address("grpc").to_string();
    let channel = control_tls::channel(&address, pin, None).unwrap();
    Api::new(channel, &credential.trim().into(), address).unwrap()
}
