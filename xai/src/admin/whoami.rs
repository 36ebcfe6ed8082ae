//! `xai whoami`

use proxyxai_proto::admin::v1::WhoAmIRequest;

use super::{api::call, connection::Connection};
use crate::{
    environment::Environment,
    failure::Failure,
    output::people::{self, IDENTITY},
};

/// Show which credential is used, what it may do, and who answers.
#[derive(Debug, clap::Args)]
pub struct WhoAmI {
    #[command(flatten)]
    connection: Connection,
}

/// Asks and prints.
pub async fn run(whoami: WhoAmI, environment: &Environment) -> Result<(), Failure> {
    let api = whoami.connection.open(environment)?;
    let answer = call!(api, api.credentials().who_am_i(WhoAmIRequest {}));
    let output = whoami.connection.output();
    output.one(&IDENTITY, people::identity(&answer), &[])
}
