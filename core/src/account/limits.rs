//! What an account or a virtual key is limited to: one list for each dimension, and how the lists along a path meet.
//!
//! Invariants: an empty list limits nothing; a path permits what every list on it permits, so that nobody permits what is forbidden
//! above (law 15). [`Dimension`] is the table of what can be narrowed: a further one is a variant, and the compiler then names every
//! place that must know it.

use std::net::IpAddr;

use super::{network::NetworkList, pattern::PatternList};
use crate::dialect::Endpoint;

/// Most entries of one list: it is read for every request.
pub const MAX_ENTRIES: usize = 256;

/// What is asked for. What is `None` is not known yet, and asked for later.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The model, as the client named it.
    pub model: Option<&'a str>,
    /// What is called.
    pub endpoint: Option<Endpoint>,
    /// The address that it comes from.
    pub from: Option<IpAddr>,
}

impl<'a> Asked<'a> {
    /// What the head of a request tells.
    pub fn call(endpoint: Endpoint, from: IpAddr) -> Self {
        Self {
            endpoint: Some(endpoint),
            from: Some(from),
            model: None,
        }
    }

    /// What its body tells.
    pub fn model(model: &'a str) -> Self {
        Self {
            model: Some(model),
            ..Self::default()
        }
    }
}

/// What can be narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Which models.
    Models,
    /// Which endpoints.
    Endpoints,
    /// From which addresses.
    Networks,
}

impl Dimension {
    /// All of them, in the order in which a refusal names them.
    pub const ALL: [Self; 3] = [Self::Networks, Self::Endpoints, Self::Models];

    /// The field of an account or key that holds its list.
    pub fn field(self) -> &'static str {
        match self {
            Self::Models => "allowed_models",
            Self::Endpoints => "allowed_endpoints",
            Self::Networks => "allowed_networks",
        }
    }

    /// What is refused, for a sentence.
    pub fn refused(self) -> &'static str {
        match self {
            Self::Models => "this model",
            Self::Endpoints => "this endpoint",
            Self::Networks => "calls from this address",
        }
    }

    fn permits(self, limits: &Limits, asked: &Asked<'_>) -> bool {
        match self {
            Self::Models => asked.model.is_none_or(|model| limits.models.permits(model)),
            Self::Endpoints => asked.endpoint.is_none_or(|e| limits.endpoints.permits(e)),
            Self::Networks => asked.from.is_none_or(|from| limits.networks.permits(from)),
        }
    }

    /// The first entry of a list that permits what the list above it forbids.
    pub fn widened(self, limits: &Limits, above: &Limits) -> Option<String> {
        match self {
            Self::Models => limits.models.beyond(&above.models),
            Self::Endpoints => limits.endpoints.beyond(above.endpoints),
            Self::Networks => limits.networks.beyond(&above.networks),
        }
    }
}

/// One list for each dimension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    models: PatternList,
    endpoints: EndpointSet,
    networks: NetworkList,
}

impl Limits {
    /// Reads the lists as they came over the wire.
    ///
    /// # Errors
    /// The first entry that cannot be used, and the dimension of its list.
    pub fn parse(
        models: &[String],
        endpoints: &[String],
        networks: &[String],
    ) -> Result<Self, InvalidLimit> {
        let too_long = [
            (Dimension::Models, models),
            (Dimension::Endpoints, endpoints),
            (Dimension::Networks, networks),
        ];
        if let Some((dimension, list)) = too_long.into_iter().find(|(_, l)| l.len() > MAX_ENTRIES) {
            let reason = format!(
                "a list has at most {MAX_ENTRIES} entries, this one has {}",
                list.len()
            );
            return Err(InvalidLimit { dimension, reason });
        }
        let wrong = |dimension| move |reason: String| InvalidLimit { dimension, reason };
        Ok(Self {
            models: PatternList::parse(models)
                .map_err(|error| error.to_string())
                .map_err(wrong(Dimension::Models))?,
            endpoints: EndpointSet::parse(endpoints).map_err(wrong(Dimension::Endpoints))?,
            networks: NetworkList::parse(networks)
                .map_err(|error| error.to_string())
                .map_err(wrong(Dimension::Networks))?,
        })
    }

    /// The dimension on which this is refused.
    pub fn refuses(&self, asked: &Asked<'_>) -> Option<Dimension> {
        Dimension::ALL
            .into_iter()
            .find(|dimension| !dimension.permits(self, asked))
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A list that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .dimension.field())]
pub struct InvalidLimit {
    /// Whose list it is.
    pub dimension: Dimension,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// A set of endpoints as bits; the empty one permits all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct EndpointSet(u8);

impl EndpointSet {
    fn parse(words: &[String]) -> Result<Self, String> {
        words.iter().try_fold(Self::default(), |set, word| {
            let endpoint = Endpoint::from_word(word).ok_or_else(|| {
                let words = Endpoint::ALL.map(Endpoint::as_str);
                format!(
                    "`{word}` is no endpoint; endpoints are {}",
                    words.join(", ")
                )
            })?;
            Ok(Self(set.0 | bit(endpoint)))
        })
    }

    fn permits(self, endpoint: Endpoint) -> bool {
        self.0 == 0 || self.0 & bit(endpoint) != 0
    }

    fn beyond(self, above: Self) -> Option<String> {
        Endpoint::ALL
            .into_iter()
            .find(|endpoint| self.0 & bit(*endpoint) != 0 && !above.permits(*endpoint))
            .map(|endpoint| endpoint.as_str().to_owned())
    }
}

fn bit(endpoint: Endpoint) -> u8 {
    match endpoint {
        Endpoint::ChatCompletions => 1,
        Endpoint::Embeddings => 2,
        Endpoint::Messages => 4,
        Endpoint::Models => 8,
        Endpoint::Responses => 16,
        Endpoint::CountTokens => 32,
    }
}
