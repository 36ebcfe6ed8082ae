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
    secret::seal::{SealKey, open},
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::ManagedBy,
    config::v1::{Account, PriceTable, Resource, resource::Kind},
    store::v1::{Authority, Counter, Sealed, StoredResource, Text},
};

use crate::{
    app::StartError,
    keyring::{KeySource, Keyring, Keys, NoNextKey, rotate},
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
    pub(crate) keyring: Arc<Keyring>,
}

/// Whom a deployment belongs to: who can open its secrets.
pub(crate) struct Owner {
    /// The key-encryption key in use.
    pub(crate) key: Arc<SealKey>,
    /// Where the next one comes from.
    pub(crate) next: Arc<dyn KeySource>,
}

impl From<SealKey> for Owner {
    /// One who has no next key.
    fn from(key: SealKey) -> Self {
        Self {
            key: Arc::new(key),
            next: Arc::new(NoNextKey),
        }
    }
}

/// Tries before giving up on others that start on the same store.
const TRIES: usize = 8;

/// Reads the deployment, or makes it in an empty store.
pub(crate) async fn deployment(
    store: &Arc<dyn Store>,
    random: &dyn Random,
    clock: &dyn Clock,
    owner: Owner,
) -> Result<Deployment, StartError> {
    for _ in 0..TRIES {
        if value::<Counter>(store, &Key::Import).await?.is_some() {
            return Err(StartError::HalfImported);
        }
        match number(store, &Key::Format).await? {
            None => make(store, random, clock, &owner.key).await?,
            Some(1) => {
                check_key(store, &owner.key).await?;
                migrate(store, random, clock, &owner.key).await?;
            }
            Some(FORMAT) => return read(store, owner).await,
            Some(found) => return Err(StartError::Format { found }),
        }
    }
    Err(Fault::Contended.into())
}

async fn read(store: &Arc<dyn Store>, owner: Owner) -> Result<Deployment, StartError> {
    check_key(store, &owner.key).await?;
    let ring = Key::Keyring.to_string();
    let ring = store.get(&ring).await.map_err(Fault::from)?;
    let ring = ring.ok_or(StartError::Incomplete)?;
    let keyring = Keyring::open(Arc::clone(store), owner.key, owner.next, &ring)?;
    let sealed: Sealed = value(store, &Key::Pepper)
        .await?
        .ok_or(StartError::Incomplete)?;
    // Another replica may be rotating: what seals the pepper is in the ring of before or in that of after.
    keyring.refresh().await?;
    let place = Key::Pepper.to_string();
    let pepper = keyring.now().open(&place, &sealed.value);
    let pepper = pepper.map_err(|error| Fault::sealed(&place, &error))?;
    let generation = number(store, &Key::Generation)
        .await?
        .ok_or(StartError::Incomplete)?;
    Ok(Deployment {
        id: text(store, &Key::Deployment).await?,
        generation,
        pepper: Pepper::new(pepper_bytes(&pepper)?),
        keyring: Arc::new(keyring),
    })
}

/// Refuses a key that does not open the store.
async fn check_key(store: &Arc<dyn Store>, key: &SealKey) -> Result<(), StartError> {
    let sealed_by = text(store, &Key::KeyEncryptionKey).await?;
    let given = key.id().to_string();
    if sealed_by == given {
        Ok(())
    } else {
        Err(StartError::OtherKey { sealed_by, given })
    }
}

/// Takes over a store of format 1, where the key-encryption key itself sealed everything: the pepper and the authority at
/// once, so that one transaction decides, and upstream keys later, by [`crate::keyring::rotate::tidy`].
async fn migrate(
    store: &Arc<dyn Store>,
    random: &dyn Random,
    clock: &dyn Clock,
    key: &SealKey,
) -> Result<(), StartError> {
    let (format, place) = (Key::Format.to_string(), Key::Pepper.to_string());
    let authority_place = Key::Authority.to_string();
    // The format last: while it is still 1 then, the others are as format 1 had them.
    let pepper_entry = store.get(&place).await.map_err(Fault::from)?;
    let authority_entry = store.get(&authority_place).await.map_err(Fault::from)?;
    let format_entry = store.get(&format).await.map_err(Fault::from)?;
    let Some(pepper_entry) = pepper_entry else {
        return Err(StartError::Incomplete);
    };
    let still_1 = format_entry.as_ref().is_some_and(|entry| {
        keyspace::decode::<Counter>(&format, &entry.value).is_ok_and(|format| format.value == 1)
    });
    if !still_1 {
        return Ok(());
    }
    let sealed: Sealed = keyspace::decode(&place, &pepper_entry.value).map_err(Fault::from)?;
    let pepper = open(key, place.as_bytes(), &sealed.value)
        .map_err(|error| Fault::sealed(&place, &error))?;
    let generation = number(store, &Key::Generation)
        .await?
        .ok_or(StartError::Incomplete)?;
    let mut keys = Keys::make(random, key, generation, clock.unix_ms())?;
    keys.ring.direct = true;
    let pepper = Sealed {
        value: keys.seal(random, &place, &pepper)?,
    };
    let mut txn = Txn {
        compares: vec![
            Compare::unchanged(format.clone(), format_entry.as_ref()),
            Compare::unchanged(place.clone(), Some(&pepper_entry)),
            Compare::unchanged(authority_place.clone(), authority_entry.as_ref()),
            keys.fence(),
        ],
        then: vec![
            Op::Put(format, Counter { value: FORMAT }.encode_to_vec()),
            Op::Put(place, pepper.encode_to_vec()),
            rotate::put(&keys.ring),
        ],
    };
    if let Some(entry) = authority_entry {
        let kept: Authority = keyspace::decode(&entry.key, &entry.value).map_err(Fault::from)?;
        let opened = open(key, authority_place.as_bytes(), &kept.sealed_key)
            .map_err(|error| Fault::sealed(&authority_place, &error))?;
        let sealed_key = keys.seal(random, &authority_place, &opened)?;
        let authority = Authority { sealed_key, ..kept };
        txn.then
            .push(Op::Put(authority_place, authority.encode_to_vec()));
    }
    store.txn(txn).await.map_err(Fault::from)?;
    Ok(())
}

async fn make(
    store: &Arc<dyn Store>,
    random: &dyn Random,
    clock: &dyn Clock,
    key: &SealKey,
) -> Result<(), StartError> {
    let keys = Keys::make(random, key, 1, clock.unix_ms())?;
    let pepper: [u8; 32] = random_bytes(random);
    let pepper = Sealed {
        value: keys.seal(random, &Key::Pepper.to_string(), &pepper)?,
    };
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
    let root = object(Kind::Account(root)).encode_to_vec();
    let prices = object(Kind::PriceTable(prices)).encode_to_vec();
    let counter = |value: u64| Counter { value }.encode_to_vec();
    let text = |value: String| Text { value }.encode_to_vec();
    let put = |key: Key, value: Vec<u8>| Op::Put(key.to_string(), value);
    let then = vec![
        put(Key::Format, counter(FORMAT)),
        put(Key::Generation, counter(1)),
        put(Key::Deployment, text(base62(&random_bytes(random), 12))),
        put(Key::KeyEncryptionKey, text(key.id().to_string())),
        rotate::put(&keys.ring),
        put(Key::Pepper, pepper.encode_to_vec()),
        put(Key::Head, counter(1)),
        put(Key::Config(root_name.clone()), root.clone()),
        put(Key::Good(root_name), root),
        put(Key::Config(price_name.clone()), prices.clone()),
        put(Key::Good(price_name), prices),
    ];
    // Whoever loses the race finds what the winner made.
    store
        .txn(Txn {
            compares: vec![
                Compare::absent(Key::Format.to_string()),
                Compare::absent(Key::Import.to_string()),
            ],
            then,
        })
        .await
        .map_err(Fault::from)?;
    Ok(())
}

fn pepper_bytes(plain: &[u8]) -> Result<[u8; 32], StartError> {
    plain.try_into().map_err(|_| StartError::Incomplete)
}

/// Id of the key-encryption key that a store is sealed under; `None` when the store is empty.
///
/// # Errors
/// When the store fails.
pub async fn key_encryption_key_id(store: &Arc<dyn Store>) -> Result<Option<String>, StartError> {
    Ok(value::<Text>(store, &Key::KeyEncryptionKey)
        .await?
        .map(|text| text.value))
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
