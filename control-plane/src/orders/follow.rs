//! The side of [`Orders`] that follows the store.

use std::{sync::Arc, time::Duration};

use prost::Message;
use proxyxai_proto::store::v1::{LogWish, Node, RosterRow};
use tokio::time::sleep;

use super::Orders;
use crate::store::{
    Entry, Event, Range, Store, StoreError, WatchEvent,
    keyspace::{self, Key, NODE_PREFIX, ROSTER_PREFIX},
};

/// Between tries to follow a store that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// News of one prefix.
enum News {
    /// All that there is.
    All(Vec<Entry>),
    /// A change.
    One(Event),
}

impl Orders {
    /// Follows the store. Never ends.
    pub(crate) async fn follow(&self, store: &Arc<dyn Store>) {
        let log = Key::LogLevel.to_string();
        tokio::join!(
            follow(store, ROSTER_PREFIX, |news| self.take_roster(news)),
            follow(store, NODE_PREFIX, |news| self.take_nodes(news)),
            follow(store, &log, |news| self.take_log(news)),
        );
    }

    fn take_roster(&self, news: News) {
        let id = |key: &str| match Key::parse(key) {
            Some(Key::Roster(id)) => Some(id),
            _ => None,
        };
        match news {
            News::All(entries) => {
                let rows = entries.iter();
                let rows = rows.filter_map(|entry| Some((id(&entry.key)?, decode(entry))));
                self.set_rows(
                    rows.map(|(id, row)| (id, row.unwrap_or_default()))
                        .collect(),
                );
            }
            News::One(Event::Put(entry)) => {
                if let Some(id) = id(&entry.key) {
                    self.set_row(&id, Some(decode::<RosterRow>(&entry).unwrap_or_default()));
                }
            }
            News::One(Event::Delete(key)) => {
                if let Some(id) = id(&key) {
                    self.set_row(&id, None);
                }
            }
        }
    }

    fn take_nodes(&self, news: News) {
        let entries = match news {
            News::All(entries) => entries,
            News::One(Event::Put(entry)) => vec![entry],
            News::One(Event::Delete(_)) => Vec::new(),
        };
        for entry in entries {
            if let Some(Key::Node(id)) = Key::parse(&entry.key)
                && decode::<Node>(&entry).is_some_and(|node| node.removed)
            {
                self.removed(&id);
            }
        }
    }

    fn take_log(&self, news: News) {
        let exact = |key: &str| key == Key::LogLevel.to_string();
        let wish = match news {
            News::All(entries) => entries.iter().find(|e| exact(&e.key)).and_then(decode),
            News::One(Event::Put(entry)) if exact(&entry.key) => decode::<LogWish>(&entry),
            News::One(Event::Delete(key)) if exact(&key) => None,
            News::One(Event::Put(_) | Event::Delete(_)) => return,
        };
        self.log.send_replace(wish);
    }
}

/// A row; one that cannot be read wants nothing, and is named in the log.
fn decode<M: Message + Default>(entry: &Entry) -> Option<M> {
    keyspace::decode(&entry.key, &entry.value)
        .inspect_err(|error| tracing::warn!(%error, "what is wanted of a process is passed over"))
        .ok()
}

async fn follow(store: &Arc<dyn Store>, prefix: &str, take: impl Fn(News)) {
    loop {
        if let Err(error) = listen(store, prefix, &take).await {
            tracing::warn!(%error, prefix, "what is wanted of processes is not followed; it is tried again");
        }
        sleep(PAUSE).await;
    }
}

/// Lists, and follows from there, as long as the watch lasts.
async fn listen(
    store: &Arc<dyn Store>,
    prefix: &str,
    take: &impl Fn(News),
) -> Result<(), StoreError> {
    let page = store.range(Range::prefix(prefix)).await?;
    let from = page.revision.saturating_add(1);
    take(News::All(page.entries));
    let mut watch = store.watch(prefix, from).await?;
    loop {
        match watch.next().await {
            WatchEvent::Changes { events, .. } => {
                events.into_iter().for_each(|event| take(News::One(event)));
            }
            WatchEvent::Compacted | WatchEvent::Lost => return Ok(()),
        }
    }
}
