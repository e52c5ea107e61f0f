//! A node dies and all its sockets come back to another: how long until each has read its backlog again.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;

use crate::connection::Connection;
use crate::{Storm, User, address_of};

/// Connections that are opened at the same time when nobody hurries.
const AT_ONCE: usize = 64;
/// Before a refused one tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// Connects all unhurriedly, then at another node, kills that one, and lets all come back. `false`: one did not.
pub fn run(storm: &Storm) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, measure(storm))
}

/// Connects and waits for `drained`, until it works.
async fn arrive(address: &str, user: &User) -> (Connection, u32) {
    let mut failures = 0;
    loop {
        if let Ok(mut connection) = Connection::open(address, &user.access_token).await {
            loop {
                match connection.next().await {
                    Ok(frame) if frame.starts_with(r#"{"t":"drained""#) => return (connection, failures),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
        failures += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn all(address: &str, users: &[User]) -> Vec<Connection> {
    let opening = stream::iter(users).map(|user| arrive(address, user));
    opening.buffer_unordered(AT_ONCE).map(|(connection, _)| connection).collect().await
}

async fn measure(storm: &Storm) -> bool {
    let users = storm.target.load(storm.connections);
    let (dying, staying) = (storm.target.address(), address_of(&storm.peer_url));
    let begun = Instant::now();
    let calm = all(&staying, &users).await;
    let unhurried = begun.elapsed();
    for connection in calm {
        connection.close().await;
    }
    let open = all(&dying, &users).await;
    tokio::time::sleep(Duration::from_secs(storm.settle)).await;
    let killed = std::process::Command::new("kill").args(["-9", &storm.kill.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()), "the node that is to die has another process");
    let begun = Instant::now();
    let returning: Vec<_> = open
        .into_iter()
        .zip(users)
        .map(|(mut connection, user)| {
            let staying = staying.clone();
            tokio::task::spawn_local(async move {
                while connection.next().await.is_ok() {}
                let (connection, failures) = arrive(&staying, &user).await;
                (connection, failures, begun.elapsed())
            })
        })
        .collect();
    let mut times = Vec::new();
    let mut failures = 0;
    let mut kept = Vec::new();
    for task in returning {
        let (connection, failed, time) = task.await.expect("a device's task");
        times.push(time);
        failures += failed;
        kept.push(connection);
    }
    times.sort_unstable();
    let last = times.last().copied().unwrap_or_default();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("connections={}", times.len());
    println!("unhurried_seconds={:.2}", unhurried.as_secs_f64());
    println!("storm_seconds={:.2}", last.as_secs_f64());
    println!("storm_median_seconds={:.2}", median.as_secs_f64());
    println!("ratio={:.2}", last.as_secs_f64() / unhurried.as_secs_f64());
    println!("failed_attempts={failures}");
    times.len() == storm.connections
}
