//! The OpenAPI document and the route table say the same.

use std::collections::BTreeSet;

use serde_json::Value;
use sotto::http::{ADMIN_ROUTES, ROUTES, SHARED_ROUTES};

fn document() -> Value {
    serde_json::from_str(&sotto::http::openapi::document()).unwrap()
}

/// Each operation of the document as `METHOD /path`, with itself.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    });
    all.collect()
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let served: BTreeSet<String> = [ROUTES, SHARED_ROUTES, ADMIN_ROUTES]
        .into_iter()
        .flatten()
        // Pages for people are no part of it.
        .filter(|route| route.path != "/" && !route.path.starts_with("/docs"))
        .flat_map(|route| route.methods.iter().map(|method| format!("{method} {}", route.path)))
        .collect();
    let document = document();
    let told: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    assert_eq!(told, served);
}

#[test]
fn every_operation_tells_its_parameters_answers_and_problems() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}: the id is taken");
        assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{name}: no summary");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with(['1', '2'])), "{name}: no success");
        let path = name.split(' ').nth(1).unwrap();
        let declared: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let written: Vec<&str> = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        assert_eq!(declared, written, "{name}: path parameters");
        let is_open = ROUTES.iter().find(|route| route.path == path).is_none_or(|route| route.open.is_some());
        assert_eq!(operation["security"].as_array().unwrap().is_empty(), is_open, "{name}");
        if !is_open {
            for status in ["401", "429", "500", "503"] {
                let problem = &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/Problem", "{name}: {status}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
