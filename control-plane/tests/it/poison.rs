//! Five hundred kinds of bad objects at once, written straight into the store: from there through the control plane to a node, everything
//! good goes on, and every bad one is named with a reason (law 10).

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use proxyxai_control_plane::store::{Op, Store as _, Txn};
use proxyxai_core::snapshot::{Content, ResourceKind, ResourceName};
use proxyxai_proto::{
    admin::v1::{ListWithheldRequest, WithheldView},
    config::v1::{
        Account, PriceTable, Provider, Resource, Route, RouteLevel, UpstreamKey, VirtualKey,
        resource::Kind,
    },
    store::v1::StoredResource,
};

use crate::{
    editor::{account, key, provider, route_request, upstream_key},
    harness::{Plane, World, ok},
    node::{Node, fresh},
};

const KINDS: [ResourceKind; 6] = [
    ResourceKind::Account,
    ResourceKind::VirtualKey,
    ResourceKind::Provider,
    ResourceKind::UpstreamKey,
    ResourceKind::Route,
    ResourceKind::PriceTable,
];

/// An object that fits beside the good ones.
fn fitting(kind: ResourceKind, id: &str, number: u8) -> Kind {
    let (id, root) = (id.to_owned(), "root".to_owned());
    match kind {
        ResourceKind::Account => Kind::Account(Account {
            name: id.clone(),
            id,
            parent_id: root,
            ..Account::default()
        }),
        ResourceKind::VirtualKey => Kind::VirtualKey(VirtualKey {
            id,
            account_id: root,
            name: "k".into(),
            digest: vec![number; 16],
            ..VirtualKey::default()
        }),
        ResourceKind::Provider => Kind::Provider(Provider {
            id,
            kind: 1,
            base_url: "https://api.example.com".into(),
            ..Provider::default()
        }),
        ResourceKind::UpstreamKey => Kind::UpstreamKey(UpstreamKey {
            id,
            provider_id: "p".into(),
            secret: b"sealed under no key of this deployment".to_vec(),
            weight: 1,
            ..UpstreamKey::default()
        }),
        ResourceKind::Route => Kind::Route(Route {
            id,
            model: "x-*".into(),
            provider_ids: vec!["p".into()],
            ..Route::default()
        }),
        ResourceKind::PriceTable => Kind::PriceTable(PriceTable {
            content: b"{}".to_vec(),
            version: id,
            active: false,
        }),
    }
}

fn row(kind: Kind) -> Vec<u8> {
    let resource = Resource { kind: Some(kind) };
    StoredResource {
        resource: Some(resource),
        ..StoredResource::default()
    }
    .encode_to_vec()
}

/// Bytes that are no object of this name, whatever its kind.
fn broken(kind: ResourceKind, id: &str) -> Vec<(String, Vec<u8>)> {
    let whole = row(fitting(kind, id, 200));
    let mut out = vec![
        ("nothing".to_owned(), Vec::new()),
        ("an object without a kind".to_owned(), {
            let none = StoredResource {
                resource: Some(Resource::default()),
                ..StoredResource::default()
            };
            none.encode_to_vec()
        }),
        ("a long text".to_owned(), vec![b'x'; 600_000]),
        ("another id".to_owned(), row(fitting(kind, "another", 201))),
        ("no id".to_owned(), row(fitting(kind, "", 202))),
    ];
    let others = KINDS.iter().filter(|other| **other != kind);
    out.extend(others.map(|other| {
        let what = format!("the value of a {}", other.as_str());
        (what, row(fitting(*other, id, 203)))
    }));
    for cut in 1..whole.len().min(40) {
        out.push((format!("only {cut} bytes"), whole[..cut].to_vec()));
    }
    for at in 0..whole.len().min(40) {
        let mut changed = whole.clone();
        changed[at] = 0xff;
        out.push((format!("byte {at} is no text and no length"), changed));
    }
    for byte in [0x00, 0x07, 0x80, 0xff] {
        out.push((format!("all {byte:#x}"), vec![byte; whole.len()]));
        out.push((
            format!("{byte:#x} before it"),
            [&[byte], &whole[..]].concat(),
        ));
    }
    // A cut at the end of a field leaves a smaller object that can be read: whether that fits is asked elsewhere.
    out.retain(|(what, value)| {
        !what.ends_with("bytes") || StoredResource::decode(&value[..]).is_err()
    });
    out.retain(|(what, value)| {
        !what.starts_with("byte ") || StoredResource::decode(&value[..]).is_err()
    });
    out
}

const PATTERNS: [&str; 1] = [""];
const NETWORKS: [&str; 7] = [
    "",
    "10.0.0.0/33",
    "10.0.0.256",
    "::/129",
    "1.2.3.4/x",
    "anywhere",
    "10.0.0.0/-1",
];
const ENDPOINTS: [&str; 3] = ["", "no.such", "chat.completions/../models"];
const BASES: [&str; 9] = [
    "",
    "ftp://x.example",
    "https://",
    "no url",
    "https://user:pass@x.example",
    "http://169.254.169.254",
    "http://127.0.0.1",
    "http://10.1.2.3",
    "https://x.example/?q=1",
];

/// Objects that can be read and do not fit, of this kind and id.
fn misfits(kind: ResourceKind, id: &str) -> Vec<(String, Vec<u8>)> {
    let giant = "g".repeat(200_000);
    let mut out: Vec<(String, Kind)> = Vec::new();
    let mut add = |what: &str, made: Kind| out.push((what.to_owned(), made));
    match fitting(kind, id, 210) {
        Kind::Account(good) => {
            for parent in ["nobody", id, "", "ring-a"] {
                let parent_id = parent.to_owned();
                add(
                    "a parent that cannot be",
                    Kind::Account(Account {
                        parent_id,
                        ..good.clone()
                    }),
                );
            }
            for name in ["", "a/b", "team", &giant] {
                let name = name.to_owned();
                add(
                    "a name that cannot be",
                    Kind::Account(Account {
                        name,
                        ..good.clone()
                    }),
                );
            }
            for list in PATTERNS {
                let allowed_models = vec![list.to_owned()];
                add(
                    "no pattern",
                    Kind::Account(Account {
                        allowed_models,
                        ..good.clone()
                    }),
                );
            }
            for list in NETWORKS {
                let allowed_networks = vec![list.to_owned()];
                add(
                    "no network",
                    Kind::Account(Account {
                        allowed_networks,
                        ..good.clone()
                    }),
                );
            }
            for list in ENDPOINTS {
                let allowed_endpoints = vec![list.to_owned()];
                add(
                    "no endpoint",
                    Kind::Account(Account {
                        allowed_endpoints,
                        ..good.clone()
                    }),
                );
            }
        }
        Kind::VirtualKey(good) => {
            for account in ["nobody", ""] {
                let account_id = account.to_owned();
                add(
                    "no account",
                    Kind::VirtualKey(VirtualKey {
                        account_id,
                        ..good.clone()
                    }),
                );
            }
            for bytes in [0, 1, 15, 17, 1_000] {
                let digest = vec![9; bytes];
                add(
                    "no digest",
                    Kind::VirtualKey(VirtualKey {
                        digest,
                        ..good.clone()
                    }),
                );
            }
            for list in NETWORKS {
                let allowed_networks = vec![list.to_owned()];
                add(
                    "no network",
                    Kind::VirtualKey(VirtualKey {
                        allowed_networks,
                        ..good.clone()
                    }),
                );
            }
            for list in ENDPOINTS {
                let allowed_endpoints = vec![list.to_owned()];
                add(
                    "no endpoint",
                    Kind::VirtualKey(VirtualKey {
                        allowed_endpoints,
                        ..good.clone()
                    }),
                );
            }
        }
        Kind::Provider(good) => {
            for kind in [0, 5, 4_000, -1] {
                add(
                    "a kind of the future",
                    Kind::Provider(Provider {
                        kind,
                        ..good.clone()
                    }),
                );
            }
            for base in BASES.into_iter().chain([giant.as_str()]) {
                let base_url = base.to_owned();
                add(
                    "no base",
                    Kind::Provider(Provider {
                        base_url,
                        ..good.clone()
                    }),
                );
            }
        }
        Kind::UpstreamKey(good) => {
            for bytes in [0, 1, 27, 28, 60, 5_000] {
                let secret = vec![7; bytes];
                add(
                    "no seal",
                    Kind::UpstreamKey(UpstreamKey {
                        secret,
                        ..good.clone()
                    }),
                );
            }
            for provider in ["nobody", ""] {
                let provider_id = provider.to_owned();
                add(
                    "no provider",
                    Kind::UpstreamKey(UpstreamKey {
                        provider_id,
                        ..good.clone()
                    }),
                );
            }
        }
        Kind::Route(good) => {
            for ids in [vec![], vec!["nobody"], vec!["p", "nobody"], vec![""]] {
                let provider_ids = ids.into_iter().map(str::to_owned).collect();
                add(
                    "no providers",
                    Kind::Route(Route {
                        provider_ids,
                        ..good.clone()
                    }),
                );
            }
            let next_levels = vec![RouteLevel {
                provider_ids: vec!["nobody".into()],
            }];
            add(
                "no next provider",
                Kind::Route(Route {
                    next_levels,
                    ..good.clone()
                }),
            );
            let model = String::new();
            add(
                "no pattern",
                Kind::Route(Route {
                    model,
                    ..good.clone()
                }),
            );
        }
        Kind::PriceTable(good) => {
            for content in ["", "{", "[]", "null", "{\"families\":7}"] {
                let content = content.as_bytes().to_vec();
                add(
                    "no prices",
                    Kind::PriceTable(PriceTable {
                        content,
                        ..good.clone()
                    }),
                );
            }
        }
    }
    out.into_iter()
        .map(|(what, made)| (what, row(made)))
        .collect()
}

/// All bad rows, by key below `cfg/`, with what is wrong with each.
fn poison() -> BTreeMap<String, (String, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for kind in KINDS {
        // As many as there are ways; each stands under an id of its own, all of one length.
        let id = |number: usize| format!("bad{number:09}");
        let ways = broken(kind, &id(0)).len() + misfits(kind, &id(0)).len();
        for number in 0..ways {
            let id = id(number);
            let mut made = broken(kind, &id);
            made.extend(misfits(kind, &id));
            all.insert(format!("{}/{id}", kind.as_str()), made.swap_remove(number));
        }
    }
    for key in [
        "future/x",
        "",
        "good/future/y",
        "provider",
        "account/",
        "Account/root",
        "route/a/b",
    ] {
        let value = row(fitting(ResourceKind::Route, "x", 220));
        all.insert(key.to_owned(), ("no key of this program".to_owned(), value));
    }
    all
}

/// Writes rows straight into the store, one by one.
async fn write(world: &World, rows: Vec<Op>) {
    for op in rows {
        let txn = Txn {
            then: vec![op],
            ..Txn::default()
        };
        assert!(world.store.txn(txn).await.unwrap().succeeded);
    }
}

async fn withheld(plane: &Plane) -> BTreeMap<String, WithheldView> {
    let (mut all, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListWithheldRequest {
            page_size: 100,
            page_token,
        };
        let page = ok(plane.nodes().list_withheld(request).await);
        all.extend(page.withheld.into_iter().map(|one| (one.name.clone(), one)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// Everything that was held is still, as it was.
fn check_good(before: &Content, now: &Content) {
    for (name, resource) in before.iter() {
        assert_eq!(now.get(name), Some(resource), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn law_10_five_hundred_kinds_of_bad_objects_stop_nobody_and_are_named() {
    let world = World::new();
    let plane = world.start().await;
    account(&plane, "", "team").await;
    key(&plane, "root/team", "k").await;
    provider(&plane, "p").await;
    upstream_key(&plane, "up", "p").await;
    ok(plane
        .routes()
        .create_route(route_request("r", "gpt-*", &["p"]))
        .await);
    let mut node = Node::new("n");
    let mut open = node.connect(&plane).await;
    node.follow(&mut open, plane.head()).await;
    let before = node.content.clone();

    let bad = poison();
    assert!(bad.len() >= 500, "only {} kinds", bad.len());
    let kinds: BTreeSet<&str> = bad.keys().filter_map(|key| key.split('/').next()).collect();
    assert!(KINDS.iter().all(|kind| kinds.contains(kind.as_str())));
    let put = |key: &str, value: &[u8]| Op::Put(format!("cfg/{key}"), value.to_vec());
    let mut rows: Vec<Op> = bad
        .iter()
        .map(|(key, (_, value))| put(key, value))
        .collect();
    // What fits is taken in the same way, so that it is the poison that is refused.
    let fine = [
        ResourceKind::Account,
        ResourceKind::VirtualKey,
        ResourceKind::Provider,
        ResourceKind::Route,
    ];
    let fine = fine.map(|kind| ResourceName {
        kind,
        id: "fine00000000".to_owned(),
    });
    rows.extend(fine.iter().map(|name| {
        let value = row(fitting(name.kind, &name.id, 230));
        put(&format!("{}/{}", name.kind.as_str(), name.id), &value)
    }));
    write(&world, rows).await;
    // A change as any other takes in what stands there.
    provider(&plane, "p2").await;
    node.follow(&mut open, plane.head()).await;
    check_good(&before, &node.content);
    let p2 = ResourceName {
        kind: ResourceKind::Provider,
        id: "p2".to_owned(),
    };
    assert!(node.content.get(&p2).is_some());
    for name in &fine {
        assert!(node.content.get(name).is_some(), "{name} fits");
    }
    let check_named = |named: &BTreeMap<String, WithheldView>| {
        let missing: Vec<_> = bad
            .iter()
            .filter(|(key, _)| named.get(*key).is_none_or(|one| one.reason.is_empty()))
            .map(|(key, (what, _))| format!("{key}: {what}"))
            .collect();
        assert!(missing.is_empty(), "not named: {missing:#?}");
        assert_eq!(named.len(), bad.len(), "nothing else is named");
    };
    check_named(&withheld(&plane).await);
    let count = u64::try_from(bad.len()).unwrap();
    assert_eq!(plane.gauge("xai_config_withheld "), count);
    println!("{} kinds of bad objects are named", bad.len());

    // So it is for those who start later.
    drop((open, plane));
    let again = world.start().await;
    check_named(&withheld(&again).await);
    check_good(&before, &fresh(&again).await.content);
    key(&again, "root/team", "another").await;
}
