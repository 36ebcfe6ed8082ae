//! `xai usage`: sums of what was used, split as asked. Money is exact: nano-USD, shown in USD.

use proxyxai_proto::admin::v1::{QueryUsageRequest, UsageGroup};

use super::{api::call, connection::Connection, when::When};
use crate::{
    environment::Environment,
    failure::Failure,
    output::{Kind, view},
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
    let at = |when: &Option<When>| when.as_ref().map_or(0, |when| when.past(now));
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
