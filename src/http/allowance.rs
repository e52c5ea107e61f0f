//! Admission of requests: limits for signed-in users and for strangers, and operators' pages that no proxy may pass on.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, web};
use sotto_actors::node::Node;
use sotto_protocol::{ErrorCode, Problem};

use super::Services;
use super::address::{ClientAddress, is_forwarded};
use super::auth::Caller;
use super::strangers::Open;
use crate::error::ApiError;
use crate::listener::served::Served;

/// The layer before every handler that is not open. Handlers find the caller in the request's extensions.
///
/// # Errors
/// None of its own: a refusal is an answer too.
pub async fn admit<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    match check(&mut request).await {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(error) => Ok(request.error_response(error)),
    }
}

async fn check(request: &mut ServiceRequest) -> Result<(), actix_web::Error> {
    let caller = match request.extract::<Caller>().await {
        Ok(caller) => caller,
        // Somebody without a valid token is a stranger, also at a route that needs one.
        Err(error) => return Err(stranger(request, Open::Page).map_or(error.into(), Into::into)),
    };
    let node = request.app_data::<web::ThinData<Node>>().map(|node| node.0.clone());
    let node = node.ok_or_else(|| ApiError::from(Problem::new(ErrorCode::Internal, "the node is not wired")))?;
    if node.limits().enabled() {
        let decision = node.limits().request(caller.user_id).await;
        request.extensions_mut().insert(decision);
        if !decision.allowed {
            return Err(ApiError::from(Problem::rate_limited(decision.retry_after_ms)).into());
        }
    }
    request.extensions_mut().insert(caller);
    // Its connection may stay longer than a stranger's.
    if let Some(served) = request.conn_data::<Served>() {
        served.vouch();
    }
    Ok(())
}

/// The layer before an open handler. Limits the requests of a network and the total size of the bodies of all networks.
///
/// # Errors
/// None of its own.
pub async fn admit_stranger<B: MessageBody + 'static>(
    kind: Open,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if let Some(refused) = stranger(&request, kind) {
        return Ok(request.error_response(refused));
    }
    if let Some(services) = request.app_data::<web::ThinData<Services>>() {
        let bodies = services.0.open_bodies.clone();
        request.extensions_mut().insert(bodies);
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Counts a request without a valid token against its network. `Some`: the network has used up what it may.
fn stranger(request: &ServiceRequest, kind: Open) -> Option<ApiError> {
    let services = request.app_data::<web::ThinData<Services>>()?.0.clone();
    let decision = services.strangers.count(kind, ClientAddress::of(request.request()).0)?;
    request.extensions_mut().insert(decision);
    (!decision.allowed).then(|| Problem::rate_limited(decision.retry_after_ms).into())
}

/// The layer before operators' pages. Refuses requests through a proxy on every listener, because anybody may have sent them.
///
/// # Errors
/// None of its own.
pub async fn admit_operators<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if is_forwarded(request.headers()) {
        let problem = Problem::new(ErrorCode::Forbidden, "what is for operators is not shown through a proxy");
        return Ok(request.error_response(ApiError::from(problem)));
    }
    admit_stranger(Open::Page, request, next).await
}
