//! What tests are told in: worlds on either store, people in them, and what they see.
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

/// How long a story waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a story listens for what must not come.
pub const SILENCE: Duration = Duration::from_millis(400);

/// Which store a world stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    Embedded,
    Redis,
    Cluster,
    Sentinel,
}

/// What keeps a world.
pub enum Keeper {
    Embedded(tempfile::TempDir),
    Redis(testing::Server, tempfile::TempDir),
    Cluster(testing::Cluster, tempfile::TempDir),
    Sentinel(testing::Sentinel, tempfile::TempDir),
}

/// One or more nodes over one store, with one app.
pub struct World {
    pub nodes: Vec<Node>,
    pub keeper: Keeper,
    pub admin_key: String,
    pub organization_key: String,
    pub organization: String,
    pub app: String,
    pub app_key: String,
    /// The flags that name its store, for a node and for whatever else opens it.
    pub store: Vec<String>,
    flags: Vec<String>,
    /// For files that outlive a store which the world has left.
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
                tell(<$type>::on($crate::story::Ground::Embedded).await).await;
            }
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_redis() {
                tell(<$type>::on($crate::story::Ground::Redis).await).await;
            }
        }
    )*};
}

impl World {
    /// One node.
    pub async fn on(ground: Ground) -> Self {
        Self::with(ground, 1, &[]).await
    }

    /// Nodes with more flags. Without nodes nothing is made.
    pub async fn with(ground: Ground, nodes: usize, flags: &[&str]) -> Self {
        let (keeper, store) = stand(ground, &"07".repeat(32)).await;
        let own = ["--listen", "127.0.0.1:0", "--drain-window", "1s"];
        let flags = own
            .iter()
            .chain(flags)
            .map(|flag| (*flag).to_owned())
            .collect();
        let mut world = Self {
            nodes: Vec::new(),
            keeper,
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

    /// The settings with which nodes of this world start.
    pub fn config(&self) -> Config {
        let mut arguments: Vec<_> = ["chaos".to_owned()]
            .into_iter()
            .chain(self.store.iter().cloned())
            .collect();
        if let Keeper::Redis(..) | Keeper::Cluster(..) | Keeper::Sentinel(..) = self.keeper {
            arguments
                .extend(["--admin-key", "adm_0123456789abcdef0123456789abcdef"].map(str::to_owned));
        }
        match config::parse(arguments.iter().chain(&self.flags), &|_| None).unwrap() {
            Command::Serve(config) => *config,
            other => panic!("{other:?} is no node"),
        }
    }

    /// The file of its secret key.
    pub fn secret_key_file(&self) -> PathBuf {
        match &self.keeper {
            Keeper::Embedded(folder) => folder.path().join("data/secret-key"),
            Keeper::Redis(_, folder) | Keeper::Cluster(_, folder) | Keeper::Sentinel(_, folder) => {
                folder.path().join("secret")
            }
        }
    }

    pub async fn add_node(&mut self) -> usize {
        self.nodes.push(Node::start(self.config()).await.unwrap());
        self.nodes.len() - 1
    }

    /// Another app of the same organization, with a key.
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

    /// The customer's backend.
    pub fn team(&self) -> Backend {
        self.backend(&self.app_key)
    }

    /// Makes users.
    pub async fn people(&self, names: &[&str]) {
        for name in names {
            let _: Value = self
                .team()
                .put(&format!("/v1/users/{name}"), &json!({ "first_name": name }))
                .await
                .unwrap();
        }
    }

    /// Makes a channel of these people, the first of whom owns it.
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

    /// What a metric of a node shows; 0 if it is not there.
    pub async fn metric(&self, node: usize, name: &str) -> f64 {
        let answer = self
            .backend_at(node, &self.admin_key)
            .request(axum::http::Method::GET, "/metrics")
            .send()
            .await
            .unwrap();
        metric_in(std::str::from_utf8(&answer.body).unwrap(), name)
    }

    /// The status that `/readyz` of a node answers.
    pub async fn readiness(&self, node: usize) -> u16 {
        self.backend_at(node, "")
            .request(axum::http::Method::GET, "/readyz")
            .send()
            .await
            .unwrap()
            .status
            .as_u16()
    }

    /// Somebody connects to the first node.
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

    /// Somebody tries to connect with these parameters, and is refused: with which error, and which
    /// close code.
    pub async fn is_refused(&self, params: &Connect) -> (ErrorCode, u16) {
        let connector = Connector::new(&self.url(0), Encoding::MessagePack).unwrap();
        match connector.connect(params).await {
            Err(ConnectError::Refused { error, closed }) => (error.code, closed.code.unwrap_or(0)),
            other => panic!("{other:?} is no refusal"),
        }
    }

    /// A connection by hand.
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

    /// Ends all nodes, as SIGTERM does, and starts as many again on the same data.
    pub async fn restarts(&mut self) {
        let count = self.nodes.len();
        self.ends().await;
        self.restarts_as(count).await;
    }

    /// Starts so many nodes on the data of those that ended.
    pub async fn restarts_as(&mut self, count: usize) {
        for _ in 0..count {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            // Of the node before, a task may still be about to let the folder go.
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

    /// Ends all nodes, as SIGTERM does.
    pub async fn ends(&mut self) {
        for node in self.nodes.drain(..) {
            node.drain().await;
        }
    }
}

/// Whatever a story did to it, an embedded store is whole after it.
impl Drop for World {
    fn drop(&mut self) {
        if let (Keeper::Embedded(folder), false) = (&self.keeper, std::thread::panicking()) {
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

/// A new store, and the flags that name it. Redis is given this secret key; a folder makes its own.
pub async fn stand(ground: Ground, secret: &str) -> (Keeper, Vec<String>) {
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
    match ground {
        Ground::Embedded => {
            let flags = vec![
                "--data".to_owned(),
                folder.path().join("data").display().to_string(),
            ];
            (Keeper::Embedded(folder), flags)
        }
        Ground::Redis => {
            let server = testing::Server::start().await;
            let flags = redis(server.url());
            (Keeper::Redis(server, folder), flags)
        }
        Ground::Cluster => {
            let cluster = testing::Cluster::start(3).await;
            let flags = redis(cluster.url());
            (Keeper::Cluster(cluster, folder), flags)
        }
        Ground::Sentinel => {
            let trio = testing::Sentinel::start().await;
            let flags = redis(trio.url());
            (Keeper::Sentinel(trio, folder), flags)
        }
    }
}

/// The error of an HTTP call.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, BackendError>) -> (u16, ErrorCode) {
    match answer {
        Err(BackendError::Refused { status, error }) => (status, error.code),
        other => panic!("{other:?} is no refusal"),
    }
}

/// That a map has exactly these keys, given as words.
#[track_caller]
pub fn has_exactly(map: &Value, keys: &str) {
    let mut wanted: Vec<&str> = keys.split_whitespace().collect();
    wanted.sort_unstable();
    let map = map.as_object().unwrap_or_else(|| panic!("{map} is no map"));
    let mut found: Vec<&str> = map.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, wanted);
}

/// What a series shows in the text of a scrape; 0 if it is not there.
pub fn metric_in(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Waits until something holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
