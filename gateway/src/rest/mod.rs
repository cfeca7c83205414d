//! The HTTP API: a route for each operation, and the OpenAPI document.
//!
//! Owns credentials of requests, the parsing of paths, queries, headers and bodies, the form of
//! answers and errors, and the OpenAPI document, which is generated from the same declarations as
//! the routes. The rules of chat and tenancy are in `domain`; the node listens and serves the
//! WebSocket.

mod address;
mod answer;
mod conditions;
mod credentials;
pub(crate) mod error_response;
mod extract;
mod held_body;
mod idempotency;
mod observe;
mod openapi;
mod operation;
mod operations;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header, request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use domain::{
    Services,
    error::{Error, Result},
    schema::Scope,
};
use protocol::{ErrorCode, UserId};
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::error_response::ErrorResponse;
use crate::{
    auth::{Attempts, Authenticator},
    config::Origins,
    limit::{Keyed, Room},
    metrics::Metrics,
    readiness::Readiness,
};

pub use self::{address::Proxies, openapi::document};

/// State for the handlers.
#[derive(Clone)]
pub struct RestState {
    /// The services of the domain.
    pub services: Arc<Services>,
    /// Authenticates credentials.
    pub authenticator: Arc<Authenticator>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Origins that may call.
    pub origins: Arc<Origins>,
    /// Peers whose `X-Forwarded-For` is trusted.
    pub proxies: Arc<Proxies>,
    /// The buckets of `app_requests_per_second`, the same for both transports.
    pub apps: Arc<Keyed<Scope>>,
    /// The buckets of `requests_per_second` by user, the same for both transports.
    pub users: Arc<Keyed<(Scope, UserId)>>,
    /// Failed attempts to authenticate, by address; the same for both transports.
    pub attempts: Arc<Attempts>,
    /// Memory that requests of all clients hold, over both transports.
    pub requests: Arc<Room>,
    /// Readiness of the node, for `/readyz`.
    pub pulse: Arc<Readiness>,
    /// Whether the node drains; then `/readyz` fails.
    pub draining: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for RestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestState")
    }
}

/// The state of the routes.
struct Context {
    services: Arc<Services>,
    authenticator: Arc<Authenticator>,
    metrics: Arc<Metrics>,
    proxies: Arc<Proxies>,
    attempts: Arc<Attempts>,
    requests: Arc<Room>,
    draining: Arc<dyn Fn() -> bool + Send + Sync>,
    gates: credentials::Gates,
    pulse: Arc<Readiness>,
    document: Bytes,
}

type Shared = Arc<Context>;

/// Returns all routes except the WebSocket. The server has to put `ConnectInfo<SocketAddr>` into
/// the extensions of each request.
pub fn router(state: RestState) -> Router {
    let origins = state.origins.clone();
    let context = context(state, openapi::bytes());
    routes()
        .merge(operations::routes())
        .fallback(async || ErrorResponse(Error::not_found("path")))
        .method_not_allowed_fallback(async || {
            ErrorResponse(Error::new(
                ErrorCode::MethodNotAllowed,
                "this path has other methods: see `Allow`",
            ))
        })
        .layer(middleware::from_fn_with_state(
            context.clone(),
            credentials::charge,
        ))
        .layer(middleware::from_fn_with_state(
            context.clone(),
            observe::observe,
        ))
        .layer(cors(origins))
        .layer(middleware::from_fn(check_headers))
        .with_state(context)
}

/// Refuses requests with two values of a header that takes one, since two parsers may each use
/// another one.
async fn check_headers(request: Request, next: Next) -> Response {
    match check_single(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => ErrorResponse(error).into_response(),
    }
}

/// Fails with `bad_request` if there is more than one `Host`, `Origin`, `Content-Type` or
/// `Idempotency-Key`.
pub(crate) fn check_single(headers: &HeaderMap) -> Result<()> {
    let single = [
        header::HOST,
        header::ORIGIN,
        header::CONTENT_TYPE,
        idempotency::HEADER,
    ];
    for name in single {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Err(Error::bad_request(format!(
                "there is more than one `{name}` header"
            )));
        }
    }
    Ok(())
}

/// Returns the routes of all operations.
fn routes() -> Router<Shared> {
    let mut router = Router::new();
    macro_rules! add_all {
        (session: [$($session:tt)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            $(router = operation::route::<protocol::operation::$resource::$operation>(router);)*
        };
    }
    protocol::operations!(add_all);
    router
}

/// Returns the routes for `--ops-listen`: health and metrics, without a
/// credential.
pub fn ops_router(state: RestState) -> Router {
    operations::open_routes()
        .fallback(async || ErrorResponse(Error::not_found("path")))
        .with_state(context(state, Bytes::new()))
}

fn context(state: RestState, document: Bytes) -> Shared {
    let gates = credentials::Gates::new(&state.services.limits, state.apps, state.users);
    let RestState {
        services,
        authenticator,
        metrics,
        proxies,
        attempts,
        requests,
        draining,
        pulse,
        ..
    } = state;
    Arc::new(Context {
        services,
        authenticator,
        metrics,
        proxies,
        attempts,
        requests,
        draining,
        gates,
        pulse,
        document,
    })
}

/// CORS for pages of allowed origins. Credentials are bearer tokens, which no browser sends by
/// itself, so pages may use the tokens that they have.
fn cors(origins: Arc<Origins>) -> CorsLayer {
    let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, request: &request::Parts| {
        let host = request
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        // A host in the request line, as with HTTP/2 and proxies, counts like `Host`.
        let host = request
            .uri
            .authority()
            .map(|authority| authority.as_str())
            .or(host);
        origin
            .to_str()
            .is_ok_and(|origin| origins.allow(Some(origin), host))
    });
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            header::HeaderName::from_static("x-request-id"),
        ])
        .max_age(std::time::Duration::from_secs(3600))
}
