//! Fingerprints of certificates: what a person compares, and what a client pins.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};

/// The name in the certificate of every control plane. Clients that pin the authority ask for this name, whatever the address
/// is that they dial, so that load balancers and moving addresses need no new certificate.
pub const CONTROL_PLANE_NAME: &str = "control-plane.proxyxai.internal";

/// SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this certificate.
    pub fn of(certificate_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes
            .iter_mut()
            .zip(digest(&SHA256, certificate_der).as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl serde::Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Takes `sha256:` and 64 hexadecimal digits; colons between them, as openssl prints them, are passed over.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let text = text.trim().to_ascii_lowercase();
        let digits: Vec<u8> = text
            .strip_prefix("sha256:")
            .unwrap_or(&text)
            .bytes()
            .filter(|byte| *byte != b':')
            .collect();
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidFingerprint);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let pair = str::from_utf8(pair).map_err(|_| InvalidFingerprint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

/// Not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a fingerprint is `sha256:` and 64 hexadecimal digits; the control plane prints its own at start"
)]
pub struct InvalidFingerprint;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_writes_and_what_openssl_writes() {
        let check = |text: &str, reads: bool| {
            assert_eq!(text.parse::<Fingerprint>().is_ok(), reads, "{text}");
        };
        // SHA-256 of nothing, as FIPS 180-4 has it.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let written = Fingerprint::of(b"").to_string();
        assert_eq!(written, format!("sha256:{empty}"));
        assert_eq!(written.parse(), Ok(Fingerprint::of(b"")));
        assert_eq!(empty.to_uppercase().parse(), Ok(Fingerprint::of(b"")));
        let with_colons: Vec<&str> = empty
            .as_bytes()
            .chunks(2)
            .map(|pair| str::from_utf8(pair).unwrap())
            .collect();
        check(&with_colons.join(":"), true);
        check("", false);
        check("sha256:", false);
        check(&empty[1..], false);
        check(&format!("{empty}00"), false);
        check(&empty.replace('e', "+"), false);
    }
}
