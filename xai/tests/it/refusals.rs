//! What keeps a gateway from starting: one sentence that says what to do, an exit code that is not 0, and no panic.

use std::fs;

use tokio::process::Command;

use super::process::{Done, Home};

/// The sentence of a start that fails.
async fn refused(home: &Home, command: Command, expected: &[&str]) -> Done {
    let done = home.finish(command, "").await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let sentences: Vec<&str> = done.err.lines().collect();
    assert_eq!(sentences.len(), 1, "{done:?}");
    assert!(sentences[0].starts_with("xai: "), "{done:?}");
    for part in expected {
        assert!(done.err.contains(part), "no `{part}` in {done:?}");
    }
    assert!(!done.err.contains("panicked"), "{done:?}");
    done
}

#[tokio::test]
async fn two_gateways_do_not_share_a_directory_or_a_port() {
    let home = Home::new();
    // With several cores, each has a listener of its own at one port: another process must not join them.
    let gateway = home.start(&[("XAI_CORES", "2")]).await;
    let up = |variables: &[(&str, &str)]| home.command(&["up"], variables);
    let expected = [
        "another xai uses the data directory",
        "choose another directory with --data",
    ];
    refused(&home, up(&[]), &expected).await;
    let other = home.data().with_file_name("other");
    let other = other.to_str().unwrap();
    for (variable, flag, address) in [
        ("XAI_LISTEN", "--listen", gateway.client),
        ("XAI_GRPC", "--grpc", gateway.grpc),
        ("XAI_OPS", "--ops", gateway.ops),
    ] {
        for cores in ["1", "2"] {
            let address = address.to_string();
            let variables = [
                ("XAI_DATA", other),
                ("XAI_CORES", cores),
                (variable, address.as_str()),
            ];
            let expected = ["is used by another program", flag, variable];
            refused(&home, up(&variables), &expected).await;
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let home = Home::new();
    let file = home.data().with_file_name("file");
    fs::write(&file, "").unwrap();
    let below = file.join("data");
    for data in [&file, &below] {
        let data = data.to_str().unwrap();
        let expected = [data, "choose another one with --data"];
        refused(
            &home,
            home.command(&["up"], &[("XAI_DATA", data)]),
            &expected,
        )
        .await;
    }
    // Nobody, root least of all, may make a directory there.
    let command = home.command(&["up"], &[("XAI_DATA", "/proc/xai")]);
    refused(&home, command, &["/proc/xai", "--data"]).await;
}

#[tokio::test]
async fn a_directory_without_rights_is_named() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let home = Home::new();
    let closed = home.data().with_file_name("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let data = closed.join("data");
    let variables = [("XAI_DATA", data.to_str().unwrap())];
    let mut command = home.command(&["up"], &variables);
    if rustix::process::geteuid().is_root() {
        // Root may do anything, so somebody else tries: the directories above are opened for passing through.
        fs::set_permissions(closed.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(&closed, Some(0), Some(0)).unwrap();
        let program = closed.with_file_name("xai");
        fs::copy(command.as_std().get_program(), &program).unwrap();
        command = home.program(&program, &["up"], &variables);
        command.uid(65534).gid(65534);
    }
    let expected = [
        "this user may not write to the data directory",
        "give it the right, or choose another directory with --data",
    ];
    refused(&home, command, &expected).await;
}

#[tokio::test]
async fn files_that_may_not_grow_are_one_sentence() {
    let home = Home::new();
    // No file may have more than 8 blocks of 512 bytes; the signal that tells so is ignored, as service managers do.
    let command = home.shell("trap '' XFSZ; ulimit -f 8; exec \"$1\" up", &[]);
    refused(&home, command, &[home.data().to_str().unwrap(), "large"]).await;
}

#[tokio::test]
async fn a_full_disk_is_one_sentence() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    // A small disk of one's own, which needs no rights where user namespaces are allowed.
    let mount = "mount -t tmpfs -o size=1m none \"$XAI_DATA\"";
    let script = |then: &str| format!("exec unshare -Urm sh -c '{mount} && {then}' sh \"$1\"");
    let possible = home.finish(home.shell(&script("true"), &[]), "").await;
    if possible.code != Some(0) {
        println!(
            "not shown: this system gives no user namespaces: {}",
            possible.err
        );
        return;
    }
    let command = home.shell(&script("exec \"$1\" up"), &[]);
    let expected = [
        "has 1 MB left; free at least 100 MB",
        "or choose another directory with --data",
    ];
    refused(&home, command, &expected).await;
}

#[tokio::test]
async fn a_key_that_the_store_was_not_sealed_with_is_refused() {
    let home = Home::new();
    home.start(&[]).await.stop().await;
    let file = home.data().join("key-encryption-key");
    fs::write(&file, "0".repeat(64)).unwrap();
    refused(&home, home.command(&["up"], &[]), &["key"]).await;
    fs::write(&file, "short").unwrap();
    let expected = ["key-encryption-key", "from your backup"];
    refused(&home, home.command(&["up"], &[]), &expected).await;
}
