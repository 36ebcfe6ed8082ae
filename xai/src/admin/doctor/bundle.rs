//! The archive for whoever helps: what was seen, as JSON, in one file for its owner alone.
//!
//! Invariants: what goes in is named here, field by field; how many virtual keys and credentials there are is told, and
//! not which, but for those that a finding is about; a bundle in which a
//! secret stands that this machine knows is not written at all (law 21).

use std::{fs, io::Write as _, path::Path};

use serde_json::{Value, json};

use super::{finding::Finding, place::SecretFile, ports::Port, seen::Seen};
use crate::{
    admin::{join_token, node, settings},
    environment::Environment,
    failure::Failure,
    output::{people, view},
};

/// What a process runs with that is told; the rest may name what only its owner should know.
const SETTINGS: [&str; 26] = [
    "cores",
    "listen",
    "grpc",
    "ops",
    "store",
    "etcd_connect_timeout",
    "etcd_request_timeout",
    "etcd_allow_old_version",
    "body_limit",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "request_timeout",
    "head_timeout",
    "keep_alive",
    "max_connections",
    "max_in_flight",
    "drain_delay",
    "drain",
    "max_stale",
    "preload_max",
    "keys_remembered",
    "audit_keep",
    "trace_ratio",
    "trace_conventions",
    "log_format",
];

/// Shorter texts are no secrets, and stand everywhere.
const SHORTEST: usize = 8;

/// A text that must not be in a bundle, and where it is from.
pub(super) type Known = (String, String);

/// All of it.
pub(super) fn content(
    now: i64,
    findings: &[Finding],
    seen: Option<&Seen>,
    ports: &[Port],
    secrets: &[SecretFile],
) -> Value {
    let files = secrets.iter();
    let files =
        files.map(|one| json!({ "path": one.path.display().to_string(), "what": one.what }));
    json!({
        "format": 1,
        "made_unix_ms": now,
        "made_by": env!("CARGO_PKG_VERSION"),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
        "deployment": seen.map(deployment),
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
        "secret_files": files.collect::<Vec<_>>(),
    })
}

fn deployment(seen: &Seen) -> Value {
    let withheld = seen.withheld.as_deref().unwrap_or_default();
    let nodes = seen.nodes.as_ref().map(|found| found.nodes.as_slice());
    let nodes = nodes.unwrap_or_default().iter();
    let all = |rows: Option<Vec<Value>>| rows.unwrap_or_default();
    let withheld_rows = withheld
        .iter()
        .map(|one| json!({ "name": one.name, "reason": one.reason, "stand_in": one.stand_in }));
    json!({
        "identity": people::identity(&seen.identity),
        "nodes": nodes.map(|one| node::view(one, withheld.len())).collect::<Vec<_>>(),
        "withheld": withheld_rows.collect::<Vec<_>>(),
        "providers": all(seen.providers.as_ref().ok().map(|rows| rows.iter().map(view::provider).collect())),
        "upstream_keys": all(seen.upstream_keys.as_ref().ok().map(|rows| rows.iter().map(view::upstream_key).collect())),
        "routes": all(seen.routes.as_ref().ok().map(|rows| rows.iter().map(view::route).collect())),
        "join_tokens": all(seen.join_tokens.as_ref().ok().map(|rows| rows.iter().map(join_token::view).collect())),
        "settings": seen.settings.as_ref().ok().map(settings::for_programs),
        "prices": seen.prices.as_ref().ok().map(|(table, _)| view::price_table(table)),
        "unpriced": all(seen.unpriced.as_ref().ok().map(|rows| rows.iter().map(view::usage_row).collect())),
        "enabled_keys": seen.keys.as_ref().ok().map(Vec::len),
        "credentials": seen.credentials.as_ref().ok().map(Vec::len),
        "hidden": seen.hidden().iter().map(|(part, why)| json!({ "part": part, "why": why.to_string() })).collect::<Vec<_>>(),
    })
}

fn port(port: &Port) -> Value {
    let ready = match &port.ready {
        Ok(answer) => json!({ "status": answer.status, "said": answer.body }),
        Err(failure) => json!({ "failed": failure.to_string() }),
    };
    let settings = SETTINGS.iter();
    let settings = settings.filter_map(|name| Some((*name, port.setting(name)?)));
    json!({
        "address": port.address,
        "ready": ready,
        "metrics": port.metrics,
        "settings": settings.collect::<std::collections::BTreeMap<_, _>>(),
    })
}

/// The secrets that this machine knows: every line of every secret file, and what the environment says.
pub(super) fn known(secrets: &[SecretFile], environment: &Environment) -> Vec<Known> {
    let mut known = Vec::new();
    let mut add = |text: &str, from: &str| {
        let lines = text.lines().map(str::trim);
        let long = lines.filter(|line| line.len() >= SHORTEST && !line.starts_with("-----"));
        known.extend(long.map(|line| (line.to_owned(), from.to_owned())));
    };
    for one in secrets {
        let from = one.path.display().to_string();
        let text = fs::read_to_string(&one.path).unwrap_or_default();
        match serde_json::from_str::<Value>(&text) {
            // Of the identity of a node; its other fields are no secrets.
            Ok(Value::Object(fields)) => ["key", "renewal_secret"]
                .iter()
                .filter_map(|name| fields.get(*name)?.as_str())
                .for_each(|secret| add(secret, &from)),
            Ok(_) | Err(_) => add(&text, &from),
        }
    }
    for name in ["XAI_CREDENTIAL", "XAI_JOIN_TOKEN"] {
        add(environment.get(name).unwrap_or_default(), name);
    }
    for key in environment.get("XAI_KEYS").unwrap_or_default().split(',') {
        add(key.split("::").next().unwrap_or_default(), "XAI_KEYS");
    }
    known
}

/// Writes it to a new file.
///
/// # Errors
/// When a secret is in it, the file is there already, or it cannot be written.
pub(super) fn write(file: &Path, content: &Value, known: &[Known]) -> Result<(), Failure> {
    let text = format!("{content:#}\n");
    if let Some((_, from)) = known.iter().find(|(secret, _)| text.contains(secret)) {
        return Err(Failure::failed(format!(
            "nothing is written: the secret of {from} would be in the bundle; look for it in the names and bases of providers, routes and keys, and rotate it"
        )));
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(file).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.sync_all()
    });
    written.map_err(|error| {
        Failure::failed(format!(
            "the bundle cannot be written to {}: {error}; name a file that does not exist yet",
            file.display()
        ))
    })
}
