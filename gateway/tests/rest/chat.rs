//! Users, channels, participants, messages, reactions.

use serde_json::{Value, json};

use super::node::{Node, Tenant};

struct Scene {
    node: Node,
    tenant: Tenant,
    alice: String,
    bob: String,
}

async fn scene() -> Scene {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let alice = node.user(&tenant.live, "alice").await;
    let bob = node.user(&tenant.live, "bob").await;
    Scene {
        node,
        tenant,
        alice,
        bob,
    }
}

#[tokio::test]
async fn users_are_made_read_changed_replaced_listed_and_deleted() {
    let Scene {
        node,
        tenant,
        alice,
        ..
    } = scene().await;
    let app = node.by(&tenant.live);
    let made = app
        .post("/v1/users", json!({ "username": "carol", "bot": true }))
        .await
        .is(201);
    assert!(made.id().starts_with("usr_"));
    app.post("/v1/users", json!({ "id": "alice" }))
        .await
        .refuses(409, "conflict");
    app.put("/v1/users/alice", json!({ "first_name": "Alice" }))
        .await
        .is(200);
    let read = app.get("/v1/users/alice").await.is(200);
    assert_eq!(
        (&read.body["first_name"], read.body.get("username")),
        (&json!("Alice"), None),
        "a replacement clears"
    );

    let me = node.by(&alice);
    let changed = me
        .patch(
            "/v1/users/alice",
            json!({ "bio": "hi", "first_name": null, "metadata": { "a": 1 } }),
        )
        .await
        .is(200);
    assert_eq!(
        (&changed.body["bio"], changed.body.get("first_name")),
        (&json!("hi"), None)
    );
    me.get("/v1/users/bob").await.is(200);
    me.patch("/v1/users/bob", json!({ "bio": "mine" }))
        .await
        .refuses(403, "forbidden");
    me.get("/v1/users").await.refuses(403, "forbidden");
    me.put("/v1/users/alice", json!({}))
        .await
        .refuses(403, "forbidden");
    me.post("/v1/users/alice/tokens", json!({}))
        .await
        .refuses(403, "forbidden");

    let batch = json!({ "items": [{ "id": "dave" }, { "id": "dave", "bio": "x" }, { "id": "eve", "username": "x".repeat(300) }] });
    let batch = app.post("/v1/users/batch", batch).await.is(200).body;
    let statuses: Vec<_> = batch["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_u64().unwrap())
        .collect();
    assert!(
        statuses[..2].contains(&201) && statuses[2] == 413,
        "{batch}"
    );
    assert_eq!(batch["items"][2]["error"]["code"], "too_large");

    let listed = app.get("/v1/users?limit=2").await.is(200).body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(listed["cursor"].is_string());

    assert_eq!(
        app.post("/v1/users/alice/disconnect", json!({ "revoke": true }))
            .await
            .is(200)
            .body["sessions"],
        0
    );
    app.delete("/v1/users/alice").await.is(204);
    app.get("/v1/users/alice").await.refuses(404, "not_found");
    app.put("/v1/users/alice", json!({}))
        .await
        .refuses(409, "conflict");
    me.get("/v1/users/bob")
        .await
        .refuses(401, "unauthenticated");
}

#[tokio::test]
async fn a_user_may_be_called_batch() {
    let Scene { node, tenant, .. } = scene().await;
    let app = node.by(&tenant.live);
    assert_eq!(
        app.put("/v1/users/batch", json!({ "username": "b" }))
            .await
            .is(201)
            .body["id"],
        "batch"
    );
    assert_eq!(
        app.get("/v1/users/batch").await.is(200).body["username"],
        "b"
    );
    app.patch("/v1/users/batch", json!({ "bio": "x" }))
        .await
        .is(200);
    let channel = app
        .post(
            "/v1/channels",
            json!({ "type": "group", "participant_ids": ["batch"] }),
        )
        .await
        .is(201)
        .id();
    let path = format!("/v1/channels/{channel}/participants/batch");
    assert_eq!(app.get(&path).await.is(200).body["user_id"], "batch");
    app.patch(&path, json!({ "role": "owner" })).await.is(200);
    let added = app
        .post(
            &path,
            json!({ "items": [{ "user_id": "bob" }, { "user_id": "nobody" }] }),
        )
        .await
        .is(200)
        .body;
    assert_eq!(
        (
            added["items"][0]["status"].as_u64(),
            added["items"][1]["status"].as_u64()
        ),
        (Some(201), Some(404))
    );
    app.delete(&path).await.is(204);
    app.delete("/v1/users/batch").await.is(204);
    app.get("/v1/users/batch").await.refuses(404, "not_found");
}

#[tokio::test]
async fn channels_are_made_found_changed_replaced_and_deleted() {
    let Scene {
        node,
        tenant,
        alice,
        bob,
    } = scene().await;
    let (app, alice, bob) = (node.by(&tenant.live), node.by(&alice), node.by(&bob));
    let group = alice
        .post(
            "/v1/channels",
            json!({ "type": "group", "name": "g", "participant_ids": ["bob"] }),
        )
        .await
        .is(201);
    assert_eq!(
        (
            group.body["participant_count"].as_u64(),
            group.body["creator_id"].as_str()
        ),
        (Some(2), Some("alice"))
    );
    let direct = alice
        .post(
            "/v1/channels",
            json!({ "type": "direct", "participant_ids": ["bob"] }),
        )
        .await
        .is(201);
    let same = bob
        .post(
            "/v1/channels",
            json!({ "type": "direct", "participant_ids": ["alice"] }),
        )
        .await
        .is(200);
    assert_eq!(
        direct.id(),
        same.id(),
        "an existing pair is answered with 200"
    );
    app.post(
        "/v1/channels",
        json!({ "id": "news", "type": "broadcast", "creator_id": "alice" }),
    )
    .await
    .is(201);
    app.post("/v1/channels", json!({ "id": "news", "type": "broadcast" }))
        .await
        .refuses(409, "conflict");
    bob.post("/v1/channels", json!({ "type": "broadcast" }))
        .await
        .refuses(403, "forbidden");
    bob.post(
        "/v1/channels",
        json!({ "type": "group", "participant_ids": ["nobody"] }),
    )
    .await
    .refuses(404, "not_found");

    app.put("/v1/channels/secret", json!({ "type": "group" }))
        .await
        .is(201);
    app.put(
        "/v1/channels/secret",
        json!({ "type": "group", "name": "s" }),
    )
    .await
    .is(200);
    app.put("/v1/channels/secret", json!({ "type": "open" }))
        .await
        .refuses(409, "conflict");
    bob.get("/v1/channels/secret")
        .await
        .refuses(404, "not_found");
    bob.put("/v1/channels/news", json!({ "type": "broadcast" }))
        .await
        .refuses(403, "forbidden");

    let ids = |reply: Value| -> Vec<String> {
        reply["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|channel| channel["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(app.get("/v1/channels").await.is(200).body).len(), 4);
    assert_eq!(ids(bob.get("/v1/channels").await.is(200).body).len(), 3);
    assert_eq!(
        ids(bob.get("/v1/channels?type=broadcast").await.is(200).body),
        ["news"]
    );
    assert_eq!(
        ids(app
            .get("/v1/channels?participant_id=bob")
            .await
            .is(200)
            .body)
        .len(),
        2
    );
    assert_eq!(
        ids(bob
            .get("/v1/channels?ids=news,secret,nowhere")
            .await
            .is(200)
            .body),
        ["news"]
    );
    app.get("/v1/channels?ids=a%20b")
        .await
        .refuses(400, "bad_request");
    app.get("/v1/channels?type=closed")
        .await
        .refuses(400, "bad_request");

    let path = format!("/v1/channels/{}", group.id());
    let changed = alice
        .patch(
            &path,
            json!({ "name": null, "description": "d", "metadata": { "k": 1 } }),
        )
        .await
        .is(200)
        .body;
    assert_eq!(
        (
            changed.get("name"),
            &changed["description"],
            &changed["metadata"]
        ),
        (None, &json!("d"), &json!({ "k": 1 }))
    );
    bob.patch(&path, json!({ "name": "mine" }))
        .await
        .refuses(403, "forbidden");
    bob.delete(&path).await.refuses(403, "forbidden");
    alice.delete(&path).await.is(204);
    alice.get(&path).await.refuses(404, "not_found");
    let mine = bob.get("/v1/users/bob/channels").await.is(200).body;
    assert_eq!(mine["items"].as_array().unwrap().len(), 1, "the direct one");
    alice
        .get("/v1/users/bob/channels")
        .await
        .refuses(403, "forbidden");
}

#[tokio::test]
async fn participants_come_change_and_go() {
    let Scene {
        node,
        tenant,
        alice,
        bob,
    } = scene().await;
    let (app, alice, bob) = (node.by(&tenant.live), node.by(&alice), node.by(&bob));
    let id = alice
        .post("/v1/channels", json!({ "type": "open" }))
        .await
        .is(201)
        .id();
    let path = format!("/v1/channels/{id}/participants");
    bob.get(&path).await.refuses(403, "forbidden");
    let joined = bob.post(&path, json!({ "user_id": "bob" })).await.is(201);
    assert_eq!(joined.body["role"], "member");
    assert_eq!(
        bob.post(&path, json!({ "user_id": "bob" }))
            .await
            .is(200)
            .body["id"],
        joined.body["id"]
    );
    bob.post(&path, json!({ "user_id": "carol", "role": "owner" }))
        .await
        .refuses(403, "forbidden");
    alice
        .post(&path, json!({ "user_id": "nobody" }))
        .await
        .refuses(404, "not_found");
    assert_eq!(
        bob.get(&path).await.is(200).body["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let of_bob = format!("{path}/bob");
    assert_eq!(alice.get(&of_bob).await.is(200).body["read"], 0);
    bob.patch(&of_bob, json!({ "role": "owner" }))
        .await
        .refuses(403, "forbidden");
    assert_eq!(
        alice
            .patch(&of_bob, json!({ "role": "moderator" }))
            .await
            .is(200)
            .body["role"],
        "moderator"
    );
    bob.delete(&of_bob).await.is(204);
    app.get(&of_bob).await.refuses(404, "not_found");
    app.post(&path, json!({ "user_id": "bob", "role": "observer" }))
        .await
        .is(201);
    app.delete(&of_bob).await.is(204);
    let direct = alice
        .post(
            "/v1/channels",
            json!({ "type": "direct", "participant_ids": ["bob"] }),
        )
        .await
        .is(201)
        .id();
    app.delete(&format!("/v1/channels/{direct}/participants/bob"))
        .await
        .refuses(403, "forbidden");
}

#[tokio::test]
async fn messages_are_sent_once_listed_edited_and_deleted() {
    let Scene {
        node,
        tenant,
        alice,
        bob,
    } = scene().await;
    let (app, alice, bob) = (node.by(&tenant.live), node.by(&alice), node.by(&bob));
    let id = alice
        .post(
            "/v1/channels",
            json!({ "type": "group", "participant_ids": ["bob"] }),
        )
        .await
        .is(201)
        .id();
    let path = format!("/v1/channels/{id}/messages");
    let hello = json!({ "message_id": "msg_0000000000000001", "text": "hello" });
    let first = alice.post(&path, hello.clone()).await.is(201);
    assert_eq!(
        (
            first.body["number"].as_u64(),
            first.body["sender_id"].as_str()
        ),
        (Some(1), Some("alice"))
    );
    assert_eq!(
        alice.post(&path, hello.clone()).await.is(200).body["seq"],
        first.body["seq"]
    );
    bob.post(&path, hello).await.refuses(409, "conflict");
    app.post(&path, json!({ "text": "no sender" }))
        .await
        .refuses(400, "bad_request");
    app.post(&path, json!({ "text": "from bob", "sender_id": "bob" }))
        .await
        .is(201);
    assert_eq!(
        app.post(&path, json!({ "text": "closed", "kind": "system" }))
            .await
            .is(201)
            .body
            .get("sender_id"),
        None
    );
    alice
        .post(&path, json!({ "text": "I am bob", "sender_id": "bob" }))
        .await
        .refuses(403, "forbidden");
    alice
        .post(&path, json!({ "text": "" }))
        .await
        .refuses(400, "bad_request");
    alice
        .post(&path, json!({ "text": "x".repeat(16_385) }))
        .await
        .refuses(413, "too_large");
    let attached = json!({ "attachments": [{ "type": "image", "url": "https://example.org/a.png", "size": 7 }], "mention_ids": ["bob"] });
    alice.post(&path, attached).await.is(201);

    let numbers = |reply: Value| -> Vec<u64> {
        reply["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["number"].as_u64().unwrap())
            .collect()
    };
    let newest = bob.get(&format!("{path}?limit=2")).await.is(200).body;
    assert_eq!(
        (&newest["more"], numbers(newest.clone())),
        (&json!(true), vec![3, 4])
    );
    assert_eq!(
        numbers(bob.get(&format!("{path}?before=3")).await.is(200).body),
        [1, 2]
    );
    assert_eq!(
        numbers(bob.get(&format!("{path}?after=3")).await.is(200).body),
        [4]
    );
    bob.get(&format!("{path}?after=3&before=1"))
        .await
        .refuses(400, "bad_request");

    let message = format!("{path}/msg_0000000000000001");
    let edited = alice
        .patch(&message, json!({ "text": "hello!" }))
        .await
        .is(200);
    assert!(edited.body["edited_at"].is_u64());
    bob.patch(&message, json!({ "text": "ha" }))
        .await
        .refuses(403, "forbidden");
    assert_eq!(bob.get(&message).await.is(200).body["text"], "hello!");
    let seq = edited.body["seq"].as_u64().unwrap();
    assert_eq!(
        numbers(
            bob.get(&format!("{path}?changed_after={}", seq - 1))
                .await
                .is(200)
                .body
        ),
        [1]
    );
    assert_eq!(
        bob.get("/v1/users/bob/unread").await.is(200).body["unread"],
        4
    );

    let reaction = format!("{message}/reactions/%F0%9F%91%8D");
    assert_eq!(
        bob.put(&reaction, Value::Null).await.is(200).body,
        json!({ "count": 1 })
    );
    assert_eq!(
        app.put(&format!("{reaction}?sender_id=alice"), Value::Null)
            .await
            .is(200)
            .body,
        json!({ "count": 2 })
    );
    assert_eq!(
        bob.delete(&reaction).await.is(200).body,
        json!({ "count": 1 })
    );
    app.put(&reaction, Value::Null)
        .await
        .refuses(400, "bad_request");
    bob.put(
        &format!("{message}/reactions/{}", "x".repeat(65)),
        Value::Null,
    )
    .await
    .refuses(400, "bad_request");
    // A slash is one character of an emoji here, not the end of the segment.
    assert_eq!(
        bob.put(&format!("{message}/reactions/a%2Fb"), Value::Null)
            .await
            .is(200)
            .body["count"],
        1
    );
    assert_eq!(
        bob.get(&path).await.is(200).body["items"][0]["own_reactions"],
        json!(["a/b"])
    );

    bob.delete(&message).await.refuses(403, "forbidden");
    alice.delete(&message).await.is(204);
    alice.delete(&message).await.is(204);
    assert_eq!(bob.get(&message).await.is(200).body["text"], "");
    bob.put(&reaction, Value::Null)
        .await
        .refuses(404, "not_found");
}
