//! Channels, participants and read positions.

use super::*;

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
    let many = |count| format!("/v1/channels?ids={}", vec!["news"; count].join(","));
    assert_eq!(ids(app.get(&many(200)).await.is(200).body), ["news"]);
    app.get(&many(201)).await.refuses(400, "bad_request");
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
async fn read_positions_are_moved_by_participants_and_for_them_by_app_keys() {
    let Scene {
        node,
        tenant,
        alice,
        bob,
    } = scene().await;
    let (app, alice, bob) = (node.by(&tenant.live), node.by(&alice), node.by(&bob));
    let open = alice
        .post("/v1/channels", json!({ "type": "open" }))
        .await
        .is(201)
        .id();
    let group = alice
        .post("/v1/channels", json!({ "type": "group" }))
        .await
        .is(201)
        .id();
    let path = |channel: &str| format!("/v1/channels/{channel}/read");
    for (channel, status, code) in [
        (open.as_str(), 403, "forbidden"),
        (&group, 404, "not_found"),
        ("nowhere", 404, "not_found"),
    ] {
        bob.put(&path(channel), json!({ "number": 1 }))
            .await
            .refuses(status, code);
        bob.delete(&format!("{}?number=1", path(channel)))
            .await
            .refuses(status, code);
    }
    alice
        .post(
            &format!("/v1/channels/{group}/messages"),
            json!({ "text": "x" }),
        )
        .await
        .is(201);
    let path = path(&group);
    assert_eq!(
        alice
            .put(&path, json!({ "number": 1, "user_id": "alice" }))
            .await
            .is(200)
            .body,
        json!({ "read": 1 })
    );
    assert_eq!(
        app.delete(&format!("{path}?number=1&user_id=alice"))
            .await
            .is(200)
            .body,
        json!({ "read": 0 })
    );
    alice
        .put(&path, json!({ "number": 1, "user_id": "bob" }))
        .await
        .refuses(403, "forbidden");
    app.put(&path, json!({ "number": 1 }))
        .await
        .refuses(400, "bad_request");
    app.delete(&format!("{path}?number=1"))
        .await
        .refuses(400, "bad_request");
    for user in ["bob", "nobody"] {
        app.put(&path, json!({ "number": 1, "user_id": user }))
            .await
            .refuses(404, "not_found");
    }
    alice
        .put(&path, json!({}))
        .await
        .refuses(400, "bad_request");
    alice
        .delete(&format!("{path}?number=0"))
        .await
        .refuses(400, "bad_request");
    alice.delete(&format!("/v1/channels/{group}")).await.is(204);
    app.put(&path, json!({ "number": 1, "user_id": "alice" }))
        .await
        .refuses(404, "not_found");
}
