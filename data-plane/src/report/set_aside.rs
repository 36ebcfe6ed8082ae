//! Event files whose usage cannot be booked: `<event file>.set-aside`, for people to look at.
//!
//! Invariants: setting aside renames and changes no byte, so that a file that is given its name back is reported like any other, and
//! each of its batches is booked once. Nothing here is ever read, reported or deleted by a node. The number of an epoch whose files
//! are set aside is not used again.

use std::{collections::BTreeSet, io};

use super::{
    disk::Disk,
    files::{Epoch, Segment, segments},
};

const SUFFIX: &str = ".set-aside";

/// For the log, after what happened.
pub(super) const WHAT_TO_DO: &str = "no program deletes these files; look at the reason, put it right, take `.set-aside` off their names and start the node \
     anew, or delete them; until then the node counts as not drained (docs/nodes.md, \"Usage that is set aside\")";

/// Moves all files of an epoch; their names before. The oldest goes first: should a crash come between, what is left is of an epoch
/// that the control plane does not have all of, and is set aside at the next start.
///
/// # Errors
/// The disk fails, or there is such a file already; then the rest keeps its names.
pub(super) fn set_aside(disk: &dyn Disk, epoch: &Epoch) -> io::Result<Vec<String>> {
    let there: BTreeSet<Segment> = list(disk)?.into_iter().collect();
    let mut moved = Vec::new();
    for segment in segments(disk)? {
        if segment.epoch != *epoch {
            continue;
        }
        let name = aside(&segment);
        if there.contains(&segment) {
            let why = format!("there is a file `{name}` already; move it elsewhere");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        disk.rename(&segment.to_string(), &name)?;
        moved.push(name);
    }
    Ok(moved)
}

/// What is set aside on a disk, in order.
///
/// # Errors
/// The disk fails.
pub(super) fn list(disk: &dyn Disk) -> io::Result<Vec<Segment>> {
    let mut all: Vec<Segment> = disk
        .list()?
        .iter()
        .filter_map(|file| Segment::parse(file.name.strip_suffix(SUFFIX)?))
        .collect();
    all.sort();
    Ok(all)
}

/// The name that a file has when it is set aside.
pub(super) fn aside(segment: &Segment) -> String {
    format!("{segment}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::memory_disk::MemoryDisk;

    fn segment(number: u64, first: u64) -> Segment {
        let node = "n-1".into();
        Segment {
            epoch: Epoch { node, number },
            first,
        }
    }

    fn names(disk: &MemoryDisk) -> Vec<String> {
        let mut names: Vec<String> = disk.list().unwrap().into_iter().map(|f| f.name).collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_of_an_epoch_change_their_names_and_nothing_else() {
        let disk = MemoryDisk::default();
        for (number, first) in [(1, 1), (2, 1), (2, 9)] {
            let name = segment(number, first).to_string();
            disk.append(&name, name.as_bytes()).unwrap();
            disk.sync(&name).unwrap();
        }
        let moved = set_aside(&disk, &segment(2, 1).epoch).unwrap();
        assert_eq!(moved, ["n-1-2-1.log.set-aside", "n-1-2-9.log.set-aside"]);
        disk.crash(0);
        let all = [&["n-1-1-1.log".to_owned()], moved.as_slice()].concat();
        assert_eq!(names(&disk), all);
        assert_eq!(list(&disk).unwrap(), [segment(2, 1), segment(2, 9)]);
        let bytes = disk.read("n-1-2-9.log.set-aside", 0, usize::MAX).unwrap();
        assert_eq!(bytes, b"n-1-2-9.log");
        assert_eq!(segments(&disk).unwrap(), [segment(1, 1)]);
    }

    #[test]
    fn what_was_set_aside_is_not_written_over() {
        let disk = MemoryDisk::default();
        let (name, epoch) = (segment(2, 1).to_string(), segment(2, 1).epoch);
        disk.append(&name, b"first").unwrap();
        set_aside(&disk, &epoch).unwrap();
        disk.append(&name, b"second").unwrap();
        set_aside(&disk, &epoch).unwrap_err();
        let kept = disk.read(&aside(&segment(2, 1)), 0, usize::MAX).unwrap();
        assert_eq!(kept, b"first");
    }
}
