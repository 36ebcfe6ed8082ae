//! The fields of a file; its JSON Schema is made of these types and their comments.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// What the configuration of a gateway should be. Several files add up; what none of them names is left alone.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Settings of the whole deployment. Given, they are given as a whole.
    pub settings: Option<Settings>,
    /// The subaccount tree.
    pub accounts: Vec<Account>,
    /// Virtual keys. A new one gets a secret of its own, which `xai apply --secrets-out FILE` hands out once.
    pub keys: Vec<Key>,
    /// Upstream APIs.
    pub providers: Vec<Provider>,
    /// Secrets of providers.
    pub upstream_keys: Vec<UpstreamKey>,
    /// Which models go to which providers.
    pub routes: Vec<Route>,
    /// Tables of list prices, one of them in force.
    pub prices: Vec<PriceTable>,
}

/// Settings of the whole deployment. One that is not given has its default.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How old the configuration of a node may become before it refuses all requests: `60s` to `365d`, by default 72 hours.
    #[serde(default)]
    pub max_stale: Option<String>,
    /// How long records of the audit trail are kept: `1d` or longer, by default what the control plane's own setting says.
    #[serde(default)]
    pub audit_keep: Option<String>,
}

/// A subaccount. What it may be used for only narrows what the account above it allows.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// `root/team-a/app`: its name below those of the accounts above it.
    pub path: String,
    /// Refuse it and everything below it.
    #[serde(default)]
    pub suspended: bool,
    /// A child gateway calls as this account: what its requests say of attempts, time and their name is believed.
    #[serde(default)]
    pub gateway: bool,
    /// Models that it may use, `*` standing for any characters; none means all that are allowed above.
    #[serde(default)]
    pub allowed_models: Vec<String>,
    /// Endpoints that it may call; none means all that are allowed above.
    #[serde(default)]
    pub allowed_endpoints: Vec<String>,
    /// Addresses and blocks of addresses that it may be used from; none means all that are allowed above.
    #[serde(default)]
    pub allowed_networks: Vec<String>,
    /// Refuse it and all below it by a node that had no contact with its control plane for so long: `60s` to `365d`, and at most what accounts above say.
    #[serde(default)]
    pub max_stale: Option<String>,
    /// Serve it and all below it also past the `max_stale` of the deployment, or do not though it is allowed above.
    #[serde(default)]
    pub serve_expired: Option<bool>,
}

/// A virtual key. Its secret is in no file: a key that is there keeps the one it has.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Path of its account.
    pub account: String,
    /// What it is for; with the account, what names it.
    pub name: String,
    /// Only where several keys of the account have the name: which of them.
    #[serde(default)]
    pub id: String,
    /// Refuse it.
    #[serde(default)]
    pub disabled: bool,
    /// Refuse it from then on: a date (2027-01-31) or a time (2027-01-31T12:00:00Z); none means never.
    #[serde(default)]
    pub expires: Option<String>,
    /// Models that it may use, `*` standing for any characters; none means all that its account may.
    #[serde(default)]
    pub allowed_models: Vec<String>,
    /// Endpoints that it may call; none means all that its account may.
    #[serde(default)]
    pub allowed_endpoints: Vec<String>,
    /// Addresses and blocks of addresses that it may be used from; none means all that its account may.
    #[serde(default)]
    pub allowed_networks: Vec<String>,
}

/// An upstream API.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Lower-case letters, digits and `-`.
    pub id: String,
    /// The API that it speaks.
    pub kind: ProviderKind,
    /// Its base address, without `/v1`; a bare host means https.
    pub base_url: String,
    /// It may have a loopback or private address.
    #[serde(default)]
    pub allow_private: bool,
    /// Use it no more.
    #[serde(default)]
    pub disabled: bool,
}

/// The API that a provider speaks.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// OpenAI itself.
    Openai,
    /// Anthropic.
    Anthropic,
    /// Any other server that speaks OpenAI's dialect.
    OpenaiCompatible,
    /// A parent ProxyXAI gateway.
    Gateway,
}

/// A secret of a provider. The secret itself is in no file: it is read from where the file says, and a key that is there keeps the one
/// it has when the file says nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamKey {
    /// Lower-case letters, digits and `-`.
    pub id: String,
    /// Id of its provider.
    pub provider: String,
    /// File that holds the secret; relative to this file.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Environment variable of `xai apply` that holds the secret.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// Keys of a lower level are tried first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub level: u32,
    /// Its turns among the keys of its level.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
    /// Models that it serves, by the provider's names, `*` standing for any characters; none means all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Use it no more.
    #[serde(default)]
    pub disabled: bool,
}

/// Sends models to providers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Lower-case letters, digits and `-`.
    pub id: String,
    /// The models, `*` standing for any characters; the longest pattern that fits wins.
    pub model: String,
    /// What the providers call the model: each `*` stands for what the `*` at the same place of `model` matched; none leaves the name.
    #[serde(default)]
    pub upstream_model: Option<String>,
    /// Ids of providers, those of the first level first; those of one level share the requests.
    #[schemars(length(min = 1))]
    pub levels: Vec<Vec<String>>,
    /// When the next level is tried.
    #[serde(default)]
    pub switch_over: SwitchOver,
}

/// When the next level is tried.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub enum SwitchOver {
    /// When every key of the level was tried.
    #[default]
    Exhausted,
    /// At once when the provider throttles; else as above.
    RateLimited,
    /// At once.
    AnyFailure,
}

/// A table of list prices. A version never changes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// Its version, as it stands in the table.
    pub version: String,
    /// Whether it is the one in force.
    #[serde(default)]
    pub active: bool,
    /// The table, JSON as `xai price show --content` prints it; none means the one of this version that is kept already.
    #[serde(default)]
    pub table: Option<String>,
    /// File that holds the table; relative to this file.
    #[serde(default)]
    pub table_file: Option<PathBuf>,
}

fn one() -> u32 {
    1
}
