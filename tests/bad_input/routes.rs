//! REST: each route of the route table with each kind of wrong body, parameter and header.

use super::cases::{Case, cases};
use super::change::{May, nested, no_json, with, without};
use super::room::{Room, points, problem, refused, unchanged};
use crate::support::on_both;
use serde_json::Value;
use sotto::http::ROUTES;
use sotto_client::HeaderMap;
use std::collections::BTreeSet;

impl Case {
    fn says(&self, what: &str) -> String {
        let what: String = what.chars().take(200).collect();
        format!("{} {} with {what}", self.method, self.route)
    }

    /// Sends a body as Alice.
    async fn send(&self, room: &Room, body: impl Into<Vec<u8>>) -> sotto_client::rest::RawAnswer {
        room.ask(&room.alice.rest, &self.method, &self.path, HeaderMap::new(), Some(body.into())).await
    }
}

/// The cases with a body, and their bodies.
fn with_body(cases: &[Case]) -> impl Iterator<Item = (&Case, &Value)> {
    cases.iter().filter_map(|case| Some((case, case.body.as_ref()?)))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

on_both! {
    async fn every_route_refuses_wrong_members_and_says_where(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let cases = cases(&room);
        let table: BTreeSet<String> = ROUTES
            .iter()
            .flat_map(|route| route.methods.iter().map(|method| format!("{method} {}", route.path)))
            .collect();
        let told: BTreeSet<String> = cases.iter().map(|case| format!("{} {}", case.method, case.route)).collect();
        assert_eq!(told, table, "each route has a row in cases.rs");
        for (case, body) in with_body(&cases) {
            if let Some((status, code)) = case.outcome {
                refused(&case.send(&room, body.to_string()).await, status, code, &case.says("its own body"));
            }
            for member in &case.members {
                for value in member.wrong() {
                    let asked = case.says(&format!("{} = {value}", member.pointer));
                    let answer = case.send(&room, with(body, member.pointer, &value)).await;
                    points(&refused(&answer, 422, "validation_failed", &asked), member.pointer, &asked);
                }
                let without_it = (member.may != May::Neither).then(|| without(body, member.pointer));
                match (member.may, case.outcome) {
                    (May::NotBeAbsent, _) => {
                        let asked = case.says(&format!("no {}", member.pointer));
                        let answer = case.send(&room, without_it.unwrap()).await;
                        points(&refused(&answer, 422, "validation_failed", &asked), member.pointer, &asked);
                    }
                    // What may be absent may be null, and neither changes what comes of the request.
                    (May::BeAbsent, Some((status, code))) => {
                        for body in [without_it.unwrap(), with(body, member.pointer, "null")] {
                            let asked = case.says(&format!("{} absent or null", member.pointer));
                            refused(&case.send(&room, body).await, status, code, &asked);
                        }
                    }
                    _ => {}
                }
            }
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn every_route_refuses_what_is_no_object_and_what_is_too_large(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let cases = cases(&room);
        for (case, body) in with_body(&cases) {
            // A read mark by message needs no body.
            let needs_none = case.route == "/v1/messages/{message_id}/read";
            for text in no_json().into_iter().filter(|text| !(needs_none && text.is_empty())) {
                let asked = case.says(&String::from_utf8_lossy(&text));
                refused(&case.send(&room, text).await, 400, "invalid_frame", &asked);
            }
            let text = body.to_string();
            let cut = &text[..text.len() - 1];
            refused(&case.send(&room, cut).await, 400, "invalid_frame", &case.says("a cut body"));
            let tail = format!("{text}{text}");
            refused(&case.send(&room, tail).await, 400, "invalid_frame", &case.says("two bodies"));
            let deep = format!("{cut},\"unknown\":{}}}", nested(32));
            refused(&case.send(&room, deep).await, 400, "invalid_frame", &case.says("something deep"));
            for other in ["[]", "7", "\"x\"", "null", "true", "[{}]"] {
                refused(&case.send(&room, other).await, 422, "validation_failed", &case.says(other));
            }
            let values: Vec<&Value> = body.as_object().unwrap().values().collect();
            let listed = serde_json::to_string(&values).unwrap();
            refused(&case.send(&room, listed).await, 422, "validation_failed", &case.says("a list of its values"));
            let pointer = case.members[0].pointer;
            let twice = format!("{cut},\"{}\":{}}}", &pointer[1..], body.pointer(pointer).unwrap());
            refused(&case.send(&room, twice).await, 422, "validation_failed", &case.says("a member twice"));

            let large = format!("{text}{}", " ".repeat(case.limit + 1 - text.len()));
            refused(&case.send(&room, large.as_str()).await, 413, "payload_too_large", &case.says("a large body"));
            if let Some((status, code)) = case.outcome {
                let fits = &large[..case.limit];
                refused(&case.send(&room, fits).await, status, code, &case.says("a body that just fits"));
                let unknown = format!("{cut},\"unknown\":{},\"x\":\"\\ud800\",\"y\":1e400}}", nested(31));
                refused(&case.send(&room, unknown).await, status, code, &case.says("unknown members"));
            }
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn every_route_refuses_wrong_headers(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let cases = cases(&room);
        for (case, body) in with_body(&cases) {
            let ask = async |pairs: &[(&'static str, &str)], body: Option<String>| {
                let rest = &room.alice.rest;
                room.ask(rest, &case.method, &case.path, headers(pairs), body.map(String::into_bytes)).await
            };
            // A read mark by message needs no body.
            if case.route != "/v1/messages/{message_id}/read" {
                refused(&ask(&[], None).await, 415, "unsupported_media_type", &case.says("no body"));
            }
            for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonx"] {
                let answer = ask(&[("content-type", kind)], Some(body.to_string())).await;
                refused(&answer, 415, "unsupported_media_type", &case.says(kind));
            }
            for coding in ["gzip", "br", "nonsense"] {
                let answer = ask(&[("content-encoding", coding)], Some(body.to_string())).await;
                refused(&answer, 415, "unsupported_media_type", &case.says(coding));
            }
        }
        for case in cases.iter().filter(|case| ["/v1/messages", "/v1/conversations"].contains(&case.route)) {
            let Some(body) = &case.body else { continue };
            for key in ["", "a b", "\t", &"k".repeat(256), "é", "a\u{7f}"] {
                // What may not stand in a header at all is for tcp.rs.
                let Ok(value) = key.parse() else { continue };
                let headers = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), value)]);
                let body = Some(body.to_string().into_bytes());
                let answer = room.ask(&room.alice.rest, &case.method, &case.path, headers, body).await;
                let asked = case.says(&format!("the key {key:?}"));
                let problem = refused(&answer, 422, "validation_failed", &asked);
                assert_eq!(problem["errors"][0]["parameter"], "Idempotency-Key", "{asked}");
            }
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn every_route_refuses_wrong_parameters_and_ignores_unknown_ones(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        for case in cases(&room) {
            for (name, values) in case.queries {
                for value in *values {
                    let asked = case.says(&format!("{name}={value}"));
                    let answer = room.alice(&case.method, &format!("{}?{name}={value}", case.path), None).await;
                    let problem = refused(&answer, 422, "validation_failed", &asked);
                    assert_eq!(problem["errors"][0]["parameter"], *name, "{asked}");
                }
                if !["device_id", "claim"].contains(name) {
                    let answer = room.alice(&case.method, &format!("{}?{name}=1&{name}=1", case.path), None).await;
                    refused(&answer, 422, "validation_failed", &case.says("a parameter twice"));
                }
            }
            let is_harmless = case.method != sotto_client::Method::DELETE && case.route != "/v1/auth/logout";
            if case.body.is_none() && is_harmless && case.route != "/v1/ws" {
                let separator = if case.route.ends_with("/keys") { "?claim=false&" } else { "?" };
                // The one that makes something without being told what.
                let good = if case.method == sotto_client::Method::POST { 201 } else { 200 };
                for unknown in ["x=1", "x", "=", "&&", "%ff=%00", "limit[]=x", &format!("x={}", "y".repeat(4000))] {
                    let answer = room.alice(&case.method, &format!("{}{separator}{unknown}", case.path), None).await;
                    assert_eq!(answer.status, good, "{}", case.says(unknown));
                }
                // What nobody reads may be anything.
                let path = format!("{}{separator}x=1", case.path);
                let answer = room.alice(&case.method, &path, Some("no JSON")).await;
                assert_eq!(answer.status, good, "{}", case.says("a body that nobody reads"));
            }
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn wrong_ids_in_paths_are_nothing(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        for case in cases(&room).iter().filter(|case| case.route.contains('{')) {
            let (head, rest) = case.route.split_once('{').unwrap();
            let (_, tail) = rest.split_once('}').unwrap();
            let unknown = uuid::Uuid::new_v4().to_string();
            let long = "a".repeat(5000);
            let mut ids = vec![
                "x", "0", "-1", "null", "%00", "%ff", "..%2f..%2fetc", "%C3%A9", "%F0%9F%92%A9", "*", "'--", &long,
                &unknown, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ];
            let theirs = if head == "/v1/messages/" { room.their_message.to_string() } else { room.theirs.to_string() };
            ids.push(&theirs);
            for id in ids {
                let body = case.body.as_ref().map(Value::to_string);
                let answer = room.alice(&case.method, &format!("{head}{id}{tail}"), body.as_deref()).await;
                refused(&answer, 404, "not_found", &case.says(&format!("the id {id}")));
            }
        }
        for path in ["/v1", "/v1/", "/v1/auth/me/", "/v1//auth/me", "/v2/auth/me", "/V1/auth/me", "/%00", "/.env", "/v1/ws/x"] {
            let answer = room.alice(&sotto_client::Method::GET, path, None).await;
            assert_eq!(problem(&answer, path)["code"], "not_found", "{path}");
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }
}
