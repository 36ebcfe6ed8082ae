//! Credentials and the audit trail as JSON values. The field names are those of the protos and stay the same.

use std::fmt::Write as _;

use proxyxai_core::access::Role;
use proxyxai_proto::admin::v1::{
    self as proto, AuditChange, AuditOutcome, AuditRecord, CredentialView, WhoAmIResponse,
};
use serde_json::{Value, json};

use super::Kind;

/// Credentials.
pub const CREDENTIAL: Kind<'static> = Kind {
    one: "credential",
    many: "credentials",
    columns: &[
        ("ID", "id"),
        ("NAME", "name"),
        ("ROLE", "role"),
        ("ACCOUNT", "account_path"),
        ("DISABLED", "disabled"),
        ("EXPIRES", "expires_unix_ms"),
        ("CREATED", "created_unix_ms"),
        ("SECRET MADE", "rotated_unix_ms"),
    ],
};

/// Who one is.
pub const IDENTITY: Kind<'static> = Kind {
    one: "identity",
    many: "identities",
    columns: &[
        ("CREDENTIAL", "credential_id"),
        ("ROLE", "role"),
        ("ACCOUNT", "account_path"),
        ("EXPIRES", "expires_unix_ms"),
        ("DEPLOYMENT", "deployment_id"),
        ("SERVER VERSION", "server_version"),
    ],
};

/// Records of the audit trail.
pub const AUDIT_RECORD: Kind<'static> = Kind {
    one: "record",
    many: "records",
    columns: &[
        ("NUMBER", "sequence"),
        ("TIME", "unix_ms"),
        ("CREDENTIAL", "actor.credential_id"),
        ("ROLE", "actor.role"),
        ("ACTION", "action"),
        ("OUTCOME", "outcome"),
        ("OBJECTS", "objects"),
    ],
};

/// A credential.
pub fn credential(view: &CredentialView) -> Value {
    json!({
        "id": view.id, "name": view.name, "role": role(view.role()), "account_id": view.account_id,
        "account_path": view.account_path, "disabled": view.disabled, "expires_unix_ms": time(view.expires_unix_ms),
        "created_unix_ms": view.created_unix_ms, "rotated_unix_ms": view.rotated_unix_ms,
    })
}

/// Who one is.
pub fn identity(answer: &WhoAmIResponse) -> Value {
    json!({
        "credential_id": answer.credential_id, "role": role(answer.role()), "account_id": answer.account_id,
        "account_path": answer.account_path, "expires_unix_ms": time(answer.expires_unix_ms),
        "deployment_id": answer.deployment_id, "server_version": answer.server_version,
    })
}

/// A record of the audit trail. `before` and `after` stand as the texts that the hash is taken over.
pub fn audit_record(record: &AuditRecord) -> Value {
    let actor = record.actor.clone().unwrap_or_default();
    let change = |change: &AuditChange| {
        json!({
            "kind": change.kind, "id": change.id, "account_line": change.account_line,
            "before": change.before, "after": change.after,
        })
    };
    json!({
        "format": record.format, "sequence": record.sequence, "unix_ms": record.unix_ms,
        "actor": { "credential_id": actor.credential_id, "role": actor.role, "account_line": actor.account_line },
        "action": record.action, "outcome": outcome(record.outcome()),
        "changes": record.changes.iter().map(change).collect::<Vec<_>>(),
        "previous_hash": hex(&record.previous_hash), "hash": hex(&record.hash),
    })
}

/// The word for what became of what was asked for.
pub fn outcome(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Unspecified => "unspecified",
        AuditOutcome::Done => "done",
        AuditOutcome::Denied => "denied",
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _writing_to_a_string_works = write!(text, "{byte:02x}");
        text
    })
}

fn role(role: proto::Role) -> &'static str {
    Role::from_proto(role).map_or("unspecified", Role::as_str)
}

/// No time at all rather than the year 1970.
fn time(unix_ms: i64) -> Option<i64> {
    Some(unix_ms).filter(|ms| *ms != 0)
}
