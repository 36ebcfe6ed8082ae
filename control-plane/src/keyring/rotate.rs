//! Rotation: a new data key, or a new key-encryption key, while everything is in use.
//!
//! Order: the new key joins the ring and seals from then on → what older keys sealed is sealed anew, some of it in each transaction →
//! the older keys leave the ring, if it did not change meanwhile. Each step is one transaction that compares the ring, and each begins by
//! reading what there is: after a crash anywhere, [`tidy`] goes on.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message as _;
use proxyxai_core::{
    ports::Random,
    secret::seal::{SealKey, SealKeyId, sealed_by},
};
use proxyxai_proto::store::v1::{self as stored, Counter, Text};

use super::{Keyring, Keys, asked::Asked, sealed, unwrapped, wrapped};
use crate::{
    status::Fault,
    store::{
        Compare, Entry, Op, Range, Txn,
        keyspace::{self, CONFIG_PREFIX, Key},
    },
};

/// Tries before a step gives up on others that keep changing the same.
const TRIES: usize = 16;
/// Secrets of one transaction.
const BATCH: usize = 50;
/// Bytes of one transaction.
const BATCH_BYTES: usize = 256 << 10;
/// Entries read at once.
const PAGE: usize = 500;

/// How many secrets each key seals, by its id.
pub(crate) type Uses = BTreeMap<String, u64>;

/// Adds a data key of this generation to the ring, together with `with`; from then on it seals.
pub(crate) async fn add_data_key(
    keyring: &Keyring,
    random: &dyn Random,
    now_unix_ms: i64,
    generation: u64,
    with: &[Op],
    asked: &Asked<'_>,
) -> Result<(), Fault> {
    let key = SealKey::new(proxyxai_core::ports::random_bytes(random));
    for _ in 0..TRIES {
        keyring.refresh().await?;
        let now = keyring.now();
        let under = key_encryption_key(keyring, &now)?;
        let mut ring = now.ring.clone();
        ring.keys
            .push(wrapped(random, &under, &key, generation, now_unix_ms)?);
        let mut then = vec![put(&ring)];
        then.extend_from_slice(with);
        let txn = Txn {
            compares: vec![now.fence()],
            then,
        };
        if asked.commit(&now.ring, &ring, txn).await? {
            return keyring.refresh().await;
        }
    }
    Err(Fault::Contended)
}

/// Seals the ring under the next key-encryption key. Returns its id.
pub(crate) async fn take_next_key(
    keyring: &Keyring,
    random: &dyn Random,
    asked: &Asked<'_>,
) -> Result<SealKeyId, Fault> {
    let next = keyring.next.read().await.map_err(Fault::Precondition)?;
    let next = Arc::new(next.ok_or_else(|| {
        Fault::Precondition(
            "there is no next key-encryption key; give the control plane one by the setting `next_key_encryption_key`, or write one with `xai secret new-key`".to_owned(),
        )
    })?);
    for _ in 0..TRIES {
        keyring.refresh().await?;
        let now = keyring.now();
        let under = key_encryption_key(keyring, &now)?;
        if under.id() == next.id() {
            keyring.next.adopted(next.id());
            return Ok(next.id());
        }
        if now.ring.direct {
            // What the old key sealed itself would be lost with it.
            tidy(keyring, random).await?;
            continue;
        }
        let mut ring = stored::Keyring::default();
        for data_key in &now.ring.keys {
            let (key, _) = unwrapped(data_key, &keyring.given())?;
            let (generation, created) = (data_key.generation, data_key.created_unix_ms);
            ring.keys
                .push(wrapped(random, &next, &key, generation, created)?);
        }
        let id = Text {
            value: next.id().to_string(),
        };
        keyring.give(Arc::clone(&next));
        let txn = Txn {
            compares: vec![now.fence()],
            then: vec![
                put(&ring),
                Op::Put(Key::KeyEncryptionKey.to_string(), id.encode_to_vec()),
            ],
        };
        if asked.commit(&now.ring, &ring, txn).await? {
            keyring.next.adopted(next.id());
            keyring.refresh().await?;
            return Ok(next.id());
        }
    }
    Err(Fault::Contended)
}

/// Seals anew what older keys sealed, and drops those. Returns how many secrets were sealed anew.
///
/// # Errors
/// Among others, when a secret does not open: then all others are sealed anew, and the older keys stay until it is gone.
pub(crate) async fn tidy(keyring: &Keyring, random: &dyn Random) -> Result<u64, Fault> {
    let mut renewed = 0_u64;
    for _ in 0..TRIES {
        keyring.refresh().await?;
        let now = keyring.now();
        if now.ring.keys.len() == 1 && !now.ring.direct {
            return Ok(renewed);
        }
        let mut pass = Pass::default();
        pass.over_everything(keyring, &now, random).await?;
        renewed = renewed.saturating_add(pass.renewed);
        if pass.disturbed {
            continue;
        }
        if let Some(fault) = pass.unopened {
            return Err(fault);
        }
        let ring = stored::Keyring {
            keys: now.ring.keys.last().cloned().into_iter().collect(),
            direct: false,
        };
        let done = keyring.store.txn(Txn {
            compares: vec![now.fence()],
            then: vec![put(&ring)],
        });
        if done.await?.succeeded {
            keyring.refresh().await?;
            return Ok(renewed);
        }
    }
    Err(Fault::Contended)
}

/// Seals anew, once over everything.
#[derive(Default)]
struct Pass {
    renewed: u64,
    /// Whether others wrote the same, so that it was left as it was.
    disturbed: bool,
    /// The first secret that does not open.
    unopened: Option<Fault>,
}

impl Pass {
    async fn over_everything(
        &mut self,
        keyring: &Keyring,
        now: &Keys,
        random: &dyn Random,
    ) -> Result<(), Fault> {
        for prefix in sealed::PREFIXES {
            let mut after = None;
            loop {
                let page = keyring.store.range(Range {
                    after,
                    limit: PAGE,
                    ..Range::prefix(prefix)
                });
                let page = page.await?;
                after = page.entries.last().map(|entry| entry.key.clone());
                self.renew(keyring, now, random, page.entries).await?;
                if !page.more {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn renew(
        &mut self,
        keyring: &Keyring,
        now: &Keys,
        random: &dyn Random,
        entries: Vec<Entry>,
    ) -> Result<(), Fault> {
        let (mut txn, mut bytes) = (Txn::default(), 0_usize);
        for entry in entries {
            let value = sealed::map(&entry.key, &entry.value, |place, old| {
                renew(now, random, &entry.key, place, old)
            });
            let value = match value {
                Ok(Some(value)) if value != entry.value => value,
                Ok(_) => continue,
                Err(fault) => {
                    self.unopened.get_or_insert(fault);
                    continue;
                }
            };
            let size = value.len().saturating_add(entry.key.len());
            let full = txn.then.len() >= BATCH || bytes.saturating_add(size) > BATCH_BYTES;
            if full {
                self.commit(keyring, now, std::mem::take(&mut txn)).await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            let unchanged = Compare::unchanged(entry.key.clone(), Some(&entry));
            txn.compares.push(unchanged);
            txn.then.push(Op::Put(entry.key, value));
        }
        self.commit(keyring, now, txn).await
    }

    /// Rows of the configuration are never written without its head, though what they say in plain stays the same.
    async fn commit(&mut self, keyring: &Keyring, now: &Keys, mut txn: Txn) -> Result<(), Fault> {
        if txn.then.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(txn.then.len()).unwrap_or(u64::MAX);
        let of_config = |op: &Op| op.key().starts_with(CONFIG_PREFIX);
        let with_head = txn.then.iter().any(of_config);
        txn.compares.push(now.fence());
        for _ in 0..TRIES {
            let mut txn = txn.clone();
            if with_head {
                let key = Key::Head.to_string();
                let head = keyring.store.get(&key).await?;
                let value = match &head {
                    Some(head) => keyspace::decode::<Counter>(&key, &head.value)?.value,
                    None => 0,
                };
                let value = value.saturating_add(1);
                txn.compares
                    .push(Compare::unchanged(key.clone(), head.as_ref()));
                txn.then
                    .push(Op::Put(key, Counter { value }.encode_to_vec()));
            }
            if keyring.store.txn(txn).await?.succeeded {
                self.renewed = self.renewed.saturating_add(count);
                return Ok(());
            }
            if !with_head {
                break;
            }
        }
        self.disturbed = true;
        Ok(())
    }
}

/// The same secret under the current key; what it sealed already stays as it is.
fn renew(
    keys: &Keys,
    random: &dyn Random,
    key: &str,
    place: &str,
    old: &[u8],
) -> Result<Vec<u8>, Fault> {
    if sealed_by(old).is_ok_and(|id| id == keys.current()) {
        return Ok(old.to_vec());
    }
    let plain = keys
        .open(place, old)
        .map_err(|error| Fault::sealed(key, &error))?;
    keys.seal(random, place, &plain)
}

/// Counts what each key seals.
pub(crate) async fn uses(keyring: &Keyring) -> Result<Uses, Fault> {
    let mut uses = Uses::new();
    for prefix in sealed::PREFIXES {
        for entry in keyring.store.range(Range::prefix(prefix)).await?.entries {
            sealed::map(&entry.key, &entry.value, |_, old| {
                if let Ok(id) = sealed_by(old) {
                    let count = uses.entry(id.to_string()).or_default();
                    *count = count.saturating_add(1);
                }
                Ok::<_, Fault>(old.to_vec())
            })?;
        }
    }
    Ok(uses)
}

/// The key-encryption key that the ring is sealed under.
pub(crate) fn key_encryption_key(keyring: &Keyring, now: &Keys) -> Result<Arc<SealKey>, Fault> {
    let given = keyring.given();
    let last = now.ring.keys.last();
    let last = last.ok_or_else(|| super::no_ring(&Key::Keyring.to_string()))?;
    Ok(unwrapped(last, &given)?.1)
}

pub(crate) fn put(ring: &stored::Keyring) -> Op {
    Op::Put(Key::Keyring.to_string(), ring.encode_to_vec())
}
