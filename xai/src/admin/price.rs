//! `xai price …`

use std::{fs, path::PathBuf};

use clap::Subcommand;
use proxyxai_proto::admin::v1::{
    ActivatePriceTableRequest, DeletePriceTableRequest, GetPriceTableRequest,
    ListPriceTablesRequest, PriceTableView, PutPriceTableRequest,
};
use serde_json::Value;

use super::{
    api::{Api, PAGE, all_pages, call},
    options::IfVersion,
};
use crate::{
    failure::Failure,
    output::{
        self, Output,
        view::{self, PRICE_TABLE},
    },
};

/// What can be done with tables of prices.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the tables.
    List,
    /// Show one table.
    Show {
        /// Its version [default: that of the table in force].
        #[arg(default_value = "", hide_default_value = true)]
        version: String,
        /// Print the table itself, JSON.
        #[arg(long)]
        content: bool,
    },
    /// Keep a table; it is put in force by `activate`. A version never changes once it is there.
    Put {
        /// File with the table, JSON of the schema of the shipped one; `xai price show --content` prints that.
        file: PathBuf,
    },
    /// Put a table in force for requests that begin from now on.
    Activate {
        /// Its version.
        version: String,
        /// What was read before.
        #[command(flatten)]
        guard: IfVersion,
    },
    /// Delete a table that is not in force.
    Delete {
        /// Its version.
        version: String,
        /// What was read before.
        #[command(flatten)]
        guard: IfVersion,
    },
}

/// Does it.
pub async fn run(verb: Verb, api: &Api, out: Output) -> Result<(), Failure> {
    let table = match verb {
        Verb::List => {
            let all = all_pages!(api, price_tables, page_token => api.prices().list_price_tables(ListPriceTablesRequest {
                page_size: PAGE,
                page_token,
            }));
            return out.many(&PRICE_TABLE, all.iter().map(view::price_table).collect());
        }
        Verb::Show { version, content } => {
            let request = GetPriceTableRequest { version };
            let found = call!(api, api.prices().get_price_table(request));
            if content {
                return output::print(&String::from_utf8_lossy(&found.content));
            }
            found.price_table
        }
        Verb::Put { file } => {
            let content = fs::read(&file).map_err(|error| {
                Failure::usage(format!("{} cannot be read: {error}", file.display()))
            })?;
            let request = PutPriceTableRequest { content };
            call!(api, api.prices().put_price_table(request)).price_table
        }
        Verb::Activate { version, guard } => {
            let request = ActivatePriceTableRequest {
                version,
                resource_version: guard.if_version,
            };
            call!(api, api.prices().activate_price_table(request)).price_table
        }
        Verb::Delete { version, guard } => {
            let request = DeletePriceTableRequest {
                version: version.clone(),
                resource_version: guard.if_version,
            };
            call!(api, api.prices().delete_price_table(request));
            return out.done(&format!("Deleted price table {version}."));
        }
    };
    out.one(&PRICE_TABLE, one(table), &[])
}

fn one(table: Option<PriceTableView>) -> Value {
    view::price_table(&table.unwrap_or_default())
}
