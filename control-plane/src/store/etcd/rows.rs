//! Our keys, rows and transactions as etcd has them, and how a range is read in pages.

use std::time::Duration;

use etcd_client::{Compare as When, CompareOp, GetOptions, KeyValue, TxnOp};
use tokio::time::Instant;

use super::{
    Compare, Entry, Op, Page, Range, Shared, StoreError,
    failure::{Refusal, Sent},
};

/// Keys asked for at once.
const PAGE: usize = 500;
/// Longest answer that is taken.
pub(super) const ANSWER_BYTES: usize = 64 << 20;

/// What one request found.
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    revision: u64,
    more: bool,
}

impl Shared {
    /// Our key as etcd has it.
    pub(super) fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// Reads as much as the range asks for, at one revision.
    pub(super) async fn pages(&self, range: &Range) -> Result<Page, StoreError> {
        let prefix = self.full(&range.prefix);
        let end = after_all_with(&prefix);
        let mut start = match &range.after {
            Some(after) if *after >= range.prefix => after_one(self.full(after)),
            _ => prefix,
        };
        let mut page = Page {
            revision: range.at_revision.unwrap_or_default(),
            ..Page::default()
        };
        let mut size = PAGE;
        loop {
            let wanted = match range.limit {
                0 => size,
                limit => size.min(limit.saturating_sub(page.entries.len())),
            };
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(i64::try_from(wanted).unwrap_or(i64::MAX))
                .with_revision(i64::try_from(page.revision).unwrap_or(i64::MAX));
            let found = match self.read(start.clone(), options).await {
                // Long values: fewer of them at once.
                Err(StoreError::TooLarge { .. }) if size > 1 => {
                    size = size.div_ceil(8);
                    continue;
                }
                found => found?,
            };
            if page.revision == 0 {
                page.revision = found.revision;
            }
            page.entries.extend(found.entries);
            page.more = found.more;
            let full = range.limit != 0 && page.entries.len() >= range.limit;
            match page.entries.last() {
                Some(last) if found.more && !full => start = after_one(self.full(&last.key)),
                _ => return Ok(page),
            }
        }
    }

    pub(super) async fn read(
        &self,
        key: Vec<u8>,
        options: GetOptions,
    ) -> Result<Found, StoreError> {
        let sent = self.links.read(|client| {
            let (key, options) = (key.clone(), options.clone());
            let mut client = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
            async move { client.get(key, Some(options)).await }
        });
        let answer = sent.await.map_err(|sent| match sent {
            Sent::Refused(Refusal::Gone(_)) => StoreError::Compacted,
            Sent::Refused(Refusal::Large(bytes)) => StoreError::TooLarge { ops: 0, bytes },
            Sent::Not(_) | Sent::Perhaps(_) | Sent::Refused(_) => self.links.of_read(sent),
        })?;
        Ok(Found {
            entries: answer
                .kvs()
                .iter()
                .filter_map(|kv| self.entry(kv))
                .collect(),
            revision: revision(answer.header()),
            more: answer.more(),
        })
    }

    /// A row of ours; others cannot stand below our prefix.
    pub(super) fn entry(&self, kv: &KeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.key(kv)?,
            value: kv.value().to_vec(),
            create_revision: unsigned(kv.create_revision()),
            mod_revision: unsigned(kv.mod_revision()),
            version: unsigned(kv.version()),
        })
    }

    pub(super) fn key(&self, kv: &KeyValue) -> Option<String> {
        let key = std::str::from_utf8(kv.key()).ok();
        let key = key.and_then(|key| key.strip_prefix(&self.prefix));
        if key.is_none() {
            tracing::warn!(prefix = self.prefix, "etcd holds a key that is no text");
        }
        key.map(str::to_owned)
    }

    pub(super) fn when(&self, compare: &Compare) -> When {
        let signed = |revision: &u64| i64::try_from(*revision).unwrap_or(i64::MAX);
        match compare {
            Compare::ModRevision(key, revision) => {
                When::mod_revision(self.full(key), CompareOp::Equal, signed(revision))
            }
            Compare::CreateRevision(key, revision) => {
                When::create_revision(self.full(key), CompareOp::Equal, signed(revision))
            }
        }
    }

    pub(super) fn op(&self, op: Op) -> TxnOp {
        match op {
            Op::Put(key, value) => TxnOp::put(self.full(&key), value, None),
            Op::Delete(key) => TxnOp::delete(self.full(&key), None),
        }
    }
}

pub(super) fn revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    unsigned(header.map_or(0, etcd_client::ResponseHeader::revision))
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn later(moment: Instant, by: Duration) -> Instant {
    moment.checked_add(by).unwrap_or(moment)
}

/// The first key after this one.
fn after_one(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key after all that begin with this.
pub(super) fn after_all_with(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // Of nothing but the highest bytes: all keys from there on.
    vec![0]
}
