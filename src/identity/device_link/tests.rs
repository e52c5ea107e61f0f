//! Sequences of everything that can be done about links, against the state machine that the database asks.
//!
//! A witness stands beside it that knows only the rules: who has shown what, when, and what had happened to the link before.
//! Whatever is let through must be right by the rules, and what is right by the rules must be let through. 2,000 sequences are
//! made, or as many more as `PROPTEST_CASES` says; the ignored test makes 100,000.

use super::*;
use crate::identity::xeddsa::SigningKey;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use sotto_protocol::UserId;
use sotto_schema::device_link::{Link, REPEAT, Stage};

const BEGIN: Timestamp = Timestamp::from_millis(1_795_253_400_000);
const TTL: Duration = Duration::from_secs(300);
const ACCOUNTS: usize = 3;

/// Whether a part is that of the link, or of another one, or invented.
#[derive(Clone, Debug)]
enum From {
    Itself,
    Other(Index),
    Nowhere,
}

#[derive(Clone, Debug)]
struct Code {
    link: Index,
    account: usize,
    challenge: From,
    key: From,
}

#[derive(Clone, Debug)]
struct Ask {
    link: Index,
    secret: From,
    challenge: From,
    /// Whose key has signed.
    key: From,
    /// For which link.
    text: From,
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Begin,
    Scan(Code),
    Confirm {
        code: Code,
        proves: bool,
    },
    Refuse(Code),
    Collect(Ask),
    /// Two at once at two nodes: the database lets them in one after the other.
    Race(Ask, Ask),
    /// The device uses its tokens.
    UseTokens(Index),
}

fn parts(weight: u32) -> impl Strategy<Value = From> {
    prop_oneof![weight => Just(From::Itself), 2 => any::<Index>().prop_map(From::Other), 1 => Just(From::Nowhere)]
}

fn codes() -> impl Strategy<Value = Code> {
    (any::<Index>(), 0..ACCOUNTS, parts(30), parts(30)).prop_map(|(link, account, challenge, key)| Code {
        link,
        account,
        challenge,
        key,
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    (any::<Index>(), parts(40), parts(40), parts(40), parts(40)).prop_map(|(link, secret, challenge, key, text)| Ask {
        link,
        secret,
        challenge,
        key,
        text,
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (0..40_u64).prop_map(Act::Wait),
        1 => (30..400_u64).prop_map(Act::Wait),
        2 => Just(Act::Begin),
        8 => codes().prop_map(Act::Scan),
        8 => (codes(), prop::bool::weighted(0.8)).prop_map(|(code, proves)| Act::Confirm { code, proves }),
        1 => codes().prop_map(Act::Refuse),
        8 => asks().prop_map(Act::Collect),
        3 => (asks(), asks()).prop_map(|(one, other)| Act::Race(one, other)),
        1 => any::<Index>().prop_map(Act::UseTokens),
    ];
    prop::collection::vec(act, 1..50)
}

/// A link as the server has it, what its parties know, and the witness.
struct One {
    id: LinkId,
    link: Link,
    challenge_hash: Vec<u8>,
    secret_hash: Vec<u8>,
    challenge: Vec<u8>,
    secret: Vec<u8>,
    key: u32,
    family: Option<Uuid>,
    // What the witness knows.
    ends: Timestamp,
    first: Option<usize>,
    confirmed: bool,
    refused: bool,
    joined: Option<(Timestamp, Uuid)>,
    uses: bool,
}

/// A proof as the server sees it; that a real one is bound in the same way is a test of its own.
#[derive(PartialEq, Eq)]
struct Proof {
    key: u32,
    text: String,
}

struct World {
    now: Timestamp,
    keys: SecretKeys,
    accounts: [UserId; ACCOUNTS],
    links: Vec<One>,
    count: u32,
    joins: u32,
}

impl World {
    fn new() -> Self {
        let keys = SecretKeys::random().unwrap();
        let accounts = std::array::from_fn(|_| UserId::random());
        let mut world = Self { now: BEGIN, keys, accounts, links: Vec::new(), count: 0, joins: 0 };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.count += 1;
        let (id, ends) = (LinkId::random(), self.now.plus(TTL));
        let (challenge, secret) = (Uuid::new_v4().as_bytes().to_vec(), Uuid::new_v4().as_bytes().to_vec());
        self.links.push(One {
            id,
            link: Link::begun(ends),
            challenge_hash: hash(&self.keys, id, Part::Challenge, &challenge),
            secret_hash: hash(&self.keys, id, Part::Secret, &secret),
            challenge,
            secret,
            key: self.count,
            family: None,
            ends,
            first: None,
            confirmed: false,
            refused: false,
            joined: None,
            uses: false,
        });
    }

    /// The link that a part is of; none when it is invented.
    fn source(&self, at: usize, from: &From) -> Option<usize> {
        match from {
            From::Itself => Some(at),
            From::Other(index) => Some(index.index(self.links.len())),
            From::Nowhere => None,
        }
    }

    fn bytes(&self, source: Option<usize>, of: impl Fn(&One) -> &Vec<u8>) -> Vec<u8> {
        source.map_or_else(|| vec![7; 16], |at| of(&self.links[at]).clone())
    }

    /// What the server finds a code to be, and what the witness knows of it.
    fn compare(&self, code: &Code) -> (usize, bool, bool) {
        let at = code.link.index(self.links.len());
        let (challenge, key) = (self.source(at, &code.challenge), self.source(at, &code.key));
        let shown = self.bytes(challenge, |one| &one.challenge);
        let one = &self.links[at];
        let is_right = matches(&self.keys, one.id, Part::Challenge, &shown, &one.challenge_hash)
            && key.is_some_and(|key| self.links[key].key == one.key);
        (at, is_right, challenge == Some(at) && key == Some(at))
    }

    fn compare_ask(&self, ask: &Ask) -> (usize, bool, bool) {
        let at = ask.link.index(self.links.len());
        let [secret, challenge, key, text] =
            [&ask.secret, &ask.challenge, &ask.key, &ask.text].map(|from| self.source(at, from));
        let one = &self.links[at];
        let (shown, said) = (self.bytes(secret, |one| &one.secret), self.bytes(challenge, |one| &one.challenge));
        let proof = key.zip(text).map(|(key, text)| {
            let signed = &self.links[text];
            Proof { key: self.links[key].key, text: proof_text(signed.id, &signed.challenge) }
        });
        let is_right = matches(&self.keys, one.id, Part::Secret, &shown, &one.secret_hash)
            && matches(&self.keys, one.id, Part::Challenge, &said, &one.challenge_hash)
            && proof == Some(Proof { key: one.key, text: proof_text(one.id, &said) });
        (at, is_right, [secret, challenge, key, text] == [Some(at); 4])
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(seconds) => self.now = self.now.plus(Duration::from_secs(*seconds)),
            Act::Begin => self.begin(),
            Act::Scan(code) => self.scan(code),
            Act::Confirm { code, proves } => self.confirm(code, *proves),
            Act::Refuse(code) => self.refuse(code),
            Act::Collect(ask) => self.collect(ask),
            Act::Race(one, other) => {
                self.collect(one);
                self.collect(other);
            }
            Act::UseTokens(index) => {
                let at = index.index(self.links.len());
                let one = &mut self.links[at];
                one.uses = one.joined.is_some();
            }
        }
    }

    fn scan(&mut self, code: &Code) {
        let (at, is_right, knows) = self.compare(code);
        let (now, account) = (self.now, self.accounts[code.account]);
        let one = &mut self.links[at];
        let sees = one.link.scan(account, is_right, now);
        let is_free = one.first.is_none_or(|first| first == code.account);
        let may = knows && one.ends > now && is_free && !one.refused && one.joined.is_none();
        assert_eq!(sees, may);
        if may {
            one.first = Some(code.account);
        }
    }

    fn confirm(&mut self, code: &Code, proves: bool) {
        let (at, is_right, knows) = self.compare(code);
        let (now, account) = (self.now, self.accounts[code.account]);
        let one = &mut self.links[at];
        let deciding = one.link.confirming(account, is_right, now);
        let may = knows && one.ends > now && one.first == Some(code.account) && !one.refused;
        let expected = match (may, one.confirmed) {
            (false, _) => Deciding::Unknown,
            (true, true) => Deciding::Already,
            (true, false) => Deciding::Open,
        };
        assert_eq!(deciding, expected);
        if deciding == Deciding::Open && proves {
            one.link.confirm(account, is_right, now);
            one.confirmed = true;
        }
    }

    fn refuse(&mut self, code: &Code) {
        let (at, is_right, knows) = self.compare(code);
        let (now, account) = (self.now, self.accounts[code.account]);
        let one = &mut self.links[at];
        let decided = one.link.refuse(account, is_right, now);
        let may = knows && one.ends > now && one.first == Some(code.account) && one.joined.is_none();
        let expected = match (may, one.refused) {
            (false, _) => Deciding::Unknown,
            (true, true) => Deciding::Already,
            (true, false) => Deciding::Open,
        };
        assert_eq!(decided, expected);
        one.refused |= may;
    }

    fn collect(&mut self, ask: &Ask) {
        let (at, is_right, knows) = self.compare_ask(ask);
        let now = self.now;
        let first = self.links[at].first.map(|first| self.accounts[first]);
        let one = &mut self.links[at];
        let collecting = one.link.collecting(is_right, now);
        match collecting {
            Collecting::Join(account) => {
                assert!(knows && one.confirmed && !one.refused && one.ends > now, "tokens without right");
                assert_eq!(Some(account), first, "another account");
                assert!(one.joined.is_none(), "tokens twice");
                one.link.use_up(now);
                let family = Uuid::new_v4();
                one.family = Some(family);
                one.joined = Some((now, family));
                self.joins += 1;
            }
            Collecting::Again => {
                let (when, family) = one.joined.expect("tokens again that never were");
                assert!(knows && now.since(when) <= REPEAT);
                // What the statement in the database adds: a family that was used is not given again.
                let given = one.family.filter(|_| !one.uses);
                assert_eq!(given, (!one.uses).then_some(family), "another family");
            }
            Collecting::Waiting { scanned } => {
                assert!(knows && !one.confirmed && !one.refused && one.ends > now);
                assert_eq!(scanned, one.first.is_some());
            }
            Collecting::Unknown => {
                let may_repeat = one.joined.is_some_and(|(when, _)| now.since(when) <= REPEAT);
                let is_alive = one.joined.is_none() && one.ends > now && !one.refused;
                assert!(!knows || !(may_repeat || is_alive), "a right is denied: {:?}", one.link);
            }
        }
    }
}

fn run(cases: u32) -> u32 {
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let joins = std::cell::Cell::new(0);
    let outcome = runner.run(&acts(), |acts| {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
        joins.set(joins.get() + world.joins);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    joins.get()
}

#[test]
fn no_sequence_gives_tokens_to_the_wrong_or_twice() {
    let cases = ProptestConfig::default().cases.max(2_000);
    // The sequences must get there, or they show nothing.
    assert!(run(cases) > cases / 20);
}

#[test]
#[ignore = "minutes: 100,000 sequences"]
fn no_sequence_of_a_hundred_thousand() {
    assert!(run(100_000) > 5_000);
}

#[test]
fn stages_come_back_from_their_words() {
    for stage in [Stage::Begun, Stage::Scanned, Stage::Confirmed, Stage::Refused, Stage::Used] {
        assert_eq!(Stage::parse(stage.as_str()), Some(stage));
    }
    assert_eq!(Stage::parse(""), None);
}

#[test]
fn a_proof_is_bound_to_key_link_and_challenge() {
    let (key, other) = (SigningKey::from_bytes([7; 32]), SigningKey::from_bytes([8; 32]));
    let (id, challenge) = (LinkId::random(), [9; SECRET_LEN]);
    let proof = key.sign(proof_text(id, &challenge).as_bytes(), &[1; 64]).unwrap();
    let holds = |suite, key: &[u8], id, challenge: &[u8]| proof_holds(suite, key, None, id, challenge, &proof);
    assert!(holds(Suite::Signal, &key.public(), id, &challenge));
    assert!(!holds(Suite::Signal, &other.public(), id, &challenge));
    assert!(!holds(Suite::Signal, &key.public(), LinkId::random(), &challenge));
    assert!(!holds(Suite::Signal, &key.public(), id, &[8; SECRET_LEN]));
    assert!(!holds(Suite::Olm, &key.public(), id, &challenge));
}

#[test]
fn a_hash_belongs_to_link_part_and_secret() {
    let (keys, others) = (SecretKeys::random().unwrap(), SecretKeys::random().unwrap());
    let (id, secret) = (LinkId::random(), [1; SECRET_LEN]);
    let stored = hash(&keys, id, Part::Secret, &secret);
    assert!(matches(&keys, id, Part::Secret, &secret, &stored));
    assert!(!matches(&keys, id, Part::Challenge, &secret, &stored));
    assert!(!matches(&keys, LinkId::random(), Part::Secret, &secret, &stored));
    assert!(!matches(&keys, id, Part::Secret, &[2; SECRET_LEN], &stored));
    assert!(!matches(&others, id, Part::Secret, &secret, &stored));
}
