//! An older backup is restored while clients live: they see the new epoch, send again what was lost, and nothing that was
//! answered is missing or there twice (rule D13).

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::event::Event as Durable;
use sotto_client::protocol::sync::SyncPage;
use sotto_client::protocol::{ConversationId, ErrorCode, MessageId};
use sotto_client::rest::HistoryRange;
use sotto_client::{Client, Error, Event, Events, Options, SignIn, Store};
use sotto_schema::inspect;

use crate::support::database::{self, Kind, connect};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{self, fresh_phone, info, shared};

const PATIENCE: Duration = Duration::from_secs(30);

/// An application that counts each message it is told.
struct App {
    client: Client,
    events: Events,
    told: BTreeMap<MessageId, u32>,
}

impl App {
    async fn register(node: &TestNode, name: &str) -> Self {
        let phone = fresh_phone();
        let verification = Client::verify(&node.url, &phone, Purpose::Registration).await.unwrap();
        let sign_in = SignIn::new(verification.verification_id, node.code_for(&phone), info(name));
        let options = Options { send_timeout: Duration::from_millis(500), ..Options::new(&node.url) };
        let client = Client::register(options, Store::in_memory().unwrap(), sign_in).await.unwrap();
        client.connect();
        client.connected(PATIENCE).await.unwrap();
        Self { events: client.events_since(0), client, told: BTreeMap::new() }
    }

    /// Sends texts one after the other; all are answered.
    async fn say(&self, to: ConversationId, what: &str, count: usize) -> Vec<MessageId> {
        let mut answered = Vec::new();
        for number in 0..count {
            answered.push(self.client.send_text(to, &format!("{what} {number}")).await.unwrap().message_id);
        }
        answered
    }

    /// Reads what it is told until all of these have come.
    async fn hears(&mut self, expected: &[MessageId]) {
        let deadline = Instant::now() + PATIENCE;
        while !expected.iter().all(|id| self.told.contains_key(id)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = tokio::time::timeout(left, self.events.next()).await;
            self.note(event.unwrap_or_else(|_| panic!("{} of {} came", self.told.len(), expected.len())).unwrap());
        }
    }

    /// Reads what else comes within a moment.
    async fn listens_on(&mut self) {
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(700), self.events.next()).await {
            self.note(event.unwrap());
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Message(message) => *self.told.entry(message.message_id).or_default() += 1,
            Event::SignedOut | Event::Gap { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
}

/// A program of PostgreSQL's, where distributions put it.
fn postgres_program(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|found| found.filter_map(Result::ok).map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    let newest = folders.into_iter().rev().map(|folder| folder.join(name)).find(|path| path.exists());
    newest.unwrap_or_else(|| PathBuf::from(name))
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Copies the database of a running node.
async fn back_up(node: &TestNode) -> PathBuf {
    let copy = node.folder.path().join("backup");
    match node.kind {
        Kind::Sqlite => {
            let store = sotto_schema::Store::open(&node.store_url, &sotto_schema::StoreSettings::default()).await;
            inspect::execute(&store.unwrap(), &format!("VACUUM INTO '{}'", copy.display())).await.unwrap();
        }
        Kind::Postgres => {
            let mut dump = Command::new(postgres_program("pg_dump"));
            succeeds(dump.args(["--format=custom", "--dbname", &node.store_url, "--file"]).arg(&copy));
        }
    }
    copy
}

/// Puts the copy in the place of what the stopped node had.
async fn restore(node: &mut TestNode, copy: &Path) {
    match node.kind {
        Kind::Sqlite => {
            let file = node.folder.path().join("sotto.db");
            for ending in ["db-wal", "db-shm"] {
                let _ = std::fs::remove_file(file.with_extension(ending));
            }
            std::fs::copy(copy, file).unwrap();
        }
        Kind::Postgres => {
            node.store_url = database::fresh(Kind::Postgres, node.folder.path()).await;
            let mut load = Command::new(postgres_program("pg_restore"));
            succeeds(load.args(["--exit-on-error", "--single-transaction", "--dbname", &node.store_url]).arg(copy));
        }
    }
}

fn new_epoch(folder: &Path, store_url: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sotto"))
        .args(["store", "new-epoch"])
        .env_clear()
        .env("SOTTO_DATA__DIR", folder)
        .env("SOTTO_STORE__URL", store_url)
        .output()
        .unwrap()
}

/// How many messages are on a page.
fn messages(page: &SyncPage) -> usize {
    page.events.iter().filter(|event| matches!(event, Durable::NewMessage(_))).count()
}

/// The log of a conversation as the server has it.
async fn log(app: &App, conversation: ConversationId) -> Vec<(i64, MessageId)> {
    let range = HistoryRange { limit: Some(500), ..HistoryRange::default() };
    let page = app.client.rest().await.unwrap().history(conversation, range).await.unwrap();
    page.items.iter().map(|message| (message.seq, message.message_id)).collect()
}

on_both! {
    async fn an_older_backup_under_live_clients_loses_nothing_that_was_answered(database) {
        let mut node = TestNode::start(database).await;
        let mut alice = App::register(&node, "alice").await;
        let mut bob = App::register(&node, "bob").await;
        let direct = alice.client.direct(bob.client.user_id()).await.unwrap();
        let group = alice.client.group(Some("group"), &[bob.client.user_id()]).await.unwrap();
        let (mut alices, mut bobs) = (Vec::new(), Vec::new());
        alices.extend(alice.say(direct, "before", 5).await);
        bobs.extend(bob.say(group, "before", 5).await);
        bob.hears(&alices).await;
        alice.hears(&bobs).await;

        let copy = back_up(&node).await;
        // Two writers at once, so that the second history gets another order than the first.
        let (more_of_alice, more_of_bob) = tokio::join!(alice.say(direct, "after", 25), bob.say(direct, "after", 25));
        alices.extend(more_of_alice);
        bobs.extend(more_of_bob);
        alices.extend(alice.say(group, "after", 10).await);
        bobs.extend(bob.say(group, "after", 10).await);
        bob.hears(&alices).await;
        alice.hears(&bobs).await;
        // One that nobody reads before the server is gone: it is only in the outbox then.
        bob.client.disconnect().await;
        alices.extend(alice.say(direct, "unread", 5).await);

        assert_eq!(node.terminate().await, Some(0));
        let waiting = alice.client.send_text(direct, "while away").await;
        let Err(Error::Undelivered { message_id, .. }) = waiting else { panic!("{waiting:?}") };
        alices.push(message_id);
        restore(&mut node, &copy).await;
        let told = new_epoch(node.folder.path(), &node.store_url);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        assert!(String::from_utf8_lossy(&told.stdout).starts_with("the new epoch is "));
        node.restart().await;
        bob.client.connect();

        let all: HashSet<MessageId> = alices.iter().chain(&bobs).copied().collect();
        let deadline = Instant::now() + PATIENCE;
        let logs = loop {
            let logs = [log(&alice, direct).await, log(&alice, group).await];
            let stored: HashSet<MessageId> = logs.iter().flatten().map(|(_, id)| *id).collect();
            if all.is_subset(&stored) {
                break logs;
            }
            assert!(Instant::now() < deadline, "{} of {} are there again", stored.len(), all.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        for log in &logs {
            assert_eq!(log.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=log.len() as i64).collect::<Vec<_>>());
            let ids: HashSet<MessageId> = log.iter().map(|(_, id)| *id).collect();
            assert_eq!(ids.len(), log.len(), "each once");
        }
        bob.hears(&alices).await;
        alice.hears(&bobs).await;
        bob.listens_on().await;
        alice.listens_on().await;
        for (app, sent) in [(&bob, &alices), (&alice, &bobs)] {
            assert!(sent.iter().all(|id| app.told.get(id) == Some(&1)), "each is told once: {:?}", app.told);
            // What a device keeps has the numbers of the history that holds now.
            for (conversation, log) in [(direct, &logs[0]), (group, &logs[1])] {
                let kept = app.client.history(conversation, 0, 1000).await.unwrap();
                let kept: Vec<_> = kept.iter().map(|message| (message.seq, message.message_id)).collect();
                let here: Vec<_> = log.iter().filter(|(_, id)| all.contains(id)).copied().collect();
                assert_eq!(kept, here);
            }
        }
        // Both go on as if nothing had been.
        let last = alice.say(direct, "afterwards", 3).await;
        bob.hears(&last).await;
    }

    async fn what_a_backup_would_give_out_twice_is_gone(database) {
        let mut node = TestNode::start(database).await;
        let (alice, bob, conversation) = people::pair(&node).await;
        let copy = back_up(&node).await;
        let claimed = alice.rest.claim_keys(bob.user_id, &[]).await.unwrap();
        assert!(claimed.devices[0].one_time_prekey.is_some());
        alice.rest.send_message(&shared(conversation, "of the history that ends"), None).await.unwrap();
        let page = bob.rest.sync(None).await.unwrap();
        assert_eq!(messages(&page), 1);

        assert_eq!(node.terminate().await, Some(0));
        restore(&mut node, &copy).await;
        assert!(new_epoch(node.folder.path(), &node.store_url).status.success());
        node.restart().await;

        let again = alice.rest.claim_keys(bob.user_id, &[]).await.unwrap();
        assert!(again.devices[0].one_time_prekey.is_none(), "a key that may have been handed out");
        // The number that the old page covered stands for another message now.
        let fresh = shared(conversation, "of the history that holds");
        alice.rest.send_message(&fresh, None).await.unwrap();
        let refused = bob.rest.sync_ack(&page.cursor).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::CursorUnknown));
        let after = bob.rest.sync(None).await.unwrap();
        assert_ne!(after.epoch, page.epoch);
        assert_eq!(messages(&after), 1);
    }

    async fn a_database_that_is_not_sottos_gets_no_epoch(database) {
        let folder = tempfile::tempdir().unwrap();
        let store_url = database::fresh(database, folder.path()).await;
        let told = new_epoch(folder.path(), &store_url);
        assert_eq!(told.status.code(), Some(1));
        let text = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(text.contains("holds nothing of Sotto's") && text.contains("store.url"), "{text}");
        if database == Kind::Postgres {
            let tables = connect(&store_url).await;
            let query = "SELECT 1 FROM pg_tables WHERE tablename IN ('store', 'users')";
            assert!(tables.query(query, &[]).await.unwrap().is_empty(), "nothing was made there");
        }
    }
}
