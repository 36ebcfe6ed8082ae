//! The table against a plain map, and what a change costs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proxyxai_proto::config::v1::Account;

use super::*;
use crate::account::tree::AccountTree;

fn tree(ids: &[&str]) -> AccountTree {
    let accounts: Vec<Account> = ids
        .iter()
        .map(|id| Account {
            id: (*id).to_owned(),
            name: (*id).to_owned(),
            parent_id: if *id == "root" {
                String::new()
            } else {
                "root".to_owned()
            },
            ..Account::default()
        })
        .collect();
    AccountTree::build(&accounts).unwrap()
}

fn id(number: u16) -> KeyId {
    KeyId::new(&format!("key{number:09}")).unwrap()
}

fn record(number: u16, account: u32) -> KeyRecord {
    KeyRecord {
        id: id(number),
        account: AccountIndex(account),
        disabled: account.is_multiple_of(2),
        has_terms: false,
    }
}

fn hash(number: u16) -> Digest {
    Digest([number.to_le_bytes()[0]; 32])
}

/// Spread like hashes, or all in few shards, by the seed.
fn digest(number: u16, dense: bool) -> KeyDigest {
    let mut bytes = *blake3::hash(&number.to_le_bytes())
        .as_bytes()
        .first_chunk::<16>()
        .unwrap();
    if dense {
        bytes[..4].fill(7);
    }
    KeyDigest(bytes)
}

proptest! {
    #[test]
    fn a_table_equals_a_plain_map(
        first in prop::collection::btree_set(0_u16..500, 0..300),
        steps in prop::collection::vec((0_u16..500, any::<bool>()), 0..80),
        dense in any::<bool>(),
    ) {
        let accounts = tree(&["root", "a", "b"]);
        let mut builder = KeyTableBuilder::default();
        let (mut model, mut sum) = (BTreeMap::new(), Digest::default());
        for number in first {
            let account = u32::from(number % 3);
            let at = builder.account(accounts.id(AccountIndex(account)));
            builder.push(digest(number, dense), KeyRecord { account: at, ..record(number, account) }, hash(number));
            model.insert(number, record(number, account));
            sum.add(hash(number));
        }
        let mut table = builder.finish(&accounts).unwrap();
        for (number, put) in steps {
            let before = table.clone();
            if put {
                let taken = table.insert(digest(number, dense), record(number, 1), hash(number));
                prop_assert_eq!(taken.is_err(), model.contains_key(&number));
                if taken.is_ok() {
                    model.insert(number, record(number, 1));
                    sum.add(hash(number));
                }
            } else {
                table.remove(&id(number));
                if model.remove(&number).is_some() {
                    sum.subtract(hash(number));
                }
            }
            prop_assert!(table.shards.copied(&before.shards) <= 1 && table.ids.copied(&before.ids) <= 1);
        }
        prop_assert_eq!((table.len(), table.sum()), (model.len(), sum));
        for number in 0..500 {
            let expected = model.get(&number).copied();
            prop_assert_eq!(table.get(&digest(number, dense)), expected);
            prop_assert_eq!(table.find(&id(number)), expected.map(|record| (digest(number, dense), record)));
        }
        prop_assert_eq!(table.rows().count(), model.len());
        prop_assert!(table.rows().map(|(digest, ..)| digest).is_sorted());
    }

    #[test]
    fn the_keys_of_each_account_are_counted(
        steps in prop::collection::vec((0_u16..60, 0_u32..5, any::<bool>()), 0..80),
    ) {
        let mut table = KeyTable::default();
        let mut model: BTreeMap<u16, u32> = BTreeMap::new();
        for (number, account, put) in steps {
            if put {
                if table.insert(digest(number, false), record(number, account), hash(number)).is_ok() {
                    model.insert(number, account);
                }
            } else {
                table.remove(&id(number));
                model.remove(&number);
            }
            for account in 0..5 {
                let expected = model.values().filter(|owner| **owner == account).count();
                let wanted = BTreeSet::from([AccountIndex(account)]);
                prop_assert_eq!(usize::try_from(table.owned(AccountIndex(account))).unwrap(), expected);
                prop_assert_eq!(table.of_accounts(&wanted).count(), expected);
            }
        }
    }
}

#[test]
fn keys_that_do_not_fit_are_named() {
    let mut builder = KeyTableBuilder::default();
    let (root, nowhere) = (builder.account("root"), builder.account("nowhere"));
    builder.push(
        digest(1, false),
        KeyRecord {
            account: root,
            ..record(1, 0)
        },
        hash(1),
    );
    builder.push(
        digest(1, false),
        KeyRecord {
            account: root,
            ..record(2, 0)
        },
        hash(2),
    );
    builder.push(
        digest(3, false),
        KeyRecord {
            account: nowhere,
            ..record(3, 0)
        },
        hash(3),
    );
    let mut faults = builder.finish(&tree(&["root"])).unwrap_err();
    faults.sort();
    let texts: Vec<String> = faults
        .iter()
        .map(|(id, why)| format!("{id:?} {why}"))
        .collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].ends_with("its digest is that of another key"),
        "{texts:?}"
    );
    assert_eq!(
        texts[1],
        "key000000003 its account `nowhere` does not exist"
    );
}
