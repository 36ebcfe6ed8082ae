//! Following changes in etcd, through lost connections and silent members.
//!
//! Invariants: a follower sees each revision once and whole, in order; it goes on at the first revision not seen. One stream carries the
//! prefix and the tick: when neither says anything for the time of freshness, nothing proves that the state is not stale, and
//! the watch is lost. A tick proves that the cluster lives, not that every earlier change was delivered.

use std::sync::Arc;

use etcd_client::{Event as EtcdEvent, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::{
    sync::mpsc::{self, Sender},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Shared, StoreError, Watch,
    failure::{Refusal, Sent, judge},
    rows::{ANSWER_BYTES, after_all_with, later, unsigned},
};
use crate::store::{Event, WatchEvent, keyspace::Key};

/// Changes that a follower may be behind before the stream waits for it.
const BACKLOG: usize = 1024;
/// Names the watch of the prefix within a stream.
const PREFIX: i64 = 1;
/// Names the watch of the tick.
const TICK: i64 = 2;

struct Following {
    shared: Arc<Shared>,
    prefix: String,
    /// The first revision not seen.
    next: u64,
    heard: Instant,
    follower: Sender<WatchEvent>,
}

/// What one message means.
enum Said {
    Changes(Vec<(u64, Vec<Event>)>),
    Tick,
    Compacted,
    /// The stream is of no use any more.
    Ended,
    Nothing,
}

pub(super) async fn follow(
    shared: Arc<Shared>,
    prefix: &str,
    from: u64,
) -> Result<Watch, StoreError> {
    let (follower, changes) = mpsc::channel(BACKLOG);
    let following = Following {
        shared,
        prefix: prefix.to_owned(),
        next: from.max(1),
        heard: Instant::now(),
        follower,
    };
    let opened = following.open().await;
    let stream = opened.map_err(|sent| following.shared.links.of_read(sent))?;
    // Ends when its follower leaves.
    tokio::spawn(following.run(stream));
    Ok(Watch { changes })
}

impl Following {
    /// Opens a stream with both watches.
    async fn open(&self) -> Result<WatchStream, Sent> {
        let key = self.shared.full(&self.prefix);
        // One revision earlier than asked for: a watch at exactly the compacted revision is let in by etcd, and misses deletions.
        let start = i64::try_from(self.next.saturating_sub(1).max(1)).unwrap_or(i64::MAX);
        let options = WatchOptions::new()
            .with_range(after_all_with(&key))
            .with_start_revision(start)
            .with_watch_id(PREFIX);
        let tick = self.shared.full(&Key::Tick.to_string());
        let open = self.shared.links.read(|client| {
            let (key, tick, options) = (key.clone(), tick.clone(), options.clone());
            let mut client = client
                .watch_client()
                .max_decoding_message_size(ANSWER_BYTES);
            async move {
                let mut stream = client.watch(key, Some(options)).await?;
                let options = WatchOptions::new().with_watch_id(TICK);
                stream.watch(tick, Some(options)).await?;
                Ok(stream)
            }
        });
        open.await
    }

    async fn run(mut self, mut stream: WatchStream) {
        let last = loop {
            let stale = later(self.heard, self.shared.freshness);
            let message = tokio::select! {
                biased;
                () = self.follower.closed() => return,
                message = timeout_at(stale, stream.message()) => message,
            };
            let said = match message {
                Err(_silence) => break WatchEvent::Lost,
                Ok(Ok(Some(message))) => self.read(&message),
                Ok(Ok(None)) => Said::Ended,
                Ok(Err(error)) => ended_by(&error),
            };
            match said {
                Said::Changes(changes) => {
                    self.heard = Instant::now();
                    if self.tell(changes).await.is_err() {
                        return;
                    }
                }
                Said::Tick => self.heard = Instant::now(),
                Said::Nothing => {}
                Said::Compacted => break WatchEvent::Compacted,
                Said::Ended => match self.reopen(stale).await {
                    Some(opened) => stream = opened,
                    None => break WatchEvent::Lost,
                },
            }
        };
        let _may_have_left = self.follower.send(last).await;
    }

    /// Another stream, before what is known becomes stale.
    async fn reopen(&self, stale: Instant) -> Option<WatchStream> {
        loop {
            tokio::select! {
                biased;
                () = self.follower.closed() => return None,
                () = sleep_until(stale) => return None,
                opened = self.open() => if let Ok(stream) = opened { return Some(stream); }
            }
        }
    }

    async fn tell(&mut self, changes: Vec<(u64, Vec<Event>)>) -> Result<(), ()> {
        for (revision, events) in changes {
            // Repeated by a new stream, or by our asking one revision early.
            if revision < self.next {
                continue;
            }
            self.next = revision.saturating_add(1);
            let changes = WatchEvent::Changes { revision, events };
            self.follower.send(changes).await.map_err(|_| ())?;
        }
        Ok(())
    }

    fn read(&self, message: &WatchResponse) -> Said {
        if message.compact_revision() > 0 && message.watch_id() == PREFIX {
            return Said::Compacted;
        }
        if message.canceled() {
            return Said::Ended;
        }
        if message.events().is_empty() {
            return Said::Nothing;
        }
        if message.watch_id() == TICK {
            return Said::Tick;
        }
        let mut changes: Vec<(u64, Vec<Event>)> = Vec::new();
        for (revision, event) in message.events().iter().filter_map(|e| self.event(e)) {
            match changes.last_mut() {
                Some((last, events)) if *last == revision => events.push(event),
                _ => changes.push((revision, vec![event])),
            }
        }
        Said::Changes(changes)
    }

    fn event(&self, event: &EtcdEvent) -> Option<(u64, Event)> {
        let kv = event.kv()?;
        let what = match event.event_type() {
            EventType::Put => Event::Put(self.shared.entry(kv)?),
            EventType::Delete => Event::Delete(self.shared.key(kv)?),
        };
        Some((unsigned(kv.mod_revision()), what))
    }
}

/// A backlog that is too long for one message comes no other way: a list is shorter.
fn ended_by(error: &etcd_client::Error) -> Said {
    match judge(error) {
        Sent::Refused(Refusal::Large(_)) => Said::Compacted,
        Sent::Not(_) | Sent::Perhaps(_) | Sent::Refused(_) => Said::Ended,
    }
}
