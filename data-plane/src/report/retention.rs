//! Deletes old event files.
//!
//! Invariant: only files of which every batch is durable at the control plane are deleted, oldest first, and never the newest one
//! of the current epoch: it is being written.

use std::{io, time::Duration};

use super::{
    disk::{Disk, FileInfo},
    files::{Epoch, Segment},
    progress::Progress,
};

/// Bytes that event files may take; beyond it, acknowledged ones are deleted before their time.
pub(super) const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Deletes what is older than `keep`, and what is beyond `bytes_max`.
///
/// # Errors
/// The disk fails.
pub(super) fn clean(
    disk: &dyn Disk,
    progress: &Progress,
    current: &Epoch,
    (keep, bytes_max): (Duration, u64),
    now_unix_ms: i64,
) -> io::Result<()> {
    let files = disk.list()?;
    let mut all: Vec<(Segment, FileInfo)> = files
        .into_iter()
        .filter_map(|file| Some((Segment::parse(&file.name)?, file)))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut total = all
        .iter()
        .fold(0_u64, |sum, (_, file)| sum.saturating_add(file.len));
    let followers = all
        .iter()
        .skip(1)
        .map(|(segment, _)| Some(segment))
        .chain([None]);
    let mut done: Vec<&FileInfo> = all
        .iter()
        .zip(followers)
        .filter(|((segment, _), follower)| is_done(segment, *follower, progress, current))
        .map(|((_, file), _)| file)
        .collect();
    done.sort_by_key(|file| file.modified_unix_ms);
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    for file in done {
        let old = now_unix_ms.saturating_sub(file.modified_unix_ms) > keep_ms;
        if old || total > bytes_max {
            disk.remove(&file.name)?;
            total = total.saturating_sub(file.len);
            tracing::info!(
                file = file.name,
                "deleted an event file; the control plane has all of it"
            );
        }
    }
    Ok(())
}

/// Whether the control plane has every batch of a segment. The last batch of all but the newest is known by the next one's first.
fn is_done(
    segment: &Segment,
    follower: Option<&Segment>,
    progress: &Progress,
    current: &Epoch,
) -> bool {
    let acknowledged = progress.acknowledged(&segment.epoch);
    match follower.filter(|follower| follower.epoch == segment.epoch) {
        Some(follower) => acknowledged >= follower.first.saturating_sub(1),
        None => segment.epoch != *current && acknowledged == u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{memory_disk::MemoryDisk, sender::ReportCounters};

    const DAY_MS: i64 = 86_400_000;

    fn epoch(number: u64) -> Epoch {
        Epoch {
            node: "n".into(),
            number,
        }
    }

    /// Files are (epoch, first sequence, day of writing), 100 bytes each; `acknowledged` is (epoch, through).
    fn check(
        files: &[(u64, u64, i64)],
        acknowledged: &[(u64, u64)],
        bytes_max: u64,
        left: &[(u64, u64)],
    ) {
        let (disk, progress) = (MemoryDisk::default(), Progress::default());
        let name = |number, first| {
            Segment {
                epoch: epoch(number),
                first,
            }
            .to_string()
        };
        for (number, first, day) in files {
            disk.set_time(day.saturating_mul(DAY_MS));
            disk.append(&name(*number, *first), &[0; 100]).unwrap();
        }
        for (number, through) in acknowledged {
            progress.acknowledge(&epoch(*number), *through, false, &ReportCounters::default());
        }
        let week = Duration::from_secs(7 * 86_400);
        clean(&disk, &progress, &epoch(3), (week, bytes_max), 10 * DAY_MS).unwrap();
        let mut names: Vec<String> = disk
            .list()
            .unwrap()
            .into_iter()
            .map(|file| file.name)
            .collect();
        names.sort();
        let mut expected: Vec<String> = left
            .iter()
            .map(|(number, first)| name(*number, *first))
            .collect();
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn only_what_is_acknowledged_and_old_or_too_much_is_deleted() {
        let files = [(1, 1, 0), (1, 5, 1), (3, 1, 1), (3, 4, 8), (3, 9, 9)];
        let none = [(1, 1), (1, 5), (3, 1), (3, 4), (3, 9)];
        check(&files, &[], 0, &none);
        check(&files, &[(1, 3), (3, 2)], 0, &none);
        check(
            &files,
            &[(1, 4), (3, 3)],
            u64::MAX,
            &[(1, 5), (3, 4), (3, 9)],
        );
        check(
            &files,
            &[(1, u64::MAX), (3, 100)],
            u64::MAX,
            &[(3, 4), (3, 9)],
        );
        check(&files, &[(1, u64::MAX), (3, 100)], 150, &[(3, 9)]);
        check(&files, &[(1, u64::MAX)], 300, &[(3, 1), (3, 4), (3, 9)]);
    }
}
