//! A disk that fills and is freed again: what was acknowledged stays, what is asked next is done, followers miss nothing.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails, as it should"
)]

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use redb::StorageBackend;

use super::*;
use crate::store::WatchEvent;

/// A file in memory that takes so many more writes.
#[derive(Debug, Clone)]
struct Shaky {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: Arc<AtomicU64>,
}

impl Shaky {
    fn spend(&self) -> io::Result<()> {
        let take = |left: u64| match left {
            u64::MAX => Some(u64::MAX),
            left => left.checked_sub(1),
        };
        let spent = self
            .room
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let full = || io::Error::new(io::ErrorKind::StorageFull, "no space left on device");
        spent.map(drop).map_err(|_| full())
    }
}

impl StorageBackend for Shaky {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.spend()?;
        self.bytes
            .lock()
            .unwrap()
            .resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.spend()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.spend()?;
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn put(key: &str, value: &[u8]) -> Txn {
    Txn {
        compares: Vec::new(),
        then: vec![Op::Put(key.to_owned(), value.to_vec())],
    }
}

/// Fills the disk after so many writes, frees it again, and checks what is there.
async fn check(writes: u64) -> bool {
    let disk = Shaky {
        bytes: Arc::default(),
        room: Arc::new(u64::MAX.into()),
    };
    let below = disk.clone();
    let open = move || Ok(Database::builder().create_with_backend(below.clone())?);
    let shared = Shared::new("test".to_owned(), Box::new(open)).unwrap();
    let store = EmbeddedStore::on_a_thread(shared).unwrap();
    let before = store.txn(put("a", b"1")).await.unwrap();
    let mut watch = store.watch("", before.revision + 1).await.unwrap();
    disk.room.store(writes, Ordering::SeqCst);
    let mut failed = None;
    for n in 0..50_u8 {
        if let Err(error) = store.txn(put("b", &[n; 3_000])).await {
            failed = Some(error);
            break;
        }
    }
    let Some(error) = failed else {
        return false;
    };
    assert!(error.to_string().contains("space"), "{writes}: {error}");
    for _ in 0..3 {
        let again = store.txn(put("c", b"3")).await;
        assert!(again.is_err(), "{writes}: there is still no room");
    }
    disk.room.store(u64::MAX, Ordering::SeqCst);
    let after = store.txn(put("d", b"4")).await;
    let after = after.unwrap_or_else(|error| panic!("{writes}: {error}"));
    let all = store.range(Range::prefix("")).await.unwrap();
    let kept: Vec<&str> = all.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert!(
        kept.contains(&"a") && kept.contains(&"d"),
        "{writes}: {kept:?}"
    );
    assert_eq!(all.revision, after.revision, "{writes}");
    // A follower sees every revision of what is there, or is told that it does not.
    let mut seen = before.revision;
    while seen < after.revision {
        match watch.next().await {
            WatchEvent::Changes { revision, .. } => {
                assert_eq!(revision, seen + 1, "{writes}: nothing is left out");
                seen = revision;
            }
            WatchEvent::Lost | WatchEvent::Compacted => break,
        }
    }
    true
}

#[tokio::test]
async fn law_19_a_store_goes_on_when_there_is_room_again() {
    let mut filled = 0;
    for writes in 0..60 {
        filled += u32::from(check(writes).await);
    }
    assert!(filled > 30, "only {filled} disks filled");
}
