//! Reconnections of the client: after cut connections, a restart, a drain, and
//! an expired token.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::{Client, Connector, DisconnectCause, Settings, TokenUnavailable, Update, Updates};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use protocol::{
    ChannelId, Cursor, Encoding, MessageId,
    entity::Message,
    event::Event,
    operation::{
        message::{ListMessages, MessageList, SendMessage},
        participant::{AddParticipant, ParticipantAdd, ParticipantRemove},
        session::Watch,
        user::Token,
    },
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::{
    process::Chaos,
    story::{SILENCE, StoreKind, TIMEOUT, World},
};

/// A proxy to a node that can be cut, and directed to another node.
#[derive(Clone)]
struct Path {
    address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    carried: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Path {
    async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = Self {
            address: listener.local_addr().unwrap(),
            to: Arc::new(Mutex::new(node)),
            carried: Arc::default(),
        };
        let of = path.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let to = *of.to.lock();
                let carrying = tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        // Both sides are closed in any case.
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                of.carried.lock().push(carrying.abort_handle());
            }
        });
        path
    }

    /// Cuts every connection, with the data in transit.
    fn cut(&self) {
        self.carried
            .lock()
            .drain(..)
            .for_each(|carrying| carrying.abort());
    }

    fn leads_to(&self, node: SocketAddr) {
        *self.to.lock() = node;
    }
}

/// A user with a client, and the client's updates.
struct Person {
    client: Client,
    updates: Updates,
    position: Option<u64>,
    heard: Vec<MessageId>,
    acknowledged: Vec<MessageId>,
    connections: usize,
    /// Number of additions that it received.
    additions: usize,
    aways: Vec<DisconnectCause>,
}

impl World {
    /// Starts a client whose tokens last this number of seconds.
    fn stays(&self, name: &str, addresses: &[SocketAddr], seconds: u64) -> Person {
        self.stays_with(
            addresses,
            Settings::default(),
            self.tokens_of(name, seconds),
        )
    }

    fn tokens_of(
        &self,
        name: &str,
        seconds: u64,
    ) -> impl FnMut() -> BoxFuture<'static, Result<String, TokenUnavailable>> + Send + use<> {
        let (team, path) = (self.team(), format!("/v1/users/{name}/tokens"));
        move || {
            let (team, path) = (team.clone(), path.clone());
            Box::pin(async move {
                let token: Result<Token, _> =
                    team.post(&path, &json!({ "expires_in": seconds })).await;
                token
                    .map(|token| token.token)
                    .map_err(|error| TokenUnavailable::Later(error.to_string()))
            })
        }
    }

    fn stays_with<F, T>(&self, addresses: &[SocketAddr], settings: Settings, token: F) -> Person
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = Result<String, TokenUnavailable>> + Send + 'static,
    {
        let connector = |(turn, address)| {
            Connector::new(&format!("ws://{address}"), Encoding::ALL[turn % 2]).unwrap()
        };
        let addresses = addresses.iter().enumerate().map(connector).collect();
        let settings = Settings {
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(500),
            ..settings
        };
        let (client, updates) = Client::start(addresses, settings, token);
        let (heard, acknowledged, aways) = (Vec::new(), Vec::new(), Vec::new());
        Person {
            client,
            updates,
            position: None,
            heard,
            acknowledged,
            connections: 0,
            additions: 0,
            aways,
        }
    }

    /// Returns the messages that are stored in a channel.
    async fn listed(&self, node: usize, channel: &ChannelId) -> Vec<Message> {
        let person = self
            .connects_to(
                node,
                "ann",
                Encoding::MessagePack,
                protocol::operation::session::Connect::default(),
            )
            .await;
        let mut messages = Vec::new();
        loop {
            let after = messages
                .last()
                .map_or(0, |message: &Message| message.number);
            let which = ListMessages {
                after: Some(after),
                limit: Some(200),
                ..ListMessages::default()
            };
            let page = person
                .session
                .call::<MessageList>(channel, &which)
                .await
                .unwrap();
            messages.extend(page.items);
            if !page.more {
                return messages;
            }
        }
    }
}

impl Person {
    fn sends(&self, channel: &ChannelId, text: impl ToString) -> MessageId {
        self.client
            .send(
                channel,
                SendMessage {
                    text: Some(text.to_string()),
                    ..SendMessage::default()
                },
            )
            .unwrap()
    }

    /// Processes updates until a condition is true.
    async fn receives_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + 2 * TIMEOUT;
        while !holds(self) {
            let update = tokio::time::timeout_at(deadline, self.updates.next()).await;
            let update = update.unwrap_or_else(|_| {
                panic!(
                    "in vain: {what}: {} heard, {:?}",
                    self.heard.len(),
                    self.aways
                )
            });
            self.takes(update.expect("the client lives"));
        }
    }

    fn takes(&mut self, update: Update) {
        match update {
            Update::Connected(connected) => {
                self.connections += 1;
                let entry = connected.channels.first().and_then(|entry| match entry {
                    protocol::entity::EntryResult::Entry(entry) => Some(entry.seq),
                    protocol::entity::EntryResult::Failed(_) => None,
                });
                self.position = self.position.or(entry);
            }
            Update::Event(event) => {
                if let (Some(_), Some(seq)) = (&event.channel_id, event.seq) {
                    assert_eq!(
                        Some(seq),
                        self.position.map(|position| position + 1),
                        "no hole, and nothing twice"
                    );
                    self.position = Some(seq);
                }
                match event.read().unwrap() {
                    Event::MessageCreated(message) => self.heard.push(message.id),
                    Event::ChannelAdded(entry) => {
                        self.additions += 1;
                        self.position = self.position.or(Some(entry.seq));
                    }
                    Event::ChannelRemoved(_) => self.position = None,
                    _ => {}
                }
            }
            Update::Joined(_) => {}
            Update::Acknowledged(message) => self.acknowledged.push(message.id),
            Update::Away { why, .. } => self.aways.push(why),
            other => panic!("{other:?}"),
        }
    }
}

on_both_stores! {
    async fn repeatedly_cut_connections_lose_and_duplicate_nothing(world: World) {
        const MESSAGES: usize = 300;
        let general = world.channel("group", "general", &["ann", "bob"]).await;
        let path = Path::to(world.nodes[0].address).await;
        let mut ann = world.stays("ann", &[path.address], 3600);
        let mut bob = world.stays("bob", &[path.address], 3600);
        for person in [&mut ann, &mut bob] {
            person.receives_until("connected", |person| person.connections > 0).await;
        }
        let sent: Vec<MessageId> = (0..MESSAGES).map(|n| ann.sends(&general, n)).collect();
        for part in 1..=8 {
// The message may be in any state: not stored yet, or its reply or
// event in transit.
            ann.receives_until("acknowledgements", |ann| ann.acknowledged.len() >= part * MESSAGES / 10).await;
            path.cut();
        }
        ann.receives_until("everything", |ann| ann.acknowledged.len() == MESSAGES && ann.heard.len() == MESSAGES).await;
        bob.receives_until("everything", |bob| bob.heard.len() == MESSAGES).await;
        let listed: Vec<MessageId> = world.listed(0, &general).await.into_iter().map(|message| message.id).collect();
        assert_eq!(listed, sent, "once, and in the order sent");
        assert_eq!((&ann.acknowledged, &ann.heard, &bob.heard), (&sent, &sent, &sent));
        let cached: Vec<_> = bob.updates.cache().messages(&general).map(|message| message.id.clone()).collect();
        assert_eq!(cached, sent[MESSAGES - 200..], "the newest are at hand");
        assert!(ann.connections > 4, "{} connections", ann.connections);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_return_to_a_restarted_node_with_messages_sent_meanwhile() {
    let mut world = World::on(StoreKind::Embedded).await;
    let general = world.channel("group", "general", &["ann", "bob"]).await;
    let path = Path::to(world.nodes[0].address).await;
    let (mut ann, mut bob) = (
        world.stays("ann", &[path.address], 3600),
        world.stays("bob", &[path.address], 3600),
    );
    for person in [&mut ann, &mut bob] {
        person
            .receives_until("connected", |person| person.connections > 0)
            .await;
    }
    let mut sent = vec![ann.sends(&general, "before")];
    bob.receives_until("the first", |bob| bob.heard.len() == 1)
        .await;
    world.ends().await;
    ann.receives_until("away", |ann| !ann.aways.is_empty())
        .await;
    assert!(
        matches!(
            ann.aways[0],
            DisconnectCause::Draining | DisconnectCause::Closed(_)
        ),
        "{:?}",
        ann.aways
    );
    sent.push(ann.sends(&general, "meanwhile"));
    world.restarts_as(1).await;
    path.leads_to(world.nodes[0].address);
    sent.push(ann.sends(&general, "after"));
    ann.receives_until("everything", |ann| {
        ann.acknowledged.len() == 3 && ann.heard.len() == 3
    })
    .await;
    bob.receives_until("everything", |bob| bob.heard.len() == 3)
        .await;
    assert_eq!((&ann.acknowledged, &bob.heard), (&sent, &sent));
    ann.client.close();
    while let Some(update) = ann.updates.next().await {
        assert!(
            matches!(update, Update::Ended(DisconnectCause::ClosedByApplication)),
            "{update:?}"
        );
    }
    assert!(ann.client.session().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readded_user_continues_whether_connected_or_not() {
    let world = World::on(StoreKind::Embedded).await;
    let general = world.channel("group", "general", &["bob", "ann"]).await;
    let bob = world.connects("bob").await;
    for watch in [Watch::All, Watch::None] {
        let path = Path::to(world.nodes[0].address).await;
        let settings = Settings {
            watch,
            channels: [(general.clone(), Cursor::Now)].into(),
            ..Settings::default()
        };
        let mut ann = world.stays_with(&[path.address], settings, world.tokens_of("ann", 3600));
        ann.receives_until("connected", |ann| ann.connections == 1)
            .await;
        for is_away in [false, true] {
            if is_away {
                path.leads_to(([127, 0, 0, 1], 1).into());
                path.cut();
            }
            bob.session
                .call::<ParticipantRemove>((&general, &"ann".parse().unwrap()), ())
                .await
                .unwrap();
            bob.sends(&general, "not for her").await;
            bob.session
                .call::<ParticipantAdd>(
                    &general,
                    AddParticipant {
                        user_id: "ann".parse().unwrap(),
                        role: None,
                    },
                )
                .await
                .unwrap();
            path.leads_to(world.nodes[0].address);
            let connections = 1 + usize::from(is_away);
            // Earlier messages are part of the entry that comes with the addition.
            let additions = ann.additions + 1;
            ann.receives_until("added", |ann| {
                ann.additions == additions && ann.connections == connections
            })
            .await;
            let heard = ann.heard.len();
            let id = bob.sends(&general, "for her").await.id;
            ann.receives_until("it", |ann| ann.heard.last() == Some(&id))
                .await;
            assert!(
                is_away || ann.heard.len() == heard + 1,
                "what was said without her is not told"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_move_to_another_node_when_one_drains() {
    let mut world = World::with(StoreKind::Redis, 2, &[]).await;
    let general = world.channel("group", "general", &["ann", "bob"]).await;
    let addresses = [world.nodes[0].address, world.nodes[1].address];
    let mut ann = world.stays("ann", &addresses, 3600);
    ann.receives_until("connected", |ann| ann.connections == 1)
        .await;
    let leaving = usize::from(world.metric(1, "chaos_connections").await > 0.0);
    let node = world.nodes.remove(leaving);
    let draining = tokio::spawn(node.drain());
    ann.receives_until("elsewhere", |ann| ann.connections == 2)
        .await;
    let id = ann.sends(&general, "still here");
    ann.receives_until("it", |ann| {
        ann.acknowledged == [id.clone()] && ann.heard == [id.clone()]
    })
    .await;
    assert_eq!(ann.aways.len(), 1, "{:?}", ann.aways);
    draining.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_tokens_are_refreshed_or_replaced_by_a_reconnection() {
    let world = World::on(StoreKind::Embedded).await;
    let general = world.channel("group", "general", &["ann", "bob"]).await;
    let asked = Arc::<AtomicUsize>::default();
    let (team, count) = (world.team(), asked.clone());
    // Three tokens of four seconds, then none for a while, so that the last one expires.
    let mut ann = world.stays_with(&[world.nodes[0].address], Settings::default(), move || {
        let (team, turn) = (team.clone(), count.fetch_add(1, Ordering::Relaxed));
        async move {
            if turn == 3 {
                return Err(TokenUnavailable::Later("the backend is away".into()));
            }
            let token: Token = team
                .post(
                    "/v1/users/ann/tokens",
                    &json!({ "expires_in": if turn < 3 { 4 } else { 3600 } }),
                )
                .await
                .unwrap();
            Ok(token.token)
        }
    });
    ann.receives_until("4003", |ann| !ann.aways.is_empty())
        .await;
    assert!(
        matches!(&ann.aways[0], DisconnectCause::Closed(closed) if closed.code == Some(4003)),
        "{:?}",
        ann.aways
    );
    // The next token may have been requested by now.
    assert!(
        ann.connections == 1 && asked.load(Ordering::Relaxed) >= 4,
        "two were replaced on the live connection"
    );
    ann.receives_until("connected", |ann| ann.connections == 2)
        .await;
    let id = ann.sends(&general, "still me");
    ann.receives_until("it", |ann| ann.acknowledged == [id.clone()])
        .await;
    let quiet = tokio::time::timeout(
        SILENCE,
        ann.receives_until("nothing", |ann| ann.aways.len() > 1),
    )
    .await;
    assert!(quiet.is_err(), "and it stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminal_chat_reports_a_restart_and_continues() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("chaos-data");
    let (mut node, address) = Chaos::node(&data, &[]).await;
    let path = Path::to(address).await;
    let (url, demo) = (
        format!("ws://{}/v1/ws", path.address),
        data.display().to_string(),
    );
    let chat = |user: &str| Chaos::spawn(&["chat", "--url", &url, "--data", &demo, "--user", user]);
    let (mut alice, mut bob) = (chat("alice"), chat("bob"));
    for person in [&alice, &bob] {
        person.says("You are").await;
    }
    alice.types("before").await;
    bob.says("Alice: before").await;
    node.kill9().await;
    alice.says("reconnecting").await;
    alice.types("meanwhile").await;
    let (node, address) = Chaos::node(&data, &[]).await;
    path.leads_to(address);
    for person in [&alice, &bob] {
        person.says("reconnected").await;
        person.says("Alice: meanwhile").await;
    }
    bob.types("after").await;
    for person in [&alice, &bob] {
        person.says("Bob: after").await;
    }
    let said = |who: &Chaos| {
        who.said()
            .into_iter()
            .filter(|line| !line.starts_with('*') && !line.starts_with("You are"))
            .collect::<Vec<_>>()
    };
    for person in [&mut alice, &mut bob] {
        assert_eq!(
            said(person)[said(person).len() - 3..],
            ["Alice: before", "Alice: meanwhile", "Bob: after"],
            "once, and in order"
        );
        person.hangs_up();
        assert_eq!(person.ends().await.code(), Some(0), "{}", person.log());
    }
    drop(node);
}
