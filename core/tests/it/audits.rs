//! The audit trail: what a tampered chain is told, and that no secret gets into a description.

use proptest::prelude::*;
use prost::Message as _;
use proxyxai_core::audit::{
    chain::{Fault, Mark, Verdict, Verifier},
    describe::Schema,
    hash, sealed, seen,
};
use proxyxai_proto::{
    admin::v1::{AuditActor, AuditChange, AuditOutcome, AuditRecord, Role},
    config::v1::{Account, PriceTable, UpstreamKey, VirtualKey},
    store::v1::StoredCredential,
};

fn chain(length: u64) -> Vec<AuditRecord> {
    let mut records: Vec<AuditRecord> = Vec::new();
    let mut last = Mark::START;
    for sequence in 1..=length {
        let record = AuditRecord {
            sequence,
            unix_ms: 1000 + i64::try_from(sequence).unwrap(),
            action: "CreateAccount".into(),
            outcome: AuditOutcome::Done.into(),
            actor: Some(AuditActor {
                credential_id: "admin".into(),
                role: "root".into(),
                account_line: vec!["root".into()],
            }),
            changes: vec![AuditChange {
                kind: "account".into(),
                id: format!("acct-{sequence}"),
                account_line: vec!["root".into(), format!("acct-{sequence}")],
                before: String::new(),
                after: format!(r#"{{"id":"acct-{sequence}"}}"#),
            }],
            ..AuditRecord::default()
        };
        let record = sealed(record, last.hash);
        last = mark(&record);
        records.push(record);
    }
    records
}

fn mark(record: &AuditRecord) -> Mark {
    Mark {
        sequence: record.sequence,
        hash: record.hash.as_slice().try_into().unwrap(),
    }
}

fn verify(anchor: Mark, records: &[AuditRecord], head: Mark) -> Verdict {
    let mut verifier = Verifier::new(anchor, head);
    records.iter().for_each(|record| verifier.take(record));
    verifier.finish()
}

/// Changes a chain of ten, and says what is to be found.
fn check(what: &str, change: impl Fn(&mut Vec<AuditRecord>), want: &[Fault]) {
    let mut records = chain(10);
    let head = mark(&records[9]);
    change(&mut records);
    assert_eq!(verify(Mark::START, &records, head).faults, want, "{what}");
}

#[test]
fn a_tampered_chain_is_told_which_record_it_was() {
    use Fault::{Added, Edited, Missing, NewFormat, Reordered, Replaced};
    check("nothing", |_| {}, &[]);
    check(
        "another action",
        |r| r[3].action = "DeleteAccount".into(),
        &[Edited(4)],
    );
    check("another time", |r| r[0].unix_ms += 1, &[Edited(1)]);
    check("the last one", |r| r[9].changes.clear(), &[Edited(10)]);
    check("another link", |r| r[4].previous_hash[0] ^= 1, &[Edited(5)]);
    check("another hash", |r| r[4].hash[0] ^= 1, &[Edited(5)]);
    check("no hash", |r| r[4].hash.clear(), &[Edited(5)]);
    let forge = |r: &mut Vec<AuditRecord>, at: usize| {
        r[at].actor.get_or_insert_default().credential_id = "other".into();
        r[at].hash = hash(&r[at]).to_vec();
    };
    check("edited with its hash", |r| forge(r, 3), &[Replaced(4)]);
    check(
        "the last one with its hash",
        |r| forge(r, 9),
        &[Replaced(10)],
    );
    check("one gone", |r| drop(r.remove(6)), &[Missing(7)]);
    check("the first one gone", |r| drop(r.remove(0)), &[Missing(1)]);
    check("the last one gone", |r| drop(r.pop()), &[Missing(10)]);
    check(
        "all gone",
        Vec::clear,
        &(1..=10).map(Missing).collect::<Vec<_>>(),
    );
    check("two swapped", |r| r.swap(4, 5), &[Reordered(5)]);
    check(
        "one moved to the end",
        |r| {
            let one = r.remove(2);
            r.push(one);
        },
        &[Reordered(3)],
    );
    check("one twice", |r| r.insert(5, r[2].clone()), &[Reordered(3)]);
    check(
        "one more",
        |r| {
            r.push(AuditRecord {
                sequence: 11,
                ..r[9].clone()
            })
        },
        &[Edited(11), Added(11)],
    );
    check("of the future", |r| r[1].format = 2, &[NewFormat(2, 2)]);
    check(
        "numbers moved up to hide that one is gone",
        |r| {
            r.remove(6);
            r[6..].iter_mut().for_each(|record| record.sequence -= 1);
        },
        &[Edited(7), Edited(8), Edited(9), Missing(10)],
    );
}

#[test]
fn a_pruned_chain_holds_from_its_anchor() {
    let records = chain(10);
    let (anchor, head) = (mark(&records[3]), mark(&records[9]));
    assert!(verify(anchor, &records[4..], head).faults.is_empty());
    assert_eq!(
        verify(anchor, &records[5..], head).faults,
        [Fault::Missing(5)]
    );
    let other = Mark {
        hash: [1; 32],
        ..anchor
    };
    assert_eq!(
        verify(other, &records[4..], head).faults,
        [Fault::Replaced(4)]
    );
    assert!(verify(head, &[], head).faults.is_empty());
    assert!(verify(Mark::START, &[], Mark::START).faults.is_empty());
    let far = Mark {
        sequence: 1_000_000,
        ..head
    };
    let verdict = verify(Mark::START, &[], far);
    assert_eq!(
        (verdict.faults.len(), verdict.more_missing),
        (1000, 999_000)
    );
}

#[test]
fn a_chain_that_was_rewritten_as_a_whole_is_told_by_a_record_known_before() {
    let records = chain(10);
    let head = mark(&records[9]);
    let check = |anchor: Mark, known: Mark, want: &[Fault]| {
        let mut verifier = Verifier::new(anchor, head).knowing(Some(known));
        records[usize::try_from(anchor.sequence).unwrap()..]
            .iter()
            .for_each(|record| verifier.take(record));
        assert_eq!(verifier.finish().faults, want, "{known:?}");
    };
    let other = |sequence| Mark {
        sequence,
        hash: [1; 32],
    };
    check(Mark::START, mark(&records[4]), &[]);
    check(Mark::START, head, &[]);
    check(Mark::START, other(5), &[Fault::Unlike(5)]);
    check(Mark::START, other(12), &[Fault::Missing(12)]);
    check(mark(&records[3]), mark(&records[3]), &[]);
    check(mark(&records[3]), other(4), &[Fault::Unlike(4)]);
    check(mark(&records[3]), mark(&records[1]), &[Fault::Pruned(2)]);
}

proptest! {
    /// Any one bit of any one record: it is named.
    #[test]
    fn any_changed_bit_is_found(at in 0_usize..10, bit in any::<prop::sample::Index>()) {
        let mut records = chain(10);
        let head = mark(&records[9]);
        let mut bytes = records[at].encode_to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = AuditRecord::decode(bytes.as_slice()) {
            // What a decoder passes over changes nothing that the record says.
            prop_assume!(changed != records[at]);
            records[at] = changed;
            prop_assert!(!verify(Mark::START, &records, head).faults.is_empty());
        }
    }
}

#[test]
fn a_caller_sees_of_a_record_what_is_in_its_subtree() {
    let change = |id: &str, line: &[&str]| AuditChange {
        id: id.into(),
        account_line: line.iter().map(ToString::to_string).collect(),
        ..AuditChange::default()
    };
    let record = AuditRecord {
        actor: Some(AuditActor {
            credential_id: "boss".into(),
            role: "admin".into(),
            account_line: vec!["root".into(), "a".into()],
        }),
        changes: vec![
            change("one", &["root", "a", "b"]),
            change("two", &["root", "a", "c"]),
            change("three", &[]),
        ],
        ..AuditRecord::default()
    };
    let check = |under: &str, top: &str, want: Option<(&[&str], &str)>| {
        let seen = seen(&record, under, top);
        let ids: Option<Vec<String>> = seen.as_ref().map(|seen| {
            seen.changes
                .iter()
                .map(|change| change.id.clone())
                .collect()
        });
        let by = seen.and_then(|seen| seen.actor).unwrap_or_default();
        let want_ids = want.map(|(ids, _)| ids.iter().map(ToString::to_string).collect());
        assert_eq!(ids, want_ids, "{under} from {top}");
        assert_eq!(
            by.credential_id,
            want.map_or("", |(_, by)| by),
            "{under} from {top}"
        );
        assert_eq!(by.account_line.is_empty(), by.credential_id.is_empty());
    };
    check("b", "b", Some((&["one"], "")));
    check("c", "a", Some((&["two"], "boss")));
    check("a", "a", Some((&["one", "two"], "boss")));
    check("root", "root", Some((&["one", "two"], "boss")));
    check("d", "d", None);
}

fn schema() -> Schema {
    Schema::read(proxyxai_proto::DESCRIPTORS).unwrap()
}

#[test]
fn a_description_has_every_field_and_no_secret() {
    let schema = schema();
    let check =
        |message: &str, before: Option<Vec<u8>>, after: Option<Vec<u8>>, want: (&str, &str)| {
            let (before, after) = schema
                .change(message, before.as_deref(), after.as_deref())
                .unwrap();
            assert_eq!((before.as_str(), after.as_str()), want, "{message}");
        };
    let account = Account {
        id: "a".into(),
        parent_id: "root".into(),
        name: "team \"x\"".into(),
        suspended: true,
        allowed_models: vec!["gpt-*".into(), "o3".into()],
        ..Account::default()
    };
    check(
        "proxyxai.config.v1.Account",
        None,
        Some(account.encode_to_vec()),
        (
            "",
            r#"{"allowed_models":["gpt-*","o3"],"id":"a","name":"team \"x\"","parent_id":"root","suspended":true}"#,
        ),
    );
    let key = |secret: &str| UpstreamKey {
        id: "uk".into(),
        secret: secret.as_bytes().to_vec(),
        ..UpstreamKey::default()
    };
    check(
        "proxyxai.config.v1.UpstreamKey",
        Some(key("sk-one").encode_to_vec()),
        Some(key("sk-two").encode_to_vec()),
        (
            r#"{"id":"uk","secret":"(withheld)"}"#,
            r#"{"id":"uk","secret":"(withheld, changed)"}"#,
        ),
    );
    check(
        "proxyxai.config.v1.UpstreamKey",
        Some(key("sk-one").encode_to_vec()),
        Some(key("sk-one").encode_to_vec()),
        (
            r#"{"id":"uk","secret":"(withheld)"}"#,
            r#"{"id":"uk","secret":"(withheld)"}"#,
        ),
    );
    let credential = StoredCredential {
        id: "c".into(),
        role: Role::Viewer.into(),
        expires_unix_ms: -5,
        digest: b"digest".to_vec(),
        ..StoredCredential::default()
    };
    check(
        "proxyxai.store.v1.StoredCredential",
        Some(credential.encode_to_vec()),
        None,
        (
            r#"{"digest":"(withheld)","expires_unix_ms":-5,"id":"c","role":"ROLE_VIEWER"}"#,
            "",
        ),
    );
    let long = Account {
        name: "x".repeat(5000),
        ..account
    };
    let (_, text) = schema
        .change(
            "proxyxai.config.v1.Account",
            None,
            Some(&long.encode_to_vec()),
        )
        .unwrap();
    assert!(
        text.starts_with(r#"{"blake3":"#) && text.len() < 200,
        "{text}"
    );
    assert!(
        schema
            .change("proxyxai.config.v1.Nothing", None, Some(&[]))
            .is_err()
    );
    assert!(
        schema
            .change("proxyxai.config.v1.Account", None, Some(&[255]))
            .is_err()
    );
}

proptest! {
    #[test]
    fn law_21_no_secret_is_described(secret in "[a-z0-9]{16,40}", old in "[a-z0-9]{16,40}") {
        let key = |secret: &str| UpstreamKey { id: "k".into(), secret: secret.into(), ..UpstreamKey::default() };
        let virtual_key = |digest: &str| VirtualKey { id: "v".into(), digest: digest.into(), ..VirtualKey::default() };
        let prices = |content: &str| PriceTable { version: "1".into(), content: content.into(), ..PriceTable::default() };
        let credential = |digest: &str| StoredCredential { id: "c".into(), digest: digest.into(), ..StoredCredential::default() };
        for (message, before, after) in [
            ("config.v1.UpstreamKey", key(&old).encode_to_vec(), key(&secret).encode_to_vec()),
            ("config.v1.VirtualKey", virtual_key(&old).encode_to_vec(), virtual_key(&secret).encode_to_vec()),
            ("config.v1.PriceTable", prices(&old).encode_to_vec(), prices(&secret).encode_to_vec()),
            ("store.v1.StoredCredential", credential(&old).encode_to_vec(), credential(&secret).encode_to_vec()),
        ] {
            let (before, after) = schema().change(&format!("proxyxai.{message}"), Some(&before), Some(&after)).unwrap();
            let told = format!("{before}{after}");
            prop_assert!(!told.contains(&secret) && !told.contains(&old), "{}", told);
        }
    }

    #[test]
    fn describing_never_breaks(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let schema = schema();
        for message in ["Account", "VirtualKey", "Provider", "UpstreamKey", "Route"] {
            let _either = schema.change(&format!("proxyxai.config.v1.{message}"), None, Some(&bytes));
        }
    }
}
