//! Virtual keys and sealed secrets.

use proptest::prelude::*;
use proxyxai_core::{
    account::key::{InvalidKey, Pepper, generate, parse},
    secret::{
        ExposeSecret as _,
        seal::{SealError, SealKey, open, seal, sealed_by, unwrap_key, wrap},
    },
};

fn seed() -> impl Strategy<Value = [u8; 64]> {
    prop::collection::vec(any::<u8>(), 64).prop_map(|bytes| bytes.try_into().unwrap())
}

proptest! {
    #[test]
    fn a_key_reads_back(seed in seed()) {
        let key = generate(seed);
        let text = key.text.expose_secret().to_owned();
        prop_assert_eq!(text.len(), 58);
        prop_assert_eq!(parse(&text).unwrap().id(), key.id.as_str());
        let shown = format!("{:?}", parse(&text).unwrap());
        prop_assert!(!shown.contains(&text[20..]), "a key must not be printed");
    }

    #[test]
    fn every_wrong_character_is_noticed(seed in seed(), at in 8_usize..58, other in "[0-9A-Za-z]") {
        let text = generate(seed).text.expose_secret().to_owned();
        prop_assume!(text[at..=at] != other);
        let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        prop_assert_eq!(parse(&wrong).unwrap_err(), InvalidKey::Tag);
    }

    #[test]
    fn parsing_never_breaks(text in "\\PC*") {
        let _ = parse(&text);
        let _ = parse(&format!("sk-pxai-{text}"));
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone(secret in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (key, other) = (SealKey::new([1; 32]), SealKey::new([2; 32]));
        let sealed = seal(&key, [3; 32], b"cfg/upstream_key/a", &secret).unwrap();
        prop_assert_eq!(&*open(&key, b"cfg/upstream_key/a", &sealed).unwrap(), &secret);
        prop_assert_eq!(open(&key, b"cfg/upstream_key/b", &sealed).unwrap_err(), SealError::Content);
        let other_key = matches!(open(&other, b"cfg/upstream_key/a", &sealed), Err(SealError::OtherKey { .. }));
        prop_assert!(other_key);
        let mut broken = sealed.clone();
        *flip.get_mut(&mut broken) ^= 1 << bit;
        prop_assert!(open(&key, b"cfg/upstream_key/a", &broken).is_err());
        let cut = flip.index(sealed.len());
        prop_assert!(open(&key, b"cfg/upstream_key/a", &sealed[..cut]).is_err());
    }
}

#[test]
fn a_key_is_sealed_under_another_and_names_it() {
    let (under, key) = (SealKey::new([1; 32]), SealKey::new([2; 32]));
    let sealed = wrap(&under, [3; 32], b"ring", &key).unwrap();
    assert_eq!(sealed_by(&sealed), Ok(under.id()));
    assert_eq!(unwrap_key(&under, b"ring", &sealed).unwrap().id(), key.id());
    let refused = |under: &SealKey, place: &[u8], sealed: &[u8]| {
        unwrap_key(under, place, sealed)
            .map(|key| key.id())
            .unwrap_err()
    };
    assert_eq!(refused(&under, b"other", &sealed), SealError::Content);
    let other = refused(&key, b"ring", &sealed);
    assert!(matches!(other, SealError::OtherKey { .. }), "{other}");
    let no_key = seal(&under, [4; 32], b"ring", b"too short for a key").unwrap();
    assert_eq!(refused(&under, b"ring", &no_key), SealError::Format);
    for cut in [
        &sealed[..0],
        &sealed[..4],
        &sealed[..11],
        b"PXS2 and something",
    ] {
        assert_eq!(sealed_by(cut), Err(SealError::Format));
    }
}

#[test]
fn a_digest_depends_on_the_pepper() {
    let (one, other) = (Pepper::new([1; 32]), Pepper::new([2; 32]));
    assert_eq!(one.digest("sk-pxai-a"), one.digest("sk-pxai-a"));
    assert_ne!(one.digest("sk-pxai-a"), one.digest("sk-pxai-b"));
    assert_ne!(one.digest("sk-pxai-a"), other.digest("sk-pxai-a"));
    assert_eq!(format!("{one:?}"), "Pepper(…)");
}
