//! Join tokens: `pxai-join-` + id (12) + `-` + secret (32) + `-` + fingerprint of the authority (64 hexadecimal digits).
//!
//! A node that is given one knows whom to trust before it speaks to anybody, and the control plane knows whom to let in.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::fingerprint::Fingerprint;
use crate::account::key::base62;

const PREFIX: &str = "pxai-join-";
const ID_LEN: usize = 12;
const SECRET_LEN: usize = 32;

/// A join token as its holder has it. Its text is not printed.
#[derive(Clone)]
pub struct JoinToken {
    /// Names the token; not secret.
    pub id: String,
    /// The authority to pin.
    pub authority: Fingerprint,
    text: SecretString,
}

impl JoinToken {
    /// Makes a token from unpredictable bytes.
    pub fn make(random: &[u8; 64], authority: Fingerprint) -> Self {
        let body = base62(random, ID_LEN + SECRET_LEN);
        let (id, secret) = body.split_at_checked(ID_LEN).unwrap_or((&body, ""));
        let pin = authority.to_string();
        let pin = pin.strip_prefix("sha256:").unwrap_or(&pin);
        Self {
            id: id.to_owned(),
            authority,
            text: format!("{PREFIX}{id}-{secret}-{pin}").into(),
        }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`InvalidJoinToken`]: it is none, or not whole.
    pub fn parse(text: &str) -> Result<Self, InvalidJoinToken> {
        let text = text.trim();
        let parts: Vec<&str> = text
            .strip_prefix(PREFIX)
            .ok_or(InvalidJoinToken)?
            .split('-')
            .collect();
        let [id, secret, pin] = parts.as_slice() else {
            return Err(InvalidJoinToken);
        };
        let fits =
            |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if !fits(id, ID_LEN) || !fits(secret, SECRET_LEN) {
            return Err(InvalidJoinToken);
        }
        Ok(Self {
            id: (*id).to_owned(),
            authority: pin.parse().map_err(|_| InvalidJoinToken)?,
            text: text.to_owned().into(),
        })
    }

    /// The whole token; secret.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", self.id)
    }
}

/// Not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token, or not all of it; take it as `xai join-token create` printed it")]
pub struct InvalidJoinToken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_what_it_writes() {
        let made = JoinToken::make(&[7; 64], Fingerprint::of(b"authority"));
        let read = JoinToken::parse(&format!(" {}\n", made.expose())).unwrap();
        assert_eq!((&read.id, read.authority), (&made.id, made.authority));
        assert_eq!(read.expose(), made.expose());
        assert!(
            !format!("{made:?}").contains(&made.expose()[30..]),
            "law 21"
        );
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let made = JoinToken::make(&[7; 64], Fingerprint::of(b"authority"));
        let text = made.expose();
        for bad in [
            "",
            "pxai-join-",
            &text[1..],
            &text[..text.len() - 1],
            &text.replace("pxai-join", "pxai-admin"),
            &format!("{text}-x"),
        ] {
            assert!(JoinToken::parse(bad).is_err(), "{bad}");
        }
    }
}
