//! A small configuration for tests: one account, one provider, one upstream key, and routes by id.

use proxyxai_proto::config::v1::{self as proto, resource::Kind};

/// Wraps a kind.
pub(crate) fn resource(kind: Kind) -> proto::Resource {
    proto::Resource { kind: Some(kind) }
}

/// The upstream key `up-1` with this secret in plain.
pub(crate) fn upstream_key(secret: &[u8]) -> proto::Resource {
    resource(Kind::UpstreamKey(proto::UpstreamKey {
        id: "up-1".into(),
        provider_id: "sim".into(),
        disabled: false,
        secret: secret.to_vec(),
        ..proto::UpstreamKey::default()
    }))
}

/// The root account.
pub(crate) fn root() -> proto::Account {
    proto::Account {
        id: "root".into(),
        name: "root".into(),
        ..proto::Account::default()
    }
}

/// A virtual key of the root account; `digest` is one byte sixteen times.
pub(crate) fn virtual_key(id: &str, digest: u8) -> proto::VirtualKey {
    proto::VirtualKey {
        id: format!("{id:x<12}"),
        account_id: "root".into(),
        name: id.into(),
        digest: vec![digest; 16],
        ..proto::VirtualKey::default()
    }
}

/// A whole configuration.
pub(crate) fn resources(routes: &[&str]) -> Vec<proto::Resource> {
    let provider = proto::Provider {
        id: "sim".into(),
        kind: proto::ProviderKind::Openai.into(),
        base_url: "https://api.openai.com".into(),
        ..proto::Provider::default()
    };
    let mut all = vec![
        resource(Kind::Account(root())),
        resource(Kind::Provider(provider)),
        upstream_key(b"sk-upstream"),
    ];
    all.extend(routes.iter().map(|id| {
        resource(Kind::Route(proto::Route {
            id: (*id).into(),
            model: format!("{id}-*"),
            provider_ids: vec!["sim".into()],
            ..proto::Route::default()
        }))
    }));
    all
}
