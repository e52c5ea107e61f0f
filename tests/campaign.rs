//! The crash campaign: the server is killed in the middle of a load again and again, and nothing that it acknowledged
//! is lost, stored twice, left out or reordered.
//!
//! `SOTTO_TEST_KILLS` says how many kills (20), `SOTTO_TEST_SEED` repeats the choices of an earlier run: who sends what
//! to whom by which way, who is away, after how many answers the kill comes. When exactly it hits is the machine's.

mod checker;
mod ledger;
mod load;

use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register, second_device};
use checker::{Evidence, History};
use futures::future::join_all;
use ledger::{Dice, Ledger};
use load::{Circle, Life, Person};
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::{ConversationId, Seq};
use sotto_client::rest::HistoryRange;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[allow(clippy::disallowed_methods, reason = "how long a campaign is to be")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Six people with eight devices: four direct conversations and a group.
async fn world(node: &TestNode, dice: &mut Dice, ledger: &Arc<Ledger>) -> (Vec<Person>, Vec<Circle>) {
    let mut users = Vec::new();
    for name in ["ann", "ben", "cyd", "dan", "eva", "fay"] {
        users.push(vec![Arc::new(register(node, name).await)]);
    }
    for user in &mut users[..2] {
        let second = second_device(node, &user[0], "tablet").await;
        user.push(Arc::new(second));
    }
    let mut circles = Vec::new();
    for members in [vec![0, 1], vec![2, 3], vec![4, 5], vec![0, 2], vec![0, 1, 2, 3, 4, 5]] {
        let (kind, rest) = match members.len() {
            2 => (ConversationType::Direct, &users[members[0]][0].rest),
            _ => (ConversationType::Group, &users[members[0]][0].rest),
        };
        let others = members[1..].iter().map(|member| users[*member][0].user_id).collect();
        let request = CreateConversation { kind, members: others, name: None };
        let id = rest.create_conversation(&request, None).await.expect("a conversation").0.conversation_id;
        let devices: Vec<Arc<Device>> = members.iter().flat_map(|member| users[*member].clone()).collect();
        ledger.evidence().readers.insert(id, devices.iter().map(|device| device.device_id).collect());
        circles.push(Circle { id, devices });
    }
    let people = users.into_iter().flatten().map(|device| {
        let is_in = |circle: &&Circle| circle.devices.iter().any(|other| other.device_id == device.device_id);
        let own = circles.iter().filter(is_in).cloned().collect();
        Person::new(device, own, Dice(dice.roll()), Arc::clone(ledger))
    });
    (people.collect(), circles)
}

/// Reads a log from a number on.
async fn history(
    device: &Device,
    id: ConversationId,
    mut after: Seq,
    ledger: &Ledger,
) -> Vec<(Seq, sotto_client::protocol::MessageId)> {
    let mut entries = Vec::new();
    loop {
        let range = HistoryRange { after_seq: Some(after), before_seq: None, limit: Some(500) };
        let page = device.rest.history(id, range).await.expect("a page of history");
        let Some(last) = page.items.last() else { return entries };
        after = last.seq;
        for message in &page.items {
            if !ledger.is_intact(device.device_id, message) {
                ledger.refuse(format!(
                    "{} of {id} is another message in the history of {}",
                    message.seq, device.device_id
                ));
            }
            entries.push((message.seq, message.message_id));
        }
        if page.next.is_none() {
            return entries;
        }
    }
}

/// What a restarted server says of each conversation, by one of its devices: only the newer part.
async fn glance(circles: &[Circle], seen: &mut HashMap<ConversationId, Seq>, dice: &mut Dice, ledger: &Ledger) {
    for circle in circles {
        let device = Arc::clone(dice.pick(&circle.devices));
        let from = seen.get(&circle.id).copied().unwrap_or(0);
        let entries = history(&device, circle.id, (from - 20).max(0), ledger).await;
        seen.insert(circle.id, entries.last().map_or(from, |(seq, _)| *seq));
        ledger.evidence().glances.extend(entries.into_iter().map(|(seq, message)| (circle.id, seq, message)));
    }
}

async fn full_look(people: &[Person], ledger: &Ledger) {
    let looks = people.iter().map(async |person| {
        for circle in &person.circles {
            let entries = history(&person.device, circle.id, 0, ledger).await;
            let last_seq = person.device.rest.conversation(circle.id).await.expect("a conversation").last_seq;
            let history = History { device: person.device.device_id, conversation: circle.id, last_seq, entries };
            ledger.evidence().histories.push(history);
        }
    });
    join_all(looks).await;
}

fn life(round: usize, kills: usize, index: usize, dice: &mut Dice) -> Life {
    match (index, dice.within(0, 10)) {
        (0, _) => Life::Socket,
        // One device is away for half of the campaign: its backlog is longer than any window.
        (7, _) if round < kills / 2 => Life::Away,
        (_, 0..=5) => Life::Socket,
        (_, 6..=7) => Life::Rest,
        _ => Life::Away,
    }
}

fn table(database: Kind, kills: usize, rounds: usize, evidence: &Evidence, verdict: &checker::Verdict, time: Duration) {
    let sent = evidence.sends.len();
    let acknowledged = evidence.sends.values().filter(|sending| !sending.answers.is_empty()).count();
    let repeated = evidence.sends.values().filter(|sending| sending.repeats > 0).count();
    let known = evidence.sends.values().filter(|sending| sending.answers.iter().any(|answer| answer.duplicate)).count();
    let got: usize = evidence.looks.values().map(Vec::len).sum();
    println!(
        "| database | kills (of) | sent | acknowledged | repeated | of these stored before | seen | lost | twice | gaps | reordered | marks back | altered | s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let [lost, twice, gaps, reordered, back, altered] = verdict.all().map(|(_, found)| found.len());
    println!(
        "| {database:?} | {kills} ({rounds}) | {sent} | {acknowledged} | {repeated} | {known} | {got} | {lost} | {twice} | {gaps} | {reordered} | {back} | {altered} | {:.1} |",
        time.as_secs_f64()
    );
}

on_both! {
    async fn kills_in_the_middle_of_a_load_lose_nothing(database) {
        let begun = Instant::now();
        let wanted = setting("SOTTO_TEST_KILLS").unwrap_or(20) as usize;
        let seed = setting("SOTTO_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 17);
        println!("campaign on {database:?}: {wanted} kills, SOTTO_TEST_SEED={seed}");
        let mut dice = Dice(seed);
        let ledger = Arc::new(Ledger::default());
        let settings = [("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_AUTH__ACCESS_TTL", "86400")];
        let mut node = TestNode::with(database, &settings).await;
        let (mut people, circles) = world(&node, &mut dice, &ledger).await;
        let (mut kills, mut rounds) = (0, 0);
        let mut seen = HashMap::new();
        while kills < wanted {
            rounds += 1;
            assert!(rounds <= wanted * 2 + 10, "requests are hardly ever unanswered: {kills} kills counted");
            let lives: Vec<Life> = (0..people.len()).map(|index| life(kills, wanted, index, &mut dice)).collect();
            let goal = dice.within(20, 160) as usize;
            let tasks: Vec<_> =
                people.drain(..).zip(lives).map(|(person, life)| tokio::spawn(person.live(life))).collect();
            let reached = tokio::time::timeout(Duration::from_secs(20), ledger.progress(goal)).await;
            assert!(reached.is_ok(), "{goal} sends were not answered within 20 s, seed {seed}");
            tokio::time::sleep(Duration::from_micros(dice.within(0, 8_000))).await;
            let unanswered = ledger.unanswered();
            node.kill();
            kills += usize::from(unanswered > 0);
            for task in tasks {
                let person = tokio::time::timeout(Duration::from_secs(30), task).await;
                people.push(person.expect("everybody notices that the server is gone").expect("a life"));
            }
            assert_eq!(ledger.unanswered(), 0);
            let log = node.log();
            assert!(!log.contains("panicked") && !log.contains(" ERROR "), "killed in round {rounds}:\n{log}");
            node.restart().await;
            glance(&circles, &mut seen, &mut dice, &ledger).await;
        }
        // Everybody comes back: repeats, catches up, and finds nothing when looking again.
        for step in 0..3 {
            let ways: Vec<bool> = people.iter().map(|_| dice.within(0, 2) == 0).collect();
            join_all(people.iter_mut().zip(ways).map(async |(person, by_socket)| match step {
                0 => person.settle_sends(by_socket).await,
                1 => person.catch_up(by_socket).await,
                _ => {
                    person.catch_up(true).await;
                    person.catch_up(false).await;
                    person.look_at_marks().await;
                }
            }))
            .await;
        }
        full_look(&people, &ledger).await;
        let evidence = ledger.evidence();
        let verdict = checker::check(&evidence);
        table(database, kills, rounds, &evidence, &verdict, begun.elapsed());
        for (name, found) in verdict.all() {
            for text in found.iter().take(5) {
                println!("{name}: {text}");
            }
        }
        assert!(verdict.is_clean(), "seed {seed} on {database:?}: what broke is above");
        let acknowledged = evidence.sends.values().filter(|sending| !sending.answers.is_empty()).count();
        assert!(acknowledged >= wanted * 20 && evidence.looks.len() == people.len(), "there was a load");
    }
}
