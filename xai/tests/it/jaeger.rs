//! A real Jaeger takes a trace and gives it back by its id. Run it with `cargo test -p xai --test it -- --ignored jaeger`; the program is
//! `JAEGER_BIN`, or `jaeger` on the PATH (v2).

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::process::{Ask, Gateway, Home, until};

/// Jaeger with its traces in memory; it ends when this is dropped.
struct Jaeger {
    _child: Child,
    _work: TempDir,
    takes: SocketAddr,
    tells: SocketAddr,
}

impl Jaeger {
    async fn start() -> Self {
        let program = std::env::var_os("JAEGER_BIN").unwrap_or_else(|| "jaeger".into());
        let work = TempDir::with_prefix("xai-jaeger-").unwrap();
        let ports: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let [takes, tells, tells_grpc, health] =
            [0, 1, 2, 3].map(|at: usize| ports[at].local_addr().unwrap());
        drop(ports);
        let config = format!(
            r#"
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}}
  telemetry: {{resource: {{service.name: jaeger}}, metrics: {{level: none}}}}
extensions:
  healthcheckv2: {{use_v2: true, http: {{endpoint: "{health}"}}}}
  jaeger_storage: {{backends: {{mem: {{memory: {{max_traces: 1000}}}}}}}}
  jaeger_query: {{storage: {{traces: mem}}, http: {{endpoint: "{tells}"}}, grpc: {{endpoint: "{tells_grpc}"}}}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "{takes}"}}}}}}
processors: {{batch: {{timeout: 100ms}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: mem}}}}
"#
        );
        let file = work.path().join("jaeger.yaml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(work.path().join("log")).unwrap();
        let child = Command::new(&program)
            .arg("--config")
            .arg(format!("file:{}", file.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                let program = program.display();
                panic!("{program}: {error}; put Jaeger v2 on the PATH, or name it by JAEGER_BIN")
            });
        until("Jaeger listens", async || {
            let both = [takes, tells].map(std::net::TcpStream::connect);
            both.iter().all(Result::is_ok).then_some(())
        })
        .await;
        Self {
            _child: child,
            _work: work,
            takes,
            tells,
        }
    }
}

#[tokio::test]
#[ignore = "needs Jaeger v2: JAEGER_BIN, or jaeger on the PATH"]
async fn jaeger_gives_a_trace_back_by_its_id() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (home, jaeger) = (Home::new(), Jaeger::start().await);
    let (keys, url) = (home.keys(), format!("http://{}", jaeger.takes));
    let variables = [
        ("XAI_KEYS", keys.as_str()),
        ("XAI_TRACE_ENDPOINT", url.as_str()),
        ("XAI_PRELOAD_MAX", "0"),
    ];
    let gateway = home.start(&variables).await;
    home.sim.script("*", [proxyxai_testkit::Fault::status(503)]);
    let headers = [
        ("authorization", format!("Bearer {}", home.first_key())),
        ("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")),
    ];
    let body = Ask::chat("", "gpt-4o-mini", "tokens=9").body;
    let reply = gateway.post("/v1/chat/completions", &headers, &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let trace = until("Jaeger has the trace", async || {
        let reply = Gateway::get(jaeger.tells, &format!("/api/traces/{TRACE}"), &[]).await;
        let trace = (reply.status == 200).then(|| reply.json()["data"][0].clone())?;
        (trace["spans"].as_array()?.len() >= 8).then_some(trace)
    })
    .await;
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for span in trace["spans"].as_array().unwrap() {
        *names
            .entry(span["operationName"].as_str().unwrap())
            .or_default() += 1;
    }
    let expected = BTreeMap::from([
        ("POST /v1/chat/completions", 1),
        ("chat gpt-4o-mini", 2),
        ("identify", 1),
        ("look up key", 1),
        ("plan", 1),
        ("proxyxai.config.v1.ConfigService/ResolveKeys", 1),
        ("relay", 1),
    ]);
    assert_eq!(names, expected, "{trace:#}");
    let processes = trace["processes"].as_object().unwrap();
    let mut services: Vec<&str> = processes
        .values()
        .filter_map(|it: &Value| it["serviceName"].as_str())
        .collect();
    services.sort_unstable();
    services.dedup();
    assert_eq!(services, ["proxyxai-control-plane", "proxyxai-node"]);
    gateway.stop().await;
}
