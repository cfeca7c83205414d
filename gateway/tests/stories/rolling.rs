//! Rolling restarts and kills of nodes under load.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Closed, ConnectError, Connector, Events, RequestError, Session};
use parking_lot::Mutex;
use protocol::{
    ChannelId, Cursor, Encoding, EventMessage, MessageId,
    entity::Message,
    event::Event,
    operation::{
        message::{MessageSend, SendMessage},
        presence::PresenceWatch,
        session::Connect,
        user::UserIds,
    },
};
use redis_testing as testing;

use crate::{
    nodes::{ADMIN, over_redis, secret_key},
    process::{Chaos, Shop},
    story::{SILENCE, StoreKind, TIMEOUT, World, until},
};

/// A load balancer: the nodes that are ready.
#[derive(Clone, Default)]
struct Balancer(Arc<Mutex<Vec<SocketAddr>>>);

impl Balancer {
    /// Connects to any of them. A node that is stopping is not an error.
    async fn connects(&self, params: &Connect, turn: usize) -> (Session, Events) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let address = {
                let ready = self.0.lock();
                ready[turn % ready.len()]
            };
            let connector =
                Connector::new(&format!("ws://{address}"), Encoding::ALL[turn % 2]).unwrap();
            match connector.connect(params).await {
                Ok(connected) => return connected,
                // The node stopped before the connection.
                Err(ConnectError::Unreachable(_)) => {}
                Err(ConnectError::Upgrade { status: 503, .. }) => {}
                Err(ConnectError::Closed(closed)) => is_a_farewell(&closed),
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "no node takes the connection");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn is_a_farewell(closed: &Closed) {
    assert!(matches!(closed.code, Some(1001) | None), "{closed}");
}

/// A user who sends and receives, and reconnects to any node.
struct Wanderer {
    index: u64,
    token: String,
    balancer: Balancer,
    channel: ChannelId,
    /// The last event that it received.
    position: (u64, u64),
    /// The messages that it received, in order.
    heard: Vec<MessageId>,
    /// Its acknowledged messages.
    sent: BTreeMap<MessageId, Message>,
    reconnects: Arc<AtomicUsize>,
    acknowledged: Arc<AtomicUsize>,
}

impl Wanderer {
    async fn wanders(mut self, over: Arc<AtomicBool>) -> Self {
        let mut next = 0u64;
        let mut turn = self.index as usize;
        'connections: loop {
            let params = Connect {
                token: self.token.clone(),
                resume: [(
                    self.channel.clone(),
                    Cursor::After(self.position.0, self.position.1),
                )]
                .into(),
                ..Connect::default()
            };
            let (session, mut events) = self.balancer.connects(&params, turn).await;
            turn += 1;
            loop {
                let is_over = over.load(Ordering::Relaxed);
                if is_over && self.sent.keys().all(|id| self.heard.contains(id)) {
                    return self;
                }
                let id = MessageId::from_bits(self.index << 32 | next);
                let body = SendMessage {
                    message_id: Some(id.clone()),
                    text: Some(format!("{next}")),
                    ..SendMessage::default()
                };
                let channel = self.channel.clone();
                // Afterwards, it only receives.
                let sending = async {
                    if is_over {
                        std::future::pending().await
                    } else {
                        session.call::<MessageSend>(&channel, &body).await
                    }
                };
                tokio::pin!(sending);
                loop {
                    tokio::select! {
                        answer = &mut sending => match answer {
                            Ok(message) => {
                                self.sent.insert(id, message);
                                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                                next += 1;
                                break;
                            }
                            Err(RequestError::Closed(_)) => {
                                while let Some(event) = events.next().await {
                                    self.receives(&event);
                                }
                                is_a_farewell(&events.closed());
                                self.reconnects.fetch_add(1, Ordering::Relaxed);
                                continue 'connections;
                            }
                            Err(error) => panic!("{error}"),
                        },
                        event = tokio::time::timeout(TIMEOUT, events.next()) => match event.expect("its own messages come in time") {
                            Some(event) => {
                                self.receives(&event);
                                if is_over {
                                    break;
                                }
                            }
                            None => {
                                is_a_farewell(&events.closed());
                                self.reconnects.fetch_add(1, Ordering::Relaxed);
                                continue 'connections;
                            }
                        },
                    }
                }
            }
        }
    }

    fn receives(&mut self, event: &EventMessage) {
        let (Some(seq), Some(at)) = (event.seq, event.at) else {
            assert_eq!(event.event, "server.draining", "{event:?}");
            return;
        };
        assert_eq!(seq, self.position.0 + 1, "no hole, and nothing twice");
        self.position = (seq, at);
        match event.read().unwrap() {
            Event::MessageCreated(message) => self.heard.push(message.id),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_under_load_loses_nothing() {
    const PEOPLE: [&str; 6] = ["ann", "bob", "cem", "dia", "eve", "fay"];
    let mut world = World::with(StoreKind::Redis, 2, &["--limit", "requests_per_second=0"]).await;
    let general = world.channel("group", "general", &PEOPLE).await;
    let witness = world.connects("ann").await;
    let position = (witness.entry(&general).seq, witness.entry(&general).at);
    drop(witness);
    let balancer = Balancer::default();
    *balancer.0.lock() = world.nodes.iter().map(|node| node.address).collect();
    let (over, reconnects, acknowledged) = (
        Arc::new(AtomicBool::new(false)),
        Arc::<AtomicUsize>::default(),
        Arc::<AtomicUsize>::default(),
    );
    let mut people = Vec::new();
    for (index, name) in PEOPLE.iter().enumerate() {
        let wanderer = Wanderer {
            index: index as u64,
            token: world.token(name).await,
            balancer: balancer.clone(),
            channel: general.clone(),
            position,
            heard: Vec::new(),
            sent: BTreeMap::new(),
            reconnects: reconnects.clone(),
            acknowledged: acknowledged.clone(),
        };
        people.push(tokio::spawn(wanderer.wanders(over.clone())));
    }
    let traffic = async || {
        let before = acknowledged.load(Ordering::Relaxed);
        until("people talk", || async {
            acknowledged.load(Ordering::Relaxed) >= before + 60
        })
        .await;
    };
    traffic().await;
    for _ in 0..2 {
        // As a load balancer sees it: the old node becomes unready, then stops; the new one is used
        // once it is ready.
        let before = reconnects.load(Ordering::Relaxed);
        let leaving = world.nodes.remove(0);
        balancer
            .0
            .lock()
            .retain(|address| *address != leaving.address);
        leaving.drain().await;
        assert!(
            reconnects.load(Ordering::Relaxed) > before,
            "somebody was on it"
        );
        traffic().await;
        let new = world.add_node().await;
        balancer.0.lock().push(world.nodes[new].address);
        traffic().await;
    }
    over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for person in people {
        all.push(person.await.unwrap());
    }
    // A user who stopped earlier received fewer messages, in the same order.
    let longest = all
        .iter()
        .map(|person| person.heard.clone())
        .max_by_key(Vec::len)
        .unwrap();
    assert_eq!(
        longest.iter().collect::<BTreeSet<_>>().len(),
        longest.len(),
        "nothing twice"
    );
    for person in &all {
        assert_eq!(
            person.heard,
            longest[..person.heard.len()],
            "one order for all"
        );
        for (id, message) in &person.sent {
            let place = longest.iter().position(|heard| heard == id);
            assert_eq!(
                place.map(|place| place as u64 + 1),
                Some(message.number),
                "acknowledged, and told with that number"
            );
        }
    }
    assert_eq!(
        longest.len(),
        all.iter().map(|person| person.sent.len()).sum::<usize>(),
        "each message that was sent, once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_killed_node_go_offline_once_and_not_before_its_lease_ends() {
    /// A lease lasts 15 s and is renewed every 5 s.
    const LEFT: Duration = Duration::from_secs(10);
    let ((_folder, secret), server) = (secret_key(), testing::Server::start().await);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let node = Chaos::spawn(&over_redis(&server.url(), &secret));
        let address = node.address().await;
        nodes.push((node, address));
    }
    let shop = Shop::open(nodes[0].1, ADMIN).await;
    shop.group("general", &["alice", "bob", "carol"]).await;
    let mut watching = Vec::new();
    for (index, name) in [(1, "bob"), (2, "carol")] {
        let there = Shop {
            organization: String::new(),
            app_key: shop.app_key.clone(),
            ..Shop::open(nodes[index].1, ADMIN).await
        };
        let (session, events) = there.connects(name, Encoding::MessagePack).await;
        session
            .call::<PresenceWatch>(
                (),
                UserIds {
                    user_ids: vec!["alice".parse().unwrap()],
                },
            )
            .await
            .unwrap();
        watching.push((session, events));
    }
    let _alice = shop.connects("alice", Encoding::MessagePack).await;
    async fn told(events: &mut Events, within: Duration) -> Option<bool> {
        let event = tokio::time::timeout(within, events.next())
            .await
            .ok()?
            .expect("the session lives on");
        match event.read().unwrap() {
            Event::PresenceChanged(data) => Some(data.online),
            other => panic!("{other:?}"),
        }
    }
    for (_, events) in &mut watching {
        assert_eq!(told(events, TIMEOUT).await, Some(true));
    }
    nodes[0].0.kill9().await;
    let killed = Instant::now();
    for (_, events) in &mut watching {
        assert_eq!(told(events, 3 * TIMEOUT).await, Some(false));
        assert!(
            killed.elapsed() > LEFT - Duration::from_secs(1),
            "offline {:?} after the kill",
            killed.elapsed()
        );
    }
    for (_, events) in &mut watching {
        assert_eq!(told(events, SILENCE).await, None, "once");
    }
}
