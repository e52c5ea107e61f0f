//! REST: the route table, and how an application is put together from it.
//!
//! [`app`] makes the application of one listener. From outside to inside a request passes [`exchange::exchange`]
//! (id, log, headers, problems), compression, the route table, [`exchange::in_time`], and, unless its route is open,
//! [`allowance::admit`] (who asks, and how often); if it is open, [`allowance::admit_stranger`] (how often a network asks).

pub mod account;
pub mod address;
pub mod allowance;
pub mod auth;
pub mod body;
pub mod conversations;
pub mod cors;
pub mod cursor;
pub mod device_link;
pub mod devices;
pub mod docs;
pub mod exchange;
pub mod health;
pub mod history;
pub mod idempotency;
pub mod keys;
pub mod messages;
pub mod metrics;
pub mod openapi;
pub mod pages;
pub mod query;
pub mod registration_lock;
pub mod second_factor;
pub mod socket;
pub mod strangers;
pub mod sync;
pub mod users;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{ALLOW, HeaderValue, UPGRADE};
use actix_web::middleware::{Compress, Next, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, guard, web};
use sotto_actors::node::Node;
use sotto_protocol::{ErrorCode, Problem};

use self::strangers::Open;
use crate::config::{Config, http::Http};
use crate::error::ApiError;
use crate::identity::Identity;

/// What the handlers of this folder work with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The node.
    pub node: Node,
    /// Sign-in and the key directory.
    pub identity: web::Data<Identity>,
    /// Makes and reads cursors.
    pub cursors: cursor::Cursors,
    /// Looks at the node's health.
    pub health: health::Pulse,
    /// Counts what is asked without a token.
    pub strangers: strangers::Strangers,
    /// What the bodies of such requests may have together.
    pub open_bodies: body::OpenBodies,
}

/// Which listener an application is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `http.listen`, with what operators need only if nobody else reaches it.
    Main {
        /// Whether `/metrics` and `/docs` are served here.
        with_admin: bool,
    },
    /// `http.admin_listen`.
    Admin,
}

impl Door {
    /// The main listener of a configuration.
    #[must_use]
    pub fn main(config: &Http) -> Self {
        Self::Main { with_admin: config.serves_admin_here() }
    }

    /// Whether what operators need is served here.
    #[must_use]
    pub const fn serves_operators(self) -> bool {
        matches!(self, Self::Admin | Self::Main { with_admin: true })
    }
}

/// Declares tables of routes: a constant that tells them and a function that serves them. GET serves HEAD too.
macro_rules! tables {
    ($($(#[doc = $doc:literal])+ $table:ident by $serve:ident { $($path:literal $access:tt { $($method:ident $handler:path),+ })+ })+) => {$(
        $(#[doc = $doc])+
        pub const $table: &[Route] = &[$(Route { path: $path, methods: &[$(stringify!($method)),+], open: tables!(@open $access) }),+];

        $(#[doc = $doc])+
        pub fn $serve(cfg: &mut web::ServiceConfig) {
            $(
                let resource = web::resource($path).default_service(web::to(no_such_method));
                $(let resource = resource.route(tables!(@route $method, $handler, $access));)+
                cfg.service(resource);
            )+
        }
    )+};
    (@open (open $kind:ident)) => { Some(Open::$kind) };
    (@open operators) => { Some(Open::Page) };
    (@open signed_in) => { None };
    (@route $method:ident, $handler:path, (open $kind:ident)) => {
        method(stringify!($method))
            .to($handler)
            .wrap(from_fn(|request: ServiceRequest, next: Next<BoxBody>| allowance::admit_stranger(Open::$kind, request, next)))
            .wrap(from_fn(exchange::in_time))
    };
    (@route $method:ident, $handler:path, operators) => {
        method(stringify!($method)).to($handler).wrap(from_fn(allowance::admit_operators)).wrap(from_fn(exchange::in_time))
    };
    (@route $method:ident, $handler:path, signed_in) => {
        method(stringify!($method)).to($handler).wrap(from_fn(allowance::admit)).wrap(from_fn(exchange::in_time))
    };
}

/// A path and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// The methods, but HEAD.
    pub methods: &'static [&'static str],
    /// The kind that requests without an access token are counted as; `None`: the route needs a token.
    pub open: Option<Open>,
}

tables! {
    /// The REST interface (docs/protocol.md, section 2).
    ROUTES by routes {
        "/v1/auth/verifications" (open SignIn) { POST auth::start_verification }
        "/v1/auth/register" (open SignIn) { POST auth::register }
        "/v1/auth/login" (open SignIn) { POST auth::login }
        "/v1/auth/recover" (open SignIn) { POST auth::recover }
        "/v1/auth/refresh" (open Refresh) { POST auth::refresh }
        "/v1/auth/logout" signed_in { POST auth::logout }
        "/v1/auth/me" signed_in { GET auth::me }
        "/v1/auth/totp" signed_in { GET second_factor::state, POST second_factor::set_up }
        "/v1/auth/totp/enable" signed_in { POST second_factor::enable }
        "/v1/auth/totp/undo" signed_in { POST second_factor::undo }
        "/v1/auth/totp/disable" signed_in { POST second_factor::disable }
        "/v1/auth/backup_codes" signed_in { POST second_factor::renew_backup_codes }
        "/v1/auth/registration_lock" signed_in { GET registration_lock::state, PUT registration_lock::set }
        "/v1/auth/registration_lock/remove" signed_in { POST registration_lock::remove }
        "/v1/auth/phone" signed_in { POST account::change_phone }
        "/v1/auth/deletion" signed_in { GET account::show, POST account::request, DELETE account::cancel }
        "/v1/auth/export" signed_in { POST account::export }
        "/v1/auth/trail" signed_in { GET history::trail }
        "/v1/auth/logins" signed_in { GET history::logins }
        "/v1/auth/links" (open SignIn) { POST device_link::begin }
        "/v1/auth/links/{link_id}/scan" signed_in { POST device_link::scan }
        "/v1/auth/links/{link_id}/confirm" signed_in { POST device_link::confirm }
        "/v1/auth/links/{link_id}/refuse" signed_in { POST device_link::refuse }
        "/v1/auth/links/{link_id}/tokens" (open Refresh) { POST device_link::collect }
        "/v1/devices" signed_in { GET devices::list, DELETE devices::remove_others }
        "/v1/devices/{device_id}" signed_in { PATCH devices::rename, DELETE devices::remove }
        "/v1/devices/{device_id}/verify" signed_in { POST devices::verify }
        "/v1/keys" signed_in { PUT keys::put }
        "/v1/keys/count" signed_in { GET keys::count }
        "/v1/users/{user_id}/keys" signed_in { GET keys::of_user }
        "/v1/users/lookup" signed_in { POST users::lookup }
        "/v1/conversations" signed_in { GET conversations::list, POST conversations::create }
        "/v1/conversations/{conversation_id}" signed_in { GET conversations::show }
        "/v1/conversations/{conversation_id}/members" signed_in { GET conversations::members, POST conversations::add_members, DELETE conversations::remove_members }
        "/v1/conversations/{conversation_id}/messages" signed_in { GET messages::history }
        "/v1/conversations/{conversation_id}/read" signed_in { PUT conversations::mark_read }
        "/v1/messages" signed_in { POST messages::send }
        "/v1/messages/{message_id}/read" signed_in { PUT messages::mark_read }
        "/v1/sync" signed_in { GET sync::read }
        "/v1/sync/ack" signed_in { POST sync::ack }
        "/v1/ws" (open Socket) { GET upgrade_needed }
    }
    /// On every listener.
    SHARED_ROUTES by shared_routes {
        "/" (open Page) { GET pages::index }
        "/health" (open Probe) { GET health::health }
        "/livez" (open Probe) { GET health::livez }
        "/readyz" (open Probe) { GET health::readyz }
        "/openapi.json" (open Page) { GET openapi::openapi }
    }
    /// For operators: on the admin listener, or on a main one that only this machine reaches, and not through a proxy.
    ADMIN_ROUTES by admin_routes {
        "/metrics" operators { GET metrics::metrics }
        "/docs" operators { GET docs::entrance }
        "/docs/{file}" operators { GET docs::file }
    }
}

/// The application of one listener.
pub fn app(
    services: &Services,
    config: &Config,
    door: Door,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    metrics::install();
    App::new()
        .app_data(web::ThinData(services.node.clone()))
        .app_data(services.identity.clone())
        .app_data(web::ThinData(services.clone()))
        .app_data(web::ThinData(door))
        .app_data(web::ThinData(exchange::BodyWithin(config.http.request_timeout.duration())))
        .app_data(web::Data::new(address::TrustedProxies::of(&config.http)))
        .app_data(web::Data::new(cors::AllowedOrigins(config.http.allowed_origins.clone())))
        .configure(shared_routes)
        .configure(|cfg| {
            if door != Door::Admin {
                routes(cfg);
            }
            if door.serves_operators() {
                admin_routes(cfg);
            }
        })
        .default_service(web::to(nowhere))
        .wrap(Compress::default())
        .wrap(from_fn(exchange::exchange))
}

/// A method, HEAD included where GET is.
fn method(name: &'static str) -> actix_web::Route {
    match name {
        "GET" => web::route().guard(guard::Any(guard::Get()).or(guard::Head())),
        "POST" => web::post(),
        "PUT" => web::put(),
        "DELETE" => web::delete(),
        "PATCH" => web::patch(),
        // No route has another, and one that had would never be reached.
        _ => web::route().guard(guard::fn_guard(|_| false)),
    }
}

/// 204.
fn nothing() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

async fn nowhere() -> Result<HttpResponse, ApiError> {
    Err(Problem::not_found().into())
}

/// `GET /v1/ws` without an upgrade; real upgrades never reach the application.
#[utoipa::path(get, path = "/v1/ws", tag = "socket", responses(
    (status = 101, description = "With `Upgrade: websocket` and the subprotocol `sotto.v1.json`: the socket"),
    (status = 426, description = "Without: `invalid_frame`", body = Problem, content_type = "application/problem+json"),
))]
async fn upgrade_needed() -> HttpResponse {
    let mut problem = Problem::new(ErrorCode::InvalidFrame, "this path takes a WebSocket: upgrade the connection");
    problem.status = 426;
    let mut response = HttpResponse::from_error(ApiError::from(problem));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

async fn no_such_method(request: HttpRequest) -> HttpResponse {
    let pattern = request.match_pattern().unwrap_or_default();
    let tables = [ROUTES, SHARED_ROUTES, ADMIN_ROUTES];
    let route = tables.into_iter().flatten().find(|route| route.path == pattern);
    let mut methods: Vec<&str> = route.map(|route| route.methods.to_vec()).unwrap_or_default();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    let problem = Problem::new(ErrorCode::MethodNotAllowed, format!("this path takes {}", methods.join(", ")));
    let mut response = HttpResponse::from_error(ApiError::from(problem));
    if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}
