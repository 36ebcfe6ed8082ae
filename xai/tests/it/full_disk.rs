//! A disk that fills while a gateway serves: requests go on, usage waits, and when there is room again all of it is booked, once.

use std::{fs, io::Write as _, path::PathBuf};

use super::{
    events::{booked, events, sums},
    process::{Ask, Gateway, Home, until},
};

/// A gateway whose data directory is a small disk of its own, as its process sees it; why not, where the system gives no user namespaces.
async fn on_a_small_disk(home: &Home, size: &str) -> Result<(Gateway, PathBuf), String> {
    fs::create_dir(home.data()).unwrap();
    let mount = format!("mount -t tmpfs -o size={size} none \"$XAI_DATA\"");
    let script = |then: &str| format!("exec unshare -Urm sh -c '{mount} && {then}' sh \"$1\"");
    let possible = home.finish(home.shell(&script("true"), &[]), "").await;
    if possible.code != Some(0) {
        return Err(possible.err);
    }
    let keys = home.keys();
    let command = home.shell(&script("exec \"$1\" up"), &[("XAI_KEYS", &keys)]);
    Ok(home.start_within(command).await)
}

#[tokio::test]
async fn a_disk_that_fills_loses_no_usage() {
    let home = Home::new();
    let (gateway, data) = match on_a_small_disk(&home, "110m").await {
        Ok(started) => started,
        Err(why) => return println!("not shown: this system gives no user namespaces: {why}"),
    };
    let key = fs::read_to_string(data.join("first-key")).unwrap();
    let ask = Ask::chat(key.trim(), "gpt-4o-mini", "tokens=9");
    assert_eq!(gateway.ask(&ask).await.status, 200);
    let usage = format!("--data {} --by account,key,model", data.display());
    assert_eq!(home.usage(&usage, 1).await.len(), 1);
    let ballast = data.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let full = (0..1_000_000).any(|_| file.write_all(&[1; 65_536]).is_err());
    let full = full && (0..65_536).any(|_| file.write_all(&[1]).is_err());
    assert!(full, "the disk is full to the last byte");
    for _ in 0..40 {
        assert_eq!(
            gateway.ask(&ask).await.status,
            200,
            "a full disk stops no request"
        );
    }
    until("the log says so", async || {
        gateway
            .said()
            .contains("make room on the disk")
            .then_some(())
    })
    .await;
    fs::remove_file(&ballast).unwrap();
    drop(file);
    let rows = home.usage(&usage, 41).await;
    let all = events(&data);
    assert_eq!((all.len(), booked(&rows)), (41, sums(&all)));
    gateway.stop().await;
}
