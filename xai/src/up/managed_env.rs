//! Reads XAI_BASE and XAI_KEYS: upstream keys, and where they belong.
//!
//! `XAI_KEYS=sk-1,sk-2::https://api.anthropic.com,sk-3::anthropic@https://host.example`: keys apart by commas, a base after `::` for keys that are
//! not of XAI_BASE, and the kind of provider before an `@` where it cannot be guessed.

use std::collections::BTreeSet;

use proxyxai_core::{
    route::{base_url::BaseUrl, provider::ProviderKind},
    snapshot::compile::check_upstream_secret,
};

use super::managed::{Key, Provider, Wanted};
use crate::{environment::Environment, failure::Failure};

const DEFAULT_BASE: &str = "https://api.openai.com";

/// What the environment asks for. A variable that is not set at all changes nothing: `None` when neither is, and no key is removed
/// without XAI_KEYS.
pub(crate) fn read(environment: &Environment) -> Result<Option<Wanted>, Failure> {
    let keys = environment.set("XAI_KEYS");
    if keys.is_none() && environment.set("XAI_BASE").is_none() {
        return Ok(None);
    }
    let base = environment.get("XAI_BASE").unwrap_or(DEFAULT_BASE);
    let (mut wanted, mut seen) = (Wanted::default(), BTreeSet::new());
    wanted.keep_others = keys.is_none();
    let keys = keys.unwrap_or_default();
    let base_alone = keys.trim().is_empty().then(|| environment.get("XAI_BASE"));
    if let Some(base) = base_alone.flatten() {
        let alone = provider(base, "").map_err(|why| wrong_base(&why))?;
        wanted.providers.push(alone);
    }
    for (position, entry) in keys
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .enumerate()
    {
        let number = position.saturating_add(1);
        let wrong = |why: &str| {
            Failure::usage(format!(
                "key number {number} of XAI_KEYS cannot be used: {why}"
            ))
        };
        let (secret, own_base) = match entry.split_once("::") {
            Some((secret, base)) => (secret.trim(), Some(base.trim())),
            None => (entry, None),
        };
        let secret = check_upstream_secret(secret.as_bytes()).map_err(wrong)?;
        let provider =
            provider(own_base.unwrap_or(base), &secret).map_err(|why| match own_base {
                Some(_) => wrong(&why),
                None => wrong_base(&why),
            })?;
        let id = key_id(&provider.id, &secret);
        if !seen.insert(id.clone()) {
            continue;
        }
        wanted.keys.push(Key {
            id,
            provider_id: provider.id.clone(),
            secret: secret.into(),
        });
        if !wanted.providers.contains(&provider) {
            wanted.providers.push(provider);
        }
    }
    Ok(Some(wanted))
}

fn wrong_base(why: &str) -> Failure {
    Failure::usage(format!("XAI_BASE cannot be used: {why}"))
}

fn provider(base: &str, secret: &str) -> Result<Provider, String> {
    let (kind, address) = match base.split_once('@') {
        Some((word, address)) => {
            let kind = ProviderKind::from_word(word);
            (Some(kind.ok_or_else(|| format!("`{word}` is no kind of provider; kinds are openai, anthropic, openai_compatible and gateway"))?), address)
        }
        None => (None, base),
    };
    let url = BaseUrl::parse(address).map_err(|error| error.to_string())?;
    let kind = kind.unwrap_or_else(|| ProviderKind::guess(&url, secret));
    Ok(Provider {
        id: provider_id(kind, &url),
        kind,
        base_url: url.to_string(),
    })
}

/// `openai` for the known hosts; else the kind and the address, as far as an id can hold them.
fn provider_id(kind: ProviderKind, base: &BaseUrl) -> String {
    let word = kind.as_str().replace('_', "-");
    let known = matches!(base.host(), "api.openai.com" | "api.anthropic.com")
        && base.path_prefix().is_empty();
    if known && ProviderKind::guess(base, "") == kind {
        return word;
    }
    let plain: String = format!("{}{}", base.authority(), base.path_prefix())
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let whole = format!("{word}-{}", plain.trim_matches('-'));
    if whole.len() <= 63 {
        whole
    } else {
        format!(
            "{}-{}",
            whole.chars().take(52).collect::<String>(),
            hash(&whole)
        )
    }
}

fn key_id(provider_id: &str, secret: &str) -> String {
    format!("env-{}", hash(&format!("{provider_id}\n{secret}")))
}

/// Ten hexadecimal digits: tell secrets apart, give none away.
fn hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What XAI_KEYS (and XAI_BASE) come to: `provider kind base_url` of each key, or the failure.
    fn check(base: &str, keys: &str, want: &[&str]) {
        let environment = Environment::from([("XAI_BASE", base), ("XAI_KEYS", keys)]);
        let got = match read(&environment) {
            Ok(wanted) => {
                let wanted = wanted.unwrap();
                let describe = |key: &Key| {
                    let provider = wanted
                        .providers
                        .iter()
                        .find(|p| p.id == key.provider_id)
                        .unwrap();
                    format!(
                        "{} {} {}",
                        provider.id,
                        provider.kind.as_str(),
                        provider.base_url
                    )
                };
                wanted.keys.iter().map(describe).collect()
            }
            Err(failure) => vec![failure.to_string()],
        };
        assert_eq!(got, want, "XAI_BASE={base} XAI_KEYS={keys}");
    }

    #[test]
    fn keys_and_bases_are_read_as_people_write_them() {
        let openai = "openai openai https://api.openai.com";
        check("", "sk-1", &[openai]);
        check("api.openai.com", "sk-1, sk-2", &[openai, openai]);
        check("https://api.openai.com/v1/", "sk-1,sk-1", &[openai]);
        check(
            "",
            "sk-1,sk-ant-2::https://api.anthropic.com",
            &[openai, "anthropic anthropic https://api.anthropic.com"],
        );
        check(
            "",
            "sk-pxai-x::http://10.0.0.1:3443",
            &["gateway-10-0-0-1-3443 gateway http://10.0.0.1:3443"],
        );
        check(
            "http://127.0.0.1:9001",
            "sk-1",
            &["openai-compatible-127-0-0-1-9001 openai_compatible http://127.0.0.1:9001"],
        );
        check(
            "",
            "sk-1::anthropic@http://127.0.0.1:9001",
            &["anthropic-127-0-0-1-9001 anthropic http://127.0.0.1:9001"],
        );
        check("", "", &[]);
        check(
            "",
            "sk-1::ftp://x",
            &[
                "key number 1 of XAI_KEYS cannot be used: a base address begins with https:// or http://",
            ],
        );
        check(
            "",
            "sk 1",
            &[
                "key number 1 of XAI_KEYS cannot be used: its secret has spaces or other characters that cannot stand in a header",
            ],
        );
        assert!(read(&Environment::default()).unwrap().is_none());
    }

    #[test]
    fn a_base_without_keys_is_a_provider_for_keys_that_come_later() {
        let check = |variables: &[(&str, &str)], providers: &[&str], keep_others: bool| {
            let wanted = read(&variables.iter().copied().collect()).unwrap().unwrap();
            let ids: Vec<&str> = wanted.providers.iter().map(|p| p.id.as_str()).collect();
            assert_eq!(
                (ids.as_slice(), wanted.keep_others),
                (providers, keep_others)
            );
            assert!(wanted.keys.is_empty());
        };
        check(&[("XAI_BASE", "api.openai.com")], &["openai"], true);
        check(
            &[("XAI_BASE", "api.openai.com"), ("XAI_KEYS", "")],
            &["openai"],
            false,
        );
        check(&[("XAI_BASE", "")], &[], true);
        check(&[("XAI_KEYS", " ")], &[], false);
    }
}
