//! What a process is given by files and variables at its start: the planes apart as compose and charts start them, and TLS for clients.

use std::{fs, path::Path, sync::Arc};

use proxyxai_control_plane::authority::Authority;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    machines::{Machine, control_planes},
    process::{Ask, Home, mode, until},
};

const ADMIN: &str = "pxai-admin-0123456789012345678901234567890123456789";

/// A control plane on the embedded store, and what it is given.
async fn control_plane(home: &Home, variables: &[(&str, &str)]) -> Machine {
    let data = home.data().with_file_name("control");
    let machine = Machine::start(home, data, "xai-control-plane", variables).await;
    machine.ready().await;
    machine
}

/// A node that joins with the token in a file.
async fn node(home: &Home, control: &Machine, token: &Path, more: &[(&str, &str)]) -> Machine {
    let planes = control_planes(&[control]);
    let mut variables = vec![
        ("XAI_CONTROL_PLANES", planes.as_str()),
        ("XAI_JOIN_TOKEN_FILE", token.to_str().unwrap()),
    ];
    variables.extend_from_slice(more);
    let data = home.data().with_file_name("node");
    let machine = Machine::start(home, data, "xai-data-plane", &variables).await;
    machine.ready().await;
    machine
}

#[tokio::test]
async fn planes_apart_begin_by_themselves_with_what_the_environment_gives() {
    let home = Home::new();
    let token = home.data().with_file_name("join-token");
    let (base, file) = (home.providers(), token.to_str().unwrap().to_owned());
    let variables = [
        ("XAI_FIRST_KEY", "true"),
        ("XAI_JOIN_TOKEN_FILE", file.as_str()),
        ("XAI_BASE", base.as_str()),
        ("XAI_KEYS", "sk-upstream-1"),
    ];
    let control = control_plane(&home, &variables).await;
    assert_eq!(mode(&token), 0o600);
    let (made, data) = (
        fs::read_to_string(&token).unwrap(),
        control.data().to_owned(),
    );
    let welcome = home.command(&["welcome"], &[("XAI_DATA", data.to_str().unwrap())]);
    let welcome = home.finish(welcome, "").await;
    assert_eq!(welcome.code, Some(0), "{welcome:?}");
    let key = fs::read_to_string(data.join("first-key")).unwrap();
    let admin = fs::read_to_string(data.join("admin-credential")).unwrap();
    for said in [key.trim(), admin.trim(), "sha256:"] {
        assert!(welcome.out.contains(said), "{}", welcome.out);
    }
    let node = node(&home, &control, &token, &[]).await;
    let ask = Ask::chat(key.trim(), "gpt-4o-mini", "tokens=3");
    assert_eq!(node.ask(&ask).await.status, 200, "{}", node.said());
    let url = format!("http://{}/ready", node.address("ops"));
    let health = home.command(&["health", &url], &[]);
    let health = home.finish(health, "").await;
    assert_eq!(health.code, Some(0), "{health:?}");
    node.stop().await;
    control.stop().await;

    let control = control_plane(&home, &variables).await;
    assert_eq!(fs::read_to_string(&token).unwrap(), made);
    assert_eq!(fs::read_to_string(data.join("first-key")).unwrap(), key);
    control.stop().await;
}

#[tokio::test]
async fn an_authority_a_token_and_a_credential_that_were_made_elsewhere_are_taken_up() {
    let home = Home::new();
    let folder = home.data().parent().unwrap().to_owned();
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let (authority, kept) = Authority::make("elsewhere", now).unwrap();
    let pin = authority.fingerprint().to_string();
    let key = pem::encode(&pem::Pem::new("PRIVATE KEY", kept.key.to_vec()));
    let pin = pin.strip_prefix("sha256:").unwrap();
    let token = format!("pxai-join-{}-{}-{pin}", "a1".repeat(6), "b2".repeat(16));
    let (certificate, key, token, admin) = (
        write("authority.pem", &authority.certificate_pem()),
        write("authority-key.pem", &key),
        write("join-token", &token),
        write("admin-credential", ADMIN),
    );
    let variables = [
        ("XAI_AUTHORITY_CERTIFICATE_FILE", certificate.as_str()),
        ("XAI_AUTHORITY_KEY_FILE", key.as_str()),
        ("XAI_JOIN_TOKEN_FILE", token.as_str()),
        ("XAI_ADMIN_CREDENTIAL_FILE", admin.as_str()),
    ];
    let control = control_plane(&home, &variables).await;
    let grpc = control.address("grpc").to_string();
    let words = [
        "nodes",
        "--server",
        &grpc,
        "--authority",
        &format!("sha256:{pin}"),
    ];
    let listed = home.command(&words, &[("XAI_CREDENTIAL", ADMIN)]);
    let listed = home.finish(listed, "").await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let node = node(&home, &control, Path::new(&token), &[]).await;
    node.stop().await;
    control.stop().await;

    let control = control_plane(&home, &variables).await;
    control.stop().await;
    // The store has an authority now, so another one is not taken up, and a token that pins it lets nobody in.
    let (other, _) = Authority::make("other", now).unwrap();
    let other = other.fingerprint().to_string();
    let foreign = fs::read_to_string(&token)
        .unwrap()
        .replace(pin, other.strip_prefix("sha256:").unwrap());
    fs::write(&token, foreign).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_xai")).with_file_name("xai-control-plane");
    let mut variables = variables.to_vec();
    let data = home.data().with_file_name("control");
    variables.push(("XAI_DATA", data.to_str().unwrap()));
    let refused = home
        .finish(home.program(&program, &[], &variables), "")
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("of another authority"), "{refused:?}");
}

/// The status line that a node answers with over TLS to somebody who trusts this certificate alone; `None` when there is no TLS.
async fn over_tls(node: &Machine, trusted: &rcgen::Certificate) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(node.address("client")).await.unwrap();
    let name = ServerName::try_from("gateway.example").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let mut tls = tls.await.ok()?;
    let request = b"GET / HTTP/1.1\r\nhost: gateway.example\r\nconnection: close\r\n\r\n";
    tls.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ends_in_either_way = tls.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().next().map(str::to_owned)
}

#[tokio::test]
async fn clients_come_over_tls_and_a_new_certificate_needs_no_restart() {
    let home = Home::new();
    let folder = home.data().parent().unwrap().to_owned();
    let token = folder.join("join-token");
    let control = control_plane(&home, &[("XAI_JOIN_TOKEN_FILE", token.to_str().unwrap())]).await;
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let put = || {
        let made = rcgen::generate_simple_self_signed(["gateway.example".to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert
    };
    let first = put();
    let given = [
        ("XAI_TLS_CERTIFICATE_FILE", certificate.to_str().unwrap()),
        ("XAI_TLS_KEY_FILE", key.to_str().unwrap()),
    ];
    let node = node(&home, &control, &token, &given).await;
    let said = over_tls(&node, &first).await;
    assert_eq!(said.as_deref(), Some("HTTP/1.1 200 OK"), "{}", node.said());
    let second = put();
    let said = until("the new certificate is shown", async || {
        over_tls(&node, &second).await
    })
    .await;
    assert_eq!(said, "HTTP/1.1 200 OK");
    assert_eq!(over_tls(&node, &first).await, None);
    node.stop().await;
    control.stop().await;
}
