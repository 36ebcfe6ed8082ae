//! What is done with a header of an answer, told from its name. The names that nearly every answer has are told without a look-up.

use http::{HeaderName, header};

use super::head::InvalidAnswer;
use crate::{
    headers::{self, X_REQUEST_ID},
    spelling::is,
};

/// A header, by what is done with it.
pub(super) enum Field {
    /// Tells the length of the body.
    Length,
    /// Tells how the body is coded.
    Coding,
    /// Is for the connection.
    Connection,
    /// Is not for the client.
    Stays,
    /// Tells of the rate of the upstream key.
    Limit(HeaderName),
    /// Tells what the body is; it passes.
    Kind,
    /// Passes to the client.
    Passes(HeaderName),
}

impl Field {
    /// What is done with the header of this name, which the parser of heads has found to be one.
    pub(super) fn of(name: &[u8]) -> Result<Self, InvalidAnswer> {
        Ok(match name.len() {
            4 if is(name, b"date") => Self::Passes(header::DATE),
            6 if is(name, b"server") => Self::Stays,
            10 if is(name, b"connection") => Self::Connection,
            12 if is(name, b"content-type") => Self::Kind,
            12 if is(name, b"x-request-id") => Self::Passes(X_REQUEST_ID),
            14 if is(name, b"content-length") => Self::Length,
            17 if is(name, b"transfer-encoding") => Self::Coding,
            _ => {
                let name = HeaderName::from_bytes(name).map_err(|_| InvalidAnswer::Head)?;
                if headers::is_limit(name.as_str()) {
                    Self::Limit(name)
                } else if headers::passes_back(name.as_str()) {
                    Self::Passes(name)
                } else {
                    Self::Stays
                }
            }
        })
    }
}
