//! The price book: one immutable table of list prices, found by kind of provider and model name.
//!
//! Prices are whole pico-USD (10⁻¹² USD) per token. A price that is missing is missing: it is never taken for zero. `prices.json` is made
//! by `scripts/refresh-prices` from genai-prices (MIT) and says its date and source.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::route::provider::ProviderKind;

/// The table that is shipped.
pub const SHIPPED: &[u8] = include_bytes!("prices.json");

/// All list prices of one version.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceBook {
    /// Identifies the content; stands in every usage event.
    pub version: String,
    /// When the prices were collected, as `YYYY-MM-DD`.
    pub date: String,
    /// Where they are from.
    pub source: String,
    /// By provider, in no order that matters.
    families: BTreeMap<String, Vec<Price>>,
}

/// Prices of one model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The model's own name.
    pub model: String,
    /// Names that mean it: exactly, or all that begin with what stands before a final `*`.
    #[serde(rename = "match")]
    matches: Vec<String>,
    /// Per token.
    rates: Rates,
    /// Rates for the whole request once its input exceeds a threshold; ascending.
    #[serde(default)]
    above: Vec<Above>,
    /// Rates of service tiers.
    #[serde(default)]
    tiers: BTreeMap<String, Rates>,
    /// Pico-USD for one web search.
    #[serde(default)]
    pub web_search: Option<u64>,
}

/// Pico-USD per token, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Input read neither from nor into a cache.
    pub input: Option<u64>,
    /// Input read from a cache.
    #[serde(default)]
    pub cache_read: Option<u64>,
    /// Written to a cache of five minutes.
    #[serde(default)]
    pub cache_write_5m: Option<u64>,
    /// Written to a cache of one hour.
    #[serde(default)]
    pub cache_write_1h: Option<u64>,
    /// Output.
    pub output: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Above {
    input_tokens: u64,
    rates: Rates,
}

/// Families for providers that may serve anybody's models, in the order in which they are asked.
const EVERY_FAMILY: [&str; 7] = [
    "openai",
    "anthropic",
    "google",
    "deepseek",
    "mistral",
    "x-ai",
    "groq",
];

impl PriceBook {
    /// Reads a table.
    ///
    /// # Errors
    /// Where and why it is not one.
    pub fn parse(content: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(content)
    }

    /// The price of a model at a provider of this kind. Compatible servers and parent gateways may serve anybody's models, so all
    /// families are asked for them.
    pub fn price(&self, kind: ProviderKind, model: &str) -> Option<&Price> {
        let families: &[&str] = match kind {
            ProviderKind::Openai => &["openai"],
            ProviderKind::Anthropic => &["anthropic"],
            ProviderKind::OpenaiCompatible | ProviderKind::Gateway => &EVERY_FAMILY,
        };
        families
            .iter()
            .filter_map(|family| self.families.get(*family))
            .find_map(|prices| best(prices, model))
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.families.values().map(Vec::len).sum()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }
}

impl Price {
    /// The rates for a request with this much input at this tier.
    pub(super) fn rates(&self, input_tokens: u64, tier: Option<&str>) -> Option<&Rates> {
        match tier {
            Some(tier) => self.tiers.get(tier),
            None => Some(
                self.above
                    .iter()
                    .rfind(|above| input_tokens > above.input_tokens)
                    .map_or(&self.rates, |above| &above.rates),
            ),
        }
    }
}

/// The price whose pattern fits best: an exact name before a prefix, a longer prefix before a shorter one.
fn best<'a>(prices: &'a [Price], model: &str) -> Option<&'a Price> {
    let fit = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => model.starts_with(prefix).then_some(prefix.len()),
        None => (pattern == model).then_some(usize::MAX),
    };
    let fits = prices.iter().filter_map(|price| {
        price
            .matches
            .iter()
            .filter_map(fit)
            .max()
            .map(|fit| (fit, price))
    });
    fits.max_by_key(|(fit, _)| *fit).map(|(_, price)| price)
}
