//! Base addresses as people write them, and addresses that an upstream must not have.

use proxyxai_core::route::{address::is_private, base_url::BaseUrl, provider::ProviderKind};

fn check(text: &str, want: &str) {
    let got = match BaseUrl::parse(text) {
        Ok(url) => format!("{url} host={} port={}", url.authority(), url.port()),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, want, "{text:?}");
}

#[test]
fn bases_are_read_as_people_write_them() {
    check(
        "api.openai.com",
        "https://api.openai.com host=api.openai.com port=443",
    );
    check(
        "https://api.openai.com/v1",
        "https://api.openai.com host=api.openai.com port=443",
    );
    check(
        "https://API.OpenAI.com./v1/",
        "https://api.openai.com host=api.openai.com port=443",
    );
    check(
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080 host=127.0.0.1:8080 port=8080",
    );
    check(
        "https://host/prefix/v1",
        "https://host/prefix host=host port=443",
    );
    check(
        "https://host:443/a/b/",
        "https://host/a/b host=host port=443",
    );
    check("host:8443", "https://host:8443 host=host:8443 port=8443");
    check(
        "http://[::1]:3443",
        "http://[::1]:3443 host=[::1]:3443 port=3443",
    );
    check(
        "https://host/v1beta",
        "https://host/v1beta host=host port=443",
    );
    let scheme = "a base address begins with https:// or http://";
    let part = "a base address has no user, password, query or fragment";
    let host = "the host of the base address is neither a name nor an IP address";
    let port = "the port of the base address is not a number from 1 to 65535";
    let path = "the path of the base address has characters or dots that do not belong there";
    check("ftp://host", scheme);
    for text in [
        "https://user@host",
        "https://host?x=1",
        "https://host#f",
        "https://evil.com\\@host",
    ] {
        check(text, part);
    }
    for text in [
        "",
        "https://",
        "https://ho st",
        "https://a..b",
        "http://[::1",
        "http://[zz]",
        "https://exa\u{301}mple",
    ] {
        check(text, host);
    }
    for text in [
        "https://host:0",
        "https://host:65536",
        "https://host:+1",
        "https://host:",
    ] {
        check(text, port);
    }
    for text in ["https://host/../x", "https://host/a b", "https://host//x"] {
        check(text, path);
    }
}

#[test]
fn kinds_are_guessed_by_host_and_key() {
    let check = |base: &str, secret: &str, want: ProviderKind| {
        assert_eq!(
            ProviderKind::guess(&BaseUrl::parse(base).unwrap(), secret),
            want,
            "{base}"
        );
    };
    check("api.openai.com", "sk-1", ProviderKind::Openai);
    check("eu.api.openai.com", "sk-1", ProviderKind::Openai);
    check("api.anthropic.com", "sk-ant-1", ProviderKind::Anthropic);
    check(
        "api.openai.com.evil.example",
        "sk-1",
        ProviderKind::OpenaiCompatible,
    );
    check("gateway.example", "sk-pxai-x", ProviderKind::Gateway);
}

#[test]
fn private_addresses_are_known_in_every_spelling() {
    let private = [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "::7f00:1",
        "2001:db8::1",
    ];
    let public = [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "192.0.1.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ];
    for text in private {
        assert!(is_private(text.parse().unwrap()), "{text} is private");
    }
    for text in public {
        assert!(!is_private(text.parse().unwrap()), "{text} is public");
    }
}
