//! Cuts events into batches that the control plane can write in one transaction each, and encodes each event, once.
//!
//! Invariants: every event is in exactly one batch (law 18); a batch holds at most 4,000 events of at most 40 rows (account × key
//! × model × hour) in at most 1 MiB. A single event is never too large: its longest part is cut.

use std::mem;

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use proxyxai_proto::usage::v1::UsageEvent;

use super::event::{Event, Row};

/// Events in a batch.
const EVENTS: usize = super::sender::FULL;
/// Rows that a batch adds to. A transaction has at most 100 operations.
const ROWS: usize = 40;
/// Encoded events in a batch; the rest of the 1 MiB is for its head.
const BYTES: usize = 1024 * 1024 - 1024;
const HOUR_MS: i64 = 3_600_000;
/// Longest model name in an event, in bytes: a longer one is no model, and must not make a batch too large to send.
const MODEL_MAX: usize = 1_024;

/// `UsageBatch.events`.
const EVENTS_TAG: u32 = 4;
/// Encoded, an event hardly ever exceeds this.
const USUAL: usize = 288;

/// The events of a batch: an encoded `UsageBatch` that has nothing else yet.
pub(super) type Encoded = Vec<u8>;

/// Cuts events into as few batches as the rows allow, and shows each to `see`. Their order is not kept: events of one row come together.
pub(super) fn cut<E: Event>(mut events: Vec<E>, see: impl Fn(&UsageEvent)) -> Vec<Encoded> {
    events.sort_by(|a, b| row(a).cmp(&row(b)));
    let mut outgoing = UsageEvent::default();
    let room = events.len().saturating_mul(USUAL).min(BYTES);
    let (mut batches, mut batch) = (Vec::new(), Encoded::with_capacity(room));
    let (mut count, mut rows) = (0_usize, 0_usize);
    let mut last = None;
    for event in &events {
        let this = Some(row(event));
        let same_row = last == this;
        event.write_to(&mut outgoing);
        see(&outgoing);
        cut_model(&mut outgoing);
        let len = outgoing.encoded_len();
        let fits = count < EVENTS
            && (same_row || rows < ROWS)
            && batch.len().saturating_add(framed(len)) <= BYTES;
        if !fits && count > 0 {
            batches.push(mem::take(&mut batch));
            (count, rows) = (0, 0);
        }
        rows = rows.saturating_add(usize::from(count == 0 || !same_row));
        count = count.saturating_add(1);
        last = this;
        encode_key(EVENTS_TAG, WireType::LengthDelimited, &mut batch);
        encode_varint(u64::try_from(len).unwrap_or(u64::MAX), &mut batch);
        outgoing.encode_raw(&mut batch);
    }
    if count > 0 {
        batches.push(batch);
    }
    batches
}

fn row(event: &impl Event) -> (Row<'_>, i64) {
    (event.row(), event.started_unix_ms().div_euclid(HOUR_MS))
}

fn cut_model(event: &mut UsageEvent) {
    if event.model.len() > MODEL_MAX {
        let end = event.model.floor_char_boundary(MODEL_MAX);
        event.model.truncate(end);
    }
}

/// Bytes of an event within its batch.
fn framed(len: usize) -> usize {
    let head = encoded_len_varint(u64::try_from(len).unwrap_or(u64::MAX)).saturating_add(1);
    len.saturating_add(head)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proxyxai_proto::usage::v1::UsageBatch;

    use super::*;

    fn event(number: usize, account: u8, model: u8, hour: i64, padding: usize) -> UsageEvent {
        UsageEvent {
            request_id: format!("r{number}"),
            account_id: format!("a{account}"),
            model: format!("m{model}{}", "x".repeat(padding)),
            started_unix_ms: hour.saturating_mul(HOUR_MS).saturating_add(17),
            ..UsageEvent::default()
        }
    }

    fn check(events: Vec<UsageEvent>) -> usize {
        let ids = |events: &[UsageEvent]| {
            events
                .iter()
                .map(|e| e.request_id.clone())
                .collect::<BTreeSet<_>>()
        };
        let (expected, count) = (ids(&events), events.len());
        let batches: Vec<_> = cut(events, |_| {})
            .iter()
            .map(|batch| UsageBatch::decode(batch.as_slice()).unwrap().events)
            .collect();
        for events in &batches {
            let rows: BTreeSet<_> = events.iter().map(row).collect();
            assert!(rows.len() <= ROWS && (1..=EVENTS).contains(&events.len()));
            let batch = UsageBatch {
                node_id: "n".repeat(64),
                epoch: u64::MAX,
                sequence: u64::MAX,
                events: events.clone(),
            };
            assert!(batch.encoded_len() <= 1024 * 1024);
        }
        assert_eq!(ids(&batches.concat()), expected);
        assert_eq!(batches.concat().len(), count);
        batches.len()
    }

    #[test]
    fn batches_are_as_few_as_the_limits_allow() {
        assert_eq!(check(Vec::new()), 0);
        assert_eq!(check((0..4000).map(|n| event(n, 0, 0, 0, 0)).collect()), 1);
        assert_eq!(check((0..4001).map(|n| event(n, 0, 0, 0, 0)).collect()), 2);
        assert_eq!(
            check(
                (0..400)
                    .map(|n| event(n, u8::try_from(n % 40).unwrap(), 0, 0, 0))
                    .collect()
            ),
            1
        );
        assert_eq!(
            check(
                (0..41)
                    .map(|n| event(n, 0, 0, i64::try_from(n).unwrap(), 0))
                    .collect()
            ),
            2
        );
        assert_eq!(
            check((0..3000).map(|n| event(n, 0, 0, 0, 1000)).collect()),
            3
        );
    }

    proptest! {
        #[test]
        fn law_18_every_event_is_in_one_batch(parts in prop::collection::vec((0_u8..60, 0_u8..3, 0_i64..3, 0_usize..1024), 0..300)) {
            check(parts.into_iter().enumerate().map(|(n, (a, m, h, p))| event(n, a, m, h, p)).collect());
        }
    }
}
