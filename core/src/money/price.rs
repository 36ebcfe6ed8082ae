//! The price book: one immutable table of list prices, found by kind of provider and model name.
//!
//! Prices are whole pico-USD (10⁻¹² USD) per token. A price that is missing is missing: it is never taken for zero.
//! `prices.json` is made by `scripts/refresh-prices` from genai-prices (MIT) and says its date and source.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::route::provider::ProviderKind;

/// The table that is shipped.
pub const SHIPPED: &[u8] = include_bytes!("prices.json");

/// All list prices of one version.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Table")]
pub struct PriceBook {
    /// Identifies the content; stands in every usage event.
    pub version: String,
    /// When the prices were collected, as `YYYY-MM-DD`.
    pub date: String,
    /// Where they are from.
    pub source: String,
    families: BTreeMap<String, Family>,
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    version: String,
    date: String,
    source: String,
    families: BTreeMap<String, Vec<Price>>,
}

/// The models of one provider, ready to be found by name.
#[derive(Debug, Default)]
struct Family {
    prices: Vec<Price>,
    exact: HashMap<String, usize>,
    /// Longest first.
    prefixes: Vec<(String, usize)>,
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
    /// What is usually paid.
    standard: Scale,
    /// What is paid in a service tier of its own.
    #[serde(default)]
    tiers: BTreeMap<String, Scale>,
    /// Pico-USD for one web search.
    #[serde(default)]
    pub web_search: Option<u64>,
}

/// Rates, and those that replace all of them once the input of a request exceeds a threshold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    rates: Rates,
    /// Ascending.
    #[serde(default)]
    above: Vec<Above>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Above {
    input_tokens: u64,
    rates: Rates,
}

/// Pico-USD per token, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Input read neither from nor into a cache.
    pub input: Option<u64>,
    /// Input read from a cache.
    pub cache_read: Option<u64>,
    /// Written to a cache of five minutes.
    pub cache_write_5m: Option<u64>,
    /// Written to a cache of one hour.
    pub cache_write_1h: Option<u64>,
    /// Output.
    pub output: Option<u64>,
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

/// Longest version, in characters.
const MAX_VERSION: usize = 63;

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
            .find_map(|family| family.find(model))
    }

    /// All prices, family by family.
    pub fn all(&self) -> impl Iterator<Item = &Price> {
        self.families.values().flat_map(|family| &family.prices)
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.families
            .values()
            .map(|family| family.prices.len())
            .sum()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }
}

impl Price {
    /// The rates for a request with this much input at this tier.
    pub(super) fn rates(&self, input_tokens: u64, tier: Option<&str>) -> Option<&Rates> {
        let scale = match tier {
            Some(tier) => self.tiers.get(tier)?,
            None => &self.standard,
        };
        let above = scale
            .above
            .iter()
            .rfind(|above| input_tokens > above.input_tokens);
        Some(above.map_or(&scale.rates, |above| &above.rates))
    }
}

impl Price {
    /// All rates that a request of at most this much input can meet at this tier; `None` when the tier has no prices.
    pub(super) fn reachable(
        &self,
        most_input: u64,
        tier: Option<&str>,
    ) -> Option<impl Iterator<Item = &Rates>> {
        let scale = match tier {
            Some(tier) => self.tiers.get(tier)?,
            None => &self.standard,
        };
        let above = scale
            .above
            .iter()
            .filter(move |above| most_input > above.input_tokens);
        Some(std::iter::once(&scale.rates).chain(above.map(|above| &above.rates)))
    }
}

impl Family {
    fn of(prices: Vec<Price>) -> Self {
        let mut family = Self::default();
        for (at, price) in prices.iter().enumerate() {
            for name in &price.matches {
                match name.strip_suffix('*') {
                    Some(prefix) => family.prefixes.push((prefix.to_owned(), at)),
                    None => drop(family.exact.insert(name.clone(), at)),
                }
            }
        }
        family
            .prefixes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        family.prices = prices;
        family
    }

    /// The price whose name fits best: an exact one before a prefix, a longer prefix before a shorter one.
    fn find(&self, model: &str) -> Option<&Price> {
        let prefixed = || {
            self.prefixes
                .iter()
                .find(|(prefix, _)| model.starts_with(prefix.as_str()))
                .map(|(_, at)| at)
        };
        self.exact
            .get(model)
            .or_else(prefixed)
            .and_then(|at| self.prices.get(*at))
    }
}

impl TryFrom<Table> for PriceBook {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, &'static str> {
        let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(1..=MAX_VERSION).contains(&table.version.len()) || !table.version.chars().all(clean) {
            return Err(
                "the version of a price table has 1 to 63 letters, digits, `.`, `-` and `_`",
            );
        }
        let families = table
            .families
            .into_iter()
            .map(|(name, prices)| (name, Family::of(prices)))
            .collect();
        Ok(Self {
            version: table.version,
            date: table.date,
            source: table.source,
            families,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::usage::{Tokens, Usage},
        money::cost::{CostError, cost},
    };

    fn book() -> PriceBook {
        PriceBook::parse(SHIPPED).unwrap()
    }

    /// Cost in nano-USD, as the price list of the provider gives it.
    fn check(kind: ProviderKind, model: &str, tokens: Tokens, nano: i64) {
        let book = book();
        let price = book
            .price(kind, model)
            .unwrap_or_else(|| panic!("{model} has no price"));
        let usage = Usage {
            tokens,
            ..Usage::default()
        };
        assert_eq!(cost(price, &usage).map(|cost| cost.0), Ok(nano), "{model}");
    }

    #[test]
    fn costs_are_those_of_the_list() {
        use ProviderKind::{Anthropic, Gateway, Openai, OpenaiCompatible};
        let plain = |input, output| Tokens {
            input,
            output,
            ..Tokens::default()
        };
        check(
            Openai,
            "gpt-4o-mini",
            plain(1_000_000, 1_000_000),
            750_000_000,
        );
        check(Openai, "gpt-4o-2024-08-06", plain(1_000, 10), 2_600_000);
        check(Openai, "text-embedding-3-small", plain(7, 0), 140);
        check(
            OpenaiCompatible,
            "gpt-4o",
            Tokens {
                cache_read: 3,
                ..plain(1, 0)
            },
            6_250,
        );
        let cached = Tokens {
            cache_write_5m: 2,
            cache_write_1h: 1,
            cache_read: 10,
            ..plain(100, 7)
        };
        check(Anthropic, "claude-sonnet-4-5-20250929", cached, 421_500);
        check(
            Gateway,
            "claude-sonnet-4-5",
            plain(200_001, 1),
            1_200_028_500,
        );
        check(Gateway, "deepseek-chat", plain(0, 0), 0);
    }

    #[test]
    fn what_has_no_price_is_not_free() {
        let book = book();
        assert!(
            book.price(ProviderKind::Openai, "a-model-of-tomorrow")
                .is_none()
        );
        assert!(
            book.price(ProviderKind::Openai, "claude-sonnet-4-5")
                .is_none()
        );
        assert!(book.price(ProviderKind::Anthropic, "gpt-4o").is_none());
        let price = book.price(ProviderKind::Openai, "gpt-4o").unwrap();
        let of = |tokens: Tokens, tier: Option<&str>| {
            cost(
                price,
                &Usage {
                    tokens,
                    tier: tier.map(str::to_owned),
                    ..Usage::default()
                },
            )
        };
        let one = Tokens {
            input: 1,
            ..Tokens::default()
        };
        assert_eq!(
            of(one, Some("unheard-of")),
            Err(CostError::NoPrice("this service tier"))
        );
        let long = Tokens {
            cache_write_1h: 1,
            ..Tokens::default()
        };
        assert_eq!(
            of(long, None),
            Err(CostError::NoPrice("cache writes of one hour"))
        );
        assert_eq!(
            of(
                Tokens {
                    output: u64::MAX,
                    ..one
                },
                None
            ),
            Err(CostError::Overflow)
        );
    }

    proptest::proptest! {
        #[test]
        fn law_8_cost_is_monotone(
            counts in proptest::array::uniform5(0_u64..300_000),
            more in proptest::array::uniform5(0_u64..300_000),
            model in proptest::arbitrary::any::<proptest::sample::Index>(),
        ) {
            let book = book();
            let price = model.get(&book.families["anthropic"].prices);
            let usage = |add: [u64; 5]| {
                let [input, cache_read, cache_write_5m, cache_write_1h, output] = std::array::from_fn(|at| counts[at].saturating_add(add[at]));
                Usage { tokens: Tokens { input, cache_read, cache_write_5m, cache_write_1h, output }, ..Usage::default() }
            };
            if let (Ok(less), Ok(greater)) = (cost(price, &usage([0; 5])), cost(price, &usage(more))) {
                proptest::prop_assert!(less <= greater, "{} {less} {greater}", price.model);
            }
        }
    }
}
