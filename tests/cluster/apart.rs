//! What a node says that cannot be part of a cluster.

use crate::support::database::{Kind, fresh};
use crate::support::redis::RedisServer;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A node that is expected to end by itself.
async fn ends(store_url: &str, redis_url: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command
        .arg("serve")
        .env_clear()
        .env("SOTTO_HTTP__LISTEN", "127.0.0.1:0")
        .env("SOTTO_DATA__DIR", folder.path())
        .env("SOTTO_STORE__URL", store_url)
        .env("SOTTO_CLUSTER__REDIS_URL", redis_url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().expect("killed");
            panic!("it serves: {:?}", child.wait_with_output().expect("its output"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.wait_with_output().expect("its output")
}

fn said(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "it has not announced itself");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_cluster_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let postgres = fresh(Kind::Postgres, folder.path()).await;
    let wrong = ends(&postgres, "memcached://127.0.0.1:11211").await;
    let (code, text) = (wrong.status.code(), said(&wrong));
    assert!(code.is_some_and(|code| code != 0) && text.contains("cluster.redis_url"), "{code:?} {text}");

    // A Redis Cluster, which answers and could be misused for a while.
    let redis = RedisServer::on("127.0.0.1", &["--cluster-enabled", "yes"]).await;
    let refused = ends(&postgres, &redis.url()).await;
    let text = said(&refused);
    assert!(text.contains("Redis Cluster, which is not supported yet") && text.contains("Sentinels"), "{text}");
    assert_eq!(refused.status.code(), code, "as for any other setting that is wrong: {text}");

    // Several nodes cannot share a file.
    let sqlite = fresh(Kind::Sqlite, folder.path()).await;
    let plain = RedisServer::start().await;
    let refused = ends(&sqlite, &plain.url()).await;
    let text = said(&refused);
    assert!(text.contains("several nodes cannot share a SQLite file"), "{text}");
    assert_eq!(refused.status.code(), code, "{text}");

    // No message repeats a password.
    for url in ["redis://user:hunter2@/x/y/z:1", "redis+sentinel://user:hunter2@127.0.0.1:1"] {
        let refused = ends(&postgres, url).await;
        let text = said(&refused);
        assert!(!text.contains("hunter2") && refused.status.code() == code, "{text}");
    }
}
