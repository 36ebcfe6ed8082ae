//! `xai audit …`: shows, checks and exports the audit trail. Checking is done here, not by who keeps the trail.

mod file;

use std::path::PathBuf;

use clap::Subcommand;
use proxyxai_core::audit::chain::{Mark, Verdict, Verifier};
use proxyxai_proto::admin::v1::{
    AuditChange, AuditMark, AuditRecord, GetAuditChainRequest, GetAuditChainResponse,
    ListAuditRecordsRequest,
};
use serde_json::{Value, json};

use super::{
    api::{Api, PAGE, call},
    connection::Connection,
    when::When,
};
use crate::{
    environment::Environment,
    failure::Failure,
    output::{
        Output,
        people::{self, AUDIT_RECORD},
    },
    system,
};

/// What can be done with the audit trail.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List records, the newest first.
    List {
        /// Only what concerns this account and those below it (id or path).
        #[arg(long, default_value = "", hide_default_value = true)]
        account: String,
        /// From then on: a date, a time, or an age such as 24h or 7d.
        #[arg(long, value_name = "WHEN")]
        since: Option<When>,
        /// Until then, likewise.
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        /// Only what was asked with this credential (id).
        #[arg(
            long,
            value_name = "CREDENTIAL",
            default_value = "",
            hide_default_value = true
        )]
        by: String,
        /// Only what changed this object (id).
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        object: String,
        /// Only what changed objects of this kind, such as account, virtual_key or credential.
        #[arg(long, default_value = "", hide_default_value = true)]
        kind: String,
        /// At most so many.
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        limit: usize,
    },
    /// Check that no record was edited, removed or reordered.
    Verify {
        /// File that `xai audit export` wrote, checked without a gateway [default: the trail of the gateway].
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// A record that you know from before, as NUMBER:HASH; it tells a trail that was written anew as a whole.
        #[arg(long, value_name = "NUMBER:HASH", value_parser = file::known)]
        known: Option<Mark>,
    },
    /// Write the whole trail, one JSON object a line.
    Export {
        /// File to write; `-` is standard output.
        #[arg(long, value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
}

/// Does it.
pub async fn run(
    verb: Verb,
    connection: &Connection,
    environment: &Environment,
) -> Result<(), Failure> {
    let output = connection.output();
    match verb {
        Verb::List {
            account,
            since,
            until,
            by,
            object,
            kind,
            limit,
        } => {
            let now = system::unix_ms();
            let at = |when: Option<When>| when.map_or(0, |when| when.past(now));
            let query = ListAuditRecordsRequest {
                under: account,
                from_unix_ms: at(since),
                to_unix_ms: at(until),
                credential_id: by,
                object_id: object,
                object_kind: kind,
                page_size: u32::try_from(limit).unwrap_or(PAGE).min(PAGE),
                newest_first: true,
                ..ListAuditRecordsRequest::default()
            };
            list(query, limit, &connection.open(environment)?, output).await
        }
        Verb::Verify {
            file: Some(file),
            known,
        } => {
            let (head, verdict) = file::verify(&file, known)?;
            report(head, &verdict, output)
        }
        Verb::Verify { file: None, known } => {
            let api = connection.open(environment)?;
            let chain = chain(&api).await?;
            let (anchor, head) = ends(&chain)?;
            let mut verifier = Verifier::new(anchor, head).knowing(known);
            walk(&api, &chain, |record| {
                verifier.take(record);
                Ok(())
            })
            .await?;
            report(head, &verifier.finish(), output)
        }
        Verb::Export { file } => {
            let api = connection.open(environment)?;
            let chain = chain(&api).await?;
            let mut writer = file::Writer::create(&file, &chain)?;
            walk(&api, &chain, |record| writer.write(record)).await?;
            writer.finish()
        }
    }
}

async fn list(
    mut query: ListAuditRecordsRequest,
    limit: usize,
    api: &Api,
    output: Output,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    while found.len() < limit {
        let page = call!(api, api.audit().list_audit_records(query.clone()));
        found.extend(page.records);
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            break;
        }
    }
    found.truncate(limit);
    let shown = |record: &AuditRecord| {
        let mut item = people::audit_record(record);
        if output == Output::Table {
            item["objects"] = record.changes.iter().map(object).collect::<Value>();
        }
        item
    };
    output.many(&AUDIT_RECORD, found.iter().map(shown).collect())
}

/// `+` made, `-` taken away, `~` changed.
fn object(change: &AuditChange) -> String {
    let sign = match (change.before.is_empty(), change.after.is_empty()) {
        (true, _) => '+',
        (false, true) => '-',
        (false, false) => '~',
    };
    format!("{sign}{} {}", change.kind, change.id)
}

async fn chain(api: &Api) -> Result<GetAuditChainResponse, Failure> {
    Ok(call!(
        api,
        api.audit().get_audit_chain(GetAuditChainRequest {})
    ))
}

fn ends(chain: &GetAuditChainResponse) -> Result<(Mark, Mark), Failure> {
    let mark = |mark: &Option<AuditMark>| Mark::from_proto(mark.as_ref()?);
    mark(&chain.anchor)
        .zip(mark(&chain.head))
        .ok_or_else(|| Failure::failed("the gateway does not say where its audit trail begins"))
}

/// Goes through all records up to the head of this chain, the oldest first.
async fn walk(
    api: &Api,
    chain: &GetAuditChainResponse,
    mut visit: impl FnMut(&AuditRecord) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (_, head) = ends(chain)?;
    let mut query = ListAuditRecordsRequest {
        page_size: PAGE,
        ..ListAuditRecordsRequest::default()
    };
    loop {
        let page = call!(api, api.audit().list_audit_records(query.clone()));
        // What was added since is of no concern.
        let up_to_head = |record: &&AuditRecord| record.sequence <= head.sequence;
        page.records
            .iter()
            .take_while(up_to_head)
            .try_for_each(&mut visit)?;
        let past = page.records.last().is_some_and(|last| !up_to_head(&last));
        query.page_token = page.next_page_token;
        if past || query.page_token.is_empty() {
            break;
        }
    }
    if self::chain(api).await?.anchor == chain.anchor {
        Ok(())
    } else {
        Err(Failure::failed(
            "old records were pruned while they were read; do it again",
        ))
    }
}

/// Most faults that are told.
const TOLD: usize = 20;

fn report(head: Mark, verdict: &Verdict, output: Output) -> Result<(), Failure> {
    let last = format!("{}:{}", head.sequence, people::hex(&head.hash));
    if verdict.faults.is_empty() {
        return match output {
            Output::Json => output.fields(&json!({
                "checked": verdict.checked, "head_sequence": head.sequence, "head_hash": people::hex(&head.hash),
            })),
            Output::Table => output.done(&format!(
                "The audit trail holds: {} records; the last one is {last}.",
                verdict.checked
            )),
        };
    }
    let mut told: Vec<String> = verdict
        .faults
        .iter()
        .take(TOLD)
        .map(ToString::to_string)
        .collect();
    let more = verdict.faults.len().saturating_sub(TOLD);
    let more = u64::try_from(more)
        .unwrap_or(u64::MAX)
        .saturating_add(verdict.more_missing);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Err(Failure::failed(format!(
        "the audit trail does not hold: {}; compare it with an earlier export, and look who could write to the store",
        told.join("; ")
    )))
}
