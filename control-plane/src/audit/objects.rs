//! What a record says of the objects of the configuration, and whose each of them is.

use prost::Message as _;
use proxyxai_core::{
    account::tree::AccountTree,
    snapshot::{Change, Content, ResourceName},
};
use proxyxai_proto::{
    admin::v1::AuditChange,
    config::v1::{Resource, resource::Kind},
};

use super::Trail;
use crate::status::Fault;

impl Trail {
    /// What a record says of one change of the configuration, given the content and the tree before it, and the tree after it.
    pub(crate) fn config_change(
        &self,
        content: &Content,
        before_tree: &AccountTree,
        change: &Change,
        after_tree: &AccountTree,
    ) -> Result<AuditChange, Fault> {
        let (name, after) = match change {
            Change::Upsert(resource) => (ResourceName::of(resource), Some(resource.as_ref())),
            Change::Remove(name) => (Some(name.clone()), None),
        };
        let name = name.ok_or_else(|| Fault::Defect("a change without a name".to_owned()))?;
        let before = content.get(&name).map(AsRef::as_ref);
        let line = match (before, after) {
            (_, Some(after)) => line_of(after_tree, after),
            (Some(before), None) => line_of(before_tree, before),
            (None, None) => Vec::new(),
        };
        let (before, after) = (before.and_then(body), after.and_then(body));
        let message = after
            .as_ref()
            .or(before.as_ref())
            .map(|(message, _)| *message);
        let bytes = |body: Option<(&str, Vec<u8>)>| body.map(|(_, bytes)| bytes);
        self.change(
            (name.kind.as_str(), &name.id),
            line,
            message.unwrap_or_default(),
            bytes(before).as_deref(),
            bytes(after).as_deref(),
        )
    }
}

/// A resource as a message of its own: the message's name, and its bytes.
fn body(resource: &Resource) -> Option<(&'static str, Vec<u8>)> {
    Some(match resource.kind.as_ref()? {
        Kind::Account(it) => ("proxyxai.config.v1.Account", it.encode_to_vec()),
        Kind::VirtualKey(it) => ("proxyxai.config.v1.VirtualKey", it.encode_to_vec()),
        Kind::Provider(it) => ("proxyxai.config.v1.Provider", it.encode_to_vec()),
        Kind::UpstreamKey(it) => ("proxyxai.config.v1.UpstreamKey", it.encode_to_vec()),
        Kind::Route(it) => ("proxyxai.config.v1.Route", it.encode_to_vec()),
        Kind::PriceTable(it) => ("proxyxai.config.v1.PriceTable", it.encode_to_vec()),
    })
}

/// Ids of the accounts from the root to the one that a resource belongs to; none when it belongs to the whole deployment.
fn line_of(accounts: &AccountTree, resource: &Resource) -> Vec<String> {
    let account = match &resource.kind {
        Some(Kind::Account(account)) => &account.id,
        Some(Kind::VirtualKey(key)) => &key.account_id,
        Some(Kind::Provider(_) | Kind::UpstreamKey(_) | Kind::Route(_) | Kind::PriceTable(_))
        | None => return Vec::new(),
    };
    let at = accounts.get(account);
    at.map(|at| accounts.id_line(at)).unwrap_or_default()
}
