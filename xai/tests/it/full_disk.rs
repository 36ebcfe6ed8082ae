//! A disk that fills while a gateway serves: requests go on, usage waits, and when there is room again all of it is booked, once.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use proxyxai_core::secret::fingerprint::Fingerprint;
use proxyxai_data_plane::control_tls;
use proxyxai_proto::admin::v1::CreateAccountRequest;
use tonic::Status;
use xai::admin::api::Api;

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
    // The store has some room of its own; when that is used up, a change is refused and nothing else is.
    let refused = create_accounts(&gateway, &data, "full").await.unwrap_err();
    assert!(refused.message().contains("space"), "{refused:?}");
    assert_eq!(gateway.ask(&ask).await.status, 200);
    fs::remove_file(&ballast).unwrap();
    drop(file);
    until("changes are taken again", async || {
        create_accounts(&gateway, &data, "again").await.ok()
    })
    .await;
    let rows = home.usage(&usage, 42).await;
    let all = events(&data);
    assert_eq!((all.len(), booked(&rows)), (42, sums(&all)));
    gateway.stop().await;
}

/// Makes accounts as an administrator does; ends at the first refusal.
async fn create_accounts(gateway: &Gateway, data: &Path, name: &str) -> Result<(), Status> {
    let credential = fs::read_to_string(data.join("admin-credential")).unwrap();
    let authority: Fingerprint = gateway.authority.parse().unwrap();
    let channel = control_tls::channel(&gateway.grpc.to_string(), authority, None).unwrap();
    let api = Api::new(channel, &credential.trim().into(), "here".to_owned()).unwrap();
    for number in 0..5000 {
        let request = CreateAccountRequest {
            parent: "root".to_owned(),
            name: format!("{name}-{number}"),
            allowed_models: vec!["m".repeat(200); 16],
            ..CreateAccountRequest::default()
        };
        api.accounts().create_account(request).await?;
        if name == "again" {
            return Ok(());
        }
    }
    Ok(())
}
