//! Compiles the protos with protox, so that nobody needs `protoc`.

use std::{env, fs, io, path::PathBuf};

use prost::Message as _;

const PROTOS: &[&str] = &[
    "proxyxai/config/v1/resource.proto",
    "proxyxai/config/v1/order.proto",
    "proxyxai/config/v1/config.proto",
    "proxyxai/usage/v1/usage.proto",
    "proxyxai/admin/v1/admin.proto",
    "proxyxai/admin/v1/join_token.proto",
    "proxyxai/node/v1/join.proto",
    "proxyxai/admin/v1/credential.proto",
    "proxyxai/admin/v1/audit.proto",
    "proxyxai/admin/v1/price.proto",
    "proxyxai/admin/v1/manifest.proto",
    "proxyxai/store/v1/stored.proto",
    "proxyxai/store/v1/credential.proto",
    "proxyxai/node/v1/copy.proto",
    "proxyxai/admin/v1/secret.proto",
    "proxyxai/admin/v1/backup.proto",
    "proxyxai/store/v1/keyring.proto",
    "proxyxai/store/v1/archive.proto",
    "proxyxai/admin/v1/node.proto",
    "proxyxai/admin/v1/log.proto",
    "proxyxai/store/v1/roster.proto",
    "proxyxai/store/v1/stage.proto",
    "proxyxai/admin/v1/settings.proto",
    "proxyxai/store/v1/settings.proto",
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proxyxai");
    let descriptors = protox::compile(PROTOS, ["."]).map_err(io::Error::other)?;
    let out = PathBuf::from(
        env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?,
    );
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let services = env::var_os("CARGO_FEATURE_SERVICES").is_some();
    // Messages that carry a secret are not printable by derive; `src/lib.rs` prints them without it.
    tonic_prost_build::configure()
        .skip_debug([
            "proxyxai.config.v1.UpstreamKey",
            "proxyxai.config.v1.ServerHello",
            "proxyxai.node.v1.ConfigCopy",
            "proxyxai.admin.v1.CreateUpstreamKeyRequest",
            "proxyxai.admin.v1.UpdateUpstreamKeyRequest",
            "proxyxai.admin.v1.CreateKeyResponse",
            "proxyxai.admin.v1.CreateJoinTokenResponse",
            "proxyxai.node.v1.JoinRequest",
            "proxyxai.node.v1.JoinResponse",
            "proxyxai.node.v1.RenewRequest",
            "proxyxai.admin.v1.CreateCredentialResponse",
            "proxyxai.admin.v1.RotateCredentialResponse",
            "proxyxai.store.v1.StoredCredential",
            "proxyxai.admin.v1.RotateKeyResponse",
            "proxyxai.admin.v1.ManifestUpstreamKey",
            "proxyxai.admin.v1.CreatedKey",
        ])
        // Usage passes as the bytes that stand in the files of the node, without a copy.
        .bytes(".proxyxai.usage.v1.ReportRequest")
        .build_client(services)
        .build_server(services)
        .build_transport(services)
        .compile_fds(descriptors)
}
