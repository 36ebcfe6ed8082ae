//! What changes, object by object and field by field, in the words of files.

use std::collections::BTreeSet;

use proxyxai_proto::{
    admin::v1::{ChangeAction, ObjectChange},
    config::v1::{ProviderKind, SwitchOver},
};
use serde_json::{Map, Value, json};

use crate::{
    manifest::{read::in_settings, write},
    settings::value::Span,
};

/// For programs.
pub(super) fn json(change: &ObjectChange) -> Value {
    json!({
        "action": word(change.action()), "kind": change.kind, "name": change.name,
        "before": object(&change.before), "after": object(&change.after),
    })
}

/// For people.
pub(super) fn text(changes: &[ObjectChange]) -> String {
    if changes.is_empty() {
        return "The configuration is as the files say.\n".to_owned();
    }
    let mut out = String::new();
    for change in changes {
        let sign = match change.action() {
            ChangeAction::Create => '+',
            ChangeAction::Delete => '-',
            ChangeAction::Update | ChangeAction::Unspecified => '~',
        };
        let kind = change.kind.replace('_', " ");
        out.push_str(&format!("{sign} {kind} `{}`\n", change.name));
        out.push_str(&fields(change));
    }
    let count = |action: ChangeAction| changes.iter().filter(|it| it.action() == action).count();
    out.push_str(&format!(
        "{} to create, {} to change, {} to delete\n",
        count(ChangeAction::Create),
        count(ChangeAction::Update),
        count(ChangeAction::Delete)
    ));
    out
}

/// A line for each field that is not as before.
fn fields(change: &ObjectChange) -> String {
    let (before, after) = (object(&change.before), object(&change.after));
    let empty = Map::new();
    let map = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let (before, after) = (map(&before), map(&after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or_else(|| "(none)".to_owned(), plain);
    let mut out = String::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old == new {
            continue;
        }
        out.push_str(&match change.action() {
            ChangeAction::Create => format!("    {name}: {}\n", shown(new)),
            ChangeAction::Delete => format!("    {name}: {}\n", shown(old)),
            ChangeAction::Update | ChangeAction::Unspecified => {
                format!("    {name}: {} -> {}\n", shown(old), shown(new))
            }
        });
    }
    out
}

/// The object of an answer with the names and words of files; null when there is none.
fn object(text: &str) -> Value {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return Value::Null;
    };
    let renamed = fields.into_iter().map(|(name, value)| match name.as_str() {
        setting if in_settings(setting).is_some() => {
            let span = value.as_u64().map(|it| Span::seconds(it).to_string());
            let name = in_settings(setting).unwrap_or_default();
            (name.to_owned(), Value::from(span))
        }
        "expires_unix_ms" => {
            let at = value.as_i64().map(write::time);
            ("expires".to_owned(), Value::from(at))
        }
        "provider_id" => ("provider".to_owned(), value),
        "content" => ("table".to_owned(), value),
        "kind" => (
            name,
            enum_word(&value, |word| {
                ProviderKind::from_str_name(word).map(write::provider_kind)
            }),
        ),
        "switch_over" => (
            name,
            enum_word(&value, |word| {
                SwitchOver::from_str_name(word).map(write::switch_over)
            }),
        ),
        "levels" => (name, levels(&value)),
        _ => (name, value),
    });
    Value::Object(renamed.collect())
}

fn enum_word(value: &Value, word: impl Fn(&str) -> Option<&'static str>) -> Value {
    let known = value.as_str().and_then(word);
    known.map_or_else(|| value.clone(), Value::from)
}

fn levels(value: &Value) -> Value {
    let level = |level: &Value| level.get("provider_ids").cloned().unwrap_or_default();
    let levels = value.as_array().map(|all| all.iter().map(level).collect());
    levels.map_or_else(|| value.clone(), Value::Array)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn word(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Unspecified => "unspecified",
        ChangeAction::Create => "create",
        ChangeAction::Update => "update",
        ChangeAction::Delete => "delete",
    }
}
