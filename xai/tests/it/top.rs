//! `xai top` against a real gateway: one look for programs and pipes, and live in a real terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use tokio::time::timeout;

use super::process::{Ask, Home, PATIENCE, number, until};

/// A gateway that has served a little.
async fn served(home: &Home) -> super::process::Gateway {
    let keys = home.keys();
    let gateway = home.start(&[("XAI_KEYS", &keys)]).await;
    let ask = Ask::chat(&home.first_key(), "gpt-4o-mini", "tokens=7");
    assert_eq!(gateway.ask(&ask).await.status, 200);
    home.usage("", 1).await;
    gateway
}

#[tokio::test]
async fn one_look_is_printed_where_nobody_watches() {
    let home = Home::new();
    let gateway = served(&home).await;
    let node = home.json("nodes").await["nodes"][0]["id"].clone();
    let seen = home.json("top --once").await;
    assert_eq!(seen["nodes"][0]["id"], node);
    let accounts = seen["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 1, "{seen}");
    assert_eq!(number(&accounts[0], "attempts"), 1);
    assert!(number(&accounts[0], "cost_nano_usd") > 0);
    assert_eq!(seen["providers"].as_array().unwrap().len(), 2);
    for words in ["top", "top --once"] {
        let done = home.xai(words).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        for part in [
            "NODE",
            "ACCOUNT",
            "root",
            "PROVIDER",
            node.as_str().unwrap(),
        ] {
            assert!(done.out.contains(part), "{part} in {}", done.out);
        }
        assert!(!done.out.contains('\x1b'), "{:?}", done.out);
    }
    gateway.stop().await;
}

/// A terminal: the side of whoever watches, and that of a program.
fn terminal() -> (File, OwnedFd) {
    let watcher = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&watcher).unwrap();
    unlockpt(&watcher).unwrap();
    let name = ptsname(&watcher, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let program = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    (watcher.into(), program)
}

#[tokio::test]
async fn a_terminal_is_left_as_it_was() {
    let home = Home::new();
    let gateway = served(&home).await;
    let (mut watcher, program) = terminal();
    let side = || Stdio::from(program.try_clone().unwrap());
    let mut command = home.command(&["top", "--every", "200ms"], &[]);
    command.stdin(side()).stdout(side()).stderr(side());
    let mut child = command.spawn().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reader = thread::spawn({
        let (seen, mut watcher) = (Arc::clone(&seen), watcher.try_clone().unwrap());
        move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = watcher.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        }
    });
    let text = || String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    until("it looks twice", async || {
        (text().matches("USD PER MINUTE").count() >= 2).then_some(())
    })
    .await;
    let modes = tcgetattr(&program).unwrap().local_modes;
    assert!(!modes.contains(LocalModes::ECHO), "{modes:?}");
    assert!(text().contains("\x1b[?1049h") && text().contains("USD PER MINUTE"));
    watcher.write_all(b"xq").unwrap();
    let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", text());
    let modes = tcgetattr(&program).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON));
    // The last program that has it open is gone: whoever reads comes to the end.
    drop((command, program));
    reader.join().unwrap();
    assert!(text().ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", text());
    gateway.stop().await;
}
