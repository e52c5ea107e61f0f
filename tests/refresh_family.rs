//! A family of refresh tokens against a model of it: whatever is presented when and to which node, the answer is the
//! contract's.

use crate::support::database::{self, Kind};
use crate::support::on_both;
use crate::support::people::info;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use sotto::config::Config;
use sotto::identity::Identity;
use sotto::identity::changes::NobodyListens;
use sotto::identity::history::Tried;
use sotto::identity::secret_key::SecretKeys;
use sotto::identity::sms::{Outbox, Sms};
use sotto_client::DeviceKeys;
use sotto_client::protocol::Timestamp;
use sotto_client::protocol::auth::{Purpose, RegisterRequest, Tokens, VerificationRequest};
use sotto_schema::{Store, StoreSettings};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TRIED: Tried<'static> = Tried { method: "registration", address: HERE, agent: None };
/// How long a used token gives the same successor again.
const GRACE: u64 = 60;
/// After this the end of a family is known to every node.
const HEARD: u64 = 5;

/// What somebody does with the tokens of a family; numbers choose among those that there are.
#[derive(Clone, Debug)]
enum Step {
    Refresh {
        token: prop::sample::Index,
        node: usize,
    },
    Use {
        token: prop::sample::Index,
        node: usize,
    },
    Wait(u64),
    /// A token that never was.
    Foreign,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0_usize..2;
    prop_oneof![
        5 => (any::<prop::sample::Index>(), node.clone()).prop_map(|(token, node)| Step::Refresh { token, node }),
        2 => (any::<prop::sample::Index>(), node).prop_map(|(token, node)| Step::Use { token, node }),
        // Together less than an access token lives.
        3 => prop::sample::select(vec![1, 2, 5, 30, 59, 60, 61]).prop_map(Step::Wait),
        1 => Just(Step::Foreign),
    ]
}

/// One token of a family as the contract sees it.
struct Token {
    tokens: Tokens,
    used_at: Option<u64>,
}

/// The contract's family.
struct Model {
    all: Vec<Token>,
    /// Up to here, a token was used, by refresh or its access token.
    used: usize,
    /// When it ended, and on which node.
    ended: Option<(u64, usize)>,
    now: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    New,
    Same,
    Refused,
}

impl Model {
    fn refresh(&mut self, token: usize, node: usize) -> Expected {
        if self.ended.is_some() {
            return Expected::Refused;
        }
        let Some(used_at) = self.all[token].used_at else {
            self.all[token].used_at = Some(self.now);
            self.used = self.used.max(token);
            return Expected::New;
        };
        if self.used < token + 1 && self.now - used_at <= GRACE {
            return Expected::Same;
        }
        self.ended = Some((self.now, node));
        Expected::Refused
    }

    /// `None`: both are right, for another node may not have heard of the end yet.
    fn is_welcome(&mut self, token: usize, node: usize) -> Option<bool> {
        match self.ended {
            None => {
                self.used = self.used.max(token);
                Some(true)
            }
            Some((at, by)) => (by == node || self.now - at >= HEARD).then_some(false),
        }
    }
}

struct World {
    nodes: [Identity; 2],
    folder: tempfile::TempDir,
    begun: Timestamp,
}

impl World {
    async fn new(database: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = database::fresh(database, folder.path()).await;
        let store = Store::open(&url, &StoreSettings::default()).await.unwrap();
        sotto_schema::migrate(&store).await.unwrap();
        let mut config = Config::default();
        config.limits.enabled = false;
        let keys = Arc::new(SecretKeys::random().unwrap());
        let nodes = ["one", "two"].map(|name| {
            let sms = Sms::outbox(Outbox::open(&folder.path().join("outbox")).unwrap());
            Identity::new(store.clone(), Arc::clone(&keys), sms, Arc::new(NobodyListens), &config, name)
        });
        Self { nodes, folder, begun: Timestamp::now() }
    }

    fn at(&self, seconds: u64) -> Timestamp {
        self.begun.plus(Duration::from_secs(seconds))
    }

    /// The first tokens of a family.
    async fn family(&self) -> Tokens {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let phone = format!("+4178{:07}", COUNT.fetch_add(1, Ordering::Relaxed));
        let request = VerificationRequest::new(phone.clone(), Purpose::Registration);
        let started = self.nodes[0].start_verification(request, None, HERE, self.begun).await.unwrap();
        let outbox = std::fs::read_to_string(self.folder.path().join("outbox")).unwrap();
        let line: serde_json::Value = serde_json::from_str(outbox.lines().last().unwrap()).unwrap();
        assert_eq!(line["to"], phone);
        let request = RegisterRequest {
            verification_id: started.verification_id,
            code: line["code"].as_str().unwrap().to_owned(),
            device: info("phone"),
            keys: DeviceKeys::generate().sign_in_keys(1).unwrap(),
            totp: None,
            backup_code: None,
            pin: None,
            replace: None,
        };
        self.nodes[0].register(request, TRIED, self.begun).await.unwrap()
    }

    async fn run(&self, steps: &[Step]) {
        let first = Token { tokens: self.family().await, used_at: None };
        let mut model = Model { all: vec![first], used: 0, ended: None, now: 0 };
        for (place, step) in steps.iter().enumerate() {
            match step {
                Step::Wait(seconds) => model.now += seconds,
                Step::Foreign => {
                    let foreign = sotto_client::protocol::Binary(vec![7; 32]);
                    let text = serde_json::to_value(foreign).unwrap().as_str().unwrap().to_owned();
                    assert!(self.nodes[0].refresh(&text, self.at(model.now)).await.is_err());
                }
                Step::Refresh { token, node } => {
                    let token = token.index(model.all.len());
                    let text = model.all[token].tokens.refresh_token.clone();
                    let answer = self.nodes[*node].refresh(&text, self.at(model.now)).await;
                    let expected = model.refresh(token, *node);
                    let what = format!("step {place}, token {token} of {}: {expected:?}", model.all.len());
                    match (expected, answer) {
                        (Expected::New, Ok(tokens)) => {
                            assert_eq!(token + 1, model.all.len(), "only the last token was unused");
                            let is_known = model.all.iter().any(|old| old.tokens.refresh_token == tokens.refresh_token);
                            assert!(!is_known, "{what}");
                            model.all.push(Token { tokens, used_at: None });
                        }
                        (Expected::Same, Ok(tokens)) => {
                            assert_eq!(tokens.refresh_token, model.all[token + 1].tokens.refresh_token, "{what}");
                        }
                        (Expected::Refused, Err(problem)) => assert_eq!(problem.0.status, 401, "{what}"),
                        (_, answer) => panic!("{what}, but there was {:?}", answer.map(|tokens| tokens.device_id)),
                    }
                }
                Step::Use { token, node } => {
                    let token = token.index(model.all.len());
                    let text = &model.all[token].tokens.access_token;
                    let answer = self.nodes[*node].authenticate(text, self.at(model.now)).await;
                    if let Some(welcome) = model.is_welcome(token, *node) {
                        assert_eq!(answer.is_ok(), welcome, "step {place}: access token {token}");
                    }
                }
            }
        }
    }
}

on_both! {
    async fn a_family_of_refresh_tokens_follows_its_model(database) {
        let world = World::new(database).await;
        let cases = Cases { cases: 64, failure_persistence: None, max_shrink_iters: 200, ..Cases::default() };
        let steps = prop::collection::vec(step(), 1..25);
        let handle = Handle::current();
        let result = tokio::task::block_in_place(|| {
            TestRunner::new(cases).run(&steps, |steps| {
                handle.block_on(world.run(&steps));
                Ok(())
            })
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }

    async fn who_presents_a_token_at_the_same_time_gets_the_same_successor(database) {
        let world = World::new(database).await;
        for _ in 0..5 {
            let first = world.family().await;
            let now = world.at(1);
            let tries = (0..8).map(|number| world.nodes[number % 2].refresh(&first.refresh_token, now));
            let answers = futures::future::join_all(tries).await;
            let next: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().refresh_token).collect();
            assert!(next.windows(2).all(|pair| pair[0] == pair[1]), "one token has one successor");
            // The successor works; then the first token is re-use and ends the family, of which the last one is.
            let last = world.nodes[0].refresh(&next[0], world.at(2)).await.unwrap();
            assert!(world.nodes[1].refresh(&first.refresh_token, world.at(2)).await.is_err());
            assert!(world.nodes[0].refresh(&last.refresh_token, world.at(2)).await.is_err());
        }
    }
}
