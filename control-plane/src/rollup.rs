//! Sums of usage: how an event enters a row, and how rows are added up.
//!
//! Applying is total: whatever a node reports is booked, also under ids that were deleted meanwhile.

use std::{borrow::Cow, collections::BTreeMap};

use proxyxai_core::dialect::intent::MAX_MODEL_LEN;
use proxyxai_proto::{
    store::v1::Rollup,
    usage::v1::{Outcome, Tokens},
};

use crate::{reported::Event, store::keyspace::Bucket};

pub(crate) const HOUR_MS: i64 = 3_600_000;
/// Rows by hour are kept this long, then folded into days.
pub(crate) const HOURS_KEPT: u64 = 48;
/// Rows by day are kept this long.
pub(crate) const DAYS_KEPT: u64 = 62;
/// Models of one account and key that have rows of their own in an hour or day. Clients choose the names, so there must be an end.
pub(crate) const MODELS_KEPT: usize = 100;
/// The row of all further ones. No client can ask for it by accident: models do not begin with a bracket.
pub(crate) const OTHER_MODELS: &str = "(other models)";

/// The row of each event, and what the batch adds to it. An event whose node's clock is off by more than the rows are kept, or lies in
/// the future, is booked to the present hour: it is never lost, and never in a row that is already gone.
pub(crate) fn sum_up(events: &[Event<'_>], now_ms: i64) -> BTreeMap<Bucket, Rollup> {
    let now = hour_of(now_ms);
    let mut rows: BTreeMap<Bucket, Rollup> = BTreeMap::new();
    // Nodes send the events of a row together.
    for of_one_row in events.chunk_by(same_row) {
        let Some(event) = of_one_row.first() else {
            continue;
        };
        let hour = hour_of(event.started_unix_ms);
        let plausible = hour <= now.saturating_add(1) && hour.saturating_add(HOURS_KEPT) > now;
        let bucket = Bucket {
            slot: if plausible { hour } else { now },
            account: clean(event.account_id),
            key: clean(event.key_id),
            model: model_of(event),
        };
        let row = rows.entry(bucket).or_default();
        for event in of_one_row {
            add(row, &of_event(event));
        }
    }
    rows
}

fn same_row(a: &Event<'_>, b: &Event<'_>) -> bool {
    hour_of(a.started_unix_ms) == hour_of(b.started_unix_ms)
        && (a.account_id, a.key_id, a.model) == (b.account_id, b.key_id, b.model)
}

/// The hour of a time.
pub(crate) fn hour_of(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms / HOUR_MS).unwrap_or(0)
}

/// Adds one row to another.
pub(crate) fn add(into: &mut Rollup, more: &Rollup) {
    for (sum, part) in [
        (&mut into.attempts, more.attempts),
        (&mut into.reported, more.reported),
        (&mut into.rejected, more.rejected),
        (&mut into.not_sent, more.not_sent),
        (&mut into.unknown, more.unknown),
        (&mut into.unpriced, more.unpriced),
        (&mut into.web_searches, more.web_searches),
    ] {
        *sum = sum.saturating_add(part);
    }
    add_tokens(
        into.tokens.get_or_insert_default(),
        &more.tokens.unwrap_or_default(),
    );
    add_tokens(
        into.estimated_tokens.get_or_insert_default(),
        &more.estimated_tokens.unwrap_or_default(),
    );
    into.cost_nano_usd = into.cost_nano_usd.saturating_add(more.cost_nano_usd);
    into.estimated_cost_nano_usd = into
        .estimated_cost_nano_usd
        .saturating_add(more.estimated_cost_nano_usd);
}

fn of_event(event: &Event<'_>) -> Rollup {
    let is = |outcome: Outcome| u64::from(event.outcome == outcome);
    let row = Rollup {
        attempts: 1,
        reported: is(Outcome::Reported),
        rejected: is(Outcome::Rejected),
        not_sent: is(Outcome::NotSent),
        unknown: is(Outcome::Unknown),
        unpriced: u64::from(event.unpriced),
        web_searches: event.web_searches,
        ..Rollup::default()
    };
    if event.estimated {
        Rollup {
            estimated_tokens: Some(event.tokens),
            estimated_cost_nano_usd: event.cost_nano_usd,
            ..row
        }
    } else {
        Rollup {
            tokens: Some(event.tokens),
            cost_nano_usd: event.cost_nano_usd,
            ..row
        }
    }
}

fn add_tokens(into: &mut Tokens, more: &Tokens) {
    for (sum, part) in [
        (&mut into.input, more.input),
        (&mut into.cache_read, more.cache_read),
        (&mut into.cache_write_5m, more.cache_write_5m),
        (&mut into.cache_write_1h, more.cache_write_1h),
        (&mut into.output, more.output),
    ] {
        *sum = sum.saturating_add(part);
    }
}

/// A model as part of a key: nodes refuse longer names at their door.
fn model_of(event: &Event<'_>) -> String {
    let mut model = text(event.model).into_owned();
    model.truncate(model.floor_char_boundary(MAX_MODEL_LEN));
    model
}

/// An id as part of a key: nodes send only ids of this gateway, which have no `/`.
fn clean(id: &[u8]) -> String {
    text(id).replace('/', "_")
}

/// Nodes send text; whatever else comes is booked under a name like it.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
