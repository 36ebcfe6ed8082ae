//! Who may do what: lists on every dimension, along the whole path, at any time.

use std::{net::IpAddr, sync::Arc};

use proptest::{prelude::*, sample::select};
use proxyxai_core::{
    account::{
        admission::{Refusal, admit, permits},
        key,
        limits::{Asked, Dimension, Limits},
        network::NetworkList,
        pattern::{Pattern, PatternList},
        staleness::Held,
        terms::{Key, KeyRefusal, NEVER, SecretAge, Terms, has_terms},
        tree::AccountTree,
    },
    dialect::Endpoint,
    secret::ExposeSecret as _,
    snapshot::{KeyRecord, key_table::KeyId},
};
use proxyxai_proto::config::v1::{Account, VirtualKey};

const MODELS: [&str; 6] = ["*", "gpt-*", "gpt-4o*", "claude-*", "*-mini", "o3"];
const NETWORKS: [&str; 6] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "2001:db8::/32",
    "2001:db8::7",
];
const NAMES: [&str; 5] = ["gpt-4o-mini", "gpt-5", "claude-x", "o3", "*"];
const PEERS: [&str; 5] = [
    "10.1.2.3",
    "10.9.9.9",
    "::ffff:10.1.2.3",
    "2001:db8::7",
    "192.0.2.1",
];

type Lists = [Vec<String>; 3];

fn lists() -> impl Strategy<Value = Lists> {
    let some = |from: Vec<&'static str>| {
        prop::collection::vec(select(from), 0..3)
            .prop_map(|list| list.into_iter().map(str::to_owned).collect())
    };
    let endpoints = Endpoint::ALL.map(Endpoint::as_str).to_vec();
    [
        some(MODELS.to_vec()),
        some(endpoints),
        some(NETWORKS.to_vec()),
    ]
}

fn limits([models, endpoints, networks]: &Lists) -> Limits {
    Limits::parse(models, endpoints, networks).unwrap()
}

fn asked(dimension: Dimension, number: usize) -> Asked<'static> {
    let mut asked = Asked::default();
    match dimension {
        Dimension::Models => asked.model = Some(NAMES[number % NAMES.len()]),
        Dimension::Endpoints => asked.endpoint = Some(Endpoint::ALL[number % Endpoint::ALL.len()]),
        Dimension::Networks => asked.from = Some(peer(number)),
    }
    asked
}

fn peer(number: usize) -> IpAddr {
    PEERS[number % PEERS.len()].parse().unwrap()
}

/// A tree in which each account names an earlier one as its parent.
fn tree(rows: Vec<(prop::sample::Index, Lists, bool)>) -> Option<AccountTree> {
    let mut accounts: Vec<Account> = Vec::new();
    for (number, (parent, [models, endpoints, networks], suspended)) in rows.into_iter().enumerate()
    {
        let id = if number == 0 {
            "root".to_owned()
        } else {
            format!("a{number}")
        };
        accounts.push(Account {
            parent_id: if number == 0 {
                String::new()
            } else {
                accounts[parent.index(accounts.len())].id.clone()
            },
            name: id.clone(),
            id,
            suspended,
            allowed_models: models,
            allowed_endpoints: endpoints,
            allowed_networks: networks,
            ..Account::default()
        });
    }
    AccountTree::build(&accounts).ok()
}

fn record(account: &str, tree: &AccountTree) -> KeyRecord {
    KeyRecord {
        id: KeyId::new("keykeykey000").unwrap(),
        account: tree.get(account).unwrap(),
        disabled: false,
        has_terms: true,
    }
}

fn key_of(account: &str, tree: &AccountTree, own: &Lists) -> Key {
    let [models, endpoints, networks] = own.clone();
    let key = VirtualKey {
        allowed_models: models,
        allowed_endpoints: endpoints,
        allowed_networks: networks,
        ..VirtualKey::default()
    };
    assert_eq!(has_terms(&key), !limits(own).is_empty());
    Key {
        record: record(account, tree),
        terms: Terms::of(&key).unwrap(),
    }
}

proptest! {
    #[test]
    fn law_15_nothing_below_permits_what_is_forbidden_above(
        rows in prop::collection::vec((any::<prop::sample::Index>(), lists(), prop::bool::weighted(0.1)), 1..20),
        own in lists(), number in 0_usize..60,
    ) {
        let Some(tree) = tree(rows) else { return Ok(()) };
        for dimension in Dimension::ALL {
            let asked = asked(dimension, number);
            for at in tree.all() {
                let here = tree.permits(at, &asked).is_ok();
                if let Some(parent) = tree.line(at).nth(1) {
                    prop_assert!(!here || tree.permits(parent, &asked).is_ok(), "{dimension:?} at {}", tree.path(at));
                    prop_assert!(tree.active(at).is_err() || tree.active(parent).is_ok());
                }
                let key = key_of(tree.id(at), &tree, &own);
                let let_in = admit(&key, &tree, 0, &asked, Held::fresh()).is_ok();
                prop_assert_eq!(let_in, here && tree.active(at).is_ok() && limits(&own).refuses(&asked).is_none());
                prop_assert!(!let_in || permits(&key, &tree, &asked).is_ok());
            }
        }
    }

    #[test]
    fn lists_that_do_not_widen_permit_no_more(parent in lists(), child in lists(), number in 0_usize..60) {
        let root = Account { id: "root".into(), name: "root".into(), ..Account::default() };
        let [allowed_models, allowed_endpoints, allowed_networks] = parent.clone();
        let account = Account { allowed_models, allowed_endpoints, allowed_networks, ..root };
        let tree = AccountTree::build(&[account]).unwrap();
        let (root, inner, outer) = (tree.get("root").unwrap(), limits(&child), limits(&parent));
        for (dimension, list) in [(Dimension::Models, &child[0]), (Dimension::Endpoints, &child[1]), (Dimension::Networks, &child[2])] {
            let asked = asked(dimension, number);
            match tree.widened(root, &inner, dimension) {
                Some(widening) => {
                    prop_assert!(list.contains(&widening.entry.replace("/32", "").replace("/128", "")) || list.contains(&widening.entry));
                    prop_assert!(widening.to_string().contains("the account `root` allows"));
                }
                None if list.is_empty() => {}
                None => prop_assert!(inner.refuses(&asked).is_some() || outer.refuses(&asked).is_none()),
            }
        }
    }

    #[test]
    fn one_pattern_covers_another_exactly_when_no_name_says_otherwise(outer in "[ab*]{1,4}", inner in "[ab*]{1,4}") {
        let (outer, inner) = (Pattern::parse(&outer).unwrap(), Pattern::parse(&inner).unwrap());
        let mut names = vec![String::new()];
        let mut escapes = false;
        for _ in 0..8 {
            escapes |= names.iter().any(|name| inner.matches(name) && !outer.matches(name));
            names = names.iter().flat_map(|name| ["a", "b", "c"].map(|c| format!("{name}{c}"))).collect();
        }
        prop_assert_eq!(outer.covers(&inner), !escapes, "{:?} {:?}", outer, inner);
    }

    #[test]
    fn patterns_match_as_the_plain_definition_says(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
        fn plain(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|skip| plain(rest, &name[skip..])),
                Some((want, rest)) => name.first() == Some(want) && plain(rest, &name[1..]),
            }
        }
        prop_assert_eq!(Pattern::parse(&pattern).unwrap().matches(&name), plain(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn a_rotated_key_keeps_its_id(one in prop::collection::vec(any::<u8>(), 64), other in prop::collection::vec(any::<u8>(), 64)) {
        let first = key::generate(one.try_into().unwrap());
        let second = key::regenerate(KeyId::new(&first.id).unwrap(), other.try_into().unwrap());
        let text = second.text.expose_secret();
        prop_assert_eq!(key::parse(text).unwrap().id(), first.id.as_str());
        prop_assert_eq!(&second.id, &first.id);
        prop_assert_ne!(text, first.text.expose_secret());
    }

    #[test]
    fn reading_lists_never_breaks(texts in prop::collection::vec("\\PC{0,20}", 0..4)) {
        let _ = Limits::parse(&texts, &texts, &texts);
    }
}

#[test]
fn a_key_works_in_its_time() {
    use KeyRefusal::{Disabled, Expired, Replaced};
    let root = Account {
        id: "root".into(),
        name: "root".into(),
        ..Account::default()
    };
    let tree = AccountTree::build(&[root]).unwrap();
    // `expires` as it comes over the wire; the end of the secret before a rotation, when that one is shown.
    let check = |expires, previous: Option<i64>, disabled, now, want: Result<(), KeyRefusal>| {
        let given = VirtualKey {
            expires_unix_ms: expires,
            ..VirtualKey::default()
        };
        let current = Terms::of(&given).unwrap();
        let terms = previous.map_or(current.clone(), |until| current.by_previous(until));
        let record = KeyRecord {
            disabled,
            ..record("root", &tree)
        };
        let key = Key { record, terms };
        assert_eq!(key.active(now), want, "{key:?} at {now}");
    };
    check(0, None, false, NEVER - 1, Ok(()));
    check(1_000, None, false, 999, Ok(()));
    check(1_000, None, false, 1_000, Err(Expired));
    check(0, Some(1_000), false, 999, Ok(()));
    check(0, Some(1_000), false, 1_000, Err(Replaced));
    check(500, Some(1_000), false, 499, Ok(()));
    check(500, Some(1_000), false, 500, Err(Replaced));
    check(1_000, None, true, 999, Err(Disabled));
    check(0, Some(1_000), true, 5_000, Err(Disabled));
    assert_eq!(Terms::default().secret, SecretAge::Current);
}

#[test]
fn who_refuses_is_named() {
    let account = |id: &str, parent: &str, models: &[&str], networks: &[&str]| Account {
        id: id.into(),
        parent_id: parent.into(),
        name: id.into(),
        allowed_models: models.iter().map(ToString::to_string).collect(),
        allowed_networks: networks.iter().map(ToString::to_string).collect(),
        ..Account::default()
    };
    let tree = AccountTree::build(&[
        account("root", "", &[], &["10.0.0.0/8"]),
        account("team", "root", &["gpt-*"], &[]),
    ])
    .unwrap();
    let none: Lists = Default::default();
    let chat_alone: Lists = [vec![], vec!["chat.completions".into()], vec![]];
    let check = |own: &Lists, asked: Asked<'_>, want: &str| {
        let shown = match admit(&key_of("team", &tree, own), &tree, 0, &asked, Held::fresh()) {
            Ok(()) => "ok".to_owned(),
            Err(Refusal::Key(refusal)) => refusal.to_string(),
            Err(Refusal::KeyLimit(dimension)) => format!("the key: {}", dimension.refused()),
            Err(Refusal::Account(refusal)) => refusal.to_string(),
            Err(Refusal::TooOld(reason)) => reason.to_string(),
        };
        assert_eq!(shown, want);
    };
    let chat = Endpoint::ChatCompletions;
    check(&none, Asked::call(chat, peer(0)), "ok");
    check(
        &none,
        Asked::call(chat, peer(4)),
        "the account `root` does not allow calls from this address",
    );
    check(
        &none,
        Asked::model("o3"),
        "the account `root/team` does not allow this model",
    );
    check(
        &chat_alone,
        Asked::call(Endpoint::Models, peer(0)),
        "the key: this endpoint",
    );
    check(&chat_alone, Asked::call(chat, peer(2)), "ok");
}

#[test]
fn wrong_entries_are_refused_with_what_would_be_right() {
    let check = |list: [&[&str]; 3], want: &str| {
        let [models, endpoints, networks] =
            list.map(|l| l.iter().map(ToString::to_string).collect::<Vec<_>>());
        let error = Limits::parse(&models, &endpoints, &networks).unwrap_err();
        assert!(
            error.to_string().contains(want),
            "{error} does not say {want:?}"
        );
    };
    check(
        [&["gpt-*", ""], &[], &[]],
        "allowed_models: a model pattern must not be empty",
    );
    check(
        [&[], &["chat"], &[]],
        "allowed_endpoints: `chat` is no endpoint; endpoints are chat.completions",
    );
    check(
        [&[], &[], &["10.0.0.1/8"]],
        "allowed_networks: `10.0.0.1/8` has bits beyond its prefix; write 10.0.0.0/8",
    );
    check(
        [&[], &[], &["example.com"]],
        "`example.com` is no network; write an address such as",
    );
    check([&[], &[], &["::ffff:10.0.0.0/104"]], "write it as IPv4");
    check(
        [&["a"; 257], &[], &[]],
        "at most 256 entries, this one has 257",
    );
}

#[test]
fn neighbouring_networks_count_as_one() {
    let list = |texts: &[&str]| NetworkList::parse(texts).unwrap();
    let outer = list(&["10.0.0.0/9", "10.128.0.0/9", "2001:db8::/33"]);
    assert_eq!(list(&["10.0.0.0/8"]).beyond(&outer), None);
    assert_eq!(
        list(&["10.0.0.0/7"]).beyond(&outer).as_deref(),
        Some("10.0.0.0/7")
    );
    assert_eq!(
        list(&["2001:db8::/32"]).beyond(&outer).as_deref(),
        Some("2001:db8::/32")
    );
    assert_eq!(
        list(&["0.0.0.0/0"]).beyond(&list(&[])),
        None,
        "an empty list allows all"
    );
    let patterns = |texts: &[&str]| PatternList::parse(texts).unwrap();
    assert_eq!(
        patterns(&["gpt-4*"]).beyond(&patterns(&["o*", "gpt-*"])),
        None
    );
    assert_eq!(
        patterns(&["gpt-4*", "g*"])
            .beyond(&patterns(&["o*", "gpt-*"]))
            .as_deref(),
        Some("g*")
    );
    let one = Arc::new(list(&["10.1.2.3"]));
    assert!(
        one.permits("::ffff:10.1.2.3".parse().unwrap())
            && !one.permits("10.1.2.4".parse().unwrap())
    );
}
