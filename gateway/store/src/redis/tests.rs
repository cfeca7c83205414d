//! The conformance suite against real servers: one, and a Cluster of three shards.
//!
//! The tests take turns on one deployment, which is emptied before each; it ends with the last test
//! that waits for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod large;
mod permissions;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use chaos_redis::Deployment;
use fanout::Topic;
use redis_testing::{Cluster, Server};
use tokio::sync::{
    Mutex, OwnedMutexGuard,
    mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::Redis;
use crate::{Keep, Store, conformance::Bench, transfer::Transfer};

/// A deployment that all tests share, and the lock by which they take turns.
struct Shared<D> {
    deployment: D,
    turn: Arc<Mutex<()>>,
}

/// It lives as long as a test holds or awaits it.
type Slot<D> = Mutex<Weak<Shared<D>>>;

async fn shared<D>(
    slot: &Slot<D>,
    start: impl Future<Output = D>,
) -> (Arc<Shared<D>>, OwnedMutexGuard<()>) {
    let shared = {
        let mut slot = slot.lock().await;
        match slot.upgrade() {
            Some(shared) => shared,
            None => {
                let shared = Arc::new(Shared {
                    deployment: start.await,
                    turn: Arc::default(),
                });
                *slot = Arc::downgrade(&shared);
                shared
            }
        }
    };
    let turn = Arc::clone(&shared.turn).lock_owned().await;
    (shared, turn)
}

async fn opened(deployment: &Deployment, keep: Keep) -> Arc<Redis> {
    let redis = Redis::open(deployment, keep);
    redis.commands.run(&::redis::cmd("FLUSHALL")).await.unwrap();
    Arc::new(redis)
}

struct OneServer {
    store: Arc<Redis>,
    shared: Arc<Shared<Server>>,
    _turn: OwnedMutexGuard<()>,
}

impl Bench for OneServer {
    async fn start(keep: Keep) -> Self {
        static SLOT: Slot<Server> = Mutex::const_new(Weak::new());
        let (shared, turn) = shared(&SLOT, Server::start()).await;
        Self {
            store: opened(&shared.deployment.deployment(), keep).await,
            shared,
            _turn: turn,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn another_node(&self) -> Arc<dyn Store> {
        Arc::new(Redis::open(self.store.deployment(), self.store.keep))
    }

    fn transfer(&self) -> Arc<dyn Transfer> {
        self.store.clone()
    }

    async fn listen(&self, topic: &Topic) -> UnboundedReceiver<Bytes> {
        listener(self.shared.deployment.port(), "SUBSCRIBE", topic).await
    }

    fn step_clock(&self, millis: i64) {
        self.store.step_clock(millis);
    }
}

struct ThreeShards {
    store: Arc<Redis>,
    shared: Arc<Shared<Cluster>>,
    _turn: OwnedMutexGuard<()>,
}

impl Bench for ThreeShards {
    async fn start(keep: Keep) -> Self {
        static SLOT: Slot<Cluster> = Mutex::const_new(Weak::new());
        let (shared, turn) = shared(&SLOT, Cluster::start(3)).await;
        Self {
            store: opened(&shared.deployment.deployment(), keep).await,
            shared,
            _turn: turn,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn another_node(&self) -> Arc<dyn Store> {
        Arc::new(Redis::open(self.store.deployment(), self.store.keep))
    }

    fn transfer(&self) -> Arc<dyn Transfer> {
        self.store.clone()
    }

    async fn listen(&self, topic: &Topic) -> UnboundedReceiver<Bytes> {
        let owner = self
            .shared
            .deployment
            .owner(chaos_redis::slot(&redis_testing::channel(topic)))
            .await;
        listener(
            self.shared.deployment.masters[owner].port(),
            "SSUBSCRIBE",
            topic,
        )
        .await
    }

    fn step_clock(&self, millis: i64) {
        self.store.step_clock(millis);
    }
}

/// A plain subscriber, confirmed when this returns.
async fn listener(port: u16, command: &str, topic: &Topic) -> UnboundedReceiver<Bytes> {
    let (sender, receiver) = unbounded_channel();
    let (pushed, mut pushes) = unbounded_channel();
    let config = ::redis::AsyncConnectionConfig::new().set_push_sender(pushed);
    let client =
        ::redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).unwrap();
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap();
    let mut cmd = ::redis::Cmd::new();
    cmd.arg(command).arg(redis_testing::channel(topic));
    cmd.exec_async(&mut connection).await.unwrap();
    tokio::spawn(async move {
        let _connection = connection;
        while let Some(push) = pushes.recv().await {
            if let (
                ::redis::PushKind::Message | ::redis::PushKind::SMessage,
                Some(::redis::Value::BulkString(bytes)),
            ) = (&push.kind, push.data.into_iter().nth(1))
                && sender.send(bytes.into()).is_err()
            {
                return;
            }
        }
    });
    receiver
}

mod one_server {
    use super::*;
    crate::conformance::conformance!(OneServer);
}

mod three_shards {
    use super::*;
    crate::conformance::conformance!(ThreeShards);
}
