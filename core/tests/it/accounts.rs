//! The subaccount tree.

use proptest::prelude::*;
use proxyxai_core::account::tree::{AccountIndex, AccountRefusal, AccountTree, MAX_DEPTH};
use proxyxai_proto::config::v1::Account;

/// Accounts of a random tree: each names an earlier one as its parent.
fn trees() -> impl Strategy<Value = Vec<Account>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..30).prop_map(|parents| {
        let mut accounts = vec![Account {
            id: "root".into(),
            name: "root".into(),
            ..Account::default()
        }];
        for (number, parent) in parents.into_iter().enumerate() {
            accounts.push(Account {
                id: format!("a{number}"),
                parent_id: accounts[parent.index(accounts.len())].id.clone(),
                name: format!("n{number}"),
                ..Account::default()
            });
        }
        accounts
    })
}

proptest! {
    #[test]
    fn paths_and_ids_find_what_they_name(accounts in trees()) {
        let Ok(tree) = AccountTree::build(&accounts) else { return Ok(()) };
        for at in tree.all() {
            if let Some(parent) = tree.line(at).nth(1) {
                prop_assert!(tree.in_subtree(at, parent) && !tree.in_subtree(parent, at));
            }
            prop_assert_eq!(tree.by_path(&tree.path(at)), Some(at));
            prop_assert_eq!(tree.get(tree.id(at)), Some(at));
        }
    }

    #[test]
    fn building_never_breaks(rows in prop::collection::vec(("[a-d]{0,2}", "[a-d]{0,2}", "\\PC{0,3}", "\\PC{0,4}"), 0..12)) {
        let accounts: Vec<Account> = rows.into_iter().map(|(id, parent_id, name, model)| {
            Account { id, parent_id, name, allowed_models: vec![model], ..Account::default() }
        }).collect();
        if let Ok(tree) = AccountTree::build(&accounts) {
            for at in tree.all() {
                prop_assert!(tree.line(at).count() <= MAX_DEPTH);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let account = |id: &str, parent: &str, name: &str| Account {
        id: id.into(),
        parent_id: parent.into(),
        name: name.into(),
        ..Account::default()
    };
    let root = account("root", "", "root");
    let check = |accounts: Vec<Account>, want: &str| {
        let faults = AccountTree::build(&accounts).err().unwrap_or_default();
        let text: Vec<String> = faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.id, fault.reason))
            .collect();
        assert!(
            text.iter().any(|line| line.contains(want)),
            "{text:?} does not say {want:?}"
        );
    };
    check(
        vec![root.clone(), account("a", "b", "x")],
        "a: its parent `b` does not exist",
    );
    check(
        vec![root.clone(), account("a", "b", "x"), account("b", "a", "y")],
        "leads back to itself",
    );
    check(
        vec![root.clone(), account("a", "", "x")],
        "only the root account has no parent",
    );
    check(
        vec![
            root.clone(),
            account("a", "root", "x"),
            account("b", "root", "x"),
        ],
        "b: a sibling is named `x` already",
    );
    check(
        vec![root.clone(), account("a", "root", "x/y")],
        "a: a name has 1 to 63 characters",
    );
    check(vec![account("root", "a", "root")], "keeps its name");
    let mut deep = vec![root];
    for depth in 0..MAX_DEPTH {
        let parent = deep[depth].id.clone();
        deep.push(account(&format!("d{depth:02}"), &parent, "d"));
    }
    check(deep.clone(), "deeper than 32");
    deep.pop();
    assert!(
        AccountTree::build(&deep).is_ok(),
        "a path of 32 accounts is allowed"
    );
}

#[test]
fn a_suspended_ancestor_stops_the_subtree_and_is_named() {
    let account = |id: &str, parent: &str, suspended| Account {
        id: id.into(),
        parent_id: parent.into(),
        name: id.into(),
        suspended,
        ..Account::default()
    };
    let tree = AccountTree::build(&[
        account("root", "", false),
        account("a", "root", true),
        account("b", "a", false),
    ])
    .unwrap();
    let b = tree.by_path("root/a/b").unwrap();
    assert_eq!(
        tree.active(b),
        Err(AccountRefusal::Suspended {
            path: "root/a".into()
        })
    );
    assert_eq!(tree.active(AccountIndex(99)), Err(AccountRefusal::Unknown));
}
