//! A device that goes from node to node in the middle of a stream.

use super::{Ear, cluster};
use crate::support::people::{pair, shared};
use sotto_client::SocketOptions;
use sotto_client::protocol::Seq;
use std::time::Duration;

/// At each connection some of what came is acknowledged; what was confirmed never comes again, and nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_changes_nodes_misses_nothing() {
    const COUNT: i64 = 300;
    let (nodes, _redis) = cluster(3).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let writer = alice.at(&nodes[0]);
    let writing = tokio::spawn(async move {
        let mut sent = Vec::new();
        for number in 0..COUNT {
            let answer = writer.send_message(&shared(conversation, &number.to_string()), None).await.expect("sent");
            sent.push((answer.seq, answer.message_id));
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        sent
    });
    let (mut got, mut confirmed, mut lives, mut attempt, mut is_over) = (Vec::new(), 0 as Seq, 0, 0, false);
    while !is_over {
        let node = &nodes[lives % 3];
        // Every third life is without a number of the device's own.
        let ear = if lives % 3 == 2 {
            Ear::open(&bob, node).await
        } else {
            attempt += 1;
            Ear::attempt(&bob, node, attempt).await
        };
        let was_written = writing.is_finished();
        let stay = Duration::from_millis(40 + 53 * u64::try_from(lives).unwrap() % 260);
        tokio::time::sleep(stay).await;
        let heard = ear.leave().await;
        assert!(heard.wrong.is_empty(), "{:?}", heard.wrong);
        let came: Vec<_> = heard.messages.iter().map(|message| (message.seq, message.id)).collect();
        let first = came.first().map(|(seq, _)| *seq);
        assert!(first.is_none_or(|first| first > confirmed), "{first:?} was confirmed up to {confirmed}");
        // Not every number of this connection is a message: so many less were confirmed for certain.
        let others = heard.frames.iter().filter(|(frame, _)| frame.n.is_some()).count() as u64;
        let sure = usize::try_from(heard.acked.saturating_sub(others)).unwrap();
        confirmed = sure.checked_sub(1).and_then(|last| came.get(last)).map_or(confirmed, |(seq, _)| *seq);
        // All was written before this life began, and it found nothing any more.
        is_over = was_written && heard.drained && heard.n == 0;
        assert!(came.is_sorted());
        got.extend(came);
        lives += 1;
        assert!(lives < 200, "confirmed up to {confirmed}");
    }
    let sent = writing.await.expect("all were sent");
    assert!(lives > 6, "it was in the middle of the stream");
    let came_twice = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, sent);
    assert!(came_twice < 2 * got.len(), "{came_twice} arrivals of {} messages", got.len());
}

/// The older socket is still open when the newer one goes on with the stream at another node: together they have
/// everything, and the newer one alone has everything that was not confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_socket_takes_the_stream_over() {
    let (nodes, _redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let unread = SocketOptions::hello(&bob.tokens.access_token);
    let old = Ear::with(&unread, &nodes[0].url, false).await;
    let writer = alice.at(&nodes[1]);
    let writing = tokio::spawn(async move {
        for number in 0..120 {
            writer.send_message(&shared(conversation, &number.to_string()), None).await.expect("sent");
        }
    });
    old.until("the beginning", |heard| heard.messages.len() >= 10).await;
    let new = Ear::open(&bob, &nodes[1]).await;
    writing.await.expect("all were sent");
    new.until("everything", |heard| heard.messages.len() >= 120).await;
    let came: Vec<Seq> = new.messages(conversation).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(came, (1..=120).collect::<Vec<_>>());
    assert_eq!(old.close_code(Duration::from_secs(5)).await, Some(sotto_client::protocol::close::DRAINING));
}
