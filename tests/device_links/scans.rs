//! The way that works: begun, scanned, confirmed, collected, told; lost answers; a device that comes back.

use super::{Newcomer, code, confirmation, proof, take_in};
use crate::history::logins;
use crate::second_factor::enable;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{pair, register, second_device, shared};
use crate::support::wire::{next_message, next_of};
use sotto_client::device_link::Collected;
use sotto_client::protocol::device_link::ConfirmLink;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{Rest, Socket, SocketOptions};
use std::time::{Duration, Instant};

on_both! {
    async fn a_new_device_joins_and_everybody_is_told(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut tablets, _) = tablet.socket().await;
        let (mut bobs, _) = bob.socket().await;
        next_of(&mut tablets, "drained").await;
        next_of(&mut bobs, "drained").await;
        let laptop = Newcomer::at(&node, "laptop").await;
        assert!(laptop.begun.qr_svg.starts_with("<?xml") && laptop.begun.qr_png.starts_with("data:image/png;base64,"));
        let scanned = alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
        assert_eq!((scanned.device.name.as_str(), scanned.address.as_deref()), ("laptop", Some("127.0.0.1")));
        assert_eq!(scanned.expires_at, laptop.begun.expires_at);
        // Another device of the same account sees the same.
        assert_eq!(tablet.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap(), scanned);
        let confirmation = confirmation(&node, &alice, &laptop).await;
        alice.rest.confirm_link(laptop.id(), &confirmation).await.unwrap();
        // An answer that was lost: the same again, though the code is used up.
        alice.rest.confirm_link(laptop.id(), &confirmation).await.unwrap();
        // Until now there is no further device.
        assert_eq!(bob.rest.devices(alice.user_id).await.unwrap().devices.len(), 2);
        let tokens = laptop.tokens().await;
        assert_eq!(tokens.user_id, alice.user_id);
        for socket in [&mut tablets, &mut bobs] {
            let changed = loop {
                match next_of(socket, "devices_changed").await.event().unwrap().unwrap() {
                    Event::DevicesChanged(changed) if changed.added.contains(&tokens.device_id) => break changed,
                    Event::DevicesChanged(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            // With the tablet, of which nobody has acknowledged to have heard.
            assert_eq!((changed.user_id, changed.added), (alice.user_id, vec![tablet.device_id, tokens.device_id]));
        }
        assert_eq!(bob.rest.devices(alice.user_id).await.unwrap().devices.len(), 3);
        let rest = Rest::new(&node.url).unwrap().with_token(&tokens.access_token);
        assert_eq!(rest.me().await.unwrap().device.info.name, "laptop");
        // Its first message.
        let (mut socket, _) = Socket::connect(&node.url, &SocketOptions::hello(&tokens.access_token)).await.unwrap();
        bob.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
        assert_eq!(next_message(&mut socket).await.1.conversation_id, conversation);
    }

    async fn a_link_stands_in_the_history_once(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let laptop = Newcomer::at(&node, "laptop").await;
        take_in(&node, &alice, &laptop).await;
        let tokens = laptop.tokens().await;
        // An answer that was lost is no other sign-in.
        assert_eq!(laptop.tokens().await.device_id, tokens.device_id);
        let told = logins(&alice, 2).await;
        let words: Vec<_> = told.iter().map(|login| (login.method.as_str(), login.outcome.as_str())).collect();
        assert_eq!(words, [("link", "signed_in"), ("registration", "signed_in")]);
        assert_eq!((told[0].device_id, told[0].address.as_deref()), (Some(tokens.device_id), Some("127.0.0.1")));
    }

    async fn it_waits_and_is_woken_by_the_confirmation(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let laptop = Newcomer::at(&node, "laptop").await;
        let began = Instant::now();
        let Collected::Pending(pending) = laptop.collect().await.unwrap() else { panic!("nobody has confirmed") };
        assert!(!pending.scanned && pending.expires_at == laptop.begun.expires_at);
        let held = began.elapsed();
        assert!(held >= Duration::from_millis(3_900) && held < Duration::from_secs(5), "{held:?}");
        alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
        let confirmation = confirmation(&node, &alice, &laptop).await;
        let decide = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            alice.rest.confirm_link(laptop.id(), &confirmation).await.unwrap();
            Instant::now()
        };
        let wait = async {
            let Collected::Tokens(tokens) = laptop.collect().await.unwrap() else { panic!("it was not woken") };
            (tokens, Instant::now())
        };
        let (confirmed, (_, woken)) = tokio::join!(decide, wait);
        assert!(woken.saturating_duration_since(confirmed) < Duration::from_millis(400), "asked, not woken");
    }

    async fn one_of_each_link_is_held(database) {
        let node = TestNode::start(database).await;
        let (laptop, desktop) = (Newcomer::at(&node, "laptop").await, Newcomer::at(&node, "desktop").await);
        let held = async |newcomer: &Newcomer, after: u64| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let began = Instant::now();
            assert!(matches!(newcomer.collect().await.unwrap(), Collected::Pending(_)));
            began.elapsed()
        };
        let all = tokio::join!(held(&laptop, 0), held(&laptop, 500), held(&laptop, 1_000), held(&desktop, 1_000));
        let long = |held: Duration| held > Duration::from_secs(3);
        assert_eq!((long(all.0), long(all.1), long(all.2), long(all.3)), (true, false, false, true), "{all:?}");
        assert!(long(held(&laptop, 0).await), "the place is free again");
    }

    async fn a_lost_answer_does_not_strand_the_device_and_nobody_gets_a_second_one(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let laptop = Newcomer::at(&node, "laptop").await;
        take_in(&node, &alice, &laptop).await;
        // Two at once, and again: one device, one family.
        let (one, other) = tokio::join!(laptop.tokens(), laptop.tokens());
        let again = laptop.tokens().await;
        for tokens in [&other, &again] {
            assert_eq!((tokens.device_id, &tokens.refresh_token), (one.device_id, &one.refresh_token));
        }
        assert_eq!(alice.rest.devices(alice.user_id).await.unwrap().devices.len(), 1);
        // What came last works, and from its first use on there is nothing more to be had.
        let rest = Rest::new(&node.url).unwrap();
        rest.with_token(&again.access_token).me().await.unwrap();
        assert_eq!(code(laptop.collect().await), ErrorCode::NotFound);
        let next = rest.refresh(&one.refresh_token).await.unwrap();
        rest.with_token(&next.access_token).me().await.unwrap();
        assert_eq!(code(laptop.collect().await), ErrorCode::NotFound);
    }

    async fn a_device_that_has_lost_its_tokens_becomes_itself_again(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut old, _) = tablet.socket().await;
        let back = Newcomer::with(&node, tablet.keys, "tablet again").await.unwrap();
        take_in(&node, &alice, &back).await;
        let tokens = back.tokens().await;
        assert_eq!(tokens.device_id, tablet.device_id);
        assert_eq!(old.closed_within(Duration::from_secs(5)).await.unwrap(), Some(4503));
        assert_eq!(code(tablet.rest.me().await), ErrorCode::Unauthenticated);
        let me = Rest::new(&node.url).unwrap().with_token(&tokens.access_token).me().await.unwrap();
        assert_eq!(me.device.info.name, "tablet again");
    }

    async fn the_second_factor_is_asked_for_where_there_is_one(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let (app, _, _) = enable(&node, &alice).await;
        let laptop = Newcomer::at(&node, "laptop").await;
        alice.rest.scan_link(laptop.id(), &laptop.code()).await.unwrap();
        let asked = proof(&node, &alice).await;
        let confirm = |totp: Option<String>| {
            ConfirmLink::new(laptop.code(), Reauthentication { totp, ..asked.clone() })
        };
        let rest = &alice.rest;
        assert_eq!(code(rest.confirm_link(laptop.id(), &confirm(None)).await), ErrorCode::SecondFactorRequired);
        assert_eq!(code(rest.confirm_link(laptop.id(), &confirm(Some(app.wrong()))).await), ErrorCode::CodeRejected);
        assert!(matches!(laptop.collect().await.unwrap(), Collected::Pending(pending) if pending.scanned));
        rest.confirm_link(laptop.id(), &confirm(Some(app.code(0)))).await.unwrap();
        laptop.tokens().await;
    }

    async fn a_full_account_says_so_before_anything_is_used_up(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let mut others = Vec::new();
        for _ in 0..8 {
            others.push(second_device(&node, &alice, "other").await);
        }
        // Two for one place: both are confirmed, one gets it.
        let (one, two) = (Newcomer::at(&node, "one").await, Newcomer::at(&node, "two").await);
        take_in(&node, &alice, &one).await;
        take_in(&node, &alice, &two).await;
        one.tokens().await;
        assert_eq!(code(two.collect().await), ErrorCode::LimitReached);
        let three = Newcomer::at(&node, "three").await;
        alice.rest.scan_link(three.id(), &three.code()).await.unwrap();
        let confirmation = confirmation(&node, &alice, &three).await;
        assert_eq!(code(alice.rest.confirm_link(three.id(), &confirmation).await), ErrorCode::LimitReached);
        others.pop().unwrap().rest.logout().await.unwrap();
        two.tokens().await;
        others.pop().unwrap().rest.logout().await.unwrap();
        alice.rest.confirm_link(three.id(), &confirmation).await.unwrap();
        three.tokens().await;
    }
}
