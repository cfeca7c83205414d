//! Helpers of the stories: nodes on any store, users with sessions, and expectations.
#![allow(unreachable_pub, reason = "tests have no outside")]
#![allow(
    dead_code,
    reason = "a word of the stories' language that no story needs at the moment"
)]

mod by_hand;
mod person;

use std::{future::Future, path::PathBuf, time::Duration};

use client::{
    Backend, BackendError, Closed, ConnectError, Connector, Events, Frame, RequestError, Session,
    Socket,
};
use gateway::{
    config::{self, Command, Config},
    node::Node,
};
use protocol::{
    ChannelId, Encoding, ErrorCode, EventMessage, UserId,
    entity::{App, Channel, Entry, EntryResult, Key, Message},
    event::Event,
    frame::encode_request,
    operation::{
        message::{MessageSend, SendMessage},
        organization::OrganizationCreated,
        session::{Connect, Connected},
        user::Token,
    },
};
use redis_testing as testing;
use serde_json::{Value, json};

pub use by_hand::ByHand;
pub use person::Person;

/// Maximum time to wait for an expected event.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Time to wait for an event that must not arrive.
pub const SILENCE: Duration = Duration::from_millis(400);

/// The store of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    Redis,
    Cluster,
    Sentinel,
}

/// The store's processes and folders.
pub enum StoreProcess {
    Embedded(tempfile::TempDir),
    Redis(testing::Server, tempfile::TempDir),
    Cluster(testing::Cluster, tempfile::TempDir),
    Sentinel(testing::Sentinel, tempfile::TempDir),
}

/// One or more nodes over one store, with one app.
pub struct World {
    pub nodes: Vec<Node>,
    pub store_process: StoreProcess,
    pub admin_key: String,
    pub organization_key: String,
    pub organization: String,
    pub app: String,
    pub app_key: String,
    /// The flags of the store, for nodes and commands.
    pub store: Vec<String>,
    flags: Vec<String>,
    /// A folder for files that outlive the store.
    pub secrets: tempfile::TempDir,
}

/// Makes each function a test on the embedded store and on Redis.
macro_rules! on_both_stores {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident: $type:ty) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn tell($world: $type) $body
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_the_embedded_store() {
                tell(<$type>::on($crate::story::StoreKind::Embedded).await).await;
            }
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_redis() {
                tell(<$type>::on($crate::story::StoreKind::Redis).await).await;
            }
        }
    )*};
}

impl World {
    /// Starts one node.
    pub async fn on(store_kind: StoreKind) -> Self {
        Self::with(store_kind, 1, &[]).await
    }

    /// Starts nodes with additional flags. Without nodes, no app is created.
    pub async fn with(store_kind: StoreKind, nodes: usize, flags: &[&str]) -> Self {
        let (store_process, store) = start_store(store_kind, &"07".repeat(32)).await;
        let own = ["--listen", "127.0.0.1:0", "--drain-window", "1s"];
        let flags = own
            .iter()
            .chain(flags)
            .map(|flag| (*flag).to_owned())
            .collect();
        let mut world = Self {
            nodes: Vec::new(),
            store_process,
            admin_key: String::new(),
            organization_key: String::new(),
            organization: String::new(),
            app: String::new(),
            app_key: String::new(),
            store,
            flags,
            secrets: tempfile::tempdir().unwrap(),
        };
        if nodes == 0 {
            return world;
        }
        for _ in 0..nodes {
            world.add_node().await;
        }
        world.admin_key = world.nodes[0].admin_key.expose().to_owned();
        let body = json!({ "name": "Acme", "email": "team@acme.example" });
        let made: OrganizationCreated = world
            .backend(&world.admin_key)
            .post("/v1/organizations", &body)
            .await
            .unwrap();
        world.organization = made.organization.id.to_string();
        world.organization_key = made.key.secret.unwrap();
        (world.app, world.app_key) = world.make_app("live").await;
        world
    }

    /// Returns the settings of this world's nodes.
    pub fn config(&self) -> Config {
        let mut arguments: Vec<_> = ["chaos".to_owned()]
            .into_iter()
            .chain(self.store.iter().cloned())
            .collect();
        if let StoreProcess::Redis(..) | StoreProcess::Cluster(..) | StoreProcess::Sentinel(..) =
            self.store_process
        {
            arguments
                .extend(["--admin-key", "adm_0123456789abcdef0123456789abcdef"].map(str::to_owned));
        }
        match config::parse(arguments.iter().chain(&self.flags), &|_| None).unwrap() {
            Command::Serve(config) => *config,
            other => panic!("{other:?} is no node"),
        }
    }

    /// Returns the path of the secret key file.
    pub fn secret_key_file(&self) -> PathBuf {
        match &self.store_process {
            StoreProcess::Embedded(folder) => folder.path().join("data/secret-key"),
            StoreProcess::Redis(_, folder)
            | StoreProcess::Cluster(_, folder)
            | StoreProcess::Sentinel(_, folder) => folder.path().join("secret"),
        }
    }

    pub async fn add_node(&mut self) -> usize {
        self.nodes.push(Node::start(self.config()).await.unwrap());
        self.nodes.len() - 1
    }

    /// Creates another app of the organization, with a key.
    pub async fn make_app(&self, environment: &str) -> (String, String) {
        let path = format!("/v1/organizations/{}/apps", self.organization);
        let owner = self.backend(&self.organization_key);
        let app: App = owner.post(&path, &json!({ "name": "Chat" })).await.unwrap();
        let key = self.make_app_key(app.id.as_str(), environment).await;
        (app.id.to_string(), key)
    }

    pub async fn make_app_key(&self, app: &str, environment: &str) -> String {
        let path = format!("/v1/organizations/{}/apps/{app}/keys", self.organization);
        let key: Key = self
            .backend(&self.organization_key)
            .post(&path, &json!({ "environment": environment }))
            .await
            .unwrap();
        key.secret.unwrap()
    }

    pub fn url(&self, node: usize) -> String {
        format!("ws://{}/v1/ws", self.nodes[node].address)
    }

    pub fn backend(&self, credential: &str) -> Backend {
        self.backend_at(0, credential)
    }

    pub fn backend_at(&self, node: usize, credential: &str) -> Backend {
        Backend::new(&format!("http://{}", self.nodes[node].address), credential).unwrap()
    }

    /// Returns an HTTP client with a key of the app.
    pub fn team(&self) -> Backend {
        self.backend(&self.app_key)
    }

    /// Creates users.
    pub async fn people(&self, names: &[&str]) {
        for name in names {
            let _: Value = self
                .team()
                .put(&format!("/v1/users/{name}"), &json!({ "first_name": name }))
                .await
                .unwrap();
        }
    }

    /// Creates a channel with these participants. The first one owns it.
    pub async fn channel(&self, kind: &str, id: &str, people: &[&str]) -> ChannelId {
        self.people(people).await;
        let mut body = json!({ "type": kind, "participant_ids": people });
        if kind != "direct" {
            body["id"] = id.into();
        }
        if let Some(creator) = people.first() {
            body["creator_id"] = (*creator).into();
        }
        let channel: Channel = self.team().post("/v1/channels", &body).await.unwrap();
        channel.id
    }

    pub async fn token(&self, name: &str) -> String {
        let token: Token = self
            .team()
            .post(&format!("/v1/users/{name}/tokens"), &json!({}))
            .await
            .unwrap();
        token.token
    }

    /// Returns the value of a metric of a node, or 0 if it does not exist.
    pub async fn metric(&self, node: usize, name: &str) -> f64 {
        let answer = self
            .backend_at(node, &self.admin_key)
            .request(axum::http::Method::GET, "/metrics")
            .send()
            .await
            .unwrap();
        metric_in(std::str::from_utf8(&answer.body).unwrap(), name)
    }

    /// Returns the status of a node's `/readyz`.
    pub async fn readiness(&self, node: usize) -> u16 {
        self.backend_at(node, "")
            .request(axum::http::Method::GET, "/readyz")
            .send()
            .await
            .unwrap()
            .status
            .as_u16()
    }

    /// Connects a user to the first node.
    pub async fn connects(&self, name: &str) -> Person {
        self.connects_to(0, name, Encoding::MessagePack, Connect::default())
            .await
    }

    pub async fn connects_to(
        &self,
        node: usize,
        name: &str,
        encoding: Encoding,
        params: Connect,
    ) -> Person {
        let token = self.token(name).await;
        let params = Connect { token, ..params };
        let connector = Connector::new(&self.url(node), encoding).unwrap();
        let (session, events) = connector.connect(&params).await.unwrap();
        Person {
            name: name.parse().unwrap(),
            session,
            events,
            heard: Vec::new(),
        }
    }

    /// Tries to connect with these parameters, and returns the error and the close
    /// code.
    pub async fn is_refused(&self, params: &Connect) -> (ErrorCode, u16) {
        let connector = Connector::new(&self.url(0), Encoding::MessagePack).unwrap();
        match connector.connect(params).await {
            Err(ConnectError::Refused { error, closed }) => (error.code, closed.code.unwrap_or(0)),
            other => panic!("{other:?} is no refusal"),
        }
    }

    /// Opens a raw connection.
    pub async fn opens(&self, encoding: Encoding) -> ByHand {
        let socket = Connector::new(&self.url(0), encoding)
            .unwrap()
            .open()
            .await
            .unwrap();
        ByHand {
            socket,
            encoding,
            last_id: 0,
        }
    }

    /// Stops all nodes as SIGTERM does, and starts as many again on the same data.
    pub async fn restarts(&mut self) {
        let count = self.nodes.len();
        self.ends().await;
        self.restarts_as(count).await;
    }

    /// Starts nodes on the data of the stopped ones.
    pub async fn restarts_as(&mut self, count: usize) {
        for _ in 0..count {
            let deadline = tokio::time::Instant::now() + TIMEOUT;
            // A task of the previous node may still hold the folder.
            let node = loop {
                match Node::start(self.config()).await {
                    Ok(node) => break node,
                    Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            self.nodes.push(node);
        }
    }

    /// Stops all nodes as SIGTERM does.
    pub async fn ends(&mut self) {
        for node in self.nodes.drain(..) {
            node.drain().await;
        }
    }
}

/// Checks an embedded store after the story.
impl Drop for World {
    fn drop(&mut self) {
        if let (StoreProcess::Embedded(folder), false) =
            (&self.store_process, std::thread::panicking())
        {
            let data = folder.path().join("data");
            let checked = std::process::Command::new(env!("CARGO_BIN_EXE_chaos"))
                .arg("check")
                .arg("--data")
                .arg(&data)
                .output()
                .unwrap();
            assert!(
                checked.status.success(),
                "{}",
                String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat())
            );
        }
    }
}

/// Starts a new store, and returns its flags. Redis gets this secret key; a folder creates its own.
pub async fn start_store(store_kind: StoreKind, secret: &str) -> (StoreProcess, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let redis = |url: String| {
        let file = folder.path().join("secret");
        std::fs::write(&file, secret).unwrap();
        vec![
            "--redis".to_owned(),
            url,
            "--secret-key-file".to_owned(),
            file.display().to_string(),
        ]
    };
    match store_kind {
        StoreKind::Embedded => {
            let flags = vec![
                "--data".to_owned(),
                folder.path().join("data").display().to_string(),
            ];
            (StoreProcess::Embedded(folder), flags)
        }
        StoreKind::Redis => {
            let server = testing::Server::start().await;
            let flags = redis(server.url());
            (StoreProcess::Redis(server, folder), flags)
        }
        StoreKind::Cluster => {
            let cluster = testing::Cluster::start(3).await;
            let flags = redis(cluster.url());
            (StoreProcess::Cluster(cluster, folder), flags)
        }
        StoreKind::Sentinel => {
            let trio = testing::Sentinel::start().await;
            let flags = redis(trio.url());
            (StoreProcess::Sentinel(trio, folder), flags)
        }
    }
}

/// Returns the status and code of a failed HTTP call.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, BackendError>) -> (u16, ErrorCode) {
    match answer {
        Err(BackendError::Refused { status, error }) => (status, error.code),
        other => panic!("{other:?} is no refusal"),
    }
}

/// Checks that a map has exactly these keys, separated by spaces.
#[track_caller]
pub fn has_exactly(map: &Value, keys: &str) {
    let mut wanted: Vec<&str> = keys.split_whitespace().collect();
    wanted.sort_unstable();
    let map = map.as_object().unwrap_or_else(|| panic!("{map} is no map"));
    let mut found: Vec<&str> = map.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, wanted);
}

/// Returns the value of a series in the text of a scrape, or 0 if it does not exist.
pub fn metric_in(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Waits until a condition is true.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
