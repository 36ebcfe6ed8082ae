//! A planned change as answers tell it: JSON of the object before and after, without secrets.

use prost::Message as _;
use proxyxai_core::audit::describe::Schema;
use proxyxai_proto::admin::v1::{
    ChangeAction, ManifestObject, ManifestUpstreamKey, ObjectChange, manifest_object::Kind,
};

use super::plan::Planned;
use crate::status::Fault;

impl Planned {
    /// What becomes of the object.
    pub(super) fn action(&self) -> ChangeAction {
        match (&self.target, &self.after) {
            (_, None) => ChangeAction::Delete,
            (None, Some(_)) => ChangeAction::Create,
            (Some(_), Some(_)) => ChangeAction::Update,
        }
    }

    /// As answers show it.
    pub(super) fn shown(&self, schema: &Schema) -> Result<ObjectChange, Fault> {
        let message = message_of(self.after.as_ref().or(self.before.as_ref()));
        let bytes = |object: &Option<ManifestObject>| object.as_ref().map(encoded);
        let (before, after) = (bytes(&self.before), bytes(&self.after));
        let (before, after) = schema
            .change(message, before.as_deref(), after.as_deref())
            .map_err(|error| Fault::Defect(error.to_string()))?;
        Ok(ObjectChange {
            action: self.action().into(),
            kind: self.named.kind.as_str().to_owned(),
            name: self.named.name.clone(),
            before,
            after,
        })
    }
}

fn message_of(object: Option<&ManifestObject>) -> &'static str {
    match object.and_then(|object| object.kind.as_ref()) {
        Some(Kind::Account(_)) => "proxyxai.admin.v1.ManifestAccount",
        Some(Kind::Key(_)) => "proxyxai.admin.v1.ManifestKey",
        Some(Kind::Provider(_)) => "proxyxai.admin.v1.ManifestProvider",
        Some(Kind::UpstreamKey(_)) => "proxyxai.admin.v1.ManifestUpstreamKey",
        Some(Kind::Route(_)) => "proxyxai.admin.v1.ManifestRoute",
        Some(Kind::PriceTable(_)) => "proxyxai.admin.v1.ManifestPriceTable",
        None => "",
    }
}

/// The message of its kind, without a secret.
fn encoded(object: &ManifestObject) -> Vec<u8> {
    match &object.kind {
        Some(Kind::Account(it)) => it.encode_to_vec(),
        Some(Kind::Key(it)) => it.encode_to_vec(),
        Some(Kind::Provider(it)) => it.encode_to_vec(),
        Some(Kind::UpstreamKey(it)) => {
            let told = ManifestUpstreamKey {
                secret: None,
                ..it.clone()
            };
            told.encode_to_vec()
        }
        Some(Kind::Route(it)) => it.encode_to_vec(),
        Some(Kind::PriceTable(it)) => it.encode_to_vec(),
        None => Vec::new(),
    }
}
