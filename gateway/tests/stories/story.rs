//! What tests are told in: worlds on either store, people in them, and what they see.
#![allow(unreachable_pub, reason = "tests have no outside")]
#![allow(dead_code, reason = "a word of the stories' language that no story needs at the moment")]

use std::{future::Future, time::Duration};

use client::{Backend, Connector, Events, Session};
use fanout::redis::testing;
use gateway::{
    config::{self, Command, Config},
    node::Node,
};
use protocol::{
    ChannelId, Encoding, EventMessage, UserId,
    event::Event,
    model::{App, Channel, Key, Message},
    params::{Connect, SendMessage},
    results::{Connected, OrganizationCreated, Token},
};
use serde_json::{Value, json};

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
    arguments: Vec<String>,
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

    /// Nodes with more flags.
    pub async fn with(ground: Ground, nodes: usize, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, mut arguments) = match ground {
            Ground::Embedded => {
                let arguments = vec!["--data".to_owned(), folder.path().join("data").display().to_string()];
                (Keeper::Embedded(folder), arguments)
            }
            Ground::Redis => {
                let server = testing::Server::start().await;
                let arguments = redis_arguments(&server.url(), folder.path());
                (Keeper::Redis(server, folder), arguments)
            }
            Ground::Cluster => {
                let cluster = testing::Cluster::start(3).await;
                let arguments = redis_arguments(&cluster.url(), folder.path());
                (Keeper::Cluster(cluster, folder), arguments)
            }
            Ground::Sentinel => {
                let trio = testing::Sentinel::start().await;
                let arguments = redis_arguments(&trio.url(), folder.path());
                (Keeper::Sentinel(trio, folder), arguments)
            }
        };
        arguments.extend(["--listen", "127.0.0.1:0", "--drain-window", "1s"].map(str::to_owned));
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut world = Self {
            nodes: Vec::new(),
            keeper,
            admin_key: String::new(),
            organization_key: String::new(),
            organization: String::new(),
            app: String::new(),
            app_key: String::new(),
            arguments,
        };
        for _ in 0..nodes {
            world.add_node().await;
        }
        world.admin_key = world.nodes[0].admin_key.expose().to_owned();
        let body = json!({ "name": "Acme", "email": "team@acme.example" });
        let made: OrganizationCreated = world.backend(&world.admin_key).post("/v1/organizations", &body).await.unwrap();
        world.organization = made.organization.id.to_string();
        world.organization_key = made.key.secret.unwrap();
        (world.app, world.app_key) = world.make_app("live").await;
        world
    }

    /// The settings with which nodes of this world start.
    pub fn config(&self) -> Config {
        let arguments = std::iter::once("chaos".to_owned()).chain(self.arguments.iter().cloned());
        match config::parse(arguments, &|_| None).unwrap() {
            Command::Serve(config) => *config,
            other => panic!("{other:?} is no node"),
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
        let key: Key = self.backend(&self.organization_key).post(&path, &json!({ "environment": environment })).await.unwrap();
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
            let _: Value = self.team().put(&format!("/v1/users/{name}"), &json!({ "first_name": name })).await.unwrap();
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
        let token: Token = self.team().post(&format!("/v1/users/{name}/tokens"), &json!({})).await.unwrap();
        token.token
    }

    /// Somebody connects to the first node.
    pub async fn connects(&self, name: &str) -> Person {
        self.connects_to(0, name, Encoding::MessagePack, Connect::default()).await
    }

    pub async fn connects_to(&self, node: usize, name: &str, encoding: Encoding, params: Connect) -> Person {
        let token = self.token(name).await;
        let params = Connect { token, ..params };
        let connector = Connector::new(&self.url(node), encoding).unwrap();
        let (session, events) = connector.connect(&params).await.unwrap();
        Person { name: name.parse().unwrap(), session, events, heard: Vec::new() }
    }

    /// Ends all nodes, as SIGTERM does.
    pub async fn ends(&mut self) {
        for node in self.nodes.drain(..) {
            node.drain().await;
        }
    }
}

fn redis_arguments(url: &str, folder: &std::path::Path) -> Vec<String> {
    let secret = folder.join("secret");
    std::fs::write(&secret, "07".repeat(32)).unwrap();
    let secret = secret.display().to_string();
    ["--redis", url, "--admin-key", "adm_0123456789abcdef0123456789abcdef", "--secret-key-file", &secret].map(str::to_owned).into()
}

/// Somebody with a session.
pub struct Person {
    pub name: UserId,
    pub session: Session,
    pub events: Events,
    /// What came while something else was waited for.
    pub heard: Vec<EventMessage>,
}

impl Person {
    pub fn connected(&self) -> &Connected {
        self.session.connected()
    }

    pub async fn sends(&self, channel: &ChannelId, text: &str) -> Message {
        self.session.send(channel, &SendMessage { text: Some(text.to_owned()), ..SendMessage::default() }).await.unwrap()
    }

    /// The next event, whatever it is.
    pub async fn next(&mut self) -> EventMessage {
        if !self.heard.is_empty() {
            return self.heard.remove(0);
        }
        match tokio::time::timeout(PATIENCE, self.events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("{}: the connection ended: {}", self.name, self.events.closed()),
            Err(_) => panic!("{} waited in vain", self.name),
        }
    }

    /// The next event of this name; others before it are passed over.
    pub async fn hears(&mut self, name: &str) -> EventMessage {
        loop {
            let event = self.next().await;
            if event.event == name {
                return event;
            }
        }
    }

    /// The next message created, which must say this.
    pub async fn sees(&mut self, text: &str) -> Message {
        match self.hears("message.created").await.read().unwrap() {
            Event::MessageCreated(message) => {
                assert_eq!(message.text, text);
                message
            }
            other => panic!("{other:?} is no message"),
        }
    }

    /// Nothing comes for a while, passing events of others aside.
    pub async fn hears_nothing(&mut self) {
        assert!(self.heard.is_empty(), "{} heard {:?}", self.name, self.heard);
        let heard = tokio::time::timeout(SILENCE, self.events.next()).await;
        assert!(heard.is_err(), "{} heard {heard:?}", self.name);
    }

    /// The connection ends; with which code.
    pub async fn is_closed(&mut self) -> u16 {
        let end = async { while self.events.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end).await.unwrap_or_else(|_| panic!("{} was not closed", self.name));
        self.events.closed().code.unwrap_or(0)
    }
}

/// Waits until something holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
