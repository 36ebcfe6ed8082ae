//! The subaccount tree.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proxyxai_core::account::{
    limits::Asked,
    tree::{AccountIndex, AccountRefusal, AccountTree, InvalidAccount, MAX_DEPTH},
};
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

/// One of a few accounts, below another one, with some lists; the first is the root.
fn account(number: u8, lists: Option<(u8, u8, bool)>) -> Account {
    let (parent, name, suspended) = lists.unwrap_or_default();
    let root = number == 0;
    Account {
        id: id(number),
        parent_id: if root { String::new() } else { id(parent) },
        name: if root {
            id(0)
        } else {
            format!("n{}", name % 4)
        },
        suspended,
        allowed_models: (name >= 4)
            .then(|| format!("m{}", name % 3))
            .into_iter()
            .collect(),
        ..Account::default()
    }
}

fn id(number: u8) -> String {
    match number {
        0 => "root".to_owned(),
        _ => format!("a{number}"),
    }
}

/// Changes of a few accounts at once: they come, go, move, and get other names and lists.
fn changes() -> impl Strategy<Value = Vec<(String, Option<Account>)>> {
    let lists = prop::option::weighted(0.8, (0_u8..12, 0_u8..12, any::<bool>()));
    prop::collection::vec((1_u8..12, lists), 1..6).prop_map(|changes| {
        let change = |(number, lists): (u8, Option<_>)| {
            (id(number), lists.map(|lists| account(number, Some(lists))))
        };
        changes.into_iter().map(change).collect()
    })
}

/// What a tree answers, by ids.
fn answers(tree: &AccountTree) -> Vec<String> {
    let of = |at: AccountIndex| {
        let permits = ["m0", "m1", "m2"].map(|model| tree.permits(at, &Asked::model(model)));
        let children: Vec<&str> = tree.children(at).map(|child| tree.id(child)).collect();
        let line = tree.id_line(at);
        assert_eq!(tree.by_path(&tree.path(at)), Some(at));
        format!(
            "{line:?} {} {children:?} {permits:?} {:?}",
            tree.path(at),
            tree.active(at)
        )
    };
    tree.all().map(of).collect()
}

fn faults(tree: Result<AccountTree, Vec<InvalidAccount>>) -> Option<Vec<(String, String)>> {
    let mut faults: Vec<_> = tree
        .err()?
        .into_iter()
        .map(|fault| (fault.id, fault.reason))
        .collect();
    faults.sort();
    Some(faults)
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
    fn law_9_a_step_leads_where_building_anew_does(steps in prop::collection::vec(changes(), 1..8)) {
        let mut accounts = BTreeMap::from([("root".to_owned(), account(0, None))]);
        let mut tree = AccountTree::build(accounts.values()).unwrap();
        for changes in steps {
            let mut next = accounts.clone();
            for (id, change) in &changes {
                match change {
                    Some(account) => next.insert(id.clone(), account.clone()),
                    None => next.remove(id),
                };
            }
            let stepped = tree.step(changes.iter().map(|(id, change)| (id.as_str(), change.as_ref())));
            match (stepped, AccountTree::build(next.values())) {
                (Ok(stepped), Ok(built)) => {
                    prop_assert_eq!(answers(&stepped), answers(&built));
                    for id in accounts.keys().filter(|id| next.contains_key(*id)) {
                        prop_assert_eq!(stepped.get(id), tree.get(id), "an account keeps its index");
                    }
                    for (place, id) in stepped.ids().enumerate().filter(|(_, id)| !id.is_empty()) {
                        prop_assert_eq!(stepped.get(id).map(|at| at.0), u32::try_from(place).ok());
                    }
                    (tree, accounts) = (stepped, next);
                }
                (stepped, built) => prop_assert_eq!(faults(stepped), faults(built)),
            }
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
