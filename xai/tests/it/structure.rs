//! The shape of the tree, as a test: arrows, purity of `core`, sizes, module docs, names in the READMEs.
//!
//! A rule stands here or in the lints, or it is no rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which of our crates each crate may use (normal dependencies); arrows point only downwards.
const ARROWS: [(&str, &[&str]); 6] = [
    ("proxyxai-proto", &[]),
    ("proxyxai-core", &["proxyxai-proto"]),
    ("proxyxai-testkit", &[]),
    (
        "proxyxai-control-plane",
        &["proxyxai-core", "proxyxai-proto"],
    ),
    ("proxyxai-data-plane", &["proxyxai-core", "proxyxai-proto"]),
    (
        "xai",
        &[
            "proxyxai-control-plane",
            "proxyxai-core",
            "proxyxai-data-plane",
            "proxyxai-proto",
            "proxyxai-testkit",
        ],
    ),
];

/// What a pure crate has nowhere in its tree.
const IMPURE: [&str; 9] = [
    "tokio", "hyper", "tonic", "mio", "h2", "rand", "tracing", "socket2", "axum",
];

/// What no shipped binary has in its tree: a second TLS stack, a third HTTP client.
const BANNED: [&str; 5] = ["ring", "openssl-sys", "native-tls", "reqwest", "serde_yaml"];

/// What the text of `core` never names: clocks, files, threads.
const IMPURE_TEXT: [&str; 6] = [
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::thread",
    "std::net::Tcp",
    "std::env",
];

const STOP: usize = 600;
const MEDIAN: usize = 130;
const NINTH_DECILE: usize = 350;

#[test]
fn arrows_point_only_downwards() {
    for (package, allowed) in ARROWS {
        let ours: BTreeSet<String> = tree(package, "normal")
            .into_iter()
            .filter(|name| name != package && (name.starts_with("proxyxai-") || name == "xai"))
            .collect();
        let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
        assert!(
            ours.is_subset(&allowed),
            "{package} uses {ours:?}, allowed are {allowed:?}"
        );
    }
}

#[test]
fn core_is_pure() {
    let tree = tree("proxyxai-core", "normal");
    for name in IMPURE {
        assert!(!tree.contains(name), "core must not depend on {name}");
    }
    for file in rust_files()
        .into_iter()
        .filter(|f| f.starts_with("core/src"))
    {
        let body = shipped(&read(&file));
        for text in IMPURE_TEXT {
            assert!(
                !body.contains(text),
                "{}: `core` must not name {text}",
                file.display()
            );
        }
    }
}

#[test]
fn nothing_banned_is_built() {
    let tree = tree("xai", "normal,build");
    for name in BANNED {
        assert!(!tree.contains(name), "{name} is in the tree of xai");
    }
}

#[test]
fn files_are_small_and_introduce_themselves() {
    let mut sizes = BTreeMap::new();
    for file in rust_files() {
        let text = read(&file);
        let name = file.display();
        assert!(
            file.file_name() != Some("mod.rs".as_ref()),
            "{name}: name the module after its folder"
        );
        assert!(
            text.starts_with("//!"),
            "{name}: open with `//!`, purpose and invariants"
        );
        if !is_test(&file) {
            let lines = shipped(&text)
                .lines()
                .filter(|l| !l.trim().is_empty())
                .count();
            assert!(
                lines <= STOP,
                "{name} has {lines} lines without tests; {STOP} is the end"
            );
            sizes.insert(file.clone(), lines);
        }
    }
    let mut lines: Vec<usize> = sizes.values().copied().collect();
    lines.sort_unstable();
    let at = |part: usize| lines.get(lines.len() * part / 100).copied().unwrap_or(0);
    println!(
        "files {}, median {}, 90 % {}, largest {}",
        lines.len(),
        at(50),
        at(90),
        at(100 - 1)
    );
    assert!(at(50) <= MEDIAN, "the median file has {} lines", at(50));
    assert!(
        at(90) <= NINTH_DECILE,
        "nine of ten files should be within {NINTH_DECILE} lines: {}",
        at(90)
    );
}

#[test]
fn nothing_is_left_unfinished() {
    for file in rust_files() {
        if file.ends_with("structure.rs") {
            continue;
        }
        for word in ["TODO", "FIXME", "XXX", "unimplemented!"] {
            assert!(
                !read(&file).contains(word),
                "{} says {word}",
                file.display()
            );
        }
    }
}

#[test]
fn the_readmes_name_files_that_exist() {
    for readme in [
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ] {
        for word in code_words(&read(Path::new(readme))) {
            let first = word.split('/').next().unwrap_or_default();
            if word.contains('/') && root().join(first).is_dir() {
                assert!(
                    root().join(&word).exists(),
                    "{readme} names {word}, which does not exist"
                );
            }
        }
    }
}

/// Words in back quotes and targets of relative links.
fn code_words(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next());
    quoted
        .chain(linked)
        .filter(|word| !word.contains([' ', '*', '…', '<', ':', '$', '{']))
        .map(|word| word.trim_end_matches('/').to_owned())
        .collect()
}

/// Names of all packages in the tree of one package.
fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix",
            "none",
            "--package",
            package,
            "--edges",
            edges,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// The part of a file before its first test module.
fn shipped(text: &str) -> String {
    text.split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests")
}

/// Every Rust file of ours, relative to the root, in order.
fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (package, _) in ARROWS {
        let folder = package.strip_prefix("proxyxai-").unwrap_or(package);
        collect(&root().join(folder), &mut found);
    }
    assert!(
        found.len() > 30,
        "only {} files found: is the root right?",
        found.len()
    );
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path.strip_prefix(root()).unwrap().to_path_buf());
        }
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
