//! Cells that somebody moved within the database: they do not open, and nothing of them is told.

use super::{Account, early_in_a_step, login, request, with_backup_code, with_totp};
use crate::registration_lock::set_pin;
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::register;
use sotto_client::protocol::auth::{LoginRequest, Purpose};
use sotto_client::protocol::problem::{ErrorCode, Problem};
use sotto_schema::{Store, StoreSettings, inspect};

async fn store(node: &TestNode) -> Store {
    Store::open(&node.store_url, &StoreSettings::default()).await.unwrap()
}

/// Moves each cell of a column with two rows to the other row.
async fn swap(store: &Store, table: &str, column: &str) {
    let text = format!(
        "CREATE TABLE kept AS SELECT id, {column} AS cell FROM {table}; \
         UPDATE {table} SET {column} = (SELECT cell FROM kept WHERE kept.id <> {table}.id); \
         DROP TABLE kept"
    );
    inspect::execute(store, &text).await.unwrap();
}

fn is_clean(problem: &Problem) {
    assert_eq!((problem.status, problem.code), (500, ErrorCode::Internal));
    let text = serde_json::to_string(problem).unwrap().to_lowercase();
    for word in ["seal", "aes", "key", "cell", "second_factors", "backup_codes", "registration_locks", "pin", "secret"]
    {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

on_both! {
    async fn a_swapped_secret_does_not_open(database) {
        let mut node = TestNode::start(database).await;
        node.expect_log("a sealed cell does not open");
        let alice = Account::with_second_factor(&node, "alice").await;
        let mallory = Account::with_second_factor(&node, "mallory").await;
        let store = store(&node).await;
        swap(&store, "second_factors", "secret").await;
        early_in_a_step().await;
        // Whoever can write to the database puts his own secret into another's row.
        let request = alice.request(&node).await;
        for app in [&mallory.app, &alice.app] {
            is_clean(&login(&node, &with_totp(&request, &app.code(0))).await.err().unwrap());
        }
        let log = node.log();
        assert!(log.contains("second_factors.secret") && log.contains(&alice.device.user_id.to_string()), "{log}");
        assert!(!log.contains(&alice.device.phone));
        // What is beside it works as before.
        login(&node, &with_backup_code(&request, &alice.backup_codes[0])).await.unwrap();
        swap(&store, "second_factors", "secret").await;
        login(&node, &with_totp(&alice.request(&node).await, &alice.app.code(0))).await.unwrap();
    }

    async fn a_swapped_backup_code_does_not_open_and_hides_no_other(database) {
        let mut node = TestNode::start(database).await;
        node.expect_log("a sealed cell does not open");
        let alice = Account::with_second_factor(&node, "alice").await;
        let store = store(&node).await;
        let id = match database {
            Kind::Sqlite => "hex(id)",
            Kind::Postgres => "id::text",
        };
        let query = format!("SELECT MIN({id}) AS text FROM backup_codes UNION ALL SELECT MAX({id}) FROM backup_codes");
        let rows = inspect::texts(&store, &query).await.unwrap();
        let (one, other) = (&rows[0], &rows[1]);
        inspect::execute(&store, &format!(
            "CREATE TABLE kept AS SELECT id, hash, salt FROM backup_codes WHERE {id} IN ('{one}', '{other}'); \
             UPDATE backup_codes SET hash = (SELECT hash FROM kept WHERE kept.id <> backup_codes.id), \
                 salt = (SELECT salt FROM kept WHERE kept.id <> backup_codes.id) WHERE {id} IN ('{one}', '{other}'); \
             DROP TABLE kept"
        )).await.unwrap();
        let (mut opened, mut failed) = (0, 0);
        for code in &alice.backup_codes {
            match login(&node, &with_backup_code(&alice.request(&node).await, code)).await {
                Ok(tokens) => {
                    opened += 1;
                    // Room for the next one.
                    sotto_client::Rest::new(&node.url).unwrap().with_token(tokens.access_token).logout().await.unwrap();
                }
                Err(problem) => {
                    is_clean(&problem);
                    failed += 1;
                }
            }
        }
        assert_eq!((opened, failed), (8, 2));
    }

    async fn a_swapped_pin_does_not_open(database) {
        let mut node = TestNode::start(database).await;
        node.expect_log("a sealed cell does not open");
        let (alice, mallory) = (register(&node, "alice").await, register(&node, "mallory").await);
        set_pin(&node, &alice, "2580").await;
        set_pin(&node, &mallory, "8052").await;
        let store = store(&node).await;
        swap(&store, "registration_locks", "hash").await;
        let entry = request(&node, &alice.phone, Purpose::Login).await;
        for pin in ["8052", "2580"] {
            is_clean(&login(&node, &LoginRequest { pin: Some(pin.to_owned()), ..entry.clone() }).await.err().unwrap());
        }
        swap(&store, "registration_locks", "hash").await;
        login(&node, &LoginRequest { pin: Some("2580".to_owned()), ..entry }).await.unwrap();
    }

    async fn a_cell_of_another_column_does_not_open(database) {
        let mut node = TestNode::start(database).await;
        node.expect_log("a sealed cell does not open");
        let alice = Account::with_second_factor(&node, "alice").await;
        let store = store(&node).await;
        let text = "UPDATE second_factors SET secret = (SELECT hash FROM backup_codes LIMIT 1)";
        inspect::execute(&store, text).await.unwrap();
        let request = alice.request(&node).await;
        is_clean(&login(&node, &with_totp(&request, "123456")).await.err().unwrap());
        // A key that no file has.
        inspect::execute(&store, "UPDATE second_factors SET key_id = 'gone'").await.unwrap();
        is_clean(&login(&node, &with_totp(&request, "123456")).await.err().unwrap());
        assert!(node.log().contains("not in the key file"), "{}", node.log());
    }
}
