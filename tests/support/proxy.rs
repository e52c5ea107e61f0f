//! A wire between a client and a node that a test can stop: what was sent stays in it, in either direction.

use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards every connection to a node until told otherwise.
pub struct Proxy {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    down: watch::Sender<bool>,
    up: watch::Sender<bool>,
    cut: watch::Sender<u32>,
}

impl Proxy {
    /// A wire to the node at this URL.
    pub async fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").expect("http://…").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let ((down, down_held), (up, up_held)) = (watch::channel(false), watch::channel(false));
        let (cut, was_cut) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let (up_held, down_held, mut was_cut) = (up_held.clone(), down_held.clone(), was_cut.clone());
                was_cut.mark_unchanged();
                tokio::spawn(async move {
                    let both = async {
                        tokio::join!(
                            forward(from_client, to_server, up_held),
                            forward(from_server, to_client, down_held)
                        )
                    };
                    tokio::select! {
                        _ = both => {}
                        _ = was_cut.changed() => {}
                    }
                });
            }
        });
        Self { url, down, up, cut }
    }

    /// Stops, or goes on with, what the node sends.
    pub fn hold_down(&self, hold: bool) {
        self.down.send_replace(hold);
    }

    /// Stops, or goes on with, what the client sends.
    pub fn hold_up(&self, hold: bool) {
        self.up.send_replace(hold);
    }

    /// Drops every connection, with what is still in it.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if held.wait_for(|held| !held).await.is_err() || read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}
