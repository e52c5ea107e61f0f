//! What the files of SQLite show of data that was deleted: nothing.

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::people::{proof, register, second_device};
use sotto_client::protocol::auth::Purpose;
use sotto_schema::{Store, StoreSettings, inspect, migrate};
use std::path::Path;
use std::time::{Duration, Instant};

/// The database's file and its log, where something stands in them.
fn files_with(folder: &Path, text: &str) -> Vec<&'static str> {
    let has = |name: &&str| {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_default();
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    };
    ["sotto.db", "sotto.db-wal"].into_iter().filter(has).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_account_is_in_none_of_the_files() {
    let at_once = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__DELETION_GRACE_DAYS", "0")];
    let mut node = TestNode::with(Kind::Sqlite, &at_once).await;
    let mut others = vec![register(&node, "stays-0").await];
    let alice = register(&node, "alices-only-telephone").await;
    second_device(&node, &alice, "alices-other-tablet").await;
    for name in ["stays-1", "stays-2"] {
        others.push(register(&node, name).await);
        alice.rest.create_direct(others.last().unwrap().user_id).await.unwrap();
    }
    let folder = node.folder.path().to_owned();
    let gone = [alice.phone.as_str(), "alices-only-telephone", "alices-other-tablet"];
    for text in gone {
        assert_ne!(files_with(&folder, text), [""; 0], "{text} is found while the account stands");
    }
    alice.rest.request_deletion(&proof(&node, &alice, Purpose::AccountDeletion).await).await.unwrap();
    // Accounts are deleted at a node's start, and every minute.
    node.kill();
    node.restart().await;
    let begun = Instant::now();
    loop {
        let left: Vec<_> = gone.iter().map(|text| (text, files_with(&folder, text))).collect();
        if left.iter().all(|(_, files)| files.is_empty()) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(150), "left: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for other in &others {
        assert_ne!(files_with(&folder, &other.phone), [""; 0], "who has not been deleted is there");
        assert_eq!(other.rest.me().await.unwrap().user.user_id, other.user_id);
    }
}

/// Rows, and pages that become free as a whole; while somebody reads what was there before, the log stays. They are few, so
/// that no page of the tree is split: then SQLite may leave a copy of a row in the page's unused part (docs/security.md).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_rows_are_erased_as_soon_as_nobody_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("sotto.db").display());
    let open = async || Store::open(&url, &StoreSettings::default()).await.unwrap();
    let (store, reader) = (open().await, open().await);
    migrate(&store).await.unwrap();
    // 489 bytes of a long row stand in the tree, and 4092 in each page that belongs to it alone.
    let long = format!("substr(replace(hex(zeroblob(10000)), '00', 'a long sparrow '), 1, {})", 489 + 20 * 4092);
    let rows = format!(
        "CREATE TABLE rows (id INTEGER PRIMARY KEY, body TEXT NOT NULL); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8) \
         INSERT INTO rows SELECT i, CASE WHEN i % 2 = 0 THEN 'a short sparrow' ELSE {long} END FROM n;"
    );
    inspect::execute(&store, &rows).await.unwrap();
    inspect::execute(&reader, "BEGIN; SELECT count(*) FROM rows;").await.unwrap();
    inspect::execute(&store, "DELETE FROM rows WHERE id NOT IN (6, 7)").await.unwrap();
    inspect::execute(&store, "UPDATE rows SET body = 'something else'").await.unwrap();
    assert!(!store.erase_deleted().await.unwrap(), "a reader is in the way");
    assert_ne!(files_with(folder.path(), "sparrow"), [""; 0]);
    inspect::execute(&reader, "COMMIT").await.unwrap();
    assert!(store.erase_deleted().await.unwrap());
    assert_eq!(files_with(folder.path(), "sparrow"), [""; 0]);
    assert_eq!(std::fs::metadata(folder.path().join("sotto.db-wal")).unwrap().len(), 0);
    assert_eq!(inspect::texts(&store, "SELECT body AS text FROM rows").await.unwrap(), ["something else"; 2]);
    // The writer waits for locks as it did before.
    let waits = "SELECT CAST(timeout AS TEXT) AS text FROM pragma_busy_timeout";
    assert_eq!(inspect::texts_of_writer(&store, waits).await.unwrap(), ["5000"]);
}
