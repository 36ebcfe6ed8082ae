//! Who a node is, as its data directory keeps it (mode 0600): certificate, key, the secret for the next certificate, and whom it trusts.

use std::io;

use proxyxai_core::secret::{
    ExposeSecret as _, SecretString, fingerprint::Fingerprint, seal::SealKey,
};
use proxyxai_data_plane::enroll::Enrolled;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{failure::Failure, up::data::DataDir};

/// What the renewal secret, which stays the same for the life of a node, is derived for.
const COPY_KEY: &str = "proxyxai 2026 disk copy of the configuration of a node that joined";

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// A node that has joined.
pub(super) struct Identity {
    pub(super) enrolled: Enrolled,
    /// The authority that its control planes must be of.
    pub(super) authority: Fingerprint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    node_id: String,
    authority: String,
    /// PEM.
    certificates: String,
    key: Zeroizing<String>,
    since_unix_ms: i64,
    until_unix_ms: i64,
    renewal_secret: Zeroizing<String>,
}

impl Identity {
    /// The identity that the directory keeps, if the node has joined.
    pub(super) fn read(data: &DataDir) -> Result<Option<Self>, Failure> {
        let Some(text) = data.identity()? else {
            return Ok(None);
        };
        let whole = parse(text.expose_secret());
        whole.map(Some).ok_or_else(|| {
            Failure::failed(format!(
                "the file `{}` of the data directory is damaged; put it back from a backup, or delete it and give the node a new join token",
                crate::data::IDENTITY
            ))
        })
    }

    /// Seals the node's copy of its configuration.
    pub(super) fn copy_key(&self) -> SealKey {
        let secret = self.enrolled.renewal_secret.expose_secret();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
        let mut key = [0; 32];
        key.iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        SealKey::new(key).derive(COPY_KEY)
    }
}

fn parse(text: &str) -> Option<Identity> {
    let kept: Kept = serde_json::from_str(text).ok()?;
    let chain = pem::parse_many(kept.certificates.as_bytes()).ok()?;
    let key = pem::parse(kept.key.as_bytes()).ok()?;
    if chain.is_empty() || key.tag() != PRIVATE_KEY || kept.renewal_secret.is_empty() {
        return None;
    }
    Some(Identity {
        authority: kept.authority.parse().ok()?,
        enrolled: Enrolled {
            node_id: kept.node_id,
            key: Zeroizing::new(key.into_contents()),
            chain: chain.into_iter().map(pem::Pem::into_contents).collect(),
            held: (kept.since_unix_ms, kept.until_unix_ms),
            renewal_secret: kept.renewal_secret.as_str().into(),
        },
    })
}

/// Keeps what a node got.
pub(super) fn save(data: &DataDir, authority: Fingerprint, enrolled: &Enrolled) -> io::Result<()> {
    let certificates: String = enrolled
        .chain
        .iter()
        .map(|der| pem::encode(&pem::Pem::new(CERTIFICATE, der.clone())))
        .collect();
    let key = pem::encode(&pem::Pem::new(PRIVATE_KEY, enrolled.key.to_vec()));
    let text = serde_json::to_string(&Kept {
        node_id: enrolled.node_id.clone(),
        authority: authority.to_string(),
        certificates,
        key: Zeroizing::new(key),
        since_unix_ms: enrolled.held.0,
        until_unix_ms: enrolled.held.1,
        renewal_secret: Zeroizing::new(enrolled.renewal_secret.expose_secret().to_owned()),
    })?;
    data.write_identity(&SecretString::from(text))
        .map_err(|failure| io::Error::other(failure.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, parse};

    #[test]
    fn a_damaged_identity_is_none() {
        let pem = |tag: &str| pem::encode(&pem::Pem::new(tag, vec![1, 2, 3]));
        let whole = serde_json::json!({
            "node_id": "node-a", "authority": Fingerprint::of(b"x"), "certificates": pem("CERTIFICATE"),
            "key": pem("PRIVATE KEY"), "since_unix_ms": 1, "until_unix_ms": 2, "renewal_secret": "s",
        });
        let read = parse(&whole.to_string()).unwrap();
        assert_eq!(read.enrolled.node_id, "node-a");
        assert_eq!(read.enrolled.chain, [vec![1, 2, 3]]);
        let other = serde_json::json!({ "renewal_secret": "t" });
        let mut again = whole.clone();
        again["renewal_secret"] = other["renewal_secret"].clone();
        let again = parse(&again.to_string()).unwrap();
        assert_ne!(read.copy_key().id(), again.copy_key().id());
        for (field, bad) in [
            ("authority", "sha256:1"),
            ("certificates", ""),
            ("key", "no key"),
            ("renewal_secret", ""),
            ("unknown", "x"),
        ] {
            let mut damaged = whole.clone();
            damaged[field] = bad.into();
            assert!(parse(&damaged.to_string()).is_none(), "{field}");
        }
        assert!(parse("").is_none());
    }
}
