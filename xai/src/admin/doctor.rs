//! `xai doctor`: looks at a running deployment as its administrators and its machines show it, and says what to do.
//!
//! Invariants: it changes nothing; what it could not look at it says so, and does not call well; no secret is in what it prints or
//! writes (law 21).

mod access;
mod bundle;
mod deployment;
mod finding;
mod nodes;
mod page;
mod place;
mod ports;
mod seen;
mod upstreams;

use std::path::PathBuf;

use serde_json::json;

use super::connection::Connection;
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::{self, Output},
    settings, system,
};
use finding::{Finding, Severity, Whose};
use place::Place;
use ports::Port;
use seen::Seen;

/// Look at a running deployment, and say what to do; exit code 0 when nothing is above `info`, 1 when something is.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Also look at this port of operations; may be given several times [default: that of the process that runs on the data directory].
    #[arg(long, value_name = "HOST:PORT")]
    ops: Vec<String>,
    /// Also write what was seen into a new file (JSON) for whoever helps; without secrets.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Looks, and says what it found.
///
/// # Errors
/// When something is above `info`, or the bundle cannot be written.
pub async fn run(doctor: Doctor, environment: &Environment) -> Result<(), Failure> {
    let flags = doctor.connection.flags();
    let loaded = settings::load(flags, None, environment)?;
    let now = system::unix_ms();
    let mut findings = Vec::new();

    let seen = match doctor.connection.open(environment) {
        Ok(api) => Seen::look(api, now).await,
        Err(failure) => Err(failure),
    };
    match &seen {
        Ok(seen) => {
            deployment::judge(seen, &mut findings);
            nodes::judge(seen, &mut findings);
            upstreams::judge(seen, &mut findings);
            access::judge(seen, now, &mut findings);
        }
        Err(failure) => findings.push(unreachable(failure)),
    }

    let place = Place::of(&loaded.settings.data.0);
    let named = doctor.ops.iter().cloned();
    let asked: Vec<String> = match doctor.ops.is_empty() {
        false => named.collect(),
        true => place.ops().into_iter().collect(),
    };
    let ports: Vec<Port> = asked.into_iter().map(Port::look).collect();
    for port in &ports {
        port.judge(&mut findings);
    }
    let secrets = place.secrets(&loaded.lines, &ports);
    place.judge(&secrets, &mut findings);

    findings.sort_by_key(|one| one.severity);
    print(&findings, doctor.connection.output())?;
    if let Some(file) = &doctor.bundle {
        let content = bundle::content(now, &findings, seen.as_ref().ok(), &ports, &secrets);
        bundle::write(file, &content, &bundle::known(&secrets, environment))?;
    }
    verdict(&findings)
}

/// Why nothing more is known of the deployment.
fn unreachable(failure: &Failure) -> Finding {
    let next = match failure.exit {
        Exit::Unreachable => {
            "on the machine of the control plane: xai health http://127.0.0.1:3445/ready; then name it with --server, --authority and --credential-file"
        }
        Exit::Failed | Exit::Usage | Exit::NotFound => "xai whoami",
    };
    Finding {
        severity: Severity::Error,
        check: "reachable",
        object: "control plane".to_owned(),
        what: failure.to_string(),
        whose: Whose::Connection,
        next: next.to_owned(),
    }
}

fn print(findings: &[Finding], output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => output.fields(&json!({
            "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })),
        Output::Table => {
            let mut text: String = findings.iter().map(Finding::text).collect();
            if findings.iter().all(|one| one.severity == Severity::Info) {
                text.push_str("Nothing needs to be done.\n");
            }
            output::print(&text)
        }
    }
}

fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    let count = |severity| {
        let those = findings.iter().filter(|one| one.severity == severity);
        those.count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match (errors, warnings) {
        (0, 0) => Ok(()),
        _ => Err(Failure::failed(format!(
            "{errors} errors and {warnings} warnings were found; each says what to do next"
        ))),
    }
}
