//! `xai-control-plane`: the side that owns state, alone; several of them may run on one etcd.
//!
//! Order: take the data directory → bind the ports → open the store → serve → greet → wait → send the nodes away → end.

use std::{process::ExitCode, sync::Arc};

use proxyxai_core::secret::SecretString;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{Control, StateAt},
    environment::Environment,
    failure::Failure,
    first_key, given_authority, join_token_file,
    logs::Logs,
    ops::{self, Ops},
    process::{self, say},
    role::Program,
    settings::{control_plane::Given, control_plane::Settings, load::Loaded},
    system::{SystemClock, SystemRandomness},
    traces::{self, Source},
    up::{
        data::DataDir,
        managed::{Objects, Owner, Wanted},
        managed_env, pipe, sockets,
    },
};

/// Shortest admin credential that is taken from outside.
const LEAST_CREDENTIAL: usize = 32;

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
    let wanted = managed_env::read(environment)?;
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
            admin_credential: admin_credential(&settings)?,
            authority: given_authority::read(
                &settings.authority_certificate_file,
                &settings.authority_key_file,
            )?,
        };
        let (mut control, _) =
            Control::start(settings.control(), state, &data, &clock, &random, &logs).await?;
        let authority = control.plane.authority().fingerprint();
        begin(&settings, &mut control, &data, &random, wanted).await?;
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
        .with_traces(traces.as_ref())
        .with_metrics_from(settings.metrics_from.clone());
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

/// What a deployment is given at its starts: a first virtual key, a token for its nodes, and what the environment says.
async fn begin(
    settings: &Settings,
    control: &mut Control,
    data: &DataDir,
    random: &SystemRandomness,
    wanted: Option<Wanted>,
) -> Result<(), Failure> {
    if settings.first_key {
        first_key::ensure(data, &control.plane, random).await?;
    }
    if let Some(file) = settings.join_token_file.file() {
        join_token_file::ensure(&file, &control.plane).await?;
    }
    if let Some(wanted) = wanted {
        let (channel, incoming) = pipe::pipe();
        control.serve(incoming);
        let mut objects = Objects::of(control, Owner::Environment, channel)?;
        objects.reconcile(wanted).await?;
    }
    Ok(())
}

fn admin_credential(settings: &Settings) -> Result<Option<SecretString>, Failure> {
    let Some(file) = settings.admin_credential_file.file() else {
        return Ok(None);
    };
    let refuse = |why: &dyn std::fmt::Display| {
        let file = file.display();
        Failure::usage(format!("`admin_credential_file`: {file}: {why}"))
    };
    let text = std::fs::read_to_string(&file).map_err(|error| refuse(&error))?;
    let text = text.trim();
    if text.len() < LEAST_CREDENTIAL || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refuse(&format!(
            "an admin credential has at least {LEAST_CREDENTIAL} letters, digits and signs, all of them unpredictable"
        )));
    }
    Ok(Some(text.into()))
}
