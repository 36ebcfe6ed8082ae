//! A way to a member that can fall silent: what is sent arrives, and no answer comes back.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// The way; it closes when this is dropped.
pub(super) struct MuteProxy {
    port: u16,
    mute: watch::Sender<bool>,
    task: AbortHandle,
}

impl MuteProxy {
    /// Opens a way to `http://HOST:PORT`.
    pub(super) async fn open(endpoint: &str) -> Self {
        let target: Arc<str> = endpoint.trim_start_matches("http://").into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mute, muted) = watch::channel(false);
        let accept = async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, Arc::clone(&target), muted.clone()));
            }
        };
        let task = tokio::spawn(accept).abort_handle();
        Self { port, mute, task }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on no answer comes back.
    pub(super) fn mute(&self) {
        self.mute.send_replace(true);
    }
}

impl Drop for MuteProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, target: Arc<str>, muted: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(&*target).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let there = tokio::io::copy(&mut from_client, &mut to_server);
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if !*muted.borrow() && to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(there, back).0.ok();
}
