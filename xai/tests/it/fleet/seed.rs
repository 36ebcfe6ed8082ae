//! A store with many accounts and keys, made by writing rows into the file of a control plane that does not run: as its own writes would
//! have left them, in a fraction of the time.

use std::path::Path;

use prost::Message as _;
use proxyxai_control_plane::store::{
    Op, Store as _, Txn, embedded::EmbeddedStore, keyspace, keyspace::Key,
};
use proxyxai_core::snapshot::ResourceName;
use proxyxai_proto::{
    config::v1::{Account, Resource, VirtualKey, resource::Kind},
    store::v1::{Counter, StoredResource},
};
use tokio::task::JoinSet;

/// Resources of one transaction.
const PART: u32 = 50;
/// Transactions under way.
const WAITING: usize = 1024;

/// How many accounts and keys there shall be.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) accounts: u32,
    pub(super) keys: u32,
}

/// Id of a key that was written here.
pub(super) fn key_id(number: u32) -> String {
    format!("k{number:011}")
}

fn account_id(number: u32) -> String {
    format!("team-{number}")
}

/// The next bytes of a stream that looks like that of a hash.
fn digest(number: u32) -> Vec<u8> {
    let mix = |word: u64| {
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    let seed = u64::from(number) << 1;
    [mix(seed | 1), mix(!seed)]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

fn account(number: u32) -> Kind {
    Kind::Account(Account {
        id: account_id(number),
        parent_id: "root".to_owned(),
        name: format!("team {number}"),
        ..Account::default()
    })
}

fn key(number: u32, size: Size) -> Kind {
    Kind::VirtualKey(VirtualKey {
        id: key_id(number),
        account_id: account_id(number % size.accounts),
        name: format!("key {number}"),
        digest: digest(number),
        ..VirtualKey::default()
    })
}

/// What a resource has in the store: itself, and itself as it was last good.
fn rows(kind: Kind) -> [Op; 2] {
    let resource = Resource { kind: Some(kind) };
    let name = ResourceName::of(&resource).unwrap();
    let stored = StoredResource {
        resource: Some(resource),
        created_unix_ms: 1_767_225_600_000,
        ..StoredResource::default()
    };
    let value = stored.encode_to_vec();
    [
        Op::Put(Key::Config(name.clone()).to_string(), value.clone()),
        Op::Put(Key::Good(name).to_string(), value),
    ]
}

/// Writes all, and the head at last.
pub(super) async fn seed(file: &Path, size: Size) {
    let store = EmbeddedStore::open(file).unwrap();
    let mut writing: JoinSet<()> = JoinSet::new();
    let parts = |count: u32| (0..count).step_by(usize::try_from(PART).unwrap());
    let all = (parts(size.accounts).map(|first| (first, true)))
        .chain(parts(size.keys).map(|first| (first, false)));
    for (first, accounts) in all {
        let end = if accounts { size.accounts } else { size.keys };
        let kinds = (first..end.min(first + PART)).map(|number| {
            if accounts {
                account(number)
            } else {
                key(number, size)
            }
        });
        let txn = Txn {
            compares: Vec::new(),
            then: kinds.flat_map(rows).collect(),
        };
        if writing.len() >= WAITING {
            writing.join_next().await.unwrap().unwrap();
        }
        let store = store.clone();
        writing.spawn(async move {
            store.txn(txn).await.unwrap();
        });
    }
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    let head = Key::Head.to_string();
    let entry = store.get(&head).await.unwrap().unwrap();
    let counter: Counter = keyspace::decode(&head, &entry.value).unwrap();
    let next = Counter {
        value: counter.value + 1,
    };
    let txn = Txn {
        compares: Vec::new(),
        then: vec![Op::Put(head, next.encode_to_vec())],
    };
    store.txn(txn).await.unwrap();
}
