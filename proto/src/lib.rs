//! The wire contract of ProxyXAI: what is generated from `proxyxai/**/*.proto`, and nothing else.
//!
//! Messages come always; clients and servers only with the feature `services`, which the pure
//! crate `proxyxai-core` never enables.

#![expect(clippy::all, clippy::pedantic, reason = "generated code")]

/// Messages and services of configuration and its way to the nodes.
pub mod config {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/proxyxai.config.v1.rs"));
    }
}

/// Messages and services of usage and its way to the control plane.
pub mod usage {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/proxyxai.usage.v1.rs"));
    }
}

/// Messages and services of administration.
pub mod admin {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/proxyxai.admin.v1.rs"));
    }
}

/// Messages and services by which a node joins a deployment, and what a node keeps on its disk.
pub mod node {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/proxyxai.node.v1.rs"));
    }
}

/// What the control plane keeps in its store.
pub mod store {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/proxyxai.store.v1.rs"));
    }
}

/// Prints messages that carry a secret by their name alone.
macro_rules! unprintable {
    ($($message:path),* $(,)?) => {$(
        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), " { … }"))
            }
        }
    )*};
}

unprintable!(
    config::v1::UpstreamKey,
    config::v1::ServerHello,
    node::v1::ConfigCopy,
    admin::v1::CreateUpstreamKeyRequest,
    admin::v1::UpdateUpstreamKeyRequest,
    admin::v1::CreateKeyResponse,
    admin::v1::CreateJoinTokenResponse,
    node::v1::JoinRequest,
    node::v1::JoinResponse,
    node::v1::RenewRequest,
    admin::v1::CreateCredentialResponse,
    admin::v1::RotateCredentialResponse,
    store::v1::StoredCredential,
    admin::v1::RotateKeyResponse,
    admin::v1::ManifestUpstreamKey,
    admin::v1::CreatedKey,
);

/// The encoded `FileDescriptorSet` of all protos, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
