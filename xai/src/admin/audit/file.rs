//! An exported audit trail: one JSON object a line. The first line says where the chain begins and ends, each of the others is a record.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write},
    path::Path,
};

use proxyxai_core::audit::chain::{Mark, Verdict, Verifier};
use proxyxai_proto::admin::v1::{
    AuditActor, AuditChange, AuditMark, AuditOutcome, AuditRecord, GetAuditChainResponse,
};
use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    output::people::{self, hex},
};

/// The format of the first line.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    proxyxai_audit: u32,
    deployment_id: String,
    anchor: Place,
    head: Place,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    sequence: u64,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: u32,
    sequence: u64,
    unix_ms: i64,
    actor: Actor,
    action: String,
    outcome: String,
    changes: Vec<Change>,
    previous_hash: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Actor {
    credential_id: String,
    role: String,
    account_line: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    kind: String,
    id: String,
    account_line: Vec<String>,
    before: String,
    after: String,
}

/// Writes an export.
pub(super) struct Writer {
    out: Box<dyn Write>,
    name: String,
}

impl Writer {
    /// Begins with where the chain begins and ends.
    pub(super) fn create(file: &Path, chain: &GetAuditChainResponse) -> Result<Self, Failure> {
        let name = file.display().to_string();
        let out: Box<dyn Write> = if file.as_os_str() == "-" {
            Box::new(BufWriter::new(io::stdout()))
        } else {
            let made = File::create(file).map_err(|error| cannot("written", &name, &error))?;
            Box::new(BufWriter::new(made))
        };
        let place = |mark: Option<&AuditMark>| Place {
            sequence: mark.map_or(0, |mark| mark.sequence),
            hash: mark.map(|mark| hex(&mark.hash)).unwrap_or_default(),
        };
        let begin = Begin {
            proxyxai_audit: FORMAT,
            deployment_id: chain.deployment_id.clone(),
            anchor: place(chain.anchor.as_ref()),
            head: place(chain.head.as_ref()),
        };
        let mut writer = Self { out, name };
        let begin = serde_json::to_string(&begin)
            .map_err(|error| Failure::failed(format!("the export has no first line: {error}")))?;
        writer.line(&begin)?;
        Ok(writer)
    }

    /// Adds a record.
    pub(super) fn write(&mut self, record: &AuditRecord) -> Result<(), Failure> {
        self.line(&people::audit_record(record).to_string())
    }

    /// Makes sure that all of it is out.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        flushed.map_err(|error| cannot("written", &self.name, &error))
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        let written = writeln!(self.out, "{text}");
        written.map_err(|error| cannot("written", &self.name, &error))
    }
}

/// Checks an export; says with which record it ends, too.
pub(super) fn verify(file: &Path, known: Option<Mark>) -> Result<(Mark, Verdict), Failure> {
    let name = file.display().to_string();
    let open = File::open(file).map_err(|error| cannot("read", &name, &error))?;
    let mut verifier: Option<(Mark, Verifier)> = None;
    for (number, line) in BufReader::new(open).lines().enumerate() {
        let number = number.saturating_add(1);
        let line = line.map_err(|error| cannot("read", &name, &error))?;
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "line {number} of {name} is not as `xai audit export` wrote it ({error}); the file was edited"
            ))
        };
        if let Some((_, verifier)) = &mut verifier {
            let record: Line = serde_json::from_str(&line).map_err(|error| wrong(&error))?;
            verifier.take(
                &record
                    .read()
                    .ok_or_else(|| wrong(&"a word or a hash is none"))?,
            );
            continue;
        }
        let begin: Begin = serde_json::from_str(&line).map_err(|error| wrong(&error))?;
        if begin.proxyxai_audit != FORMAT {
            return Err(Failure::failed(format!(
                "{name} has format {}, which a newer version of xai can check",
                begin.proxyxai_audit
            )));
        }
        let ends = begin.anchor.mark().zip(begin.head.mark());
        let (anchor, head) = ends.ok_or_else(|| wrong(&"a hash is none"))?;
        verifier = Some((head, Verifier::new(anchor, head).knowing(known)));
    }
    let checked = verifier.map(|(head, verifier)| (head, verifier.finish()));
    checked.ok_or_else(|| {
        Failure::failed(format!("{name} is empty; write it with `xai audit export`"))
    })
}

/// Reads what `xai audit verify` said of the last record: its number and hash.
pub(super) fn known(text: &str) -> Result<Mark, &'static str> {
    let read = || {
        let (sequence, hash) = text.trim().split_once(':')?;
        let hash = hash.to_owned();
        let sequence = sequence.parse().ok()?;
        Place { sequence, hash }.mark()
    };
    read().ok_or("say a number and a hash of 64 hexadecimal digits, as in 12:59c6…, as `xai audit verify` prints them")
}

impl Place {
    fn mark(&self) -> Option<Mark> {
        Mark::from_proto(&AuditMark {
            sequence: self.sequence,
            hash: unhex(&self.hash)?,
        })
    }
}

impl Line {
    fn read(self) -> Option<AuditRecord> {
        let outcomes = [AuditOutcome::Done, AuditOutcome::Denied];
        let outcome = outcomes
            .into_iter()
            .find(|outcome| people::outcome(*outcome) == self.outcome)?;
        let change = |change: Change| AuditChange {
            kind: change.kind,
            id: change.id,
            account_line: change.account_line,
            before: change.before,
            after: change.after,
        };
        Some(AuditRecord {
            format: self.format,
            sequence: self.sequence,
            unix_ms: self.unix_ms,
            actor: Some(AuditActor {
                credential_id: self.actor.credential_id,
                role: self.actor.role,
                account_line: self.actor.account_line,
            }),
            action: self.action,
            outcome: outcome.into(),
            changes: self.changes.into_iter().map(change).collect(),
            previous_hash: unhex(&self.previous_hash)?,
            hash: unhex(&self.hash)?,
        })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

fn cannot(what: &str, name: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("{name} cannot be {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use proxyxai_core::audit::sealed;

    use super::*;

    /// An export of three records, changed, then checked; the sentence, or nothing when it holds.
    fn check(change: impl Fn(&mut Vec<String>), said: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let (mut records, mut last) = (Vec::new(), Mark::START);
        for sequence in 1..=3 {
            let record = AuditRecord {
                sequence,
                unix_ms: 5,
                outcome: AuditOutcome::Done.into(),
                action: "UpdateKey".into(),
                actor: Some(AuditActor::default()),
                changes: vec![AuditChange {
                    after: r#"{"name":"x"}"#.into(),
                    ..AuditChange::default()
                }],
                ..AuditRecord::default()
            };
            let record = sealed(record, last.hash);
            last = Mark {
                sequence,
                hash: record.hash.clone().try_into().unwrap(),
            };
            records.push(record);
        }
        let chain = GetAuditChainResponse {
            anchor: Some(Mark::START.to_proto()),
            head: Some(last.to_proto()),
            deployment_id: "d".into(),
        };
        let mut writer = Writer::create(&file, &chain).unwrap();
        records
            .iter()
            .for_each(|record| writer.write(record).unwrap());
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        std::fs::write(&file, lines.join("\n")).unwrap();
        let found = match verify(&file, None) {
            Ok((_, verdict)) => verdict
                .faults
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            Err(failure) => failure.to_string(),
        };
        assert!(
            found.contains(said) && found.is_empty() == said.is_empty(),
            "{found}\nlacks {said}"
        );
    }

    #[test]
    fn an_edited_export_is_told_where() {
        check(|_| {}, "");
        check(
            |l| l[2] = l[2].replace("UpdateKey", "CreateKey"),
            "record 2 was edited",
        );
        check(
            |l| l[1] = l[1].replace("\"unix_ms\":5", "\"unix_ms\":6"),
            "record 1 was edited",
        );
        check(|l| drop(l.remove(2)), "record 2 was removed");
        check(|l| drop(l.pop()), "record 3 was removed");
        check(|l| l.swap(1, 2), "record 1 stands at a wrong place");
        check(
            |l| l[2] = l[2].replace("\"outcome\":\"done\"", "\"outcome\":\"fine\""),
            "line 3 of",
        );
        check(
            |l| l[3] = l[3].replace("\"format\":1", "\"format\":1,\"note\":\"x\""),
            "unknown field `note`",
        );
        check(|l| l[2].truncate(20), "line 3 of");
        check(
            |l| l[0] = l[0].replace("audit\":1", "audit\":2"),
            "format 2",
        );
        check(Vec::clear, "is empty");
    }
}
