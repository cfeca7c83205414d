//! What a finished deletion leaves in the store.

use super::*;

/// Puts a document into every table of a partition, and checks whether any remains.
struct Filled<'a> {
    services: &'a Services,
    partition: Partition,
}

impl Filled<'_> {
    const KEY: &'static str = "forgotten?";

    async fn fill(&self) {
        let mut commit = Commit::default();
        for table in cleared_tables(&self.partition) {
            // Tables whose keys are ids get ids that do not exist.
            let key = match (table.name, self.partition.name().split(':').next()) {
                ("c" | "p" | "u" | "dc" | "du", _) => "nobody",
                ("k" | "a" | "t", Some("a" | "o")) => continue,
                _ => Self::KEY,
            };
            commit = match table.order {
                Order::Numbers => {
                    let event = commit.add_event(Append {
                        kind: 200,
                        reference: Bytes::new(),
                        control: Default::default(),
                        body: EventBody::Bytes(Bytes::from_static(&[0x80]), None),
                    });
                    commit.write.push(store::Write::Put {
                        table,
                        key: key.into(),
                        value: Bytes::from_static(&[0xc0]),
                        mark: Default::default(),
                        event: Some(event),
                    });
                    commit
                }
                // Jobs must be able to decode these.
                _ if table.name == "c" && self.partition.name().starts_with('u') => {
                    commit.put_value(table, key, &"pending")
                }
                _ => commit.put_value(table, key, &0),
            };
        }
        self.services
            .store
            .commit(&self.partition, commit)
            .await
            .unwrap()
            .unwrap();
    }

    /// The beginning of its log.
    async fn floor(&self) -> Position {
        self.services
            .snapshot(self.partition.clone(), Vec::new())
            .await
            .unwrap()
            .head
            .floor
    }

    async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for table in tables(&self.partition).filter(|table| *table != TOMBSTONE) {
            let documents = vec![
                (table, Self::KEY.into()),
                (table, "nobody".into()),
                (table, ONLY.into()),
            ];
            let snapshot = self
                .services
                .snapshot(self.partition.clone(), documents)
                .await
                .unwrap();
            if snapshot.documents.iter().any(Option::is_some) {
                left.push(format!("{}/{}", self.partition.name(), table.name));
            }
            let range = match table.order {
                Order::None => continue,
                Order::Keys => Range::Keys { after: None },
                Order::Numbers => Range::After(0),
            };
            let (page, _) = self
                .services
                .store
                .page(&self.partition, table, range, 10)
                .await
                .unwrap();
            left.extend(
                page.documents
                    .iter()
                    .map(|d| format!("{}/{}/{}", self.partition.name(), table.name, d.key)),
            );
        }
        left
    }
}

async fn nothing_is_left(filled: &[Filled<'_>]) {
    until("everything is cleared", || async {
        for one in filled {
            if !one.left().await.is_empty() {
                return false;
            }
        }
        true
    })
    .await;
}

on_both_stores! {
    async fn deletion_clears_every_table_of_the_catalogue(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let scope = Scope { app: world.app.parse().unwrap(), environment: protocol::entity::Environment::Live };
        let services = &world.nodes[0].services;
        let filled = |partition| Filled { services, partition };
        let alice = world.connects("alice").await;
        alice.sends(&general, "to be gone").await;

        let channel = [filled(scope.channel(&general))];
        channel[0].fill().await;
        world.team().patch::<Value>("/v1/channels/general", &json!({ "description": "the topic" })).await.unwrap();
        world.team().delete::<()>("/v1/channels/general").await.unwrap();
        nothing_is_left(&channel).await;
        let user = [filled(scope.user(&"bob".parse().unwrap()))];
        user[0].fill().await;
        world.team().delete::<()>("/v1/users/bob").await.unwrap();
        nothing_is_left(&user).await;
        for one in channel.iter().chain(&user) {
            until("one event is left, without content", || async {
                let log = services.store.log(&one.partition, one.floor().await, 10).await.unwrap();
                log.entries.len() == 1 && !log.entries[0].reference.windows(5).any(|bytes| bytes == b"topic")
            })
            .await;
        }

        let other = world.channel("open", "other", &["alice", "carol"]).await;
        alice.sends(&other, "to be gone, too").await;
        let app = [
            filled(scope.channel(&other)),
            filled(scope.user(&"alice".parse().unwrap())),
            filled(scope.user(&"carol".parse().unwrap())),
            filled(scope.index()),
            filled(schema::app(&scope.app)),
        ];
        for one in &app {
            one.fill().await;
        }
        let base = format!("/v1/organizations/{}", world.organization);
        world.backend(&world.admin_key).delete::<()>(&format!("{base}/apps/{}", world.app)).await.unwrap();
        let organization = [filled(schema::organization(&world.organization.parse().unwrap()))];
        world.backend(&world.admin_key).delete::<()>(&base).await.unwrap();
        nothing_is_left(&organization).await;
        nothing_is_left(&app).await;
    }

    async fn deleted_channel_is_cleared_in_the_background_and_can_be_recreated(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        for batch in 0..12 {
            let names: Vec<_> = (0..50).map(|n| format!("u{}", 50 * batch + n)).collect();
            let users: Vec<_> = names.iter().map(|name| json!({ "id": name })).collect();
            let _: Value = world.team().post("/v1/users/batch", &json!({ "items": users })).await.unwrap();
            let users: Vec<_> = names.iter().map(|name| json!({ "user_id": name })).collect();
            let _: Value = world.team().post("/v1/channels/general/participants/batch", &json!({ "items": users })).await.unwrap();
        }
        let (mut alice, mut bob) = (world.connects("alice").await, world.connects("bob").await);
        let before = alice.sends(&general, "before").await;
        bob.sees("before").await;

        world.team().delete::<()>("/v1/channels/general").await.unwrap();
        // At once, for everybody.
        assert_eq!(refusal(world.team().get::<Value>("/v1/channels/general").await), (404, ErrorCode::NotFound));
        assert_eq!(bob.is_refused("message.list", json!({ "channel_id": "general" })).await, ErrorCode::NotFound);
        assert_eq!(bob.is_refused("message.send", json!({ "channel_id": "general", "text": "x" })).await, ErrorCode::NotFound);
        let list = bob.asks("channel.list", json!({})).await;
        assert_eq!(list["items"], json!([]));
        bob.receives("channel.deleted").await;
        let event = bob.next().await;
        assert_eq!((event.event.as_str(), &event.data["channel_id"]), ("channel.removed", &json!("general")));
        bob.receives_nothing().await;

        let anew = json!({ "id": "general", "type": "group", "creator_id": "alice" });
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        let made: Value = loop {
            match world.team().post("/v1/channels", &anew).await {
                Ok(made) => break made,
                Err(error) => {
                    assert_eq!(error.refusal().map(|e| e.code), Some(ErrorCode::Unavailable), "{error}");
                    assert!(tokio::time::Instant::now() < deadline);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        assert_eq!(made["participant_count"], 1);
        let general: ChannelId = general;
        alice.receives("channel.added").await;
        let after = alice.sends(&general, "after").await;
        assert!(after.number > before.number && after.seq > before.seq && after.created_at >= before.created_at);
        let listed = alice.asks("message.list", json!({ "channel_id": "general" })).await;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_app_leaves_no_key_in_redis_but_its_tombstones() {
    let world = World::on(StoreKind::Redis).await;
    let StoreProcess::Redis(server, _) = &world.store_process else {
        panic!()
    };
    let general = world.channel("open", "general", &["alice", "bob"]).await;
    let alice = world.connects("alice").await;
    let message = alice.sends(&general, "to be gone").await;
    let path = format!("/v1/channels/general/messages/{}/reactions/x", message.id);
    let _: Value = world
        .team()
        .request(Method::PUT, &format!("{path}?sender_id=alice"))
        .send()
        .await
        .map(|_| Value::Null)
        .unwrap();
    let path = format!(
        "/v1/organizations/{}/apps/{}",
        world.organization, world.app
    );
    world
        .backend(&world.admin_key)
        .delete::<()>(&path)
        .await
        .unwrap();
    let keys = || async { keys_of(server, &world.app).await };
    until("only what expires is left", || async {
        for key in keys().await {
            let ttl = server.command(&["PTTL", &key]).await.unwrap();
            if ttl == redis::Value::Int(-1) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn keys_of(server: &testing::Server, app: &str) -> Vec<String> {
    redis::from_redis_value(
        server
            .command(&["KEYS", &format!("chaos:*{app}*")])
            .await
            .unwrap(),
    )
    .unwrap()
}
