//! `xai-control-plane`: the side that owns state, alone; several of them may run on one etcd.
//!
//! Order: take the data directory → bind the ports → open the store → serve → greet → wait → send the nodes away → end.

use std::{process::ExitCode, sync::Arc};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{Control, StateAt},
    environment::Environment,
    failure::Failure,
    logs::Logs,
    ops::{self, Ops},
    process::{self, say},
    role::Program,
    settings::{control_plane::Given, control_plane::Settings, load::Loaded},
    system::{SystemClock, SystemRandomness},
    traces::{self, Source},
    up::{data::DataDir, sockets},
};

/// Does what the arguments of this process ask for.
pub fn main() -> ExitCode {
    let program = Program {
        name: "xai-control-plane",
        about: "The control plane of a gateway: owns its state, and tells its nodes what to serve",
    };
    program.main::<Given>(run)
}

fn run(loaded: Loaded<Settings>, environment: &Environment) -> Result<(), Failure> {
    let settings = loaded.settings;
    let logs = Logs::start(&settings.log, settings.log_format)?;
    let data = DataDir::open(&settings.data.0)?;
    process::run(async {
        let grpc = sockets::socket("grpc", settings.grpc).await?;
        let ops = sockets::socket("ops", settings.ops).await?;
        let clock = Arc::new(SystemClock::start());
        let random = SystemRandomness::open().map_err(|e| Failure::failed(e.to_string()))?;
        let random = Arc::new(random);
        let state = StateAt {
            store: settings.store(),
            keys: settings.keys(),
            environment,
        };
        let (mut control, _) =
            Control::start(settings.control(), &state, &data, &clock, &random, &logs).await?;
        let authority = control.plane.authority().fingerprint();
        let addresses = json!({
            "grpc": grpc.address, "ops": ops.address, "authority": authority,
        });
        let source = Source {
            service: "proxyxai-control-plane",
            instance: control.plane.deployment_id().to_owned(),
            spans: control.plane.spans(),
        };
        let traces = traces::start(&settings.traces(), vec![source])?;
        let stop = CancellationToken::new();
        let shown = Ops::new(
            control.admin_credential.clone(),
            None,
            Some(Arc::clone(&control.plane)),
            loaded.lines,
        )
        .with_traces(traces.as_ref());
        let (grpc_address, ops_address) = (grpc.address, ops.address);
        let ops = ops::serve(ops.listener, shown, stop.clone());
        control.serve_tls(grpc);
        data.write_addresses(&addresses)?;
        say("");
        say(&format!(
            "Control plane  https://{grpc_address}    gRPC over TLS, for `xai` and for nodes"
        ));
        say(&format!("Authority      {authority}"));
        say(&format!(
            "Operations     http://{ops_address}/ready, /metrics, /config"
        ));
        say(&format!(
            "Nodes join with a token: `xai join-token create --data {}` prints one; give it to `xai-data-plane`.",
            settings.data
        ));
        say("Ctrl-C stops it: its nodes are sent to other control planes.");
        process::told_to_stop().await;
        control.end().await;
        stop.cancel();
        if let Some(traces) = traces {
            traces.end().await;
        }
        let _ended_either_way = tokio::time::timeout(ops::LAST, ops).await;
        data.remove_addresses();
        Ok(())
    })
}
