//! Devices with a store each and no network: a test carries what one made to the other.

use super::{Me, account, group, pairwise};
use crate::error::{Error, Result};
use crate::event::{Event, Message as Received, Reason};
use crate::inbox::{self, Applied};
use crate::seal::StoreKey;
use crate::store::{QueuedMessage, Store};
use sotto_protocol::event::Event as Durable;
use sotto_protocol::keys::{Bundle, Keys, Suite};
use sotto_protocol::message::{Kind, Message, Sender};
use sotto_protocol::{Binary, ConversationId, DeviceId, MessageId, Timestamp, UserId};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

static SEQ: AtomicI64 = AtomicI64::new(0);

struct Device {
    store: Store,
    me: Me,
    keys: Keys,
    claimed: usize,
}

impl Device {
    async fn new(user: UserId) -> Self {
        Self::with_store(user, Store::in_memory().unwrap()).await
    }

    async fn with_store(user: UserId, store: Store) -> Self {
        let me = Sender { user_id: user, device_id: DeviceId::random() };
        let keys = store.run(account::sign_in_keys).await.unwrap();
        store.run(account::mark_published).await.unwrap();
        Self { store, me, keys, claimed: 0 }
    }

    /// As the key directory hands it out; each one-time key once.
    fn bundle(&mut self) -> Bundle {
        let one_time_prekey = self.keys.one_time_prekeys.as_ref().unwrap().get(self.claimed).cloned();
        self.claimed += 1;
        Bundle {
            device_id: self.me.device_id,
            suite: Suite::Olm,
            registration_id: None,
            identity_key: self.keys.identity_key.clone().unwrap(),
            signing_key: self.keys.signing_key.clone(),
            identity_signature: self.keys.identity_signature.clone(),
            signed_prekey: self.keys.signed_prekey.clone(),
            one_time_prekey,
            pq_prekey: None,
        }
    }

    /// Learns another device and begins a session with it.
    async fn meet(&self, other: &mut Self, conversation: ConversationId) -> Result<()> {
        let (user, bundle) = (other.me.user_id, other.bundle());
        self.store
            .run(move |tx| {
                tx.put_device_list(user, std::slice::from_ref(&bundle))?;
                pairwise::start_session(tx, conversation, user, &bundle)
            })
            .await
    }

    /// A message for the one other device of this test, as the server would deliver it.
    async fn write(&self, to: UserId, conversation: ConversationId, text: &str) -> Message {
        let queued = queued(conversation, Kind::Text, text);
        self.envelope(to, queued).await
    }

    async fn envelope(&self, to: UserId, queued: QueuedMessage) -> Message {
        let (me, message) = (self.me, queued.clone());
        let envelopes = self
            .store
            .run(move |tx| {
                let targets = pairwise::targets(tx, me, &[to])?.map_err(|_| Error::NotSignedIn)?;
                pairwise::encrypt(tx, me, &message, &targets)
            })
            .await
            .unwrap();
        let [envelope] = envelopes.as_slice() else { panic!("one device, one envelope") };
        delivered(&queued, self.me, envelope.ciphertext.clone(), Some(envelope.kind))
    }

    /// Begins a group session; the message that carries its key to the one other member.
    async fn rotate(&self, group_id: ConversationId, roster: &str, to: UserId, direct: ConversationId) -> Message {
        let roster = roster.to_owned();
        let queued = self
            .store
            .run(move |tx| {
                group::rotate(tx, group_id, &roster, &[(to, direct)])?;
                let session = tx.outbound_group(group_id)?.unwrap().session.session_id();
                let (message, _) = tx.unsent_for_session(&session)?.pop().unwrap();
                Ok(tx.outbox_row(message)?.unwrap().message)
            })
            .await
            .unwrap();
        assert!(queued.internal);
        self.envelope(to, queued).await
    }

    async fn write_group(&self, group_id: ConversationId, text: &str) -> Message {
        let queued = queued(group_id, Kind::Text, text);
        let (me, message) = (self.me, queued.clone());
        let (ciphertext, _) = self.store.run(move |tx| group::encrypt(tx, me, &message)).await.unwrap();
        delivered(&queued, self.me, ciphertext.into(), None)
    }

    async fn receive(&self, messages: &[&Message]) -> Applied {
        let events = messages.iter().map(|message| Durable::NewMessage((*message).clone())).collect();
        let me = self.me;
        self.store.run(move |tx| inbox::apply(tx, me, events)).await.unwrap()
    }

    async fn read(&self, messages: &[&Message]) -> Vec<String> {
        texts(&self.receive(messages).await)
    }

    async fn fails(&self, message: &Message) -> Reason {
        match self.receive(&[message]).await.events.as_slice() {
            [Event::Undecryptable(told)] => told.reason,
            other => panic!("{other:?}"),
        }
    }
}

fn queued(conversation: ConversationId, kind: Kind, text: &str) -> QueuedMessage {
    QueuedMessage {
        message_id: MessageId::ordered(),
        conversation_id: conversation,
        kind,
        internal: false,
        content: text.as_bytes().to_vec(),
        reply_to: None,
        expires_in: None,
        for_session: None,
    }
}

fn delivered(queued: &QueuedMessage, from: Me, ciphertext: Binary, envelope_type: Option<u8>) -> Message {
    Message {
        message_id: queued.message_id,
        conversation_id: queued.conversation_id,
        seq: SEQ.fetch_add(1, Ordering::Relaxed) + 1,
        kind: queued.kind,
        from: Some(from),
        ciphertext: Some(ciphertext),
        envelope_type,
        reply_to: queued.reply_to,
        client_seq: None,
        server_time: Timestamp::now(),
        edited_at: None,
        deleted_at: None,
        expires_at: None,
        after_seq: None,
        system: None,
    }
}

fn texts(applied: &Applied) -> Vec<String> {
    let message = |event: &Event| match event {
        Event::Message(message) => Some(message.text().unwrap().to_owned()),
        _ => None,
    };
    applied.events.iter().filter_map(message).collect()
}

fn one(applied: Applied) -> Received {
    match applied.events.as_slice() {
        [Event::Message(message)] => message.clone(),
        other => panic!("{other:?}"),
    }
}

async fn pair() -> (Device, Device, ConversationId) {
    (Device::new(UserId::random()).await, Device::new(UserId::random()).await, ConversationId::ordered())
}

#[tokio::test]
async fn first_message_reply_and_a_duplicate() {
    let (mut alice, mut bob, direct) = pair().await;
    alice.meet(&mut bob, direct).await.unwrap();
    let first = alice.write(bob.me.user_id, direct, "one").await;
    let second = alice.write(bob.me.user_id, direct, "two").await;
    assert_eq!(first.envelope_type, Some(0));
    let message = one(bob.receive(&[&first]).await);
    assert_eq!((message.text(), message.from), (Some("one"), alice.me));
    assert!(!format!("{message:?}").contains("one\""), "Debug shows no text");
    assert_eq!(bob.read(&[&first, &second, &second]).await, ["two"]);

    let user = alice.me.user_id;
    let bundle = alice.bundle();
    bob.store.run(move |tx| tx.put_device_list(user, &[bundle])).await.unwrap();
    let reply = bob.write(user, direct, "three").await;
    assert_eq!(reply.envelope_type, Some(1), "the session is the one that came");
    assert_eq!(alice.read(&[&reply]).await, ["three"]);
    let fourth = alice.write(bob.me.user_id, direct, "four").await;
    assert_eq!(fourth.envelope_type, Some(1));
    assert_eq!(bob.read(&[&fourth]).await, ["four"]);
}

#[tokio::test]
async fn out_of_order_is_read_in_any_order() {
    let (alice, mut bob, direct) = pair().await;
    alice.meet(&mut bob, direct).await.unwrap();
    let mut messages = Vec::new();
    for number in 0..12 {
        messages.push(alice.write(bob.me.user_id, direct, &number.to_string()).await);
    }
    messages.reverse();
    let read = bob.read(&messages.iter().collect::<Vec<_>>()).await;
    assert_eq!(read, (0..12).rev().map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn both_begin_at_once() {
    let (mut alice, mut bob, direct) = pair().await;
    alice.meet(&mut bob, direct).await.unwrap();
    bob.meet(&mut alice, direct).await.unwrap();
    let from_alice = alice.write(bob.me.user_id, direct, "a").await;
    let from_bob = bob.write(alice.me.user_id, direct, "b").await;
    assert_eq!(bob.read(&[&from_alice]).await, ["a"]);
    assert_eq!(alice.read(&[&from_bob]).await, ["b"]);
    for round in 0..4 {
        let text = round.to_string();
        let from_alice = alice.write(bob.me.user_id, direct, &text).await;
        let from_bob = bob.write(alice.me.user_id, direct, &text).await;
        assert_eq!(bob.read(&[&from_alice]).await, [text.as_str()]);
        assert_eq!(alice.read(&[&from_bob]).await, [text.as_str()]);
    }
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bob.db");
    let key = StoreKey::random().unwrap();
    let open = |path: &Path, key: &StoreKey| Store::open(path.to_owned(), key.clone());
    let (alice, _, direct) = pair().await;
    let mut bob = Device::with_store(UserId::random(), open(&path, &key).await.unwrap()).await;
    alice.meet(&mut bob, direct).await.unwrap();
    let mut messages = Vec::new();
    for number in 0..6 {
        messages.push(alice.write(bob.me.user_id, direct, &number.to_string()).await);
    }
    let mut read = Vec::new();
    for message in &messages {
        // Stored, but the process ended before the acknowledgement: it comes again.
        read.extend(bob.read(&[message]).await);
        bob.store = open(&path, &key).await.unwrap();
        read.extend(bob.read(&[message]).await);
    }
    assert_eq!(read, ["0", "1", "2", "3", "4", "5"]);
    let me = bob.me.device_id;
    let kept = bob.store.run(move |tx| tx.messages_since(me, 0, 100)).await.unwrap();
    let positions: Vec<i64> = kept.iter().map(|row| row.position).collect();
    assert_eq!(kept.len(), 6);
    assert!(positions.is_sorted());
}

#[tokio::test]
async fn a_group_reads_what_came_before_its_key() {
    let (alice, mut bob, direct) = pair().await;
    let group_id = ConversationId::ordered();
    alice.meet(&mut bob, direct).await.unwrap();
    let key = alice.rotate(group_id, "r1", bob.me.user_id, direct).await;
    let first = alice.write_group(group_id, "first").await;
    let second = alice.write_group(group_id, "second").await;
    assert_eq!(bob.fails(&first).await, Reason::KeyMissing);
    assert_eq!(bob.fails(&second).await, Reason::KeyMissing);
    let applied = bob.receive(&[&key]).await;
    assert_eq!(texts(&applied), ["first", "second"]);
    assert_eq!(applied.reads, [(direct, key.seq)], "the library reads what is for the library");
    assert!(bob.read(&[&first, &second, &key]).await.is_empty(), "each is decrypted once");
    let third = alice.write_group(group_id, "third").await;
    assert_eq!(bob.read(&[&third]).await, ["third"]);
}

#[tokio::test]
async fn rotation_shuts_out_who_has_not_got_the_new_key() {
    let (alice, mut bob, direct) = pair().await;
    let mut carol = Device::new(UserId::random()).await;
    let (group_id, with_carol) = (ConversationId::ordered(), ConversationId::ordered());
    alice.meet(&mut bob, direct).await.unwrap();
    alice.meet(&mut carol, with_carol).await.unwrap();
    let for_bob = alice.rotate(group_id, "r1", bob.me.user_id, direct).await;
    let for_carol = alice.rotate(group_id, "r2", carol.me.user_id, with_carol).await;
    bob.receive(&[&for_bob]).await;
    carol.receive(&[&for_carol]).await;
    let message = alice.write_group(group_id, "for carol").await;
    assert_eq!(carol.read(&[&message]).await, ["for carol"]);
    assert_eq!(bob.fails(&message).await, Reason::KeyMissing);
    let present = alice.store.run(move |tx| tx.outbound_group(group_id)).await.unwrap().unwrap();
    assert!(group::is_current(&present, "r2"));
    assert!(!group::is_current(&present, "r3"), "another device list needs another session");
}

#[tokio::test]
async fn a_moved_renamed_or_replayed_ciphertext_is_refused() {
    let (alice, mut bob, direct) = pair().await;
    let group_id = ConversationId::ordered();
    alice.meet(&mut bob, direct).await.unwrap();
    let mut renamed = alice.write(bob.me.user_id, direct, "one").await;
    renamed.message_id = MessageId::ordered();
    assert_eq!(bob.fails(&renamed).await, Reason::Forged);
    let mut other_kind = alice.write(bob.me.user_id, direct, "two").await;
    other_kind.kind = Kind::Call;
    assert_eq!(bob.fails(&other_kind).await, Reason::Forged);
    let mut damaged = alice.write(bob.me.user_id, direct, "three").await;
    damaged.ciphertext.as_mut().unwrap().0.truncate(40);
    assert_eq!(bob.fails(&damaged).await, Reason::Damaged);
    let whole = alice.write(bob.me.user_id, direct, "four").await;
    assert_eq!(bob.read(&[&whole]).await, ["four"]);

    let key = alice.rotate(group_id, "r1", bob.me.user_id, direct).await;
    bob.receive(&[&key]).await;
    let message = alice.write_group(group_id, "once").await;
    let mut replayed = message.clone();
    replayed.message_id = MessageId::ordered();
    assert_eq!(bob.read(&[&message]).await, ["once"]);
    assert_eq!(bob.fails(&replayed).await, Reason::Forged);
    let mut stranger = alice.write_group(group_id, "whose").await;
    stranger.from = Some(Sender { user_id: UserId::random(), device_id: DeviceId::random() });
    assert_eq!(bob.fails(&stranger).await, Reason::KeyMissing);
}

#[tokio::test]
async fn a_broken_session_is_replaced_and_an_exchanged_identity_refused() {
    let (mut alice, mut bob, direct) = pair().await;
    alice.meet(&mut bob, direct).await.unwrap();
    let first = alice.write(bob.me.user_id, direct, "one").await;
    bob.receive(&[&first]).await;
    let mut damaged = alice.write(bob.me.user_id, direct, "two").await;
    damaged.ciphertext.as_mut().unwrap().0.truncate(30);
    assert_eq!(bob.fails(&damaged).await, Reason::Damaged);
    let device = alice.me.device_id;
    assert!(bob.store.run(move |tx| tx.sending_session(direct, device)).await.unwrap().is_none());
    bob.meet(&mut alice, direct).await.unwrap();
    let repaired = bob.write(alice.me.user_id, direct, "three").await;
    assert_eq!(repaired.envelope_type, Some(0), "a new session begins");
    assert_eq!(alice.read(&[&repaired]).await, ["three"]);

    let mut impostor = Device::new(bob.me.user_id).await;
    impostor.me = bob.me;
    let refused = alice.meet(&mut impostor, direct).await;
    assert!(matches!(refused, Err(Error::IdentityChanged { .. })));
    impostor.meet(&mut alice, direct).await.unwrap();
    let message = impostor.write(alice.me.user_id, direct, "I am Bob").await;
    assert_eq!(alice.fails(&message).await, Reason::IdentityChanged);
}

#[tokio::test]
async fn reading_is_not_told_over_the_users_unread_messages() {
    let (alice, mut bob, direct) = pair().await;
    alice.meet(&mut bob, direct).await.unwrap();
    let text = alice.write(bob.me.user_id, direct, "unread").await;
    let key = alice.rotate(ConversationId::ordered(), "r1", bob.me.user_id, direct).await;
    bob.receive(&[&text]).await;
    assert!(bob.receive(&[&key]).await.reads.is_empty());
}

#[tokio::test]
async fn keys_have_growing_numbers_and_a_good_signature() {
    let mut device = Device::new(UserId::random()).await;
    let first = device.keys.one_time_prekeys.clone().unwrap();
    assert_eq!(first.len(), 100);
    let last = first.last().unwrap().key_id;
    let more = device.store.run(|tx| account::refill(tx, 10, true)).await.unwrap();
    let again = device.store.run(|tx| account::refill(tx, 10, true)).await.unwrap();
    assert_eq!(more, again, "an upload without answer is repeated as it was");
    let more_keys = more.one_time_prekeys.unwrap();
    assert_eq!(more_keys.len(), 10);
    assert!(more_keys.iter().all(|key| key.key_id > last));
    device.keys.signed_prekey = more.signed_prekey;
    let (alice, direct) = (Device::new(UserId::random()).await, ConversationId::ordered());
    alice.meet(&mut device, direct).await.unwrap();
    let mut forged = device.bundle();
    forged.signed_prekey.as_mut().unwrap().signature.0.reverse();
    let user = device.me.user_id;
    assert!(alice.store.run(move |tx| pairwise::start_session(tx, direct, user, &forged)).await.is_err());
}

#[tokio::test]
async fn the_fallback_key_serves_when_the_stock_is_out() {
    let (alice, mut bob, direct) = pair().await;
    bob.claimed = 1000;
    alice.meet(&mut bob, direct).await.unwrap();
    let message = alice.write(bob.me.user_id, direct, "last resort").await;
    assert_eq!(bob.read(&[&message]).await, ["last resort"]);
}

#[tokio::test]
async fn the_outbox_keeps_bytes_order_and_count() {
    let store = Store::in_memory().unwrap();
    let conversation = ConversationId::ordered();
    let (first, second) = (queued(conversation, Kind::Text, "1"), queued(conversation, Kind::Text, "2"));
    let (first_id, second_id) = (first.message_id, second.message_id);
    store
        .run(move |tx| {
            let position = tx.queue(&first)?;
            tx.queue(&second)?;
            assert_eq!(tx.queue(&first)?, position, "said twice, queued once");
            tx.set_request(first_id, Some("bytes"))
        })
        .await
        .unwrap();
    let row = store.run(move |tx| tx.outbox_row(first_id)).await.unwrap().unwrap();
    assert_eq!((row.request.as_deref(), row.client_seq), (Some("bytes"), 1));
    assert_eq!(row.message.content, b"1");
    let waiting = store.run(move |tx| tx.waiting_in(conversation, i64::MAX)).await.unwrap();
    assert_eq!(waiting, [first_id, second_id]);
    let sent = sotto_protocol::message::Sent {
        message_id: first_id,
        conversation_id: conversation,
        seq: 7,
        server_time: Timestamp::now(),
        duplicate: false,
    };
    let reopened = store
        .run(move |tx| {
            tx.set_sent(&sent)?;
            assert_eq!(tx.waiting_in(conversation, i64::MAX)?, [second_id]);
            tx.reopen_outbox()?;
            tx.waiting_in(conversation, i64::MAX)
        })
        .await
        .unwrap();
    assert_eq!(reopened, [first_id, second_id], "after a restore everything of the last day goes again");
}

#[tokio::test]
async fn an_identity_key_that_is_signed_wrongly_is_refused_and_not_remembered() {
    let alice = Device::new(UserId::random()).await;
    let mut bob = Device::new(UserId::random()).await;
    let mut mallory = Device::new(bob.me.user_id).await;
    let (user, device, direct) = (bob.me.user_id, bob.me.device_id, ConversationId::random());
    let (right, others) = (bob.bundle(), mallory.bundle());
    let forged = [
        Bundle { identity_key: others.identity_key.clone(), ..right.clone() },
        Bundle { identity_signature: others.identity_signature.clone(), ..right.clone() },
        Bundle { identity_signature: Some(vec![0; 63].into()), ..right.clone() },
        Bundle { signing_key: None, ..right.clone() },
    ];
    for forged in forged {
        let listed = forged.clone();
        let refused = alice.store.run(move |tx| tx.put_device_list(user, &[listed])).await;
        assert!(matches!(refused, Err(Error::IdentityForged { .. })));
        let refused = alice.store.run(move |tx| pairwise::start_session(tx, direct, user, &forged)).await;
        assert!(matches!(refused, Err(Error::IdentityForged { .. })));
        assert_eq!(alice.store.run(move |tx| tx.identity_key(device)).await.unwrap(), None);
    }
    // A device from before 0.2 has no signature.
    let unsigned = Bundle { identity_signature: None, ..right.clone() };
    alice.store.run(move |tx| tx.put_device_list(user, &[unsigned])).await.unwrap();
    alice.store.run(move |tx| pairwise::start_session(tx, direct, user, &right)).await.unwrap();
}
