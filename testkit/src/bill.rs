//! What the provider would charge: one row for each request that it began to serve.

use serde::Serialize;

/// One charge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BillRow {
    /// The id that the provider gave the request, as its answer's header says.
    pub request_id: String,
    /// Whom it charges.
    pub upstream_key: String,
    /// What was asked.
    pub model: String,
    /// The request's `x-sim-tag` header: how a test finds its own.
    pub tag: String,
    /// Input neither read from nor written to a cache.
    pub input: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache of five minutes.
    pub cache_write_5m: u64,
    /// Input written to a cache of one hour.
    pub cache_write_1h: u64,
    /// Output that was generated, whether or not it arrived.
    pub output: u64,
    /// Whether the whole answer went out; not so when it was cut or the client hung up.
    pub whole: bool,
    /// Whether the answer that went out held its usage.
    pub usage_sent: bool,
}

/// All charges.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Bill {
    /// In the order in which the requests ended.
    pub rows: Vec<BillRow>,
}

impl Bill {
    /// Rows of one upstream key.
    pub fn of_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a BillRow> {
        self.rows.iter().filter(move |row| row.upstream_key == key)
    }
}
