//! Signing a device out while it holds a socket, and watching every node until its session must be over.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::Serialize;
use sotto_client::protocol::{DeviceId, ErrorCode};
use sotto_client::socket::Incoming;
use sotto_client::{Rest, Socket, SocketOptions};

use crate::book::Note;
use crate::device::Device;
use crate::ledger::Ledger;
use crate::sessions::{Ending, GRACE, SessionNote};
use crate::targets::Target;

/// A request that is begun after the grace and before this tells the truth.
const WATCH: Duration = Duration::from_millis(1_500);
/// Between two looks at a node.
const LOOK: Duration = Duration::from_millis(250);
/// How often a sign-out is repeated whose outcome is unknown.
const ATTEMPTS: u32 = 20;

/// What was seen of a session that was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// Every node refuses its token, and its socket was closed with 4503.
    Ended,
    /// It was served after it should have been over.
    Alive,
    /// A node or the socket said nothing, so that nobody knows.
    Unwitnessed,
}

/// `ping` and `pong`.
#[derive(Serialize, serde::Deserialize)]
struct Ping {
    t: u64,
}

/// Signs a settled device out.
pub async fn revoke(device: &mut Device) -> Revocation {
    let id = device.id();
    let Some(at) = device.target() else { return Revocation::Unwitnessed };
    device.attempt += 1;
    let options = SocketOptions::hello(&device.account.access_token).attempt(device.attempt);
    let socket = Socket::connect(&at.url, &options).await.ok().map(|(socket, _)| socket);
    for circle in &device.circles {
        device.ledger().note(circle.id, Note::Left { by: id, user: device.account.user_id });
    }
    device.shared.gone.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    let Some(revoked) = sign_out(device, &at.url).await else { return Revocation::Unwitnessed };
    device.ledger().session(SessionNote::Revoked { device: id });
    let targets = device.shared.targets.all();
    let token = device.account.access_token.clone();
    let ledger = device.ledger();
    let looks = join_all(targets.iter().map(|target| look(ledger, id, target, &token, revoked)));
    let (seen, is_closed) = tokio::join!(looks, watch(ledger, id, socket, revoked));
    if ledger.is_alive(id) {
        Revocation::Alive
    } else if is_closed && seen.iter().all(|seen| *seen) {
        Revocation::Ended
    } else {
        Revocation::Unwitnessed
    }
}

/// When it was answered; repeated elsewhere while the outcome is unknown.
async fn sign_out(device: &mut Device, but: &str) -> Option<Instant> {
    let mut but = but.to_owned();
    for _ in 0..ATTEMPTS {
        let target = device.shared.targets.pick(&mut device.dice, Some(&but))?;
        let rest = device.rest(&target);
        match tokio::time::timeout(device.shared.plan.patience, rest.logout()).await {
            Ok(Ok(())) => return Some(Instant::now()),
            // An earlier attempt has done it.
            Ok(Err(error)) if error.code() == Some(ErrorCode::Unauthenticated) => return Some(Instant::now()),
            Ok(Err(error)) => {
                if let Some(code) = error.code() {
                    device.ledger().counters.refuse(code);
                }
                let wait = crate::device::wait(&error).unwrap_or(LOOK);
                tokio::time::sleep(wait).await;
            }
            Err(_) => device.ledger().counters.silent.add(),
        }
        but = target.url.clone();
    }
    None
}

/// Asks a node until it refuses the token; whether it did.
async fn look(ledger: &Ledger, device: DeviceId, target: &Arc<Target>, token: &str, revoked: Instant) -> bool {
    let rest: Rest = target.rest.with_token(token);
    while revoked.elapsed() < GRACE + WATCH {
        let begun = revoked.elapsed();
        match tokio::time::timeout(LOOK * 8, rest.me()).await {
            Ok(Ok(_)) => ledger.session(SessionNote::Served { device, begun }),
            Ok(Err(error)) if error.code() == Some(ErrorCode::Unauthenticated) => {
                return has_no_socket(ledger, device, target, token, revoked).await;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

/// No new socket is welcomed by a node that refuses the token.
async fn has_no_socket(ledger: &Ledger, device: DeviceId, target: &Target, token: &str, revoked: Instant) -> bool {
    let rest_of_grace = GRACE.saturating_sub(revoked.elapsed());
    tokio::time::sleep(rest_of_grace).await;
    let begun = revoked.elapsed();
    match Socket::connect(&target.url, &SocketOptions::hello(token)).await {
        Ok((socket, _)) => {
            ledger.session(SessionNote::Served { device, begun });
            socket.close(1000).await;
            false
        }
        Err(_) => true,
    }
}

/// Reads the socket until it is closed; whether that was with 4503.
async fn watch(ledger: &Ledger, device: DeviceId, socket: Option<Socket>, revoked: Instant) -> bool {
    let Some(mut socket) = socket else { return false };
    while revoked.elapsed() < GRACE + WATCH {
        let t = u64::try_from(revoked.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A socket that takes no more is at its end, and says so when it is read.
        drop(tokio::time::timeout(LOOK, socket.send("ping", &Ping { t })).await);
        let until = Instant::now() + LOOK;
        while let Ok(incoming) = tokio::time::timeout_at(until.into(), socket.next()).await {
            match incoming {
                Ok(Incoming::Frame(frame)) if frame.t == "pong" => {
                    let begun = Duration::from_millis(frame.data::<Ping>().map_or(0, |ping| ping.t));
                    ledger.session(SessionNote::Spoke { device, begun });
                }
                Ok(Incoming::Closed { code, .. }) => {
                    let ending = code.map_or(Ending::Broken, Ending::Code);
                    ledger.session(SessionNote::Closed { device, ending });
                    return code == Some(sotto_client::protocol::close::DEVICE_REVOKED);
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
    false
}
