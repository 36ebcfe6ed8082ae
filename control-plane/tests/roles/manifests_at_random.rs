//! Property: whatever is in force and whatever is wanted, applying it gives what is wanted, in whatever order it is said.

use std::{collections::BTreeSet, sync::atomic::AtomicU64};

use proxyxai_core::manifest;
use proxyxai_proto::admin::v1::{ApplyManifestResponse, ManifestObject, manifest_object::Kind};

use crate::{
    gateway::{ADMIN, BEGIN, Gateway, Seeded},
    manifest::{account, apply, changes, exported, key, provider, route, upstream_key},
};

const ROUNDS: usize = 25;

#[tokio::test]
async fn from_any_configuration_an_apply_leads_to_any_other() {
    for seed in 1..=3 {
        println!("seed {seed}");
        let gateway = Gateway::start(seed).await;
        let root = gateway.with(ADMIN);
        let random = Seeded(AtomicU64::new(seed));
        let given = exported(&root).await;
        for round in 0..ROUNDS {
            let mut wanted = configuration(&random);
            shuffle(&random, &mut wanted);
            let told = changes(&root, &wanted, true).await.unwrap();
            let done = apply(&root, &wanted, true).await;
            let done = done.unwrap_or_else(|refusal| {
                panic!("seed {seed} round {round}: {refusal:?}\n{wanted:#?}")
            });
            assert_eq!(done.changes, told.changes);
            let left = changes(&root, &wanted, true).await.unwrap().changes;
            assert_eq!(left, [], "seed {seed} round {round}");

            let found = exported(&root).await;
            let mut names: BTreeSet<_> = found.iter().filter_map(manifest::named).collect();
            for object in given.iter().chain(&wanted) {
                names.remove(&manifest::named(object).unwrap());
            }
            assert_eq!(
                names,
                BTreeSet::new(),
                "seed {seed} round {round}: too much is there"
            );
            let again = apply(&root, &found, false).await.unwrap();
            assert_eq!(again, ApplyManifestResponse::default());
            assert_eq!(exported(&root).await, found, "the order is another one");
        }
    }
}

/// A valid configuration.
fn configuration(random: &Seeded) -> Vec<ManifestObject> {
    let mut objects = Vec::new();
    // Each account with what the names of the models begin with that it may use.
    let mut accounts = vec![("root".to_owned(), String::new())];
    for _ in 0..random.draw(8) {
        let (above, models) = accounts[random.draw(accounts.len())].clone();
        let path = format!("{above}/{}", ["a", "b", "c"][random.draw(3)]);
        if accounts.iter().any(|(there, _)| *there == path) || path.len() > 10 {
            continue;
        }
        let narrower = format!("{models}{}", ["g", "o"][random.draw(2)]);
        let pattern = format!("{narrower}*");
        let narrows = random.draw(2) == 0;
        let list: &[&str] = if narrows { &[&pattern] } else { &[] };
        let mut object = account(&path, list);
        if let Some(Kind::Account(account)) = &mut object.kind {
            account.suspended = random.draw(4) == 0;
            account.gateway = random.draw(3) == 0;
        }
        objects.push(object);
        accounts.push((path, if narrows { narrower } else { models }));
    }
    for (path, models) in &accounts {
        for name in ["k", "l"] {
            if random.draw(3) == 0 {
                let mut object = key(path, name);
                if let Some(Kind::Key(key)) = &mut object.kind {
                    key.disabled = random.draw(3) == 0;
                    key.expires_unix_ms = [0, BEGIN + 5_000, BEGIN + 9_000][random.draw(3)];
                    if random.draw(2) == 0 {
                        key.allowed_models = vec![format!("{models}x")];
                    }
                }
                objects.push(object);
            }
        }
    }
    let all = ["p", "q", "r"];
    let providers: Vec<&str> = all.into_iter().filter(|_| random.draw(3) > 0).collect();
    for id in &providers {
        let mut object = provider(id);
        if let Some(Kind::Provider(provider)) = &mut object.kind {
            provider.disabled = random.draw(3) == 0;
            provider.base_url = format!("https://{}.example", ["one", "two"][random.draw(2)]);
        }
        objects.push(object);
        if random.draw(2) == 0 {
            let secret = ["sk-1", "sk-2"][random.draw(2)];
            let mut object = upstream_key(&format!("{id}-key"), id, Some(secret));
            if let Some(Kind::UpstreamKey(key)) = &mut object.kind {
                key.level = u32::try_from(random.draw(3)).unwrap();
                key.disabled = random.draw(3) == 0;
            }
            objects.push(object);
        }
    }
    if let [first, rest @ ..] = providers.as_slice() {
        for (id, model) in [("x", "gpt-*"), ("y", "o*")] {
            if random.draw(2) == 0 {
                let levels: &[&[&str]] = if rest.is_empty() || random.draw(2) == 0 {
                    &[&[first]]
                } else {
                    &[&[first], rest]
                };
                objects.push(route(id, model, levels));
            }
        }
    }
    objects
}

fn shuffle(random: &Seeded, objects: &mut [ManifestObject]) {
    for last in (1..objects.len()).rev() {
        objects.swap(last, random.draw(last + 1));
    }
}
