//! What of a change is no object: settings of the deployment. They go into the one write that raises the head, so that they come into force
//! with the rest of the change, and every replica and node takes them up at one version.

use prost::Message as _;
use proxyxai_proto::{admin::v1::AuditChange, store::v1::StoredSettings};

use super::State;
use crate::{
    audit::Trail,
    status::Fault,
    store::{Compare, Op, Txn, keyspace::Key},
};

/// What a change writes beside rows, and what the audit trail says of it.
#[derive(Default)]
pub(super) struct Beside {
    compares: Vec<Compare>,
    then: Vec<Op>,
    told: Vec<AuditChange>,
}

impl Beside {
    /// Other settings.
    pub(super) fn settings(
        trail: &Trail,
        state: &State,
        next: &StoredSettings,
    ) -> Result<Self, Fault> {
        let body = |stored: &StoredSettings| stored.settings.unwrap_or_default().encode_to_vec();
        let told = trail.change(
            ("settings", "deployment"),
            Vec::new(),
            "proxyxai.admin.v1.Settings",
            Some(&body(&state.settings)),
            Some(&body(next)),
        )?;
        let key = Key::Settings.to_string();
        Ok(Self {
            compares: vec![Compare::ModRevision(key.clone(), state.settings_revision)],
            then: [key, Key::GoodSettings.to_string()]
                .map(|key| Op::Put(key, next.encode_to_vec()))
                .into(),
            told: vec![told],
        })
    }

    /// Adds it to the write that raises the head; gives what the record says.
    pub(super) fn join(self, txn: &mut Txn) -> Vec<AuditChange> {
        txn.compares.extend(self.compares);
        txn.then.extend(self.then);
        self.told
    }
}
