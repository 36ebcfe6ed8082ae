//! `xai settings …`

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    GetSettingsRequest, Settings, SettingsView, UpdateSettingsRequest,
};
use serde_json::{Value, json};

use super::{
    api::{Api, call},
    options::{IfVersion, Once},
};
use crate::{
    failure::Failure,
    output::{Kind, Output},
    settings::value::Span,
};

const SETTING: Kind<'static> = Kind {
    one: "setting",
    many: "settings",
    columns: &[
        ("SETTING", "name"),
        ("SET", "set"),
        ("IN FORCE", "in_force"),
    ],
};

/// What can be done with settings of the deployment.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show them: what was set, and what is in force.
    Show,
    /// Change those that are given, while everything runs.
    Set(Set),
}

/// Settings to change.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// How old the configuration of a node may become before it refuses all requests, from 60s to 365d; `default` is 72 hours.
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    max_stale: Option<u64>,
    /// How long records of the audit trail are kept, from 1d on; `default` is what each control plane's own setting says.
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    audit_keep: Option<u64>,
    #[command(flatten)]
    guard: IfVersion,
    #[command(flatten)]
    once: Once,
}

/// Seconds of a span; 0 for the default.
fn seconds(word: &str) -> Result<u64, String> {
    if word == "default" {
        return Ok(0);
    }
    whole_seconds(word)
}

/// Seconds of a span.
///
/// # Errors
/// Says what a span looks like.
pub fn whole_seconds(word: &str) -> Result<u64, String> {
    let span: Span = word.parse().map_err(|error| format!("{error}"))?;
    match span.0.subsec_nanos() {
        0 => Ok(span.0.as_secs()),
        _ => Err("say whole seconds".to_owned()),
    }
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    let found = match verb {
        Verb::Show => call!(api, api.settings().get_settings(GetSettingsRequest {})).settings,
        Verb::Set(set) => {
            if set.max_stale.is_none() && set.audit_keep.is_none() {
                return Err(Failure::usage(
                    "say what to set: --max-stale or --audit-keep",
                ));
            }
            let request = UpdateSettingsRequest {
                max_stale_seconds: set.max_stale,
                audit_keep_seconds: set.audit_keep,
                resource_version: set.guard.if_version,
                idempotency_key: set.once.idempotency_key,
            };
            call!(api, api.settings().update_settings(request)).settings
        }
    };
    let view = found.unwrap_or_default();
    match output {
        Output::Json => output.fields(&for_programs(&view)),
        Output::Table => output.many(&SETTING, for_people(&view)),
    }
}

/// The settings as JSON.
pub(super) fn for_programs(view: &SettingsView) -> Value {
    let fields = |it: Settings| {
        json!({
            "max_stale_seconds": it.max_stale_seconds, "audit_keep_seconds": it.audit_keep_seconds,
        })
    };
    json!({ "settings": {
        "set": fields(view.set.unwrap_or_default()),
        "in_force": fields(view.in_force.unwrap_or_default()),
        "resource_version": view.resource_version,
    }})
}

fn for_people(view: &SettingsView) -> Vec<Value> {
    let (set, in_force) = (
        view.set.unwrap_or_default(),
        view.in_force.unwrap_or_default(),
    );
    let row = |name: &str, set: u64, in_force: u64| {
        let set = (set != 0).then(|| Span::seconds(set).to_string());
        json!({ "name": name, "set": set, "in_force": Span::seconds(in_force).to_string() })
    };
    vec![
        row(
            "max_stale",
            set.max_stale_seconds,
            in_force.max_stale_seconds,
        ),
        row(
            "audit_keep",
            set.audit_keep_seconds,
            in_force.audit_keep_seconds,
        ),
    ]
}
