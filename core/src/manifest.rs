//! A manifest: what files say that the configuration should be. What its objects are called, in which order they are made, and what can
//! be seen to be wrong with it without a look at what is in force.
//!
//! Invariant: two objects that mean the same have the same [`normal`] form.

mod check;

use proxyxai_proto::{
    admin::v1::{ManifestObject, manifest_object::Kind},
    config::v1::SwitchOver,
};

pub use check::{Wrong, check};

use crate::{route::base_url::BaseUrl, snapshot::ResourceKind};

/// Names an object as people do. Ordered as exports are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// What it is.
    pub kind: ResourceKind,
    /// The path of an account; account and name of a virtual key, and its id where that is given; the id of everything else.
    pub name: String,
}

/// The name of an object; `None` when it is of a kind that this program does not know.
pub fn named(object: &ManifestObject) -> Option<Named> {
    let (kind, name) = match object.kind.as_ref()? {
        Kind::Account(it) => (ResourceKind::Account, it.path.clone()),
        Kind::Key(it) if it.id.is_empty() => (
            ResourceKind::VirtualKey,
            format!("{}/{}", it.account, it.name),
        ),
        Kind::Key(it) => (
            ResourceKind::VirtualKey,
            format!("{}/{} ({})", it.account, it.name, it.id),
        ),
        Kind::Provider(it) => (ResourceKind::Provider, it.id.clone()),
        Kind::UpstreamKey(it) => (ResourceKind::UpstreamKey, it.id.clone()),
        Kind::Route(it) => (ResourceKind::Route, it.id.clone()),
        Kind::PriceTable(it) => (ResourceKind::PriceTable, it.version.clone()),
    };
    Some(Named { kind, name })
}

/// The path of the account above the one at this path; `None` for the root.
pub fn parent(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once('/')
}

/// The object with what means the same said in one way.
pub fn normal(mut object: ManifestObject) -> ManifestObject {
    match &mut object.kind {
        Some(Kind::Provider(it)) => {
            if let Ok(base) = BaseUrl::parse(&it.base_url) {
                it.base_url = base.to_string();
            }
        }
        Some(Kind::UpstreamKey(it)) => it.weight = it.weight.max(1),
        Some(Kind::Route(it)) if it.switch_over == i32::from(SwitchOver::Unspecified) => {
            it.switch_over = SwitchOver::Exhausted.into();
        }
        Some(Kind::Route(_) | Kind::Account(_) | Kind::Key(_) | Kind::PriceTable(_)) | None => {}
    }
    object
}

/// When an object is made: those with a lower number first, so that what it names is there. Those of one number do not name each other.
pub fn rank(object: &ManifestObject) -> usize {
    match &object.kind {
        Some(Kind::Account(it)) => it.path.matches('/').count(),
        Some(Kind::Provider(_)) | None => 0,
        Some(Kind::Key(_) | Kind::UpstreamKey(_) | Kind::Route(_) | Kind::PriceTable(_)) => {
            usize::MAX
        }
    }
}

/// The field that names objects of a kind.
pub fn name_field(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Account => "path",
        ResourceKind::VirtualKey => "name",
        ResourceKind::Provider | ResourceKind::UpstreamKey | ResourceKind::Route => "id",
        ResourceKind::PriceTable => "version",
    }
}
