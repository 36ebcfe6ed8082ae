//! Base addresses of providers, as people write them.
//!
//! A bare host means https. A path is kept as a prefix, but a `/v1` at its end is dropped: the paths of requests carry it, and
//! it must stand in the joined address exactly once.

use std::{fmt, net::IpAddr};

/// An address that requests are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    https: bool,
    host: String,
    port: u16,
    path_prefix: String,
    authority: String,
    origin: String,
}

impl BaseUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// Says which part does not belong there.
    pub fn parse(text: &str) -> Result<Self, InvalidBaseUrl> {
        let text = text.trim();
        let (https, rest) = match text.split_once("://") {
            None => (true, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err(InvalidBaseUrl::Scheme),
        };
        if rest.contains(['?', '#', '\\', '@']) {
            return Err(InvalidBaseUrl::Part);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_authority(authority)?;
        let (host, port) = (
            check_host(host)?,
            port.unwrap_or(if https { 443 } else { 80 }),
        );
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let usual_port = port == if https { 443 } else { 80 };
        let authority = if usual_port {
            bracketed
        } else {
            format!("{bracketed}:{port}")
        };
        let origin = format!("http{}://{authority}", if https { "s" } else { "" });
        Ok(Self {
            https,
            host,
            port,
            path_prefix: check_path(path)?,
            authority,
            origin,
        })
    }

    /// Whether TLS is used.
    pub fn https(&self) -> bool {
        self.https
    }

    /// Host name or address in lower case; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands before the path of each request: empty, or with a slash at its start and none at its end.
    pub fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// The value of the Host header (RFC 9110 §7.2): without the scheme's own port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Scheme and authority: what connections are made to.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The address, when the host is one and not a name.
    pub fn literal_address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "http{}://{}{}",
            if self.https { "s" } else { "" },
            self.authority(),
            self.path_prefix
        )
    }
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), InvalidBaseUrl> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(InvalidBaseUrl::Host)?;
            let port = if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':').ok_or(InvalidBaseUrl::Host)?)
            };
            if !host.contains(':') {
                return Err(InvalidBaseUrl::Host);
            }
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let number = |port: &str| match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(InvalidBaseUrl::Port),
    };
    Ok((host, port.map(number).transpose()?))
}

fn check_host(host: &str) -> Result<String, InvalidBaseUrl> {
    if host.contains(':') {
        return host
            .parse::<std::net::Ipv6Addr>()
            .map(|address| address.to_string())
            .map_err(|_| InvalidBaseUrl::Host);
    }
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.len() > 253 || !host.trim_end_matches('.').split('.').all(label) {
        return Err(InvalidBaseUrl::Host);
    }
    Ok(host.trim_end_matches('.').to_ascii_lowercase())
}

fn check_path(path: &str) -> Result<String, InvalidBaseUrl> {
    let path = path.trim_end_matches('/');
    let path = path
        .strip_suffix("/v1")
        .unwrap_or(path)
        .trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:%".contains(&b);
    let dots = path.split('/').any(|part| part == "." || part == "..");
    if !path.bytes().all(plain) || dots || path.contains("//") {
        return Err(InvalidBaseUrl::Path);
    }
    Ok(path.to_owned())
}

/// Why a text is no base address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaseUrl {
    /// ftp and the like.
    #[error("a base address begins with https:// or http://")]
    Scheme,
    /// User, password, query or fragment.
    #[error("a base address has no user, password, query or fragment")]
    Part,
    /// No name, no address.
    #[error("the host of the base address is neither a name nor an IP address")]
    Host,
    /// No number from 1 to 65535.
    #[error("the port of the base address is not a number from 1 to 65535")]
    Port,
    /// Dots, spaces or control characters.
    #[error("the path of the base address has characters or dots that do not belong there")]
    Path,
}
