//! What the books read of a batch: `proxyxai.usage.v1.UsageBatch` with the fields that enter sums. All others are passed over unread.
//!
//! Every attempt of every node comes by here, so nothing is copied: names are slices of the batch. That they are text is looked at where
//! they become part of a key, once for all events of a row.

use proxyxai_proto::usage::v1::{Outcome, Tokens};

use crate::wire::{Fields, Malformed, Value};

/// Encoded, an event hardly ever has fewer bytes.
const SMALL_EVENT: usize = 128;

/// A batch, as far as it is booked.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Batch<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) events: Vec<Event<'a>>,
}

/// An event, as far as it is booked.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event<'a> {
    pub(crate) account_id: &'a [u8],
    pub(crate) key_id: &'a [u8],
    pub(crate) model: &'a [u8],
    pub(crate) outcome: Outcome,
    pub(crate) tokens: Tokens,
    pub(crate) cost_nano_usd: i64,
    pub(crate) unpriced: bool,
    pub(crate) estimated: bool,
    pub(crate) started_unix_ms: i64,
    pub(crate) web_searches: u64,
}

impl<'a> Batch<'a> {
    /// Reads an encoded batch.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut batch = Self {
            events: Vec::with_capacity(bytes.len() / SMALL_EVENT),
            ..Self::default()
        };
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(id)) => {
                    batch.node_id = str::from_utf8(id).map_err(|_| Malformed)?;
                }
                (2, Value::Number(number)) => batch.epoch = number,
                (3, Value::Number(number)) => batch.sequence = number,
                (4, Value::Bytes(event)) => batch.events.push(Event::read(event)?),
                (1..=4, _) => return Err(Malformed),
                _ => {}
            }
        }
        Ok(batch)
    }
}

impl<'a> Event<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut event = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (3, Value::Bytes(id)) => event.account_id = id,
                (4, Value::Bytes(id)) => event.key_id = id,
                (7, Value::Bytes(name)) => event.model = name,
                (10, Value::Number(outcome)) => {
                    let known = i32::try_from(outcome).map(Outcome::try_from);
                    event.outcome = known.ok().and_then(Result::ok).unwrap_or_default();
                }
                (12, Value::Bytes(tokens)) => read_tokens(&mut event.tokens, tokens)?,
                (13, Value::Number(cost)) => event.cost_nano_usd = cost.cast_signed(),
                (15, Value::Number(unpriced)) => event.unpriced = unpriced != 0,
                (16, Value::Number(estimated)) => event.estimated = estimated != 0,
                (17, Value::Number(time)) => event.started_unix_ms = time.cast_signed(),
                (22, Value::Number(searches)) => event.web_searches = searches,
                (3 | 4 | 7 | 10 | 12 | 13 | 15..=17 | 22, _) => return Err(Malformed),
                _ => {}
            }
        }
        Ok(event)
    }
}

fn read_tokens(tokens: &mut Tokens, bytes: &[u8]) -> Result<(), Malformed> {
    for field in Fields::of(bytes) {
        match field? {
            (1, Value::Number(count)) => tokens.input = count,
            (2, Value::Number(count)) => tokens.cache_read = count,
            (3, Value::Number(count)) => tokens.cache_write_5m = count,
            (4, Value::Number(count)) => tokens.cache_write_1h = count,
            (5, Value::Number(count)) => tokens.output = count,
            (1..=5, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proxyxai_proto::usage::v1::{UsageBatch, UsageEvent};

    use super::*;

    #[test]
    fn what_is_booked_is_what_was_sent() {
        let tokens = Tokens {
            input: 1,
            cache_read: 2,
            cache_write_5m: 3,
            cache_write_1h: 4,
            output: 5,
        };
        let sent = UsageBatch {
            node_id: "node".into(),
            epoch: 6,
            sequence: 7,
            events: vec![UsageEvent {
                request_id: "req_1".into(),
                attempt: 8,
                account_id: "account".into(),
                key_id: "key".into(),
                provider_id: "provider".into(),
                upstream_key_id: "upstream".into(),
                model: "model".into(),
                endpoint: "messages".into(),
                stream: true,
                outcome: Outcome::Unknown.into(),
                status: 200,
                tokens: Some(tokens),
                cost_nano_usd: 9,
                price_version: "v".into(),
                unpriced: true,
                estimated: true,
                started_unix_ms: 10,
                duration_ms: 11,
                first_byte_ms: 12,
                client_gone: true,
                reason: "reason".into(),
                web_searches: 13,
                sent_model: "other".into(),
            }],
        };
        let booked = Batch {
            node_id: "node",
            epoch: 6,
            sequence: 7,
            events: vec![Event {
                account_id: b"account",
                key_id: b"key",
                model: b"model",
                outcome: Outcome::Unknown,
                tokens,
                cost_nano_usd: 9,
                unpriced: true,
                estimated: true,
                started_unix_ms: 10,
                web_searches: 13,
            }],
        };
        let bytes = sent.encode_to_vec();
        assert_eq!(Batch::read(&bytes), Ok(booked));
        // Cut between two of its fields a batch is one still; elsewhere it is none.
        let whole = (0..bytes.len()).filter(|cut| Batch::read(&bytes[..*cut]).is_ok());
        assert_eq!(whole.collect::<Vec<_>>(), [0, 6, 8, 10]);
    }
}
