//! Where the request log of a node goes.

use std::{fs::OpenOptions, io};

use proxyxai_data_plane::node::Node;

use crate::{failure::Failure, settings::store::Optional};

/// What stands for the standard output.
const STANDARD_OUTPUT: &str = "-";

/// Lets a node write its request log where the setting says, if it says so.
pub(crate) fn open(node: Node, setting: &Optional) -> Result<Node, Failure> {
    let Some(name) = setting.text() else {
        return Ok(node);
    };
    if name == STANDARD_OUTPUT {
        return Ok(node.with_request_log(Box::new(io::stdout())));
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // Who asked what is nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(name).map_err(|error| {
        Failure::usage(format!(
            "`request_log`: {name} cannot be written: {error}; name a file in a directory that exists, `-` for the standard output, or `none`"
        ))
    })?;
    Ok(node.with_request_log(Box::new(file)))
}
