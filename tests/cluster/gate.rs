//! A wire between a node and Redis that reads what the node asks: it can lose its letters and hold its scripts.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards every connection to Redis, command by command.
pub struct Gate {
    pub url: String,
    rules: Rules,
    hold: watch::Sender<bool>,
}

#[derive(Clone)]
struct Rules {
    swallows: Arc<AtomicBool>,
    swallowed: Arc<AtomicU64>,
    held: watch::Receiver<bool>,
    /// Scripts that stand before the closed gate, or have.
    stopped: Arc<AtomicU64>,
}

impl Gate {
    /// A wire to the Redis at this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let (hold, held) = watch::channel(false);
        let rules = Rules { swallows: Arc::default(), swallowed: Arc::default(), held, stopped: Arc::default() };
        let of_all = rules.clone();
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let Ok(redis) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
                let ((asked, answers), (answered, asks)) = (node.into_split(), redis.into_split());
                tokio::spawn(questions(asked, asks, of_all.clone()));
                tokio::spawn(raw(answered, answers));
            }
        });
        Self { url, rules, hold }
    }

    /// Every letter is taken, answered as if nobody listened, and lost.
    pub fn swallow(&self, swallow: bool) {
        self.rules.swallows.store(swallow, Ordering::SeqCst);
    }

    pub fn swallowed(&self) -> u64 {
        self.rules.swallowed.load(Ordering::SeqCst)
    }

    /// Scripts, which is how registrations are written and erased, wait here, even if whoever asked has gone away.
    pub fn hold_scripts(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    /// How many scripts have come to the closed gate.
    pub fn stopped(&self) -> u64 {
        self.rules.stopped.load(Ordering::SeqCst)
    }
}

async fn raw(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rules: Rules) {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..read]);
        while let Some(words) = command(&seen) {
            let (name, end) = (&words[0], words[words.len() - 1].end + 2);
            let name = seen[name.clone()].to_ascii_uppercase();
            if name == b"PUBLISH" && rules.swallows.load(Ordering::SeqCst) {
                // Nobody listens to a channel of this name.
                seen[words[1].start] = b'x';
                rules.swallowed.fetch_add(1, Ordering::SeqCst);
            }
            if name.starts_with(b"EVAL") && *rules.held.borrow() {
                rules.stopped.fetch_add(1, Ordering::SeqCst);
                if rules.held.wait_for(|held| !held).await.is_err() {
                    return;
                }
            }
            if to.write_all(&seen[..end]).await.is_err() {
                return;
            }
            seen.drain(..end);
        }
    }
    let _ = to.shutdown().await;
}

/// Where the words of the first whole command stand.
fn command(bytes: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let mut place = 0;
    let count = number(bytes, &mut place, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(bytes, &mut place, b'$')?;
        let word = place..place + length;
        place = word.end + 2;
        if bytes.len() < place {
            return None;
        }
        words.push(word);
    }
    Some(words)
}

/// A number after its sign, to the end of its line.
fn number(bytes: &[u8], place: &mut usize, sign: u8) -> Option<usize> {
    let rest = bytes.get(*place..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(rest[0], sign, "a command as clients send it");
    *place += end + 2;
    Some(std::str::from_utf8(&rest[1..end]).expect("a number").parse().expect("a number"))
}
