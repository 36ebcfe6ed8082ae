//! What an authority must be that somebody else made.

use rcgen::{KeyPair, PublicKeyData as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AuthorityError, Kept};

/// Refuses an authority that nobody would accept certificates of.
pub(super) fn check(given: &Kept, key: &KeyPair, now_unix_ms: i64) -> Result<(), AuthorityError> {
    let refuse = |why: &str| Err(AuthorityError(format!("the one that was given {why}")));
    let Ok((_, certificate)) = X509Certificate::from_der(&given.certificate) else {
        return refuse("is no certificate");
    };
    if *certificate.public_key().subject_public_key.data != *key.der_bytes() {
        return refuse("has another key than its certificate");
    }
    if !certificate.is_ca() {
        return refuse("is no authority: its certificate may not sign others");
    }
    let now = now_unix_ms.div_euclid(1000);
    if certificate.validity().not_after.timestamp() <= now {
        return refuse("has run out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa};
    use zeroize::Zeroizing;

    use super::*;
    use crate::authority::Authority;

    const NOW: i64 = 1_800_000_000_000;

    fn made(key: &KeyPair, is_ca: IsCa, year: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(key).unwrap().der().to_vec()
    }

    #[test]
    fn only_what_can_vouch_for_nodes_is_taken_up() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        let check = |certificate: Vec<u8>, key: &KeyPair, said: &str| {
            let given = Kept {
                certificate,
                key: Zeroizing::new(key.serialize_der()),
            };
            let took = Authority::take_up("dep", &given, NOW).map(|_| ());
            let took = took.map_or_else(|error| error.to_string(), |()| "taken up".to_owned());
            assert!(took.contains(said), "{took}");
        };
        check(made(&key, ca(), 2099), &key, "taken up");
        check(made(&key, ca(), 2099), &other, "another key");
        check(made(&key, IsCa::NoCa, 2099), &key, "no authority");
        check(made(&key, ca(), 2020), &key, "run out");
        check(b"no certificate".to_vec(), &key, "cannot do this");
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        check(made(&ed25519, ca(), 2099), &ed25519, "taken up");
    }
}
