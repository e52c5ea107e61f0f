//! What is stored: the schema up and down on both databases, the tables as the code has them, and no orphans in them.

use crate::delivery_append::{group, store_of};
use crate::support::database::{Kind, fresh};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{enveloped, pair, register, second_device, shared};
use crate::support::wire::{ack, messages, next_message};
use sotto_client::{Socket, SocketOptions};
use sotto_schema::{Store, StoreError, StoreSettings, downgrade, inspect, migrate, status};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What diesel keeps for itself.
const MIGRATIONS: &str = "__diesel_schema_migrations";

async fn empty(kind: Kind) -> (TempDir, String, Store) {
    let folder = tempfile::tempdir().unwrap();
    let url = fresh(kind, folder.path()).await;
    let store = Store::open(&url, &StoreSettings::default()).await.unwrap();
    (folder, url, store)
}

/// Tables and views, without diesel's own.
async fn relations(store: &Store) -> BTreeSet<String> {
    let query = match store.kind() {
        "postgres" => "SELECT table_name::text AS text FROM information_schema.tables WHERE table_schema = 'public'",
        _ => "SELECT name AS text FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'",
    };
    let found = inspect::texts(store, query).await.unwrap();
    found.into_iter().filter(|name| name != MIGRATIONS).collect()
}

/// A column: name, type as the database calls it, whether it may be null.
type Column = (String, String, bool);

async fn columns(store: &Store) -> BTreeMap<String, Vec<Column>> {
    let query = match store.kind() {
        "postgres" => {
            "SELECT concat_ws('|', c.table_name, c.column_name, c.data_type, c.is_nullable = 'YES') AS text \
             FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name) \
             WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' ORDER BY c.table_name, c.ordinal_position"
        }
        // What a key is made of is never null, whether it says so or not.
        _ => {
            "SELECT t.name || '|' || c.name || '|' || lower(c.type) || '|' || \
                CASE WHEN c.\"notnull\" OR c.pk > 0 THEN 'f' ELSE 't' END AS text \
             FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid"
        }
    };
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for row in inspect::texts(store, query).await.unwrap() {
        let [table, name, kind, null] = row.split('|').collect::<Vec<_>>().try_into().unwrap();
        if table != MIGRATIONS {
            tables.entry(table.to_owned()).or_default().push((name.to_owned(), kind.to_owned(), null == "t"));
        }
    }
    tables
}

/// The tables as `schema/src/tables.rs` has them.
fn declared(kind: Kind) -> BTreeMap<String, Vec<Column>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/src/tables.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let mut tables = BTreeMap::new();
    for block in text.split("table! {").skip(1) {
        let lines = block.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with("use "));
        let mut name = String::new();
        let mut columns = Vec::new();
        for line in lines {
            if let Some((column, sql_type)) = line.trim_end_matches(',').split_once(" -> ") {
                let inner = sql_type.strip_prefix("Nullable<").and_then(|inner| inner.strip_suffix('>'));
                let kind = database_type(kind, inner.unwrap_or(sql_type));
                columns.push((column.to_owned(), kind.to_owned(), inner.is_some()));
            } else if let Some((table, _)) = line.split_once(" (")
                && line.ends_with(") {")
            {
                name = table.to_owned();
            } else if line == "}" {
                break;
            }
        }
        assert!(!name.is_empty() && !columns.is_empty(), "{block}");
        tables.insert(name, columns);
    }
    tables
}

fn database_type(kind: Kind, sql_type: &str) -> &'static str {
    match (kind, sql_type) {
        (Kind::Postgres, "Uuid") => "uuid",
        (Kind::Postgres, "Moment") => "timestamp with time zone",
        (Kind::Postgres, "Json") => "jsonb",
        (Kind::Postgres, "Binary") => "bytea",
        (Kind::Sqlite, "Uuid" | "Binary") => "blob",
        (Kind::Sqlite, "Moment") => "integer",
        (_, "BigInt") => "bigint",
        (_, "Text" | "Word" | "Json") => "text",
        (_, "Bool") => "boolean",
        (_, other) => panic!("{other}: which type is it in {kind:?}?"),
    }
}

on_both! {
    async fn the_schema_goes_up_down_to_nothing_and_up_again(database) {
        let (_folder, _, store) = empty(database).await;
        let applied = migrate(&store).await.unwrap();
        assert!(applied.len() >= 4, "{applied:?}");
        assert!(migrate(&store).await.unwrap().is_empty(), "nothing is left to do");
        assert!(status(&store).await.unwrap().iter().all(|migration| migration.applied));
        let first = (relations(&store).await, columns(&store).await);
        for count in (0..applied.len()).rev() {
            assert_eq!(downgrade(&store, 1).await.unwrap(), [applied[count].clone()], "the newest goes first");
            let missing = status(&store).await.unwrap().iter().filter(|migration| !migration.applied).count();
            assert_eq!(missing, applied.len() - count);
        }
        assert!(relations(&store).await.is_empty(), "nothing is left behind: {:?}", relations(&store).await);
        if database == Kind::Postgres {
            let query = "SELECT proname::text AS text FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
                         AND proname NOT LIKE 'diesel_%' \
                         UNION ALL SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace \
                         AND typname NOT LIKE '%diesel%'";
            assert_eq!(inspect::texts(&store, query).await.unwrap(), Vec::<String>::new());
        }
        assert!(downgrade(&store, 5).await.unwrap().is_empty());
        assert_eq!(migrate(&store).await.unwrap(), applied);
        assert_eq!((relations(&store).await, columns(&store).await), first);
        // And all at once.
        assert_eq!(downgrade(&store, usize::MAX).await.unwrap().len(), applied.len());
        assert_eq!(migrate(&store).await.unwrap(), applied);
    }

    async fn a_newer_schema_is_refused(database) {
        let (folder, url, store) = empty(database).await;
        migrate(&store).await.unwrap();
        let newer = format!("INSERT INTO {MIGRATIONS} (version) VALUES ('29991231000001')");
        inspect::execute(&store, &newer).await.unwrap();
        let before = (relations(&store).await, columns(&store).await);
        assert!(matches!(migrate(&store).await, Err(StoreError::Schema(text)) if text.contains("newer")));
        assert!(matches!(downgrade(&store, 1).await, Err(StoreError::Schema(_))));
        assert_eq!((relations(&store).await, columns(&store).await), before, "it was left as it is");
        let program = Command::new(env!("CARGO_BIN_EXE_sotto"))
            .arg("serve")
            .env_clear()
            .env("SOTTO_HTTP__LISTEN", "127.0.0.1:0")
            .env("SOTTO_DATA__DIR", folder.path())
            .env("SOTTO_STORE__URL", &url)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!program.status.success());
        let told = String::from_utf8_lossy(&program.stderr);
        assert!(told.contains("newer than this program"), "{told}");
        assert!(program.stdout.is_empty(), "it never listened");
    }

    async fn tables_are_what_the_code_says(database) {
        let (_folder, _, store) = empty(database).await;
        migrate(&store).await.unwrap();
        let (made, declared) = (columns(&store).await, declared(database));
        assert_eq!(made.keys().collect::<Vec<_>>(), declared.keys().collect::<Vec<_>>());
        for (table, columns) in &made {
            for wanted in ["created_at", "updated_at"] {
                let (_, kind, null) = columns.iter().find(|(name, _, _)| name == wanted).unwrap_or_else(|| panic!("{table} has no {wanted}"));
                assert_eq!((kind.as_str(), *null), (database_type(database, "Moment"), false), "{table}.{wanted}");
            }
            let same = |column: &Column| {
                let (name, kind, null) = column.clone();
                // `INTEGER PRIMARY KEY` is how SQLite spells its row number, which is a BIGINT.
                let kind = if database == Kind::Sqlite && name == "id" && kind == "integer" { "bigint".to_owned() } else { kind };
                (name, kind, null)
            };
            let mut made: Vec<Column> = columns.iter().map(same).collect();
            let mut said = declared[table].clone();
            made.sort();
            said.sort();
            assert_eq!(made, said, "{table}");
        }
    }

    /// No foreign keys hold messages, marks and memberships together, on purpose: this does.
    async fn a_load_leaves_no_orphans(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, direct) = pair(&node).await;
        let carol = register(&node, "carol").await;
        let (tablet, doomed) = (second_device(&node, &alice, "tablet").await, second_device(&node, &bob, "doomed").await);
        let (mut bobs, _) = bob.socket().await;
        let (mut doomeds, _) = doomed.socket().await;
        let mut rooms = Vec::new();
        for _ in 0..3 {
            rooms.push(group(&alice, &[&bob, &carol]).await);
        }
        for round in 0..8 {
            let list = [&bob, &tablet, &doomed];
            alice.rest.send_message(&enveloped(direct, &list, "direct"), None).await.unwrap();
            for room in &rooms {
                alice.rest.send_message(&shared(*room, "room"), None).await.unwrap();
                carol.rest.send_message(&shared(*room, "room"), None).await.unwrap();
            }
            if round % 2 == 0 {
                alice.rest.remove_members(rooms[0], &[carol.user_id]).await.unwrap();
                alice.rest.add_members(rooms[0], &[carol.user_id]).await.unwrap();
            }
            bob.rest.mark_read(rooms[1], round).await.unwrap();
            let page = tablet.rest.sync(Some(5)).await.unwrap();
            tablet.rest.sync_ack(&page.cursor).await.unwrap();
        }
        let got = messages(&mut bobs, 40).await;
        bobs.ack(got.last().unwrap().0).await.unwrap();
        let got = messages(&mut doomeds, 20).await;
        // Its marks are on their way when it goes.
        doomeds.ack(got.last().unwrap().0).await.unwrap();
        doomed.rest.logout().await.unwrap();
        let sent = alice.rest.send_message(&enveloped(direct, &[&bob, &tablet], "last"), None).await.unwrap();
        loop {
            let (n, message) = next_message(&mut bobs).await;
            if message.message_id == sent.message_id {
                ack(&mut bobs, n).await;
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(800)).await;

        let store = store_of(&node).await;
        let violations = [
            ("a message without its conversation",
             "SELECT 1 FROM messages m WHERE NOT EXISTS (SELECT 1 FROM conversations c WHERE c.id = m.conversation_id)"),
            ("a log with a hole, or a head that is not its end",
             "SELECT 1 FROM heads h LEFT JOIN messages m ON m.conversation_id = h.conversation_id \
              GROUP BY h.conversation_id, h.last_seq, h.floor_seq \
              HAVING COUNT(m.seq) <> h.last_seq - h.floor_seq OR COALESCE(MAX(m.seq), h.floor_seq) <> h.last_seq \
                  OR COALESCE(MIN(m.seq), h.floor_seq + 1) <> h.floor_seq + 1"),
            ("a conversation without head or receipts",
             "SELECT 1 FROM conversations c WHERE NOT EXISTS (SELECT 1 FROM heads h WHERE h.conversation_id = c.id) \
              OR NOT EXISTS (SELECT 1 FROM receipts r WHERE r.conversation_id = c.id)"),
            ("a head or receipts without a conversation",
             "SELECT 1 FROM heads h WHERE NOT EXISTS (SELECT 1 FROM conversations c WHERE c.id = h.conversation_id) \
              UNION ALL SELECT 1 FROM receipts r WHERE NOT EXISTS (SELECT 1 FROM conversations c WHERE c.id = r.conversation_id)"),
            ("a message whose sender was no member at its number",
             "SELECT 1 FROM messages g WHERE g.sender_user IS NOT NULL AND NOT EXISTS (SELECT 1 FROM memberships m \
              WHERE m.conversation_id = g.conversation_id AND m.user_id = g.sender_user AND m.from_seq <= g.seq \
                AND (m.to_seq IS NULL OR g.seq <= m.to_seq))"),
            ("a message of nobody that is no entry of the server, or the other way round",
             "SELECT 1 FROM messages WHERE (sender_user IS NULL) <> (system IS NOT NULL) \
              OR (sender_user IS NULL) <> (sender_device IS NULL)"),
            ("a message with both forms of content, or with none",
             "SELECT 1 FROM messages WHERE system IS NULL AND (ciphertext IS NULL) = (envelopes IS NULL)"),
            ("a membership without its conversation or its user",
             "SELECT 1 FROM memberships m WHERE NOT EXISTS (SELECT 1 FROM conversations c WHERE c.id = m.conversation_id) \
              OR NOT EXISTS (SELECT 1 FROM users u WHERE u.id = m.user_id)"),
            ("intervals of one member that overlap, or one that ends before it begins",
             "SELECT 1 FROM memberships a JOIN memberships b ON b.conversation_id = a.conversation_id \
                AND b.user_id = a.user_id AND b.from_seq > a.from_seq WHERE a.to_seq IS NULL OR a.to_seq >= b.from_seq \
              UNION ALL SELECT 1 FROM memberships WHERE to_seq < from_seq - 1"),
            ("a mark of a device that is not there, or under another user's name",
             "SELECT 1 FROM marks k WHERE NOT EXISTS \
                (SELECT 1 FROM devices d WHERE d.id = k.device_id AND d.user_id = k.user_id)"),
            ("a mark of one who never was a member",
             "SELECT 1 FROM marks k WHERE NOT EXISTS (SELECT 1 FROM memberships m \
                WHERE m.conversation_id = k.conversation_id AND m.user_id = k.user_id) \
              UNION ALL SELECT 1 FROM reads r WHERE NOT EXISTS (SELECT 1 FROM memberships m \
                WHERE m.conversation_id = r.conversation_id AND m.user_id = r.user_id)"),
            ("a mark beyond the end, or a version beyond the count",
             "SELECT 1 FROM marks k JOIN heads h ON h.conversation_id = k.conversation_id \
                JOIN receipts r ON r.conversation_id = k.conversation_id WHERE k.delivered_up_to > h.last_seq \
                 OR k.delivered_version > r.version OR k.receipts_seen > r.version \
              UNION ALL SELECT 1 FROM reads k JOIN heads h ON h.conversation_id = k.conversation_id \
                JOIN receipts r ON r.conversation_id = k.conversation_id \
                WHERE k.read_up_to > h.last_seq OR k.read_version > r.version"),
            ("a receipt's version twice in one conversation",
             "SELECT 1 FROM (SELECT conversation_id, delivered_version AS version FROM marks WHERE delivered_version > 0 \
                UNION ALL SELECT conversation_id, read_version FROM reads WHERE read_version > 0) AS v \
              GROUP BY conversation_id, version HAVING COUNT(*) > 1"),
            ("an account log that its user's count does not know",
             "SELECT 1 FROM users u JOIN account_events e ON e.user_id = u.id AND e.seq > u.account_seq \
              UNION ALL SELECT 1 FROM devices d JOIN users u ON u.id = d.user_id WHERE d.account_seen > u.account_seq"),
        ];
        for (what, query) in violations {
            let found = format!("SELECT CAST(COUNT(*) AS TEXT) AS text FROM ({query}) AS found");
            assert_eq!(inspect::texts(&store, &found).await.unwrap(), ["0"], "{what}");
        }
        // The queries have something to look at.
        let rows = "SELECT CAST(COUNT(*) AS TEXT) AS text FROM marks UNION ALL SELECT CAST(COUNT(*) AS TEXT) FROM reads \
                    UNION ALL SELECT CAST(COUNT(*) AS TEXT) FROM memberships WHERE to_seq IS NOT NULL";
        assert!(inspect::texts(&store, rows).await.unwrap().iter().all(|count| count != "0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_migrations_and_tables() {
    let (_one, _, lite) = empty(Kind::Sqlite).await;
    let (_two, _, postgres) = empty(Kind::Postgres).await;
    assert_eq!(migrate(&lite).await.unwrap(), migrate(&postgres).await.unwrap());
    assert_eq!(relations(&lite).await, relations(&postgres).await);
    let names = |tables: BTreeMap<String, Vec<Column>>| -> BTreeMap<String, Vec<(String, bool)>> {
        let short = |columns: Vec<Column>| columns.into_iter().map(|(name, _, null)| (name, null)).collect();
        tables.into_iter().map(|(table, columns)| (table, short(columns))).collect()
    };
    assert_eq!(names(columns(&lite).await), names(columns(&postgres).await));
}

/// A commit is on the disk before it is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_written_ahead_and_synced() {
    let node = TestNode::start(Kind::Sqlite).await;
    let store = store_of(&node).await;
    let settings = "SELECT journal_mode AS text FROM pragma_journal_mode \
                    UNION ALL SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous \
                    UNION ALL SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys \
                    UNION ALL SELECT CAST(secure_delete AS TEXT) FROM pragma_secure_delete";
    for found in
        [inspect::texts(&store, settings).await.unwrap(), inspect::texts_of_writer(&store, settings).await.unwrap()]
    {
        // 2 is FULL. The last one is ON, where 2 would be FAST.
        assert_eq!(found, ["wal", "2", "1", "1"]);
    }
    // The running server's own file is in that mode, and it writes to the log before the file.
    assert!(node.folder.path().join("sotto.db-wal").exists());
    let header = std::fs::read(node.folder.path().join("sotto.db")).unwrap();
    assert_eq!(&header[18..20], [2, 2], "the file says WAL to everybody who opens it");
}

/// A client that goes away while SQLite reads for it takes nothing with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_nobody_waits_for_any_more_harms_nobody() {
    let node = TestNode::start(Kind::Sqlite).await;
    let (alice, bob, conversation) = pair(&node).await;
    for _ in 0..20 {
        let room = group(&alice, &[&bob]).await;
        alice.rest.send_message(&shared(room, "waits"), None).await.unwrap();
    }
    let options = SocketOptions::hello(&bob.tokens.access_token);
    for round in 0..150 {
        // Gone before, while or after the backlog is read: the log must not show it, as the node's end checks.
        let socket = Socket::open(&node.url, &options).await.unwrap();
        tokio::time::sleep(Duration::from_micros(round * 100)).await;
        drop(socket);
    }
    let sent = alice.rest.send_message(&shared(conversation, "and still"), None).await.unwrap();
    let (mut bobs, _) = bob.socket().await;
    let got = messages(&mut bobs, 21).await;
    assert!(got.iter().any(|(_, message)| message.message_id == sent.message_id));
    assert!(!node.log().contains("panicked"));
}
