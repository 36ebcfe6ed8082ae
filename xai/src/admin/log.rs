//! `xai log …`

use clap::Subcommand;
use proxyxai_core::order::LogLevel;
use proxyxai_proto::{
    admin::v1::{GetLogLevelRequest, ListNodesRequest, NodeView, SetLogLevelRequest},
    config::v1::LogLevel as Level,
};
use serde_json::{Value, json};

use super::api::{Api, call};
use crate::{
    failure::Failure,
    output::{Kind, Output},
    settings::value::Span,
};

const LOG: Kind<'static> = Kind {
    one: "log",
    many: "logs",
    columns: &[
        ("PROCESS", "process"),
        ("LEVEL", "level"),
        ("UNTIL", "until_unix_ms"),
        ("IN FORCE", "in_force"),
    ],
};

/// What can be done with logs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the levels that were set, and what nodes say that they do.
    Show,
    /// Set the level of a log while its process runs; it is kept through restarts until its time is over.
    Set {
        /// error, warn, info, debug or trace.
        #[arg(value_parser = level)]
        level: LogLevel,
        /// Whose log.
        #[command(flatten)]
        of: Of,
        /// After this the level is that of the settings again [default: without end].
        #[arg(long = "for", value_name = "SPAN")]
        span: Option<Span>,
    },
    /// Let the settings decide again.
    Reset {
        /// Whose log.
        #[command(flatten)]
        of: Of,
    },
}

/// Whose log.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Of {
    /// The log of this node (id).
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// The logs of all replicas of the control plane.
    #[arg(long)]
    control_plane: bool,
}

impl Of {
    fn words(&self) -> String {
        match &self.node {
            Some(node) => format!("node {node}"),
            None => "the control plane".to_owned(),
        }
    }
}

fn level(word: &str) -> Result<LogLevel, String> {
    let found = LogLevel::ALL.into_iter().find(|l| l.as_str() == word);
    found.ok_or_else(|| "a level is error, warn, info, debug or trace".to_owned())
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Show => {
            let plane = call!(api, api.logs().get_log_level(GetLogLevelRequest {}));
            let found = call!(api, api.nodes().list_nodes(ListNodesRequest {}));
            let plane = json!({
                "process": "control plane", "level": word(plane.level()),
                "until_unix_ms": until(plane.until_unix_ms), "in_force": Value::Null,
            });
            let nodes = found.nodes.iter().map(view);
            output.many(&LOG, std::iter::once(plane).chain(nodes).collect())
        }
        Verb::Set { level, of, span } => {
            let for_ms = span.map_or(0, |span| {
                u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)
            });
            if span.is_some() && for_ms == 0 {
                return Err(Failure::usage("`--for` is longer than nothing"));
            }
            let words = of.words();
            let request = SetLogLevelRequest {
                node: of.node.unwrap_or_default(),
                level: LogLevel::to_proto(Some(level)).into(),
                for_ms,
            };
            call!(api, api.logs().set_log_level(request));
            output.done(&format!("Set the log of {words} to {}.", level.as_str()))
        }
        Verb::Reset { of } => {
            let words = of.words();
            let request = SetLogLevelRequest {
                node: of.node.unwrap_or_default(),
                ..SetLogLevelRequest::default()
            };
            call!(api, api.logs().set_log_level(request));
            output.done(&format!(
                "The settings decide about the log of {words} again."
            ))
        }
    }
}

fn view(node: &NodeView) -> Value {
    let in_force = node.vitals.map(|vitals| word(vitals.log_level()));
    json!({
        "process": format!("node {}", node.id), "level": word(node.log_level()),
        "until_unix_ms": until(node.log_level_until_unix_ms), "in_force": in_force,
    })
}

fn until(unix_ms: i64) -> Option<i64> {
    (unix_ms != 0).then_some(unix_ms)
}

fn word(level: Level) -> &'static str {
    LogLevel::from_proto(level).map_or("settings", LogLevel::as_str)
}
