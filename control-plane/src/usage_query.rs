//! Answers what was used: adds up rows by account (with its subtree), key and model.

use std::{collections::BTreeMap, sync::Arc};

use proxyxai_core::{
    access::{Caller, Permission},
    account::tree::ROOT,
    snapshot::ResourceKind,
};
use proxyxai_proto::{
    admin::v1::{
        QueryUsageRequest, QueryUsageResponse, UsageGroup, UsageRow,
        usage_query_service_server::UsageQueryService,
    },
    config::v1::resource::Kind,
    store::v1::Rollup,
};
use tonic::{Request, Response, Status};

use crate::{
    admin::accounts::find_account,
    auth,
    config_store::{ConfigStore, State},
    rollup::{self, HOUR_MS},
    status::Fault,
    store::{
        Range, Store,
        keyspace::{self, Bucket, Key, USAGE_PREFIX},
    },
};

pub(crate) struct UsageQueryServer {
    pub(crate) config: Arc<ConfigStore>,
    pub(crate) store: Arc<dyn Store>,
}

#[tonic::async_trait]
impl UsageQueryService for UsageQueryServer {
    async fn query_usage(
        &self,
        request: Request<QueryUsageRequest>,
    ) -> Result<Response<QueryUsageResponse>, Status> {
        let caller = auth::caller(&request)?;
        let query = request.into_inner();
        let state = self.config.state();
        let rows = self.rows(&state, &caller, &query).await?;
        let groups: Vec<UsageGroup> = query.group_by().collect();
        let mut sums: BTreeMap<(String, String, String), Rollup> = BTreeMap::new();
        for (bucket, row) in rows {
            let part = |group: UsageGroup, value: String| {
                if groups.contains(&group) {
                    value
                } else {
                    String::new()
                }
            };
            let group = (
                part(UsageGroup::Account, bucket.account),
                part(UsageGroup::Key, bucket.key),
                part(UsageGroup::Model, bucket.model),
            );
            rollup::add(sums.entry(group).or_default(), &row);
        }
        let rows = sums
            .into_iter()
            .map(|(group, sum)| usage_row(&state, group, sum))
            .collect();
        Ok(Response::new(QueryUsageResponse { rows }))
    }
}

impl UsageQueryServer {
    async fn rows(
        &self,
        state: &State,
        caller: &Caller,
        query: &QueryUsageRequest,
    ) -> Result<Vec<(Bucket, Rollup)>, Fault> {
        let accounts = &state.snapshot.accounts;
        // Everything is under the root account, also what accounts used that are deleted now.
        let under = Some(find_account(state, caller, Permission::Read, &query.under)?)
            .filter(|at| accounts.id(*at) != ROOT);
        let wanted = |bucket: &Bucket| {
            let inside = under.is_none_or(|under| {
                accounts
                    .get(&bucket.account)
                    .is_some_and(|at| accounts.in_subtree(at, under))
            });
            inside
                && (query.key_id.is_empty() || query.key_id == bucket.key)
                && (query.model.is_empty() || query.model == bucket.model)
        };
        let mut found = Vec::new();
        // Hours and days are read at one revision: between two reads hours could become days, and count twice or not at all.
        for entry in self.store.range(Range::prefix(USAGE_PREFIX)).await?.entries {
            let (bucket, hours) = match Key::parse(&entry.key) {
                Some(Key::Hour(bucket)) => (bucket, 1),
                Some(Key::Day(bucket)) => (bucket, 24),
                _ => continue,
            };
            let row: Rollup = keyspace::decode(&entry.key, &entry.value)?;
            if within(query, bucket.slot, hours)
                && wanted(&bucket)
                && (!query.unpriced_only || row.unpriced > 0)
            {
                found.push((bucket, row));
            }
        }
        Ok(found)
    }
}

/// Whether a row of `hours` hours lies in the time asked for, at least in part.
fn within(query: &QueryUsageRequest, slot: u64, hours: i64) -> bool {
    let start = i64::try_from(slot)
        .unwrap_or(i64::MAX)
        .saturating_mul(hours)
        .saturating_mul(HOUR_MS);
    let end = start.saturating_add(hours.saturating_mul(HOUR_MS));
    (query.from_unix_ms == 0 || end > query.from_unix_ms)
        && (query.to_unix_ms == 0 || start < query.to_unix_ms)
}

fn usage_row(
    state: &State,
    (account_id, key_id, model): (String, String, String),
    sum: Rollup,
) -> UsageRow {
    let accounts = &state.snapshot.accounts;
    let key = state
        .get(ResourceKind::VirtualKey, &key_id)
        .and_then(|stored| stored.resource.as_ref()?.kind.as_ref());
    let key_name = match key {
        Some(Kind::VirtualKey(key)) => key.name.clone(),
        _ => String::new(),
    };
    UsageRow {
        account_path: accounts
            .get(&account_id)
            .map(|at| accounts.path(at))
            .unwrap_or_default(),
        account_id,
        key_id,
        key_name,
        model,
        attempts: sum.attempts,
        reported: sum.reported,
        rejected: sum.rejected,
        not_sent: sum.not_sent,
        unknown: sum.unknown,
        tokens: Some(sum.tokens.unwrap_or_default()),
        estimated_tokens: Some(sum.estimated_tokens.unwrap_or_default()),
        cost_nano_usd: sum.cost_nano_usd,
        estimated_cost_nano_usd: sum.estimated_cost_nano_usd,
        unpriced: sum.unpriced,
        web_searches: sum.web_searches,
    }
}
