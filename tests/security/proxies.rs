//! Proxies: what they say of a client, and what must not be shown through them.

use crate::support::node::TestNode;
use crate::support::on_both;
use reqwest::Client;
use serde_json::{Value, json};

const PUBLIC: (&str, &str) = ("SOTTO_DEV__INSECURE", "true");
const ONE: (&str, &str) = ("SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR", "1");

/// Asks for a code with these headers; the status.
async fn ask(node: &TestNode, number: u32, headers: &[(&str, &str)]) -> u16 {
    let mut request = Client::new().post(format!("{}/v1/auth/verifications", node.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = json!({"phone": format!("+4915{number:09}"), "purpose": "registration"});
    request.json(&body).send().await.unwrap().status().as_u16()
}

async fn get(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = Client::new().get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

on_both! {
    async fn every_form_of_a_client_is_that_client(database) {
        let proxy = ("SOTTO_HTTP__TRUSTED_PROXIES", "::ffff:127.0.0.0/104");
        let node = TestNode::with(database, &[PUBLIC, ONE, proxy]).await;
        let forms = ["203.0.113.5", "203.0.113.5:4711", "1.2.3.4, 203.0.113.5,", "\"[::ffff:203.0.113.5]:1\""];
        for (number, form) in (1..).zip(forms) {
            let status = ask(&node, number, &[("x-forwarded-for", form)]).await;
            assert_eq!(status, if number == 1 { 201 } else { 429 }, "{form}");
        }
        // Somebody else is not counted with them, and the header that is not believed changes nothing.
        assert_eq!(ask(&node, 8, &[("x-forwarded-for", "[2001:db8::1]:443"), ("forwarded", "for=203.0.113.5")]).await, 201);
        assert_eq!(ask(&node, 9, &[("x-forwarded-for", "203.0.113.5"), ("forwarded", "for=192.0.2.9")]).await, 429);
    }

    async fn forwarded_is_believed_instead_where_it_is_set(database) {
        let settings = [PUBLIC, ONE, ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.1"), ("SOTTO_HTTP__FORWARDED_HEADER", "forwarded")];
        let node = TestNode::with(database, &settings).await;
        assert_eq!(ask(&node, 1, &[("forwarded", "for=\"[2001:db8::7]:1\";proto=https")]).await, 201);
        let other = [("forwarded", "for=\"x, for=\"[2001:db8::7]\""), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(ask(&node, 2, &other).await, 429);
        assert_eq!(ask(&node, 3, &[("forwarded", "for=192.0.2.1")]).await, 201);
    }

    async fn loopback_is_not_private_behind_a_proxy(database) {
        let node = TestNode::with(database, &[PUBLIC, ("SOTTO_HTTP__TRUSTED_PROXIES", "127.0.0.1")]).await;
        for path in ["/metrics", "/docs"] {
            assert_eq!(get(&format!("{}{path}", node.url), &[]).await.0, 404, "{path}");
        }
        let (_, text) = get(&format!("{}/readyz?verbose", node.url), &[]).await;
        assert!(!text.contains("[+]"), "{text}");
    }

    async fn operators_pages_are_not_shown_through_a_proxy_that_nobody_named(database) {
        let node = TestNode::start(database).await;
        for header in ["x-forwarded-for", "x-forwarded-proto", "forwarded", "via", "x-real-ip"] {
            let (status, text) = get(&format!("{}/metrics", node.url), &[(header, "a")]).await;
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{header}");
            let (_, text) = get(&format!("{}/readyz?verbose", node.url), &[(header, "a")]).await;
            assert_eq!(text, "ok\n", "{header}");
        }
        assert_eq!(get(&format!("{}/metrics", node.url), &[]).await.0, 200);
    }
}
