//! The data directory: what stands in it, and that only one process and one person use it.

/// The sealing key of everything in the store.
pub const KEY_ENCRYPTION_KEY: &str = "key-encryption-key";
/// The sealing key that is taken next.
pub const NEXT_KEY_ENCRYPTION_KEY: &str = "key-encryption-key.next";
/// What administrators show.
pub const ADMIN_CREDENTIAL: &str = "admin-credential";
/// The first virtual key, until it is rotated or deleted.
pub const FIRST_KEY: &str = "first-key";
/// What is shown to the ops port of a node that runs alone.
pub const OPS_CREDENTIAL: &str = "ops-credential";
/// Who a node that joined is: its certificate with its key, and the secret that gets it the next one.
pub const IDENTITY: &str = "node-identity.json";
/// The addresses of the running process.
pub const ADDRESSES: &str = "addresses.json";
/// The certificate of the authority that the gRPC port's own is signed by; no secret.
pub const AUTHORITY: &str = "authority.pem";
