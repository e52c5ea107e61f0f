//! `GET /`: a page for people who wonder what answers here.

use actix_web::http::header;
use actix_web::{HttpResponse, web};

use super::Door;

/// The page has a style of its own and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'none'";

/// The page, with `{docs}` where the link to the documentation stands.
const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sotto</title>\
    <meta name=\"viewport\" content=\"width=device-width\">\
    <style>body{font:16px/1.6 system-ui,sans-serif;max-width:36em;margin:12vh auto;padding:0 1.5em;color:#222;\
    background:#fafaf7}h1{font-weight:600;margin:0}p{margin:.6em 0}a{color:#0b6157}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181a1b}a{color:#6ec9bb}}</style>\
    <h1>Sotto</h1><p>A realtime server for end-to-end-encrypted messengers. It carries messages that it cannot read.\
    <p>{docs}<a href=\"/openapi.json\">OpenAPI document</a> · <a href=\"/health\">Health</a></html>";

/// `GET /`.
pub async fn index(door: web::ThinData<Door>) -> HttpResponse {
    let docs = if door.serves_operators() { "<a href=\"/docs\">REST interface</a> · " } else { "" };
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(PAGE.replace("{docs}", docs))
}
