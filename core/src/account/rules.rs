//! What names and ids may look like; the same rules at the admin API and in a snapshot.

/// Why a name or id is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a name that can stand in a path.
    #[error(
        "a name has 1 to 63 characters, among them no `/`, no control character and no space at either end"
    )]
    Name,
    /// Not an id.
    #[error(
        "an id has 1 to 63 lower-case letters, digits and `-`, and begins with a letter or digit"
    )]
    Id,
}

const MAX_CHARS: usize = 63;

/// Checks the name of an account or key.
///
/// # Errors
/// Says what a name looks like.
pub fn check_account_name(name: &str) -> Result<(), InvalidName> {
    let fits = (1..=MAX_CHARS).contains(&name.chars().count());
    let clean = name.trim() == name && !name.chars().any(|c| c == '/' || c.is_control());
    if fits && clean {
        Ok(())
    } else {
        Err(InvalidName::Name)
    }
}

/// Checks the id of a provider, route or upstream key.
///
/// # Errors
/// Says what an id looks like.
pub fn check_id(id: &str) -> Result<(), InvalidName> {
    let fits = (1..=MAX_CHARS).contains(&id.len());
    let clean = id
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits && clean && !id.starts_with('-') {
        Ok(())
    } else {
        Err(InvalidName::Id)
    }
}
