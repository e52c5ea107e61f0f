//! Connections that do nothing: what each of them costs the server's memory.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;

use crate::connection::Connection;
use crate::{Idle, process};

/// Connections that are opened at the same time.
const AT_ONCE: usize = 64;

/// Opens them, waits, looks. `false`: some were refused or closed.
pub fn run(idle: &Idle) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(idle))
}

async fn measure(idle: &Idle) -> bool {
    let pid = idle.target.pid.expect("--pid: whose memory");
    let address = idle.target.address();
    let users = idle.target.load(idle.connections);
    let before = process::resident_kib(pid);
    let started = Instant::now();
    let opening = stream::iter(&users).map(|user| Connection::open(&address, &user.access_token));
    let opened: Vec<_> = opening.buffer_unordered(AT_ONCE).collect().await;
    let seconds = started.elapsed().as_secs_f64();
    let mut refused = 0;
    let mut open = Vec::new();
    for connection in opened {
        match connection {
            Ok(mut connection) => open.push(tokio::spawn(async move { while connection.next().await.is_ok() {} })),
            Err(error) => {
                if refused == 0 {
                    eprintln!("refused: {error}");
                }
                refused += 1;
            }
        }
    }
    let count = open.len();
    tokio::time::sleep(Duration::from_secs(idle.settle)).await;
    let after = process::resident_kib(pid);
    let used = process::processor_seconds(pid);
    tokio::time::sleep(Duration::from_secs(idle.settle)).await;
    let used = process::processor_seconds(pid) - used;
    let closed = open.iter().filter(|task| task.is_finished()).count();
    println!("connections={count}");
    println!("connections_per_second={:.0}", count as f64 / seconds);
    println!("resident_before_kib={before}");
    println!("resident_after_kib={after}");
    println!("kib_per_connection={:.2}", after.saturating_sub(before) as f64 / count.max(1) as f64);
    println!("processor_percent={:.2}", 100.0 * used / idle.settle.max(1) as f64);
    println!("refused={refused}");
    println!("closed={closed}");
    refused == 0 && closed == 0
}
