//! The sweep hears of a commit before the node that made it does: nobody reads the database for what is on its way.

use super::{Ear, counter};
use crate::support::database::{self, Kind};
use crate::support::node::TestNode;
use crate::support::people::{Device, pair, shared};
use sotto_client::protocol::ConversationId;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PLACES: &str = "sotto_reads_total{what=\"place\"}";
const MESSAGES: &str = "sotto_reads_total{what=\"messages\"}";
/// What only the Journal says: it sets it when it opens a connection.
const JOURNAL: &[u8] = b"SET plan_cache_mode = force_generic_plan";
/// Longer than from one sweep to the next.
const LATE: Duration = Duration::from_millis(700);

/// The URL of a wire to a database. Once told, it brings late what the Journal is answered.
async fn late_for_the_journal(url: &str, is_late: watch::Receiver<bool>) -> String {
    let (start, rest) = url.rsplit_once(':').expect("a port");
    let (port, name) = rest.split_once('/').expect("a database");
    let port: u16 = port.parse().expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let own = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((node, _)) = listener.accept().await {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("PostgreSQL");
            tokio::spawn(wire(node, server, is_late.clone()));
        }
    });
    format!("{start}:{own}/{name}")
}

async fn wire(node: TcpStream, server: TcpStream, is_late: watch::Receiver<bool>) {
    let ((mut asked, mut answers), (mut answered, mut asks)) = (node.into_split(), server.into_split());
    let (journal, is_journal) = watch::channel(false);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = asked.read(&mut buffer).await {
            if buffer[..read].windows(JOURNAL.len()).any(|part| part == JOURNAL) {
                journal.send_replace(true);
            }
            if asks.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = answered.read(&mut buffer).await {
        if *is_journal.borrow() && *is_late.borrow() {
            tokio::time::sleep(LATE).await;
        }
        if answers.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// A node whose Journal is answered late once that is said, and one beside it that is not. A device that listens at the
/// first has heard a message.
struct World {
    nodes: [TestNode; 2],
    late: watch::Sender<bool>,
    alice: Device,
    ear: Ear,
    conversation: ConversationId,
}

async fn world() -> World {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let (late, is_late) = watch::channel(false);
    let direct = database::fresh(Kind::Postgres, folder.path()).await;
    let url = late_for_the_journal(&direct, is_late).await;
    let settings = [("SOTTO_LIMITS__ENABLED", "false")];
    let node = TestNode::on(Kind::Postgres, Arc::clone(&folder), url, &settings, 0).await;
    let other = TestNode::on(Kind::Postgres, folder, direct, &settings, 0).await;
    let (alice, bob, conversation) = pair(&node).await;
    let ear = Ear::ready(&bob, &node).await;
    // Where the device stands is read once, and the Journal's statements are prepared.
    let first = alice.rest.send_message(&shared(conversation, "first"), None).await.unwrap();
    ear.came(first.message_id).await;
    ear.until("its confirmation", |heard| heard.acked > 0).await;
    assert!(counter(&node, PLACES).await > 0, "reads are counted");
    World { nodes: [node, other], late, alice, ear, conversation }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_is_not_read() {
    let World { nodes: [node, _other], late, alice, ear, conversation } = world().await;
    let reads = counter(&node, MESSAGES).await;
    late.send_replace(true);
    for number in 1..=5 {
        let sent = alice.rest.send_message(&shared(conversation, "on its way"), None).await.unwrap();
        ear.came(sent.message_id).await;
        assert_eq!(counter(&node, MESSAGES).await, reads, "message {number}");
    }
}

/// It may be of another node as well: then it is told once what was under way here has been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_wrote_meanwhile_is_told() {
    let World { nodes: [node, other], late, alice, ear, conversation } = world().await;
    let reads = counter(&node, MESSAGES).await;
    late.send_replace(true);
    let there = alice.at(&other);
    let (ours, theirs) = (shared(conversation, "ours"), shared(conversation, "theirs"));
    let (ours, theirs) = tokio::join!(alice.rest.send_message(&ours, None), async {
        tokio::time::sleep(LATE / 7).await;
        there.send_message(&theirs, None).await
    });
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!(theirs.seq, ours.seq + 1, "it was committed before the answer came");
    ear.came(theirs.message_id).await;
    assert_eq!(
        ear.messages(conversation)[1..],
        [(ours.seq, ours.message_id), (theirs.seq, theirs.message_id)],
        "in their order"
    );
    assert!(counter(&node, MESSAGES).await > reads, "what came from elsewhere was read");
}
