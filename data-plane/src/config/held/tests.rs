//! Differences against whole contents, whatever is refused or delivered again.

use proptest::prelude::*;
use proxyxai_core::{account::key::KeyDigest, snapshot::ResourceKind};
use proxyxai_proto::config::v1::{Account, VirtualKey, resource::Kind};

use super::*;
use crate::config::sample;

mod million;

fn view() -> View {
    View {
        deployment: "d".into(),
        pepper: Pepper::new([7; 32]),
        keyed: false,
    }
}

fn version(revision: u64) -> Version {
    Version {
        generation: 1,
        revision,
    }
}

fn key_of(account: &str, id: u8, terms: bool) -> Change {
    let key = VirtualKey {
        account_id: account.into(),
        expires_unix_ms: if terms { 9_000 } else { 0 },
        ..sample::virtual_key(&format!("k{id}"), id)
    };
    Change::Upsert(Arc::new(sample::resource(Kind::VirtualKey(key))))
}

fn account(id: u8) -> Change {
    Change::Upsert(Arc::new(sample::resource(Kind::Account(Account {
        id: format!("a{id}"),
        name: format!("n{id}"),
        parent_id: "root".into(),
        ..Account::default()
    }))))
}

fn held() -> (Held, Content) {
    let mut held = Held::new(ConfigHandle::default(), watch::Sender::new(None));
    let content: Content = sample::resources(&["a"])
        .into_iter()
        .map(Arc::new)
        .collect();
    held.replace(version(1), content.digest(), incoming(&content), &view())
        .unwrap();
    (held, content)
}

fn incoming(content: &Content) -> Incoming {
    let mut incoming = Incoming::default();
    content
        .iter()
        .for_each(|(_, resource)| incoming.add(Arc::clone(resource)));
    incoming
}

fn assert_holds(held: &Held, expected: &Content) -> Result<(), TestCaseError> {
    prop_assert_eq!(held.digest(), expected.digest());
    let pinned = held.config.current();
    let keys = expected.of_kind(ResourceKind::VirtualKey);
    prop_assert_eq!(pinned.snapshot.keys.len(), keys.count());
    // Those with terms are in both.
    let kept: Vec<_> = held.rest.of_kind(ResourceKind::VirtualKey).collect();
    prop_assert!(kept.iter().all(|key| !in_table_alone(key)));
    let with_terms = expected.of_kind(ResourceKind::VirtualKey);
    prop_assert_eq!(
        kept.len(),
        with_terms.filter(|key| !in_table_alone(key)).count()
    );
    let published = held.published.borrow().clone().unwrap();
    prop_assert_eq!(published.rest.len(), held.rest.len());
    prop_assert_eq!(published.pinned.snapshot.version, pinned.snapshot.version);
    Ok(())
}

proptest! {
    #[test]
    fn law_10_a_refused_difference_changes_nothing(steps in prop::collection::vec((0_u8..6, 0_u8..6, any::<bool>()), 1..20)) {
        let (mut held, mut content) = held();
        for (number, (id, what, terms)) in (2..).zip(steps) {
            let (changes, flaw) = match what {
                0 => (vec![key_of("root", id, terms)], false),
                1 => (vec![Change::Remove(ResourceName { kind: ResourceKind::VirtualKey, id: sample::virtual_key(&format!("k{id}"), id).id })], false),
                2 => (vec![key_of("nowhere", id, terms)], true),
                3 => (vec![key_of(&format!("a{id}"), id, terms), account(id)], false),
                4 => (vec![account(id), key_of("nowhere", id, terms)], true),
                _ => (vec![key_of("root", id, terms)], true),
            };
            let mut then = content.clone();
            changes.iter().cloned().for_each(|change| then.apply(change));
            let digest = if what == 5 { Digest([9; 32]) } else { then.digest() };
            let result = held.advance(version(number), digest, &changes, &view());
            prop_assert_eq!(result.is_err(), flaw);
            if !flaw {
                content = then;
            }
            assert_holds(&held, &content)?;
        }
        // The same by one difference from the start, by a whole content, and by one difference delivered twice.
        let (mut other, first) = self::held();
        let changes = first.diff(&content);
        other.advance(version(90), content.digest(), &changes, &view()).unwrap();
        assert_holds(&other, &content)?;
        other.replace(version(91), content.digest(), incoming(&content), &view()).unwrap();
        assert_holds(&other, &content)?;
        other.advance(version(92), content.digest(), &changes, &view()).unwrap();
        assert_holds(&other, &content)?;
    }
}

#[test]
fn another_pepper_keys_digests_anew() {
    let (held, _) = held();
    let before = held.config.current().digest("x");
    held.use_pepper(&Pepper::new([8; 32]), &"d".into());
    let after = held.config.current().digest("x");
    assert_ne!(before, after);
    assert_eq!(after, Some(Pepper::new([8; 32]).digest("x")));
    assert_eq!(
        held.config.current().snapshot.keys.get(&KeyDigest([1; 16])),
        None
    );
}
