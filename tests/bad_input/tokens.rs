//! Tokens that this server never gave, or gives no more: one answer on every route and at both doors of the socket.

use super::room::{BOUND, Room, refused, unchanged};
use crate::support::on_both;
use crate::support::people::second_device;
use ring::hmac;
use serde_json::{Value, json};
use sotto::http::ROUTES;
use sotto::identity::access_token::{Claims, sign};
use sotto::identity::secret_key::SecretKeys;
use sotto_client::protocol::{Binary, DeviceId, Timestamp, UserId};
use sotto_client::{HeaderMap, Rest, Socket, SocketOptions};
use std::time::Duration;
use uuid::Uuid;

/// What a token says, read from the token.
fn part(token: &str, place: usize) -> Value {
    let text = Binary::decode(token.split('.').nth(place).unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn encoded(value: &Value) -> String {
    Binary::encode(value.to_string().as_bytes())
}

/// A token of any content with a signature of any kind by any key.
fn forged(header: &Value, claims: &Value, algorithm: hmac::Algorithm, key: &[u8]) -> String {
    let body = format!("{}.{}", encoded(header), encoded(claims));
    let signature = hmac::sign(&hmac::Key::new(algorithm, key), body.as_bytes());
    format!("{body}.{}", Binary::encode(signature.as_ref()))
}

/// The one that only shows that the others would be taken if nothing were wrong with them.
const NOT_WRONG: &str = "nothing";

/// Tokens that are wrong in one way each, most of them signed with the server's own key.
fn wrong_tokens(room: &Room) -> Vec<(String, String)> {
    let keys = SecretKeys::open(&room.node.folder.path().join("secret.key")).unwrap();
    let active = keys.active();
    let key = active.access_token().expose();
    let token = &room.alice.tokens.access_token;
    let (header, claims) = (part(token, 0), part(token, 1));
    let with_header = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        forged(&header, &claims, hmac::HMAC_SHA256, key)
    };
    let with_claim = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        forged(&header, &claims, hmac::HMAC_SHA256, key)
    };
    let mut all: Vec<(String, String)> = vec![(NOT_WRONG.to_owned(), forged(&header, &claims, hmac::HMAC_SHA256, key))];
    let mut add = |what: &str, token: String| all.push((what.to_owned(), token));
    for none in ["none", "None", "NONE", "nOnE"] {
        let mut header = header.clone();
        header["alg"] = json!(none);
        add(none, format!("{}.{}.", encoded(&header), encoded(&claims)));
        add("none, signed", forged(&header, &claims, hmac::HMAC_SHA256, key));
    }
    let mut strong = header.clone();
    strong["alg"] = json!("HS512");
    add("HS512", forged(&strong, &claims, hmac::HMAC_SHA512, key));
    strong["alg"] = json!("HS384");
    add("HS384", forged(&strong, &claims, hmac::HMAC_SHA384, key));
    add("HS384 by name only", with_header("alg", json!("HS384")));
    add("RS256 by name only", with_header("alg", json!("RS256")));
    add("another key", forged(&header, &claims, hmac::HMAC_SHA256, &[7; 32]));
    add("an empty key", forged(&header, &claims, hmac::HMAC_SHA256, &[]));
    add("kid unknown", with_header("kid", json!("other")));
    add("kid a path", with_header("kid", json!("../../../dev/null")));
    add("kid null", with_header("kid", Value::Null));
    add("kid a number", with_header("kid", json!(1)));
    add("jku", with_header("jku", json!("https://evil.example/keys")));
    add("x5u", with_header("x5u", json!("https://evil.example/keys")));
    add("jwk", with_header("jwk", json!({"kty": "oct", "k": Binary::encode(&[7; 32]), "alg": "HS256"})));
    add("crit", with_header("crit", json!(["exp"])));
    for name in ["aud", "iss", "sub", "did", "sid", "gen", "iat", "exp"] {
        add(&format!("{name} of another type"), with_claim(name, json!({"x": 1})));
        let mut less = claims.clone();
        less.as_object_mut().unwrap().remove(name);
        add(&format!("no {name}"), forged(&header, &less, hmac::HMAC_SHA256, key));
    }
    add("another audience", with_claim("aud", json!("else")));
    add("another issuer", with_claim("iss", json!("else")));
    add("another user", with_claim("sub", json!(room.bob.user_id)));
    add("another device", with_claim("did", json!(room.tablet.device_id)));
    add("another family", with_claim("sid", json!(Uuid::new_v4())));
    add("an end that is too large", with_claim("exp", json!(1e300)));
    add("an end before the beginning", with_claim("exp", json!(-1)));
    let now = Timestamp::now();
    let (user, device) = (room.alice.user_id, room.alice.device_id);
    let family: Uuid = serde_json::from_value(claims["sid"].clone()).unwrap();
    let long_ago = now.minus(Duration::from_secs(100));
    let expired = Claims::new(user, device, family, 1, long_ago, now.minus(Duration::from_secs(10)));
    add("expired", sign(&keys, &expired).unwrap());
    let nobody =
        Claims::new(UserId::random(), DeviceId::random(), Uuid::new_v4(), 1, now, now.plus(Duration::from_secs(60)));
    add("nobody", sign(&keys, &nobody).unwrap());
    let (unsigned, signature) = token.rsplit_once('.').unwrap();
    add("truncated", token[..token.len() - 5].to_owned());
    add("no signature", format!("{unsigned}."));
    add("two parts", unsigned.to_owned());
    add("four parts", format!("{token}.{signature}"));
    add("a long one", "a".repeat(5000));
    add("a long tail", format!("{token}{}", "A".repeat(3000)));
    add("a refresh token", room.alice.tokens.refresh_token.clone());
    add("a word", "x".to_owned());
    add("dots", "..".to_owned());
    add("another's body", format!("{}.{}.{signature}", encoded(&header), token_body(&room.bob.tokens.access_token)));
    all
}

fn token_body(token: &str) -> &str {
    token.split('.').nth(1).unwrap()
}

async fn refused_everywhere(room: &Room, token: &str, what: &str) {
    let rest = Rest::new(&room.node.url).unwrap().with_token(token);
    for route in ROUTES.iter().filter(|route| route.open.is_none()) {
        let path = route.path.replace("{user_id}", &room.bob.user_id.to_string());
        let path = path
            .replace("{conversation_id}", &room.group.to_string())
            .replace("{message_id}", &room.message.to_string());
        for method in route.methods {
            let method = method.parse().unwrap();
            let asked = format!("{method} {path} with a token: {what}");
            let answer = room.ask(&rest, &method, &path, HeaderMap::new(), None).await;
            let problem = refused(&answer, 401, "unauthenticated", &asked);
            assert!(token.len() < 10 || !problem.to_string().contains(token), "{asked}: the token is echoed");
        }
    }
}

async fn refused_at_the_socket(room: &Room, token: &str, what: &str) {
    let options = SocketOptions { timeout: BOUND, ..SocketOptions::hello(token) };
    let mut socket = Socket::open(&room.node.url, &options).await.unwrap();
    assert_eq!(socket.closed_within(BOUND).await.unwrap(), Some(4501), "hello with a token: {what}");
    // In a header it counts as absent, and hello is waited for.
    let options = SocketOptions { timeout: BOUND, ..SocketOptions::header(token) };
    let mut socket = Socket::open(&room.node.url, &options).await.unwrap();
    socket.send("ping", &json!({})).await.unwrap();
    assert_eq!(socket.closed_within(BOUND).await.unwrap(), Some(4500), "a header with a token: {what}");
}

on_both! {
    async fn forged_and_expired_tokens_open_nothing(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let tokens = wrong_tokens(&room);
        assert!(tokens.len() > 50, "{} tokens", tokens.len());
        for (what, token) in tokens {
            if what == NOT_WRONG {
                Rest::new(&room.node.url).unwrap().with_token(token).me().await.expect("the forger's tools are right");
                continue;
            }
            refused_everywhere(&room, &token, &what).await;
            refused_at_the_socket(&room, &token, &what).await;
        }
        let rest = Rest::new(&room.node.url).unwrap();
        for value in ["", "Bearer", "Bearer ", "Basic QTpC", "bearer x y", "Token x", "Bearer\u{a0}x", "é"] {
            let headers = HeaderMap::from_iter([("authorization".parse().unwrap(), value.parse().unwrap())]);
            let answer = room.ask(&rest, &sotto_client::Method::GET, "/v1/auth/me", headers, None).await;
            refused(&answer, 401, "unauthenticated", value);
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn tokens_of_an_ended_family_open_nothing(database) {
        let mut room = Room::open(database).await;
        room.node.expect_log("a refresh token was used twice");
        let gone = second_device(&room.node, &room.carol, "gone").await;
        gone.rest.logout().await.unwrap();
        let stolen = second_device(&room.node, &room.carol, "stolen").await;
        let rest = Rest::new(&room.node.url).unwrap();
        let next = rest.refresh(&stolen.tokens.refresh_token).await.unwrap();
        rest.with_token(&next.access_token).me().await.unwrap();
        assert!(rest.refresh(&stolen.tokens.refresh_token).await.is_err());
        let before = room.view().await;
        for (what, token) in [("signed out", &gone.tokens), ("re-used", &stolen.tokens), ("its successor", &next)] {
            refused_everywhere(&room, &token.access_token, what).await;
            refused_at_the_socket(&room, &token.access_token, what).await;
            let body = json!({"refresh_token": token.refresh_token}).to_string().into_bytes();
            let answer = room.ask(&rest, &sotto_client::Method::POST, "/v1/auth/refresh", HeaderMap::new(), Some(body)).await;
            refused(&answer, 401, "unauthenticated", what);
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }
}
