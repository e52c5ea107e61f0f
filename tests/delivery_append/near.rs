//! Near Journals, whose connections PostgreSQL may refuse while it keeps those of home.

use super::{group, insist, pipeline, try_send};
use crate::support::database::{Kind, connect, fresh};
use crate::support::node::TestNode;
use crate::support::people::{register, shared};
use sotto_client::protocol::ErrorCode;
use std::sync::Arc;

/// A near Journal that cannot connect refuses a few messages, and then all go home.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_near_journal_cannot_write_goes_home() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let url = fresh(Kind::Postgres, folder.path()).await;
    let own = connect(&url).await;
    let (server, name) = url.rsplit_once('/').unwrap();
    let (_, address) = server.split_once('@').unwrap();
    // PostgreSQL refuses a superuser nothing.
    let role = format!("CREATE ROLE {name} LOGIN PASSWORD 'near'; ALTER DATABASE {name} OWNER TO {name}");
    own.batch_execute(&role).await.unwrap();
    let url = format!("postgres://{name}:near@{address}/{name}");
    let mut node = TestNode::on(Kind::Postgres, folder, url, &[("SOTTO_LIMITS__ENABLED", "false")], 0).await;
    node.expect_log("a batch could not be written");
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let (mut alices, _) = alice.socket().await;
    let mut conversations = Vec::new();
    for _ in 0..12 {
        conversations.push(group(&alice, &[&bob]).await);
    }
    // One after the other near, and many at once at home.
    for conversation in &conversations {
        insist(&mut alices, &shared(*conversation, "first")).await;
        insist(&mut alices, &shared(*conversation, "alone")).await;
    }
    let alone = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'WITH held%'";
    let near: Vec<i32> = own.query(alone, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(!near.is_empty(), "nothing was written alone");
    let many: Vec<_> = (0..40).flat_map(|_| &conversations).map(|id| shared(*id, "many")).collect();
    assert!(pipeline(&mut alices, &many).await.iter().all(Result::is_ok));

    own.batch_execute(&format!("ALTER ROLE {name} CONNECTION LIMIT 1")).await.unwrap();
    for pid in near {
        own.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    }
    let (mut refused, mut stored) = (0, 0);
    while stored < 40 {
        match try_send(&mut alices, &shared(conversations[stored % 12], "after")).await {
            Ok(_) => stored += 1,
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::Unavailable));
                refused += 1;
                assert!(refused <= 4, "{stored} were stored, {refused} refused");
            }
        }
    }
    assert!(refused > 0, "no near Journal was in the way");
}
