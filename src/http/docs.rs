//! `/docs`: the REST interface to browse, offline: every file of the page is in the program.

use std::sync::{Arc, OnceLock};

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use sotto_protocol::{ErrorCode, Problem};
use utoipa_swagger_ui::Config;

use crate::error::ApiError;

/// The page runs its own scripts and sets styles; it asks nobody but this server, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'none'";

/// `GET /docs`: leads to the page, below which its files lie.
pub async fn entrance() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/index.html")).finish()
}

/// `GET /docs/{file}`.
///
/// # Errors
/// `not_found`.
pub async fn file(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    static CONFIG: OnceLock<Arc<Config<'static>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Arc::new(Config::from("/openapi.json").validator_url("none")));
    let found = utoipa_swagger_ui::serve(&name, Arc::clone(config))
        .map_err(|_| Problem::new(ErrorCode::Internal, "the page cannot be made"))?;
    let file = found.ok_or_else(Problem::not_found)?;
    let mut answer = HttpResponse::Ok();
    if file.gzpipped {
        answer.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(answer
        .content_type(file.content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(file.bytes.into_owned()))
}
