//! Where requests go: providers, upstream keys, routes, and whether what they cost is known.

use std::collections::BTreeMap;

use proxyxai_core::{
    account::pattern::Pattern, money::price::PriceBook, route::provider::ProviderKind,
};
use proxyxai_proto::{
    admin::v1::{ProviderView, UpstreamKeyView},
    config::v1::{Provider, Route},
};

use super::{
    finding::{Finding, Severity, Whose},
    seen::Seen,
};

/// Providers by id, and their enabled keys.
struct Pools<'a> {
    providers: BTreeMap<&'a str, &'a Provider>,
    keys: Vec<&'a UpstreamKeyView>,
}

/// What is to be said of them.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    let (Ok(providers), Ok(keys)) = (&seen.providers, &seen.upstream_keys) else {
        return;
    };
    let pools = Pools::of(providers, keys);
    pools.judge(findings);
    for key in keys.iter().filter(|key| key.disabled) {
        let what = format!("upstream key of {} is disabled", key.provider_id);
        let finding = Finding::info("upstream_key", &key.id, what, Whose::Configuration);
        let next = format!("xai upstream-key enable {}, to use it again", key.id);
        findings.push(finding.but(Severity::Info, next));
    }
    let prices = seen.prices.as_ref().ok().map(|(_, book)| book);
    let routes = seen.routes.iter().flatten();
    for route in routes.filter_map(|view| view.route.as_ref()) {
        pools.judge_route(route, findings);
        findings.extend(prices.and_then(|book| pools.without_price(route, book)));
    }
    for row in seen.unpriced.iter().flatten() {
        let what = format!(
            "{} attempts of the last day have no price and are in no sum of money",
            row.unpriced
        );
        let finding = Finding::info("price", &row.model, what, Whose::Configuration);
        findings.push(finding.but(Severity::Warning, PUT_PRICE));
    }
}

/// How a price comes into the book.
const PUT_PRICE: &str = "xai price show --content > prices.json; add the model, and a version of its own; xai price put prices.json; xai price activate <version>";

impl<'a> Pools<'a> {
    fn of(providers: &'a [ProviderView], keys: &'a [UpstreamKeyView]) -> Self {
        let providers = providers.iter().filter_map(|view| view.provider.as_ref());
        Self {
            providers: providers.map(|one| (one.id.as_str(), one)).collect(),
            keys: keys.iter().filter(|key| !key.disabled).collect(),
        }
    }

    fn judge(&self, findings: &mut Vec<Finding>) {
        let mut say = |object: &str, what: &str, severity, next: String| {
            let finding = Finding::info("provider", object, what, Whose::Configuration);
            findings.push(finding.but(severity, next));
        };
        if !self.providers.values().any(|one| !one.disabled) {
            say(
                "deployment",
                "no provider is enabled, so every request is refused",
                Severity::Error,
                "xai provider create openai --base https://api.openai.com; xai upstream-key create --provider openai --secret-file -".to_owned(),
            );
        }
        for (id, provider) in &self.providers {
            if provider.disabled {
                let next = format!("xai provider enable {id}, to use it again");
                say(id, "disabled", Severity::Info, next);
                continue;
            }
            if !self.keys.iter().any(|key| key.provider_id == *id) {
                say(
                    id,
                    "enabled, but no upstream key of it is: it never answers",
                    Severity::Error,
                    format!(
                        "xai upstream-key list --provider {id}; xai upstream-key enable <id>, or xai upstream-key create --provider {id} --secret-file -"
                    ),
                );
            }
            if provider.base_url.starts_with("http://") && !provider.allow_private {
                say(
                    id,
                    "is called over plain HTTP: its keys and all content can be read on the way",
                    Severity::Warning,
                    format!("xai provider set {id} --base https://…"),
                );
            }
        }
    }

    /// Whether a provider may answer what is asked for under this name of its own.
    fn answers(&self, id: &str, sent_model: &str) -> bool {
        let enabled = self.providers.get(id).is_some_and(|one| !one.disabled);
        let serves = |key: &&UpstreamKeyView| key.provider_id == id && serves(key, sent_model);
        enabled && self.keys.iter().any(serves)
    }

    fn judge_route(&self, route: &Route, findings: &mut Vec<Finding>) {
        let sent = sent_model(route);
        let further = route.next_levels.iter().map(|level| &level.provider_ids);
        let levels: Vec<bool> = std::iter::once(&route.provider_ids)
            .chain(further)
            .map(|ids| ids.iter().any(|id| self.answers(id, sent)))
            .collect();
        let dead = levels.iter().filter(|alive| !**alive).count();
        if dead == 0 {
            return;
        }
        let (severity, what) = match dead == levels.len() {
            true => (
                Severity::Error,
                format!(
                    "no provider that it names has a usable key: `{}` is refused",
                    route.model
                ),
            ),
            false => (
                Severity::Warning,
                format!(
                    "{dead} of its {} levels have no provider with a usable key",
                    levels.len()
                ),
            ),
        };
        let finding = Finding::info("route", &route.id, what, Whose::Configuration);
        findings.push(finding.but(
            severity,
            format!("xai route show {}; xai upstream-key list", route.id),
        ));
    }

    /// A route to one model that the book does not know.
    fn without_price(&self, route: &Route, book: &PriceBook) -> Option<Finding> {
        let model = sent_model(route);
        if model.contains('*') {
            return None;
        }
        let further = route
            .next_levels
            .iter()
            .flat_map(|level| &level.provider_ids);
        let ids = route.provider_ids.iter().chain(further);
        let kinds = ids.filter_map(|id| Some(self.providers.get(id.as_str())?.kind()));
        let unknown = kinds
            .filter_map(ProviderKind::from_proto)
            .any(|kind| book.price(kind, model).is_none());
        unknown.then(|| {
            let what = format!("`{model}` has no price, so its usage will be in no sum of money");
            let finding = Finding::info("price", &route.id, what, Whose::Configuration);
            finding.but(Severity::Warning, PUT_PRICE)
        })
    }
}

/// What the providers are asked for: the pattern of the route, or what it becomes.
fn sent_model(route: &Route) -> &str {
    match route.upstream_model.as_str() {
        "" => &route.model,
        other => other,
    }
}

/// Whether a key serves something of what may be asked for.
fn serves(key: &UpstreamKeyView, sent_model: &str) -> bool {
    // Whether two patterns share a name is not asked: a route of many models is dead only when no key is there at all.
    let all = key.models.is_empty() || sent_model.contains('*');
    let fits =
        |pattern: &String| Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(sent_model));
    all || key.models.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use proxyxai_proto::config::v1::RouteLevel;

    use super::*;

    fn key(provider: &str, disabled: bool, models: &[&str]) -> UpstreamKeyView {
        UpstreamKeyView {
            id: "k".to_owned(),
            provider_id: provider.to_owned(),
            disabled,
            models: models.iter().map(ToString::to_string).collect(),
            ..UpstreamKeyView::default()
        }
    }

    fn provider(id: &str) -> ProviderView {
        let provider = Provider {
            id: id.to_owned(),
            ..Provider::default()
        };
        ProviderView {
            provider: Some(provider),
            ..ProviderView::default()
        }
    }

    #[test]
    fn a_route_is_as_alive_as_its_levels() {
        let check = |model: &str, keys: &[UpstreamKeyView], expected: Option<Severity>| {
            let providers = [provider("a"), provider("b")];
            let route = Route {
                id: "r".to_owned(),
                model: model.to_owned(),
                provider_ids: vec!["a".to_owned()],
                next_levels: vec![RouteLevel {
                    provider_ids: vec!["b".to_owned()],
                }],
                ..Route::default()
            };
            let mut found = Vec::new();
            Pools::of(&providers, keys).judge_route(&route, &mut found);
            let found = found.first().map(|one| one.severity);
            assert_eq!(found, expected, "{model} {keys:?}");
        };
        let (a, b) = (key("a", false, &[]), key("b", false, &[]));
        check("m", &[a.clone(), b.clone()], None);
        check("m", std::slice::from_ref(&a), Some(Severity::Warning));
        check("m", &[], Some(Severity::Error));
        check(
            "m",
            &[key("a", true, &[]), b.clone()],
            Some(Severity::Warning),
        );
        check("m", &[a, key("b", false, &["n*"])], Some(Severity::Warning));
        check("m*", &[key("a", false, &["n"]), b], None);
    }
}
