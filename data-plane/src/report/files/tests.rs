//! Event files: numbering, failures of the disk, crashes at every byte.

use proxyxai_proto::usage::v1::UsageEvent;

use super::*;
use crate::report::{
    disk::FsDisk,
    memory_disk::MemoryDisk,
    reader::{Reader, close_epoch},
};

fn event(id: u64) -> UsageEvent {
    UsageEvent {
        request_id: format!("r{id}"),
        ..UsageEvent::default()
    }
}

fn number(journal: &mut Journal, events: Vec<UsageEvent>) -> Numbered {
    journal.number(
        &UsageBatch {
            events,
            ..UsageBatch::default()
        }
        .encode_to_vec(),
    )
}

fn read_all(disk: &Arc<dyn Disk>, epoch: &Epoch) -> Vec<u64> {
    let mut reader = Reader::new(Arc::clone(disk), epoch.clone(), 1);
    let mut sequences = Vec::new();
    loop {
        let batches = reader.read().unwrap();
        if batches.is_empty() {
            return sequences;
        }
        for stored in batches {
            let batch = UsageBatch::decode(stored.payload.clone()).unwrap();
            assert_eq!(
                (batch.sequence, batch.epoch),
                (stored.sequence, epoch.number)
            );
            assert_eq!(
                batch.encode_to_vec(),
                stored.payload,
                "what is sent are the bytes of the file"
            );
            sequences.push(stored.sequence);
        }
    }
}

#[test]
fn names_of_segments_round_trip() {
    for (node, number, first) in [("n1", 1, 1), ("a-b-c", 7, u64::MAX), ("n_1-2", 3, 9)] {
        let segment = Segment {
            epoch: Epoch {
                node: node.into(),
                number,
            },
            first,
        };
        assert_eq!(Segment::parse(&segment.to_string()), Some(segment));
    }
    for name in ["n1.epoch", "1-2.log", "n-1-x.log", "n-1-1.log.new"] {
        assert_eq!(Segment::parse(name), None, "{name}");
    }
}

#[test]
fn law_5_every_start_has_an_epoch_of_its_own() {
    let memory = Arc::new(MemoryDisk::default());
    let disk: Arc<dyn Disk> = memory.clone();
    for expected in 1..=3 {
        let (mut journal, earlier) = Journal::open(disk.clone(), "n", 1).unwrap();
        assert_eq!(journal.epoch().number, expected);
        assert_eq!(earlier.len() as u64, expected - 1);
        let batch = number(&mut journal, vec![event(expected)]);
        journal.append(&[batch]).unwrap();
        memory.crash(0);
    }
    disk.remove("n.epoch").unwrap();
    let (journal, _) = Journal::open(disk, "n", 1).unwrap();
    assert_eq!(
        journal.epoch().number,
        4,
        "the files alone tell which epochs were used"
    );
}

#[test]
fn law_19_a_cut_at_every_byte_leaves_a_prefix_that_opens() {
    let whole = Arc::new(MemoryDisk::default());
    let disk: Arc<dyn Disk> = whole;
    let (mut journal, _) = Journal::open(disk.clone(), "n", 1).unwrap();
    let name = Segment {
        epoch: journal.epoch().clone(),
        first: 1,
    }
    .to_string();
    let mut ends = vec![0];
    for id in 0..4 {
        let batch = number(&mut journal, (0..=id).map(event).collect());
        journal.append(&[batch]).unwrap();
        ends.push(disk.read(&name, 0, usize::MAX).unwrap().len());
    }
    let bytes = disk.read(&name, 0, usize::MAX).unwrap();
    for cut in 0..=bytes.len() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        disk.append(&name, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        let (mut journal, earlier) = Journal::open(disk.clone(), "n", 1).unwrap();
        assert_eq!(
            close_epoch(&disk, &earlier[0]).unwrap(),
            whole,
            "cut at {cut}"
        );
        assert_eq!(
            read_all(&disk, &earlier[0]),
            (1..=whole).collect::<Vec<_>>()
        );
        let left = disk
            .read(&name, 0, usize::MAX)
            .map_or(0, |bytes| bytes.len());
        assert!(ends.contains(&left), "the torn end is cut off");
        let batch = number(&mut journal, vec![event(9)]);
        journal.append(&[batch]).unwrap();
        assert_eq!(read_all(&disk, journal.epoch()), [1]);
    }
}

#[test]
fn a_full_disk_or_a_failed_sync_loses_and_doubles_nothing() {
    for synced_before in [false, true] {
        for sync_fails in [false, true] {
            let memory = Arc::new(MemoryDisk::default());
            let disk: Arc<dyn Disk> = memory.clone();
            let (mut journal, _) = Journal::open(disk.clone(), "n", 1).unwrap();
            let mut expected = vec![];
            if synced_before {
                let batch = number(&mut journal, vec![event(0)]);
                journal.append(&[batch]).unwrap();
                expected.push(1);
            }
            let batches = [
                number(&mut journal, vec![event(1)]),
                number(&mut journal, vec![event(2)]),
            ];
            expected.extend(batches.iter().map(|batch| batch.sequence));
            memory.set_full(!sync_fails);
            memory.set_sync_fails(sync_fails);
            for _ in 0..3 {
                journal.append(&batches).unwrap_err();
            }
            memory.set_full(false);
            memory.set_sync_fails(false);
            journal.append(&batches).unwrap();
            memory.crash(0);
            assert_eq!(read_all(&disk, journal.epoch()), expected);
            assert_eq!(
                close_epoch(&disk, journal.epoch()).unwrap(),
                *expected.last().unwrap()
            );
        }
    }
}

#[test]
fn large_batches_and_many_files_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(dir.path()).unwrap());
    let (mut journal, _) = Journal::open(disk.clone(), "n", 1).unwrap();
    for round in 0..5 {
        let large = UsageEvent {
            reason: "x".repeat(700_000),
            ..event(round)
        };
        let batches = [
            number(&mut journal, vec![large]),
            number(&mut journal, vec![event(round)]),
        ];
        journal.append(&batches).unwrap();
        journal.open = None;
    }
    assert_eq!(segments(&*disk).unwrap().len(), 5);
    assert_eq!(
        read_all(&disk, journal.epoch()),
        (1..=10).collect::<Vec<_>>()
    );
    let mut from_seven = Reader::new(disk.clone(), journal.epoch().clone(), 7);
    assert_eq!(from_seven.read().unwrap()[0].sequence, 7);
    disk.remove(
        &Segment {
            epoch: journal.epoch().clone(),
            first: 3,
        }
        .to_string(),
    )
    .unwrap();
    let mut reader = Reader::new(disk, journal.epoch().clone(), 2);
    assert_eq!(reader.read().unwrap().len(), 1);
    assert!(reader.read().is_err(), "a missing batch is not skipped");
}
