//! `xai usage`: sums of what was used, split as asked. Money is exact: nano-USD, shown in USD.

use std::str::FromStr;

use jiff::{Timestamp, civil};
use proxyxai_proto::admin::v1::{QueryUsageRequest, UsageGroup};

use super::{api::call, connection::Connection};
use crate::{
    environment::Environment,
    failure::Failure,
    output::{Kind, view},
    settings::value::Span,
    system,
};

/// What was used, and what it cost.
#[derive(Debug, clap::Args)]
pub struct Usage {
    /// Only this account and those below it (id or path).
    #[arg(long, default_value = "", hide_default_value = true)]
    account: String,
    /// Only this virtual key (id).
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// Only this model.
    #[arg(long, default_value = "", hide_default_value = true)]
    model: String,
    /// Split by account, key, model, or several of them with commas between.
    #[arg(long, value_delimiter = ',', value_name = "GROUPS")]
    by: Vec<Group>,
    /// From then on: a date such as 2026-11-24, a time such as 2026-11-24T10:00:00Z, or an age such as 24h or 7d; whole hours in UTC.
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Until then, likewise.
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Only what has no price, and so is in no sum of money.
    #[arg(long)]
    unpriced: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    Account,
    Key,
    Model,
}

impl Group {
    fn to_proto(self) -> UsageGroup {
        match self {
            Self::Account => UsageGroup::Account,
            Self::Key => UsageGroup::Key,
            Self::Model => UsageGroup::Model,
        }
    }
}

/// Columns of every row; those of the groups stand before them.
const SUMS: [(&str, &str); 12] = [
    ("ATTEMPTS", "attempts"),
    ("REPORTED", "reported"),
    ("REJECTED", "rejected"),
    ("NOT SENT", "not_sent"),
    ("UNKNOWN", "unknown"),
    ("INPUT", "tokens.input"),
    ("CACHE READ", "tokens.cache_read"),
    ("OUTPUT", "tokens.output"),
    ("COST USD", "cost_usd"),
    ("+ UNKNOWN, ESTIMATED", "estimated_cost_usd"),
    ("UNPRICED", "unpriced"),
    ("SEARCHES", "web_searches"),
];

/// Asks and prints.
pub async fn run(usage: Usage, environment: &Environment) -> Result<(), Failure> {
    let api = usage.connection.open(environment)?;
    let now = system::unix_ms();
    let at = |when: &Option<When>| when.as_ref().map_or(0, |when| when.unix_ms(now));
    let request = QueryUsageRequest {
        under: usage.account,
        key_id: usage.key,
        model: usage.model,
        from_unix_ms: at(&usage.since),
        to_unix_ms: at(&usage.until),
        group_by: usage
            .by
            .iter()
            .map(|group| group.to_proto().into())
            .collect(),
        unpriced_only: usage.unpriced,
    };
    let rows = call!(api, api.usage().query_usage(request)).rows;
    let groups = [
        (Group::Account, "ACCOUNT", "account_path"),
        (Group::Key, "KEY", "key_id"),
        (Group::Key, "NAME", "key_name"),
        (Group::Model, "MODEL", "model"),
    ];
    let asked = groups
        .into_iter()
        .filter(|(group, _, _)| usage.by.contains(group));
    let columns: Vec<_> = asked
        .map(|(_, title, place)| (title, place))
        .chain(SUMS)
        .collect();
    let kind = Kind {
        one: "row",
        many: "rows",
        columns: &columns,
    };
    usage
        .connection
        .output()
        .many(&kind, rows.iter().map(view::usage_row).collect())
}

/// A point in time, as people name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Unix milliseconds.
    At(i64),
    /// Milliseconds before now, or after it where a future is meant.
    Ago(i64),
}

impl When {
    /// The time, in Unix milliseconds.
    pub fn unix_ms(self, now: i64) -> i64 {
        match self {
            Self::At(at) => at,
            Self::Ago(age) => now.saturating_sub(age),
        }
    }

    /// The time where a span is one from now on.
    pub fn ahead_of(self, now: i64) -> i64 {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now.saturating_add(span),
        }
    }
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str =
            "say when: a date (2026-11-24), a time (2026-11-24T10:00:00Z) or an age (24h, 7d)";
        const DAY_MS: i64 = 86_400_000;
        if let Some(days) = text.strip_suffix('d') {
            let days: i64 = days.parse().map_err(|_| WANTED)?;
            let age = days.checked_mul(DAY_MS).filter(|age| *age >= 0);
            return age.map(Self::Ago).ok_or(WANTED);
        }
        if let Ok(Span(age)) = text.parse() {
            return i64::try_from(age.as_millis())
                .map(Self::Ago)
                .map_err(|_| WANTED);
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::At(time.as_millisecond()));
        }
        let date: civil::Date = text.parse().map_err(|_| WANTED)?;
        let midnight: Timestamp = format!("{date}T00:00:00Z").parse().map_err(|_| WANTED)?;
        Ok(Self::At(midnight.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::When;

    #[test]
    fn people_say_when_in_their_ways() {
        let check = |text: &str, when: Option<When>| assert_eq!(text.parse().ok(), when, "{text}");
        check("24h", Some(When::Ago(86_400_000)));
        check("7d", Some(When::Ago(604_800_000)));
        check("2026-11-24", Some(When::At(1_795_478_400_000)));
        check("2026-11-24T10:30:00Z", Some(When::At(1_795_516_200_000)));
        for wrong in ["", "yesterday", "-1d", "24", "2026-13-01"] {
            check(wrong, None);
        }
    }
}
