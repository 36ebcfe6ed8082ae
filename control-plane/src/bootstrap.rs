//! What a store holds before anything else does, made once: by whoever comes first, in one transaction.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    account::{
        key::{Pepper, base62},
        tree::ROOT,
    },
    money::price::{PriceBook, SHIPPED},
    ports::{Clock, Random, random_bytes},
    secret::seal::{SealKey, open, seal},
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::ManagedBy,
    config::v1::{Account, PriceTable, Resource, resource::Kind},
    store::v1::{Counter, Sealed, StoredResource, Text},
};

use crate::{
    app::StartError,
    status::Fault,
    store::{
        Compare, Op, Store, Txn,
        keyspace::{self, FORMAT, Key},
    },
};

/// What a deployment is.
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) generation: u64,
    pub(crate) pepper: Pepper,
}

/// Reads the deployment, or makes it in an empty store.
pub(crate) async fn deployment(
    store: &Arc<dyn Store>,
    random: &dyn Random,
    clock: &dyn Clock,
    kek: &SealKey,
) -> Result<Deployment, StartError> {
    if number(store, &Key::Format).await?.is_none() {
        make(store, random, clock, kek).await?;
    }
    match number(store, &Key::Format).await? {
        Some(FORMAT) => {}
        found => {
            return Err(StartError::Format {
                found: found.unwrap_or_default(),
            });
        }
    }
    let sealed_by = text(store, &Key::KeyEncryptionKey).await?;
    if sealed_by != kek.id().to_string() {
        return Err(StartError::OtherKey {
            sealed_by,
            given: kek.id().to_string(),
        });
    }
    let sealed: Sealed = value(store, &Key::Pepper)
        .await?
        .ok_or(StartError::Incomplete)?;
    let pepper = open(kek, &pepper_place(), &sealed.value)
        .map_err(|error| Fault::sealed(&Key::Pepper.to_string(), &error))?;
    let pepper: [u8; 32] = pepper
        .as_slice()
        .try_into()
        .map_err(|_| StartError::Incomplete)?;
    let generation = number(store, &Key::Generation)
        .await?
        .ok_or(StartError::Incomplete)?;
    Ok(Deployment {
        id: text(store, &Key::Deployment).await?,
        generation,
        pepper: Pepper::new(pepper),
    })
}

async fn make(
    store: &Arc<dyn Store>,
    random: &dyn Random,
    clock: &dyn Clock,
    kek: &SealKey,
) -> Result<(), StartError> {
    let pepper: [u8; 32] = random_bytes(random);
    let sealed = seal(kek, random_bytes(random), &pepper_place(), &pepper)
        .map_err(|error| Fault::Defect(error.to_string()))?;
    let book = PriceBook::parse(SHIPPED)
        .map_err(|error| Fault::Defect(format!("the shipped price book: {error}")))?;
    let root = Account {
        id: ROOT.to_owned(),
        name: ROOT.to_owned(),
        ..Account::default()
    };
    let prices = PriceTable {
        version: book.version,
        content: SHIPPED.to_vec(),
        active: true,
    };
    let object = |kind: Kind| StoredResource {
        resource: Some(Resource { kind: Some(kind) }),
        managed_by: ManagedBy::Admin.into(),
        created_unix_ms: clock.unix_ms(),
        ..StoredResource::default()
    };
    let price_name = ResourceName {
        kind: ResourceKind::PriceTable,
        id: prices.version.clone(),
    };
    let root_name = ResourceName {
        kind: ResourceKind::Account,
        id: ROOT.to_owned(),
    };
    let counter = |value: u64| Counter { value }.encode_to_vec();
    let text = |value: String| Text { value }.encode_to_vec();
    let put = |key: Key, value: Vec<u8>| Op::Put(key.to_string(), value);
    let then = vec![
        put(Key::Format, counter(FORMAT)),
        put(Key::Generation, counter(1)),
        put(Key::Deployment, text(base62(&random_bytes(random), 12))),
        put(Key::KeyEncryptionKey, text(kek.id().to_string())),
        put(Key::Pepper, Sealed { value: sealed }.encode_to_vec()),
        put(Key::Head, counter(1)),
        put(
            Key::Config(root_name),
            object(Kind::Account(root)).encode_to_vec(),
        ),
        put(
            Key::Config(price_name),
            object(Kind::PriceTable(prices)).encode_to_vec(),
        ),
    ];
    // Whoever loses the race finds what the winner made.
    store
        .txn(Txn {
            compares: vec![Compare::absent(Key::Format.to_string())],
            then,
        })
        .await
        .map_err(Fault::from)?;
    Ok(())
}

fn pepper_place() -> Vec<u8> {
    Key::Pepper.to_string().into_bytes()
}

async fn value<M: prost::Message + Default>(
    store: &Arc<dyn Store>,
    key: &Key,
) -> Result<Option<M>, StartError> {
    let key = key.to_string();
    let entry = store.get(&key).await.map_err(Fault::from)?;
    Ok(entry
        .map(|entry| keyspace::decode(&key, &entry.value).map_err(Fault::from))
        .transpose()?)
}

async fn number(store: &Arc<dyn Store>, key: &Key) -> Result<Option<u64>, StartError> {
    Ok(value::<Counter>(store, key)
        .await?
        .map(|counter| counter.value))
}

async fn text(store: &Arc<dyn Store>, key: &Key) -> Result<String, StartError> {
    value::<Text>(store, key)
        .await?
        .map(|text| text.value)
        .ok_or(StartError::Incomplete)
}
