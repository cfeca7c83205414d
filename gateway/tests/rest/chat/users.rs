//! Users.

use super::*;

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
async fn user_id_may_be_batch() {
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
