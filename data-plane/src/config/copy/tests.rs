//! Copies that are whole, damaged, foreign and of other formats.

use proptest::prelude::*;
use proxyxai_core::{
    account::{key::KeyDigest, terms::NEVER},
    snapshot::ResourceKind,
};
use proxyxai_proto::config::v1::{Account, VirtualKey, resource::Kind};

use super::{pieces::MAGIC, *};
use crate::{config::sample, report::MemoryDisk};

const SECRET: &[u8] = b"sk-upstream-secret-of-the-test";
const PEPPER: [u8; 32] = *b"pepper-of-the-test-32-bytes-long";

fn ports() -> (CopyPorts, Arc<MemoryDisk>) {
    let disk = Arc::new(MemoryDisk::default());
    let ports = CopyPorts {
        disk: Arc::clone(&disk) as _,
        key: SealKey::new([1; 32]),
    };
    (ports, disk)
}

fn version() -> Version {
    Version {
        generation: 3,
        revision: 9,
    }
}

fn content(keys: u8) -> Content {
    let account = Account {
        id: "team".into(),
        parent_id: "root".into(),
        name: "team".into(),
        ..Account::default()
    };
    let key = |number: u8| {
        sample::resource(Kind::VirtualKey(VirtualKey {
            account_id: if number.is_multiple_of(2) {
                "team"
            } else {
                "root"
            }
            .into(),
            disabled: number.is_multiple_of(3),
            expires_unix_ms: if number % 5 == 1 { 5_000 } else { 0 },
            previous_digest: if number % 7 == 1 {
                vec![number | 128; 16]
            } else {
                vec![]
            },
            previous_expires_unix_ms: 7_000,
            ..sample::virtual_key(&format!("k{number}"), number)
        }))
    };
    let mut resources = sample::resources(&["a", "b"]);
    resources.retain(|resource| !matches!(resource.kind, Some(Kind::UpstreamKey(_))));
    resources.push(sample::upstream_key(SECRET));
    resources.push(sample::resource(Kind::Account(account)));
    resources.extend((0..keys).map(key));
    resources.into_iter().map(Arc::new).collect()
}

fn holding(content: &Content) -> Holding {
    let mut incoming = Incoming::default();
    content
        .iter()
        .for_each(|(_, resource)| incoming.add(Arc::clone(resource)));
    let snapshot = Snapshot::assemble(version(), &incoming.rest, incoming.keys).unwrap();
    let view = View {
        deployment: "d".into(),
        pepper: Pepper::new(PEPPER),
        keyed: false,
    };
    Holding {
        pinned: Arc::new(Pinned::build(snapshot, view, &Pinned::empty()).unwrap()),
        rest: Arc::new(incoming.rest),
    }
}

fn age(seconds: u64, proved_unix_ms: i64) -> Age {
    Age {
        age: Duration::from_secs(seconds),
        proved_unix_ms,
        limit: Some(Duration::from_secs(77)),
        schedule: Schedule::Cordon,
    }
}

fn remembered() -> Remembered {
    Remembered {
        through: version(),
        keys: vec![sample::virtual_key("known", 7)],
        accounts: vec![sample::root()],
    }
}

fn written(keys: u8) -> (CopyPorts, Arc<MemoryDisk>, Content) {
    let (ports, disk) = ports();
    let content = content(keys);
    write(
        &ports,
        [5; 32],
        &holding(&content),
        remembered(),
        age(10, 1_000),
    )
    .unwrap();
    (ports, disk, content)
}

#[test]
fn law_13_what_was_held_is_held_again() {
    let (ports, _, content) = written(40);
    let loaded = read(&ports, 2_000).unwrap().unwrap();
    let pinned = &loaded.holding.pinned;
    assert_eq!(
        (pinned.snapshot.version, pinned.snapshot.digest),
        (version(), content.digest())
    );
    assert_eq!(pinned.snapshot.keys.len(), 40);
    assert!(rows::count(&pinned.snapshot) > 20 && rows::count(&pinned.snapshot) < 40);
    for key in content.of_kind(ResourceKind::VirtualKey) {
        let Some(Kind::VirtualKey(key)) = &key.kind else {
            panic!("a key")
        };
        let digest = KeyDigest(key.digest.as_slice().try_into().unwrap());
        let shown = pinned.snapshot.key(&digest).unwrap();
        let end = match key.expires_unix_ms {
            0 => NEVER,
            end => end,
        };
        assert_eq!(shown.terms.expires_unix_ms, end);
        if let Ok(previous) = key.previous_digest.as_slice().try_into() {
            let previous = pinned.snapshot.key(&KeyDigest(previous)).unwrap();
            assert_eq!(previous.terms.expires_unix_ms, end.min(7_000));
            assert_eq!(previous.record.id, shown.record.id);
        }
        let found = shown.record;
        assert_eq!(
            (
                found.id.as_str(),
                found.disabled,
                pinned.snapshot.accounts.id(found.account)
            ),
            (key.id.as_str(), key.disabled, key.account_id.as_str())
        );
    }
    assert_eq!(pinned.credentials[0].raw.as_bytes(), SECRET);
    assert_eq!(pinned.pepper.as_ref().unwrap().expose(), &PEPPER);
    assert_eq!(loaded.remembered, remembered());
    assert_eq!(
        (loaded.age, loaded.limit, loaded.schedule),
        (
            Duration::from_secs(10),
            Some(Duration::from_secs(77)),
            Schedule::Cordon
        )
    );
}

#[test]
fn law_21_no_secret_stands_in_a_file() {
    let (ports, disk, content) = written(3);
    write_age(&ports, [6; 32], &holding(&content), age(1, 1)).unwrap();
    for file in disk.list().unwrap() {
        let bytes = disk.read(&file.name, 0, usize::MAX).unwrap();
        for secret in [SECRET, &PEPPER, b"kxxxx".as_slice(), b"team"] {
            let found = bytes.windows(secret.len()).any(|part| part == secret);
            assert!(
                !found,
                "{} shows {}",
                file.name,
                String::from_utf8_lossy(secret)
            );
        }
    }
}

#[test]
fn no_damage_is_taken_for_a_copy() {
    let (ports, disk, content) = written(4);
    write_age(&ports, [6; 32], &holding(&content), age(1, 1)).unwrap();
    let set = |name: &str, bytes: &[u8]| {
        disk.remove(name).unwrap();
        disk.append(name, bytes).unwrap();
    };
    let (copy, age) = (
        disk.read(COPY, 0, usize::MAX).unwrap(),
        disk.read(AGE, 0, usize::MAX).unwrap(),
    );
    for at in 0..copy.len() {
        let mut flipped = copy.clone();
        flipped[at] ^= 1 << (at % 8);
        set(COPY, &flipped);
        assert!(read(&ports, 2_000).is_err(), "byte {at} was flipped");
        set(COPY, &copy[..at]);
        assert!(read(&ports, 2_000).is_err(), "cut to {at} bytes");
    }
    set(COPY, &[copy.as_slice(), b"x"].concat());
    assert!(read(&ports, 2_000).is_err(), "a byte more");
    set(COPY, &age);
    assert!(read(&ports, 2_000).is_err(), "another file of the node");
    set(COPY, &copy);
    for at in 0..age.len() {
        let mut flipped = age.clone();
        flipped[at] ^= 1 << (at % 8);
        set(AGE, &flipped);
        let loaded = read(&ports, 2_000).unwrap().unwrap();
        assert_eq!(loaded.age, Duration::from_secs(10), "byte {at} of the age");
    }
}

#[test]
fn law_13_many_keys_are_held_again_and_pieces_are_not_mixed() {
    let (ports, disk) = ports();
    let mut incoming = Incoming::default();
    let resources = sample::resources(&["a"]).into_iter();
    resources.for_each(|resource| incoming.add(Arc::new(resource)));
    for number in 0..40_000_u32 {
        let key = VirtualKey {
            digest: blake3_like(number).to_vec(),
            ..sample::virtual_key(&format!("{number:012}"), 0)
        };
        incoming.add(Arc::new(sample::resource(Kind::VirtualKey(key))));
    }
    let snapshot = Snapshot::assemble(version(), &incoming.rest, incoming.keys).unwrap();
    let view = View {
        deployment: "d".into(),
        pepper: Pepper::new(PEPPER),
        keyed: false,
    };
    let digest = snapshot.digest;
    let many = Holding {
        pinned: Arc::new(Pinned::build(snapshot, view, &Pinned::empty()).unwrap()),
        rest: Arc::new(incoming.rest),
    };
    let mut files = [[5; 32], [6; 32]].map(|info| {
        let length = write(&ports, info, &many, remembered(), age(1, 1)).unwrap();
        let loaded = read(&ports, 1).unwrap().unwrap();
        assert_eq!(loaded.holding.pinned.snapshot.digest, digest);
        assert_eq!(loaded.holding.pinned.snapshot.keys.len(), 40_000);
        let file = disk.read(COPY, 0, usize::MAX).unwrap();
        assert_eq!(u64::try_from(file.len()).unwrap(), length);
        pieces_of(&file)
    });
    let [first, second] = &mut files;
    assert_eq!(first.len(), 4, "a head and three pieces of rows");
    let taken = |file: &[Vec<u8>]| {
        let prefix = [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat();
        disk.remove(COPY).unwrap();
        disk.append(COPY, &[prefix, file.concat()].concat())
            .unwrap();
        read(&ports, 1).is_ok()
    };
    assert!(taken(first));
    std::mem::swap(&mut first[2], &mut second[2]);
    assert!(!taken(first), "a piece of another copy");
    std::mem::swap(&mut first[2], &mut second[2]);
    first.swap(2, 3);
    assert!(!taken(first), "pieces change places");
    first.swap(2, 3);
    assert!(!taken(&first[..3]), "the last piece is missing");
    let twice = [first.as_slice(), &first[3..]].concat();
    assert!(!taken(&twice), "the last piece stands twice");
}

/// Spread like a digest.
fn blake3_like(number: u32) -> [u8; 16] {
    let mixed = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    mixed.rotate_left(64).to_be_bytes()
}

fn pieces_of(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut pieces, mut rest) = (Vec::new(), &file[8..]);
    while let Some((len, _)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap();
        let len = len.saturating_add(4);
        pieces.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    pieces
}

#[test]
fn a_foreign_copy_or_one_of_another_format_is_passed_over() {
    let (ports, disk, _) = written(1);
    let foreign = CopyPorts {
        disk: Arc::clone(&ports.disk),
        key: SealKey::new([2; 32]),
    };
    let fault = |ports: &CopyPorts| read(ports, 2_000).err().unwrap().to_string();
    assert!(
        fault(&foreign).contains("sealed under key"),
        "{}",
        fault(&foreign)
    );
    assert!(load(&foreign, 2_000).is_none());
    let mut copy = disk.read(COPY, 0, usize::MAX).unwrap();
    for format in [0_u32, 1, 3, u32::MAX] {
        copy[4..8].copy_from_slice(&format.to_le_bytes());
        disk.remove(COPY).unwrap();
        disk.append(COPY, &copy).unwrap();
        assert_eq!(
            fault(&ports),
            format!("it has format {format}, and this program reads 2")
        );
    }
    disk.remove(COPY).unwrap();
    assert!(
        read(&ports, 2_000).unwrap().is_none(),
        "no copy is no fault"
    );
}

#[test]
fn a_copy_with_content_that_does_not_fit_is_passed_over() {
    let (ports, _) = ports();
    let mut holding = holding(&content(3));
    let mut rest = Content::clone(&holding.rest);
    rest.upsert(Arc::new(sample::upstream_key(b"sk-another")));
    holding.rest = Arc::new(rest);
    write(&ports, [5; 32], &holding, remembered(), age(1, 1)).unwrap();
    let fault = read(&ports, 1).err().unwrap();
    assert!(matches!(fault, CopyFault::Content("its digest")), "{fault}");
}

#[test]
fn the_newer_age_of_the_same_copy_counts() {
    let (ports, _, content) = written(1);
    let same = holding(&content);
    let check = |holding: &Holding, stored: Age, now_unix_ms: i64, want: u64| {
        write_age(&ports, [6; 32], holding, stored).unwrap();
        let loaded = read(&ports, now_unix_ms).unwrap().unwrap();
        assert_eq!(loaded.age, Duration::from_secs(want), "{stored:?}");
    };
    check(&same, age(3, 50_000), 51_000, 3);
    check(&same, age(3, 50_000), 90_000, 40);
    check(&same, age(3, 50_000), 0, 3);
    // The age of another content says nothing of this one's.
    check(&holding(&self::content(2)), age(3, 50_000), 51_000, 50);
}

#[test]
fn a_crash_leaves_the_copy_before_or_the_new_one() {
    let (ports, disk, content) = written(1);
    for kept in [0, 1, 100, 10_000] {
        disk.set_sync_fails(true);
        let result = write(
            &ports,
            [7; 32],
            &holding(&self::content(9)),
            remembered(),
            age(1, 1),
        );
        assert!(result.is_err());
        disk.set_sync_fails(false);
        disk.crash(kept);
        let loaded = read(&ports, 1).unwrap().unwrap();
        assert_eq!(loaded.holding.pinned.snapshot.digest, content.digest());
    }
    disk.set_full(true);
    assert!(write(&ports, [7; 32], &holding(&content), remembered(), age(1, 1)).is_err());
    disk.set_full(false);
    assert!(read(&ports, 1).unwrap().is_some());
    write(
        &ports,
        [7; 32],
        &holding(&self::content(9)),
        remembered(),
        age(1, 1),
    )
    .unwrap();
    disk.crash(0);
    let loaded = read(&ports, 1).unwrap().unwrap();
    assert_eq!(
        loaded.holding.pinned.snapshot.digest,
        self::content(9).digest()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rubbish_is_no_copy(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let (ports, disk) = ports();
        let bytes = if magic { [MAGIC.as_slice(), &FORMAT.to_le_bytes(), &bytes].concat() } else { bytes };
        disk.append(COPY, &bytes).unwrap();
        disk.append(AGE, &bytes).unwrap();
        prop_assert!(load(&ports, 1).is_none());
    }
}
