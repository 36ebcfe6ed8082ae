//! What the admin API tells of a deployment. Each part is asked for by itself, so that a refusal of one hides no other.

use jiff::fmt::rfc2822::DateTimeParser;
use proxyxai_core::money::price::PriceBook;
use proxyxai_proto::admin::v1::{
    CredentialView, GetKeyringRequest, GetPriceTableRequest, GetSettingsRequest, JoinTokenView,
    KeyView, KeyringView, ListCredentialsRequest, ListJoinTokensRequest, ListKeysRequest,
    ListNodesRequest, ListNodesResponse, ListProvidersRequest, ListRoutesRequest,
    ListUpstreamKeysRequest, ListWithheldRequest, PriceTableView, ProviderView, QueryUsageRequest,
    RouteView, SettingsView, UpstreamKeyView, UsageGroup, UsageRow, WhoAmIRequest, WhoAmIResponse,
    WithheldView,
};

use super::{
    super::api::{Api, PAGE, all_pages, call},
    deployment::Clock,
};
use crate::{failure::Failure, system};

/// Virtual keys that are looked at; a deployment may have millions.
pub(super) const MOST_KEYS: usize = 20_000;
/// How far back usage without a price is looked for, in milliseconds.
const UNPRICED_SINCE: i64 = 24 * 3_600_000;

/// A part of it, or why it is not known.
pub(super) type Part<T> = Result<T, Failure>;

/// What is known of a deployment.
pub(super) struct Seen {
    pub(super) identity: WhoAmIResponse,
    /// The clock of the control plane; absent when its answer says none.
    pub(super) clock: Option<Clock>,
    pub(super) nodes: Part<ListNodesResponse>,
    pub(super) withheld: Part<Vec<WithheldView>>,
    pub(super) providers: Part<Vec<ProviderView>>,
    pub(super) upstream_keys: Part<Vec<UpstreamKeyView>>,
    pub(super) routes: Part<Vec<RouteView>>,
    /// Enabled ones, [`MOST_KEYS`] at most.
    pub(super) keys: Part<Vec<KeyView>>,
    pub(super) credentials: Part<Vec<CredentialView>>,
    pub(super) join_tokens: Part<Vec<JoinTokenView>>,
    pub(super) settings: Part<SettingsView>,
    pub(super) keyring: Part<KeyringView>,
    pub(super) prices: Part<(PriceTableView, PriceBook)>,
    /// Usage of the last day that has no price, by model.
    pub(super) unpriced: Part<Vec<UsageRow>>,
}

impl Seen {
    /// Asks for all of it.
    ///
    /// # Errors
    /// When the control plane does not even say who the caller is.
    pub(super) async fn look(api: Api, now: i64) -> Result<Self, Failure> {
        let answer = api.credentials().who_am_i(WhoAmIRequest {}).await;
        let answer = answer.map_err(|status| api.failure(status))?;
        let date = answer.metadata().get("date");
        let theirs = date.and_then(|date| unix_ms(date.to_str().ok()?));
        let ours = (now, system::unix_ms());
        Ok(Self {
            identity: answer.into_inner(),
            clock: theirs.map(|theirs| Clock { theirs, ours }),
            nodes: nodes(&api).await,
            withheld: withheld(&api).await,
            providers: providers(&api).await,
            upstream_keys: upstream_keys(&api).await,
            routes: routes(&api).await,
            keys: keys(&api).await,
            credentials: credentials(&api).await,
            join_tokens: join_tokens(&api).await,
            settings: settings(&api).await,
            keyring: keyring(&api).await,
            prices: prices(&api).await,
            unpriced: unpriced(&api, now).await,
        })
    }

    /// The parts that could not be looked at, by name, and why.
    pub(super) fn hidden(&self) -> Vec<(&'static str, &Failure)> {
        let parts = [
            ("nodes", self.nodes.as_ref().err()),
            ("withheld objects", self.withheld.as_ref().err()),
            ("providers", self.providers.as_ref().err()),
            ("upstream keys", self.upstream_keys.as_ref().err()),
            ("routes", self.routes.as_ref().err()),
            ("virtual keys", self.keys.as_ref().err()),
            ("credentials", self.credentials.as_ref().err()),
            ("join tokens", self.join_tokens.as_ref().err()),
            ("settings", self.settings.as_ref().err()),
            ("sealing keys", self.keyring.as_ref().err()),
            ("prices", self.prices.as_ref().err()),
            ("usage", self.unpriced.as_ref().err()),
        ];
        let hidden = parts.into_iter();
        hidden
            .filter_map(|(name, why)| Some((name, why?)))
            .collect()
    }
}

/// The time of a `date` header, in Unix milliseconds.
pub(super) fn unix_ms(date: &str) -> Option<i64> {
    let time = DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(time.as_millisecond())
}

async fn nodes(api: &Api) -> Part<ListNodesResponse> {
    Ok(call!(api, api.nodes().list_nodes(ListNodesRequest {})))
}

async fn withheld(api: &Api) -> Part<Vec<WithheldView>> {
    Ok(
        all_pages!(api, withheld, page_token => api.nodes().list_withheld(ListWithheldRequest {
            page_size: PAGE,
            page_token,
        })),
    )
}

async fn providers(api: &Api) -> Part<Vec<ProviderView>> {
    Ok(
        all_pages!(api, providers, page_token => api.providers().list_providers(ListProvidersRequest {
            page_size: PAGE,
            page_token,
            ..ListProvidersRequest::default()
        })),
    )
}

async fn upstream_keys(api: &Api) -> Part<Vec<UpstreamKeyView>> {
    Ok(
        all_pages!(api, upstream_keys, page_token => api.upstream_keys().list_upstream_keys(ListUpstreamKeysRequest {
            page_size: PAGE,
            page_token,
            ..ListUpstreamKeysRequest::default()
        })),
    )
}

async fn routes(api: &Api) -> Part<Vec<RouteView>> {
    Ok(
        all_pages!(api, routes, page_token => api.routes().list_routes(ListRoutesRequest {
            page_size: PAGE,
            page_token,
            ..ListRoutesRequest::default()
        })),
    )
}

async fn keys(api: &Api) -> Part<Vec<KeyView>> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListKeysRequest {
            page_size: PAGE,
            page_token,
            disabled: Some(false),
            ..ListKeysRequest::default()
        };
        let page = call!(api, api.keys().list_keys(request));
        all.extend(page.keys);
        if page.next_page_token.is_empty() || all.len() >= MOST_KEYS {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}

async fn credentials(api: &Api) -> Part<Vec<CredentialView>> {
    Ok(
        all_pages!(api, credentials, page_token => api.credentials().list_credentials(ListCredentialsRequest {
            page_size: PAGE,
            page_token,
            ..ListCredentialsRequest::default()
        })),
    )
}

async fn join_tokens(api: &Api) -> Part<Vec<JoinTokenView>> {
    Ok(
        all_pages!(api, join_tokens, page_token => api.join_tokens().list_join_tokens(ListJoinTokensRequest {
            page_size: PAGE,
            page_token,
        })),
    )
}

async fn settings(api: &Api) -> Part<SettingsView> {
    let answer = call!(api, api.settings().get_settings(GetSettingsRequest {}));
    Ok(answer.settings.unwrap_or_default())
}

async fn keyring(api: &Api) -> Part<KeyringView> {
    let answer = call!(api, api.secrets().get_keyring(GetKeyringRequest {}));
    Ok(answer.keyring.unwrap_or_default())
}

async fn prices(api: &Api) -> Part<(PriceTableView, PriceBook)> {
    let request = GetPriceTableRequest::default();
    let answer = call!(api, api.prices().get_price_table(request));
    let book = PriceBook::parse(&answer.content)
        .map_err(|error| Failure::failed(format!("the price table in force: {error}")))?;
    Ok((answer.price_table.unwrap_or_default(), book))
}

async fn unpriced(api: &Api, now: i64) -> Part<Vec<UsageRow>> {
    let request = QueryUsageRequest {
        from_unix_ms: now.saturating_sub(UNPRICED_SINCE),
        group_by: vec![UsageGroup::Model.into()],
        unpriced_only: true,
        ..QueryUsageRequest::default()
    };
    Ok(call!(api, api.usage().query_usage(request)).rows)
}
