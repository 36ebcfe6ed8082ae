//! What the report must know of an event before it is encoded.

use proxyxai_proto::usage::v1::UsageEvent;

/// What events of one sum have in common: account, key and model.
pub type Row<'a> = (&'a str, &'a [u8], &'a str);

/// An event in the form that costs the core that hands it in the least.
pub trait Event {
    /// The sum that it enters.
    fn row(&self) -> Row<'_>;

    /// Unix milliseconds when the attempt began.
    fn started_unix_ms(&self) -> i64;

    /// Writes the form that leaves the node over another event, whose memory is used again.
    fn write_to(&self, event: &mut UsageEvent);
}

impl Event for UsageEvent {
    fn row(&self) -> Row<'_> {
        (&self.account_id, self.key_id.as_bytes(), &self.model)
    }

    fn started_unix_ms(&self) -> i64 {
        self.started_unix_ms
    }

    fn write_to(&self, event: &mut UsageEvent) {
        event.clone_from(self);
    }
}
