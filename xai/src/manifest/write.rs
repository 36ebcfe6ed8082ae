//! Writes a manifest as YAML: in the order in which it came, without fields that have their default.

use std::fmt::Write as _;

use jiff::Timestamp;
use proxyxai_core::route::provider;
use proxyxai_proto::{
    admin::v1::{
        Manifest, ManifestPriceTable, ManifestUpstreamKey, Settings, manifest_object::Kind,
    },
    config::v1::{ProviderKind, SwitchOver},
};
use serde_json::Value;

use crate::{admin::stale::said, settings::value::Span};

/// Says to editors where the schema is.
const HEAD: &str = "# yaml-language-server: $schema=manifest.schema.json
# `xai export --schema > manifest.schema.json` writes the schema that editors look for.
";
const SECRET: &str = "    # Its secret stays as it is. For another one: secret_file or secret_env.
";

/// The file.
pub fn yaml(manifest: &Manifest) -> String {
    let mut out = HEAD.to_owned();
    if let Some(settings) = &manifest.settings {
        out.push_str(&of_deployment(settings));
    }
    let mut list = "";
    for object in &manifest.objects {
        let Some(kind) = &object.kind else { continue };
        let (of, fields) = fields(kind);
        if list != of {
            list = of;
            out.push_str(&format!("{list}:\n"));
        }
        let mut lead = "  - ";
        for (name, value) in fields {
            if let Some(value) = value.text() {
                let _to_a_string = writeln!(out, "{lead}{name}: {value}");
                lead = "    ";
            }
        }
        if let Kind::UpstreamKey(ManifestUpstreamKey { .. }) = kind {
            out.push_str(SECRET);
        }
        if let Kind::PriceTable(table) = kind {
            out.push_str(&content(table));
        }
    }
    out
}

/// The settings of the deployment.
fn of_deployment(settings: &Settings) -> String {
    let fields = [
        ("max_stale", settings.max_stale_seconds),
        ("audit_keep", settings.audit_keep_seconds),
    ];
    let set = fields.iter().filter(|(_, seconds)| *seconds != 0);
    let lines = set.map(|(name, seconds)| format!("  {name}: {}\n", Span::seconds(*seconds)));
    let lines: String = lines.collect();
    if lines.is_empty() {
        return "settings: {}\n".to_owned();
    }
    format!("settings:\n{lines}")
}

/// The value of a field; the default of each is not written.
enum Field<'a> {
    Text(&'a str),
    Flag(bool),
    Number(u32, u32),
    List(&'a [String]),
    Levels(Vec<&'a [String]>),
    Time(i64),
    Seconds(u64),
    Said(Option<bool>),
    Word(&'static str, &'static str),
}

impl Field<'_> {
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => (!text.is_empty()).then(|| scalar(text)),
            Self::Flag(flag) => flag.then(|| "true".to_owned()),
            Self::Number(number, default) => (number != default).then(|| number.to_string()),
            Self::List(list) => (!list.is_empty()).then(|| flow(list)),
            Self::Levels(levels) => {
                let levels: Vec<String> = levels.iter().map(|level| flow(level)).collect();
                Some(format!("[{}]", levels.join(", ")))
            }
            Self::Seconds(seconds) => (*seconds != 0).then(|| Span::seconds(*seconds).to_string()),
            Self::Said(said) => said.map(|yes| yes.to_string()),
            Self::Time(unix_ms) => (*unix_ms != 0).then(|| time(*unix_ms)),
            Self::Word(word, default) => (word != default).then(|| (*word).to_owned()),
        }
    }
}

fn fields(kind: &Kind) -> (&'static str, Vec<(&'static str, Field<'_>)>) {
    use Field::{Flag, Levels, List, Number, Said, Seconds, Text, Time, Word};
    match kind {
        Kind::Account(it) => (
            "accounts",
            vec![
                ("path", Text(&it.path)),
                ("suspended", Flag(it.suspended)),
                ("gateway", Flag(it.gateway)),
                ("allowed_models", List(&it.allowed_models)),
                ("allowed_endpoints", List(&it.allowed_endpoints)),
                ("allowed_networks", List(&it.allowed_networks)),
                ("max_stale", Seconds(it.max_stale_seconds)),
                ("serve_expired", Said(said(it.serve_expired()))),
            ],
        ),
        Kind::Key(it) => (
            "keys",
            vec![
                ("account", Text(&it.account)),
                ("name", Text(&it.name)),
                ("id", Text(&it.id)),
                ("disabled", Flag(it.disabled)),
                ("expires", Time(it.expires_unix_ms)),
                ("allowed_models", List(&it.allowed_models)),
                ("allowed_endpoints", List(&it.allowed_endpoints)),
                ("allowed_networks", List(&it.allowed_networks)),
            ],
        ),
        Kind::Provider(it) => (
            "providers",
            vec![
                ("id", Text(&it.id)),
                ("kind", Word(provider_kind(it.kind()), "")),
                ("base_url", Text(&it.base_url)),
                ("allow_private", Flag(it.allow_private)),
                ("disabled", Flag(it.disabled)),
            ],
        ),
        Kind::UpstreamKey(it) => (
            "upstream_keys",
            vec![
                ("id", Text(&it.id)),
                ("provider", Text(&it.provider_id)),
                ("level", Number(it.level, 0)),
                ("weight", Number(it.weight, 1)),
                ("models", List(&it.models)),
                ("disabled", Flag(it.disabled)),
            ],
        ),
        Kind::Route(it) => (
            "routes",
            vec![
                ("id", Text(&it.id)),
                ("model", Text(&it.model)),
                ("upstream_model", Text(&it.upstream_model)),
                (
                    "levels",
                    Levels(it.levels.iter().map(|level| &*level.provider_ids).collect()),
                ),
                (
                    "switch_over",
                    Word(switch_over(it.switch_over()), "exhausted"),
                ),
            ],
        ),
        Kind::PriceTable(it) => (
            "prices",
            vec![("version", Text(&it.version)), ("active", Flag(it.active))],
        ),
    }
}

/// The word of a kind of provider.
pub fn provider_kind(kind: ProviderKind) -> &'static str {
    provider::ProviderKind::from_proto(kind).map_or("", provider::ProviderKind::as_str)
}

/// The word of a rule.
pub fn switch_over(rule: SwitchOver) -> &'static str {
    match rule {
        SwitchOver::Unspecified | SwitchOver::Exhausted => "exhausted",
        SwitchOver::RateLimited => "rate_limited",
        SwitchOver::AnyFailure => "any_failure",
    }
}

/// A point in time as files name it.
pub fn time(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| unix_ms.to_string(), |at| at.to_string())
}

/// A table as it stands in a file: line by line where YAML can say it so.
fn content(table: &ManifestPriceTable) -> String {
    let Some(content) = &table.content else {
        return String::new();
    };
    let text = String::from_utf8_lossy(content);
    let lines = text.strip_suffix('\n').unwrap_or(&text);
    let plain = lines.chars().all(|c| c == '\n' || (' '..='~').contains(&c));
    if !plain || lines.is_empty() || lines.ends_with('\n') {
        return format!("    table: {}\n", Value::from(&*text));
    }
    let keep = if text.ends_with('\n') { "" } else { "-" };
    let mut out = format!("    table: |2{keep}\n");
    for line in lines.lines() {
        let indent = if line.is_empty() { "" } else { "      " };
        out.push_str(&format!("{indent}{line}\n"));
    }
    out
}

fn flow(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|text| scalar(text)).collect();
    format!("[{}]", list.join(", "))
}

/// A text as it stands, if nobody can take it for something else; else in quotes, as JSON has them.
fn scalar(text: &str) -> String {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let clean = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if begins && clean && !word.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
