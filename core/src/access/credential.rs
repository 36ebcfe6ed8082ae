//! Credentials: `pxai-cred-` + id (12) + `-` + secret (40), base 62. Only a keyed hash of the whole text is ever stored.

use secrecy::SecretString;
use zeroize::Zeroize as _;

use super::{permission::Caller, role::Role};
use crate::account::{
    key::{Pepper, base62},
    tree::AccountTree,
};

/// What every credential begins with.
pub const PREFIX: &str = "pxai-cred-";
const ID_LEN: usize = 12;
const SECRET_LEN: usize = 40;

/// The id in a text that has the form of a credential; whether it exists is another question.
pub fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('-')?;
    let clean = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    (clean(id, ID_LEN) && clean(secret, SECRET_LEN)).then_some(id)
}

/// A new id, from unpredictable bytes.
pub fn new_id(random: &[u8; 64]) -> String {
    base62(random, ID_LEN).to_ascii_lowercase()
}

/// A new text for the credential with this id, from unpredictable bytes.
pub fn generate(id: &str, mut random: [u8; 64]) -> SecretString {
    let text = format!("{PREFIX}{id}-{}", base62(&random, SECRET_LEN));
    random.zeroize();
    text.into()
}

/// What a credential is compared by. Keyed apart from virtual keys, so that neither can stand in for the other.
pub fn digest(pepper: &Pepper, text: &str) -> [u8; 32] {
    let key = blake3::derive_key("proxyxai 2026 admin credential", pepper.expose());
    *blake3::keyed_hash(&key, text.as_bytes()).as_bytes()
}

/// Why a credential whose secret is right is refused all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Somebody disabled it.
    #[error("this credential is disabled; ask who gave it to you to enable it, or for another one")]
    Disabled,
    /// Its time is over.
    #[error("this credential has expired; ask who gave it to you for another one")]
    Expired,
    /// Its account was deleted.
    #[error(
        "the account of this credential does not exist any more; ask an administrator for another credential"
    )]
    NoAccount,
    /// Its account, or one above.
    #[error(
        "the account `{path}` is suspended, and with it this credential; ask an administrator of an account above to resume it"
    )]
    Suspended {
        /// The suspended account.
        path: String,
    },
}

/// Whether a credential is good at this time. Root is not stopped by a suspension: somebody must be able to end it.
///
/// # Errors
/// Says why not, and whom to ask.
pub fn check(
    caller: &Caller,
    disabled: bool,
    now_unix_ms: i64,
    accounts: &AccountTree,
) -> Result<(), Unfit> {
    if disabled {
        return Err(Unfit::Disabled);
    }
    if caller
        .expires_unix_ms
        .is_some_and(|expires| now_unix_ms >= expires)
    {
        return Err(Unfit::Expired);
    }
    if matches!(caller.role, Role::Root | Role::Node) {
        return Ok(());
    }
    let account = accounts.get(&caller.account).ok_or(Unfit::NoAccount)?;
    match accounts.suspended(account) {
        Some(at) => Err(Unfit::Suspended {
            path: accounts.path(at),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_text_gives_its_id_and_nothing_else_does() {
        let id = new_id(&[7; 64]);
        let text = generate(&id, [9; 64]);
        let text = text.expose_secret();
        assert_eq!(id_of(text), Some(id.as_str()));
        for wrong in [
            "",
            PREFIX,
            "sk-pxai-x",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}x"),
            &text.replace("-cred-", "-cred-/"),
        ] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn digests_differ_by_text_by_deployment_and_from_those_of_virtual_keys() {
        let (one, other) = (Pepper::new([1; 32]), Pepper::new([2; 32]));
        assert_ne!(digest(&one, "a"), digest(&one, "b"));
        assert_ne!(digest(&one, "a"), digest(&other, "a"));
        assert_ne!(digest(&one, "a")[..16], one.digest("a").0);
    }
}
