//! The usage events that a gateway left in its data directory, read by the layout alone that `data-plane/src/report/frame.rs` states.

use std::{collections::BTreeMap, fs, path::Path};

use prost::Message as _;
use proxyxai_proto::usage::v1::{Outcome, UsageBatch, UsageEvent};
use serde_json::{Value, json};

/// Bytes before each batch: its length, a checksum, its number.
const HEAD: usize = 16;

/// All events, of all starts of the gateway.
pub(crate) fn events(data: &Path) -> Vec<UsageEvent> {
    let mut files: Vec<_> = fs::read_dir(data.join("events"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().flat_map(|file| of_file(file)).collect()
}

fn of_file(file: &Path) -> Vec<UsageEvent> {
    let bytes = fs::read(file).unwrap();
    let (mut rest, mut events) = (bytes.as_slice(), Vec::new());
    while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
        let length = u32::from_le_bytes(*head.first_chunk().unwrap());
        let length = usize::try_from(length).unwrap();
        // A crash may tear the last batch off; the gateway cuts it away at its next start.
        let Some((batch, after)) = after.split_at_checked(length) else {
            break;
        };
        let Ok(batch) = UsageBatch::decode(batch) else {
            break;
        };
        events.extend(batch.events);
        rest = after;
    }
    events
}

/// Sums of events by account, key and model, in the shape of `xai usage --by account,key,model --output json`, money and names left out.
pub(crate) fn sums(events: &[UsageEvent]) -> BTreeMap<(String, String, String), Value> {
    let mut sums: BTreeMap<_, Vec<&UsageEvent>> = BTreeMap::new();
    for event in events {
        let row = (
            event.account_id.clone(),
            event.key_id.clone(),
            event.model.clone(),
        );
        sums.entry(row).or_default().push(event);
    }
    sums.into_iter()
        .map(|(row, events)| (row, sum(&events)))
        .collect()
}

fn sum(events: &[&UsageEvent]) -> Value {
    let count = |outcome: Outcome| events.iter().filter(|e| e.outcome() == outcome).count();
    let of = |estimated: bool| {
        let part: Vec<_> = events.iter().filter(|e| e.estimated == estimated).collect();
        let tokens: Vec<_> = part.iter().filter_map(|e| e.tokens).collect();
        let cost: i64 = part.iter().map(|e| e.cost_nano_usd).sum();
        let tokens = json!({
            "input": tokens.iter().map(|t| t.input).sum::<u64>(),
            "cache_read": tokens.iter().map(|t| t.cache_read).sum::<u64>(),
            "cache_write_5m": tokens.iter().map(|t| t.cache_write_5m).sum::<u64>(),
            "cache_write_1h": tokens.iter().map(|t| t.cache_write_1h).sum::<u64>(),
            "output": tokens.iter().map(|t| t.output).sum::<u64>(),
        });
        (tokens, cost)
    };
    let ((tokens, cost), (estimated_tokens, estimated_cost)) = (of(false), of(true));
    json!({
        "attempts": events.len(), "reported": count(Outcome::Reported), "rejected": count(Outcome::Rejected),
        "not_sent": count(Outcome::NotSent), "unknown": count(Outcome::Unknown),
        "tokens": tokens, "estimated_tokens": estimated_tokens,
        "cost_nano_usd": cost, "estimated_cost_nano_usd": estimated_cost,
        "unpriced": events.iter().filter(|e| e.unpriced).count(), "web_searches": 0,
    })
}

/// Rows of `xai usage` in the shape of [`sums`].
pub(crate) fn booked(rows: &[Value]) -> BTreeMap<(String, String, String), Value> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| {
            let name = (
                text(row, "account_id"),
                text(row, "key_id"),
                text(row, "model"),
            );
            let mut sum = row.as_object().unwrap().clone();
            for other in [
                "account_id",
                "account_path",
                "key_id",
                "key_name",
                "model",
                "cost_usd",
                "estimated_cost_usd",
            ] {
                sum.remove(other);
            }
            (name, Value::Object(sum))
        })
        .collect()
}
