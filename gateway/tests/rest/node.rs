//! A node without sockets, with tenants and credentials.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, Method, Request, header},
};
use domain::{
    Services,
    credential::{AdminKey, SecretKey},
};
use fanout::bus::Local;
use gateway::{
    auth::{Attempts, Authenticator},
    config::Origins,
    limit::{Keyed, Rate, Room},
    metrics::Metrics,
    rest::{Proxies, RestState, ops_router, router},
};
use http_body_util::BodyExt;
use protocol::Limits;
use serde_json::{Value, json};
use store::{Keep, Read, Snapshot, Store, StoreError, StoreLayer, embedded::Embedded};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const ADMIN: &str = "adm_0123456789abcdef0123456789abcdef";

/// A store that can be made to fail.
#[derive(Debug)]
pub(crate) struct Trouble {
    inner: Embedded,
    /// Whether all calls fail.
    pub(crate) out: AtomicBool,
    /// Whether the store's probe panics.
    pub(crate) panics: AtomicBool,
    /// Number of reads.
    pub(crate) reads: AtomicUsize,
}

#[async_trait]
impl StoreLayer for Trouble {
    fn inner(&self) -> Result<&dyn Store, StoreError> {
        if self.out.load(Ordering::Relaxed) {
            Err(StoreError::Unavailable("canary cause".to_owned()))
        } else {
            Ok(&self.inner)
        }
    }
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<Snapshot>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner()?.read(reads).await
    }
    async fn probe(&self) -> Result<store::Availability, StoreError> {
        assert!(!self.panics.load(Ordering::Relaxed), "told to");
        self.inner()?.probe().await
    }
}

/// A node without sockets.
pub(crate) struct Node {
    pub(crate) router: Router,
    pub(crate) ops: Router,
    pub(crate) services: Arc<Services>,
    pub(crate) store: Arc<Trouble>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: Arc<AtomicBool>,
    _folder: TempDir,
}

/// Credential and address of a caller.
#[derive(Clone)]
pub(crate) struct Caller<'a> {
    node: &'a Node,
    credential: Option<String>,
    headers: Vec<(String, String)>,
    peer: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body as JSON; null if there is none.
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Checks that it is this error in the documented form.
    #[track_caller]
    pub(crate) fn refuses(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, self.body["error"]["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.text
        );
        assert!(
            self.body["error"]["message"]
                .as_str()
                .is_some_and(|sentence| !sentence.is_empty())
        );
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    #[track_caller]
    pub(crate) fn etag(&self) -> String {
        self.header("etag").unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.body["id"].as_str().unwrap().to_owned()
    }
}

impl Node {
    pub(crate) async fn start() -> Self {
        // Tests call faster than the rate limits allow.
        Self::with(Limits {
            key_requests_per_second: 0,
            requests_per_second: 0,
            unauthenticated_per_ip: 0,
            ..Limits::default()
        })
        .await
    }

    #[allow(clippy::unused_async, reason = "the store's writer needs a runtime")]
    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let keep = Keep {
            events: 1000,
            bytes: 1 << 20,
        };
        let inner = Embedded::open(folder.path(), keep, Local::new(Arc::new(()))).unwrap();
        let store = Arc::new(Trouble {
            inner,
            out: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
        });
        let services = Arc::new(Services::new(
            store.clone(),
            limits.clone(),
            SecretKey::new([7; 32]),
            "node",
        ));
        let metrics = Arc::new(Metrics::new());
        let draining = Arc::new(AtomicBool::new(false));
        let drains = draining.clone();
        let state = RestState {
            authenticator: Arc::new(Authenticator::new(
                (*services).clone(),
                AdminKey::new(ADMIN),
            )),
            services: services.clone(),
            metrics: metrics.clone(),
            origins: Arc::new(Origins::parse("self,localhost,https://app.example.com").unwrap()),
            proxies: Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]),
            apps: Arc::new(Keyed::new(Rate::per_second(limits.app_requests_per_second))),
            users: Arc::new(Keyed::new(Rate::per_second(limits.requests_per_second))),
            attempts: Attempts::new(
                limits.unauthenticated_per_ip,
                services.clock.clone(),
                metrics.clone(),
            ),
            requests: Room::new(limits.requests_total_bytes),
            pulse: gateway::readiness::Readiness::new(
                services.store.clone(),
                services.secret.clone(),
            ),
            draining: Arc::new(move || drains.load(Ordering::Relaxed)),
        };
        Self {
            router: router(state.clone()),
            ops: ops_router(state),
            services,
            store,
            metrics,
            draining,
            _folder: folder,
        }
    }

    pub(crate) fn by(&self, credential: &str) -> Caller<'_> {
        let credential = (!credential.is_empty()).then(|| credential.to_owned());
        Caller {
            node: self,
            credential,
            headers: Vec::new(),
            peer: "203.0.113.9:5555".parse().unwrap(),
        }
    }

    pub(crate) async fn tenant(&self) -> Tenant {
        let admin = self.by(ADMIN);
        let made = admin
            .post(
                "/v1/organizations",
                json!({ "name": "Acme", "email": "a@example.org" }),
            )
            .await
            .is(201);
        let organization = made.body["organization"]["id"].as_str().unwrap().to_owned();
        let organization_key = made.body["key"]["secret"].as_str().unwrap().to_owned();
        let owner = self.by(&organization_key);
        let app = owner
            .post(
                &format!("/v1/organizations/{organization}/apps"),
                json!({ "name": "Shop" }),
            )
            .await
            .is(201)
            .id();
        let base = format!("/v1/organizations/{organization}/apps/{app}");
        let mut keys = Vec::new();
        for environment in ["live", "test"] {
            let made = owner
                .post(
                    &format!("{base}/keys"),
                    json!({ "environment": environment }),
                )
                .await
                .is(201);
            keys.push(made.body["secret"].as_str().unwrap().to_owned());
        }
        Tenant {
            organization,
            organization_key,
            app,
            base,
            test: keys.pop().unwrap(),
            live: keys.pop().unwrap(),
        }
    }

    /// Creates a user, and returns a token.
    pub(crate) async fn user(&self, key: &str, id: &str) -> String {
        self.by(key)
            .put(&format!("/v1/users/{id}"), json!({ "username": id }))
            .await
            .is(201);
        let minted = self
            .by(key)
            .post(&format!("/v1/users/{id}/tokens"), json!({}))
            .await
            .is(201);
        minted.body["token"].as_str().unwrap().to_owned()
    }
}

/// An organization with an app, and a key of each environment.
pub(crate) struct Tenant {
    pub(crate) organization: String,
    pub(crate) organization_key: String,
    pub(crate) app: String,
    /// The app's path.
    pub(crate) base: String,
    pub(crate) live: String,
    pub(crate) test: String,
}

impl Caller<'_> {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn from(mut self, peer: &str) -> Self {
        self.peer = format!("{peer}:5555").parse().unwrap();
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        match body {
            Some(body) => {
                let mut caller = self.clone();
                if !self.headers.iter().any(|(name, _)| name == "content-type") {
                    caller = caller.with("content-type", "application/json");
                }
                caller.raw(method, path, Body::from(body.to_string())).await
            }
            None => self.raw(method, path, Body::empty()).await,
        }
    }

    pub(crate) async fn raw(&self, method: Method, path: &str, body: Body) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "chat.example.com");
        if let Some(credential) = &self.credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(self.peer));
        answer(self.node.router.clone(), request).await
    }
}

/// Calls a router.
pub(crate) async fn answer(router: Router, request: Request<Body>) -> Reply {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}
