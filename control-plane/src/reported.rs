//! What the books read of a batch: `proxyxai.usage.v1.UsageBatch` with the fields that enter sums. All others are passed over unread.
//!
//! Names are slices of the batch; that they are text is looked at where they become part of a key, once for all events of a row.

use bytes::Bytes;
use proxyxai_proto::usage::v1::{Outcome, Tokens};

/// A batch, as far as it is booked.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Batch {
    #[prost(string, tag = "1")]
    pub(crate) node_id: String,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) sequence: u64,
    #[prost(message, repeated, tag = "4")]
    pub(crate) events: Vec<Event>,
}

/// An event, as far as it is booked.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Event {
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) account_id: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) key_id: Bytes,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) model: Bytes,
    #[prost(enumeration = "Outcome", tag = "10")]
    pub(crate) outcome: i32,
    #[prost(message, optional, tag = "12")]
    pub(crate) tokens: Option<Tokens>,
    #[prost(int64, tag = "13")]
    pub(crate) cost_nano_usd: i64,
    #[prost(bool, tag = "15")]
    pub(crate) unpriced: bool,
    #[prost(bool, tag = "16")]
    pub(crate) estimated: bool,
    #[prost(int64, tag = "17")]
    pub(crate) started_unix_ms: i64,
    #[prost(uint64, tag = "22")]
    pub(crate) web_searches: u64,
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
            node_id: "node".into(),
            epoch: 6,
            sequence: 7,
            events: vec![Event {
                account_id: "account".into(),
                key_id: "key".into(),
                model: "model".into(),
                outcome: Outcome::Unknown.into(),
                tokens: Some(tokens),
                cost_nano_usd: 9,
                unpriced: true,
                estimated: true,
                started_unix_ms: 10,
                web_searches: 13,
            }],
        };
        assert_eq!(Batch::decode(sent.encode_to_vec().as_slice()), Ok(booked));
    }
}
