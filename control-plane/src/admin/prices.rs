//! Tables of list prices. A version never changes, so that anyone can recompute what an event says.

use std::sync::Arc;

use proxyxai_core::{
    money::price::PriceBook,
    snapshot::{ResourceKind, ResourceName},
};
use proxyxai_proto::{
    admin::v1::{
        ActivatePriceTableRequest, ActivatePriceTableResponse, DeletePriceTableRequest,
        DeletePriceTableResponse, GetPriceTableRequest, GetPriceTableResponse,
        ListPriceTablesRequest, ListPriceTablesResponse, ManagedBy, PriceTableView,
        PutPriceTableRequest, PutPriceTableResponse, price_service_server::PriceService,
    },
    config::v1::{PriceTable, resource::Kind},
    store::v1::StoredResource,
};
use tonic::{Request, Response, Status};

use super::{object, page, with, writing::check_version};
use crate::{
    auth,
    config_store::{ConfigStore, Edit, State},
    status::Fault,
};

/// Largest table: activating one writes two of them in one transaction.
const MAX_TABLE: usize = 400 << 10;
/// Most tables that are kept: every node holds all of them.
const MAX_TABLES: usize = 8;

pub(crate) struct PriceServer {
    pub(crate) config: Arc<ConfigStore>,
}

#[tonic::async_trait]
impl PriceService for PriceServer {
    async fn list_price_tables(
        &self,
        request: Request<ListPriceTablesRequest>,
    ) -> Result<Response<ListPriceTablesResponse>, Status> {
        let request = request.into_inner();
        let state = self.config.state();
        let all = state
            .after(ResourceKind::PriceTable, &request.page_token)
            .filter_map(|stored| view(&state, stored));
        let version = |view: &PriceTableView| view.version.clone();
        let (price_tables, next_page_token) =
            page(all, version, request.page_size, &request.page_token);
        Ok(Response::new(ListPriceTablesResponse {
            price_tables,
            next_page_token,
        }))
    }

    async fn get_price_table(
        &self,
        request: Request<GetPriceTableRequest>,
    ) -> Result<Response<GetPriceTableResponse>, Status> {
        let version = request.into_inner().version;
        let state = self.config.state();
        let version = if version.is_empty() {
            state.snapshot.prices.version.clone()
        } else {
            version
        };
        let (stored, table) = stored(&state, &version)?;
        Ok(Response::new(GetPriceTableResponse {
            price_table: view(&state, stored),
            content: table.content.clone(),
        }))
    }

    async fn put_price_table(
        &self,
        request: Request<PutPriceTableRequest>,
    ) -> Result<Response<PutPriceTableResponse>, Status> {
        let caller = auth::caller(&request)?;
        let content = request.into_inner().content;
        let book = read(&content)?;
        let now = self.config.clock.unix_ms();
        let edit = |state: &State| {
            let put = put(state, &book, &content, ManagedBy::Admin, now)?;
            Ok((put.into_iter().collect(), ()))
        };
        self.config.edit(&caller, "PutPriceTable", edit).await?;
        Ok(Response::new(PutPriceTableResponse {
            price_table: Some(self.view(&book.version)?),
        }))
    }

    async fn activate_price_table(
        &self,
        request: Request<ActivatePriceTableRequest>,
    ) -> Result<Response<ActivatePriceTableResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((activate(state, &request)?, ()));
        self.config
            .edit(&caller, "ActivatePriceTable", edit)
            .await?;
        Ok(Response::new(ActivatePriceTableResponse {
            price_table: Some(self.view(&request.version)?),
        }))
    }

    async fn delete_price_table(
        &self,
        request: Request<DeletePriceTableRequest>,
    ) -> Result<Response<DeletePriceTableResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let edit = |state: &State| Ok((vec![delete(state, &request)?], ()));
        self.config.edit(&caller, "DeletePriceTable", edit).await?;
        Ok(Response::new(DeletePriceTableResponse {}))
    }
}

impl PriceServer {
    fn view(&self, version: &str) -> Result<PriceTableView, Fault> {
        let state = self.config.state();
        let stored = state.get(ResourceKind::PriceTable, version);
        stored
            .and_then(|stored| view(&state, stored))
            .ok_or_else(|| unknown(version))
    }
}

/// Reads a table.
pub(crate) fn read(content: &[u8]) -> Result<PriceBook, Fault> {
    if content.len() > MAX_TABLE {
        let reason = format!(
            "a table has at most {MAX_TABLE} bytes, and this one has {}",
            content.len()
        );
        return Err(Fault::field("content", reason));
    }
    PriceBook::parse(content).map_err(|error| Fault::field("content", error))
}

/// Keeps a table, if it is not kept already.
pub(crate) fn put(
    state: &State,
    book: &PriceBook,
    content: &[u8],
    managed_by: ManagedBy,
    now_unix_ms: i64,
) -> Result<Option<Edit>, Fault> {
    if let Ok((_, kept)) = stored(state, &book.version) {
        return if kept.content == content {
            Ok(None)
        } else {
            let reason = format!(
                "the version `{}` exists with other prices, and a version never changes; give the new table a version of its own",
                book.version
            );
            Err(Fault::field("content", reason))
        };
    }
    if state.of_kind(ResourceKind::PriceTable).count() >= MAX_TABLES {
        return Err(Fault::Precondition(format!(
            "there are {MAX_TABLES} price tables already; delete one that is not in force"
        )));
    }
    let table = PriceTable {
        version: book.version.clone(),
        content: content.to_vec(),
        active: false,
    };
    let stored = object(Kind::PriceTable(table), managed_by, now_unix_ms);
    Ok(Some(Edit::Put(stored)))
}

/// Puts a table in force, and with that another one out of it.
pub(crate) fn activate(
    state: &State,
    request: &ActivatePriceTableRequest,
) -> Result<Vec<Edit>, Fault> {
    stored(state, &request.version)?;
    let name = name_of(&request.version);
    check_version(state, "price table", &name, request.resource_version)?;
    let change = |one: &StoredResource| {
        let table = table_of(one)?;
        let active = table.version == request.version;
        (table.active != active).then(|| {
            let table = PriceTable {
                active,
                ..table.clone()
            };
            Edit::Put(with(one, Kind::PriceTable(table)))
        })
    };
    let edits = state.of_kind(ResourceKind::PriceTable).filter_map(change);
    Ok(edits.collect())
}

/// Takes a table away that is not in force.
pub(crate) fn delete(state: &State, request: &DeletePriceTableRequest) -> Result<Edit, Fault> {
    stored(state, &request.version)?;
    let name = name_of(&request.version);
    check_version(state, "price table", &name, request.resource_version)?;
    if state.snapshot.prices.version == request.version {
        return Err(Fault::InUse {
            what: "price table",
            id: request.version.clone(),
            why: "is in force; activate another one first".to_owned(),
        });
    }
    Ok(Edit::Delete(name))
}

fn stored<'a>(
    state: &'a State,
    version: &str,
) -> Result<(&'a StoredResource, &'a PriceTable), Fault> {
    let found = state.get(ResourceKind::PriceTable, version);
    let stored = found.ok_or_else(|| unknown(version))?;
    let table = table_of(stored).ok_or_else(|| unknown(version))?;
    Ok((stored, table))
}

fn table_of(stored: &StoredResource) -> Option<&PriceTable> {
    let Some(Kind::PriceTable(table)) = &stored.resource.as_ref()?.kind else {
        return None;
    };
    Some(table)
}

fn view(state: &State, stored: &StoredResource) -> Option<PriceTableView> {
    let table = table_of(stored)?;
    let book = PriceBook::parse(&table.content).unwrap_or_default();
    Some(PriceTableView {
        version: table.version.clone(),
        models: u32::try_from(book.len()).unwrap_or(u32::MAX),
        date: book.date,
        source: book.source,
        active: state.snapshot.prices.version == table.version,
        created_unix_ms: stored.created_unix_ms,
        resource_version: state.version(&name_of(&table.version)),
    })
}

fn name_of(version: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::PriceTable,
        id: version.to_owned(),
    }
}

fn unknown(version: &str) -> Fault {
    Fault::NotFound {
        what: "price table",
        id: version.to_owned(),
    }
}
