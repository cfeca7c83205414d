//! Users, channels, participants, messages, reactions.

mod channels;
mod messages;
mod users;

use axum::{body::Body, http::Method};
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
async fn each_item_of_a_batch_has_the_status_that_it_would_have_alone() {
    let Scene { node, tenant, .. } = scene().await;
    let app = node.by(&tenant.live);
    let users = [
        json!({ "id": "carol" }),
        json!({ "id": "jürgen" }),
        json!({ "id": "alice", "bio": "hi" }),
        json!({ "id": "dave", "name": "Dave" }),
        json!({ "id": "dave", "bot": "yes" }),
        json!("dave"),
        json!(null),
        json!({ "id": "dave", "username": "x".repeat(300) }),
        json!({ "id": "erin" }),
    ];
    let batch = app
        .post("/v1/users/batch", json!({ "items": users }))
        .await
        .is(200)
        .body;
    assert_eq!(
        statuses_of(&batch),
        [201, 400, 200, 400, 400, 400, 400, 413, 201],
        "{batch}"
    );
    for (item, user) in batch["items"].as_array().unwrap().iter().zip(&users) {
        if item["status"] == 400 && user.is_object() {
            let alone = app
                .post("/v1/users", user.clone())
                .await
                .refuses(400, "bad_request");
            assert_eq!(
                item["error"]["details"], alone.body["error"]["details"],
                "the same answer as alone"
            );
        }
    }
    app.get("/v1/users/dave").await.refuses(404, "not_found");

    let channel = app
        .post(
            "/v1/channels",
            json!({ "type": "group", "participant_ids": ["alice"] }),
        )
        .await
        .is(201)
        .id();
    let participants = json!({ "items": [
        { "user_id": "bob" }, { "user_id": "jürgen" }, { "user_id": "nobody" }, { "user_id": "alice" },
        { "user_id": "carol", "role": "king" }, { "user": "carol" }, {}, { "user_id": "carol", "role": "observer" },
    ] });
    let batch = app
        .post(
            &format!("/v1/channels/{channel}/participants/batch"),
            participants,
        )
        .await
        .is(200)
        .body;
    assert_eq!(
        statuses_of(&batch),
        [201, 400, 404, 200, 400, 400, 400, 201],
        "{batch}"
    );
    assert_eq!(
        batch["items"][5]["error"]["details"],
        json!({ "field": "user", "in": "body" })
    );
    app.post("/v1/users/batch", json!({ "items": {} }))
        .await
        .refuses(400, "bad_request");

    // An invalid item does not affect the others.
    let odd = [
        r#"{ "id": "frank", "metadata": { "a": 1e999 } }"#,
        r#"{ "id": "frank", "bio": "\ud800" }"#,
        r#"{ "id": "frank", "bio": "a", "bio": "b" }"#,
    ];
    let items = format!(r#"{{ "items": [{}, {{ "id": "grace" }}] }}"#, odd.join(","));
    let json = app.clone().with("content-type", "application/json");
    let batch = json
        .raw(Method::POST, "/v1/users/batch", Body::from(items))
        .await
        .is(200)
        .body;
    assert_eq!(statuses_of(&batch), [400, 400, 400, 201], "{batch}");
    for (item, odd) in batch["items"].as_array().unwrap().iter().zip(odd) {
        let alone = json
            .raw(Method::POST, "/v1/users", Body::from(odd))
            .await
            .refuses(400, "bad_request");
        assert_eq!(
            item["error"]["details"], alone.body["error"]["details"],
            "the same answer as alone"
        );
    }
}

#[tokio::test]
async fn items_of_a_batch_do_not_conflict_with_each_other() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node.by(&tenant.live);
    let ids = || (0..100).map(|n| format!("user-{n}"));
    let users: Vec<Value> = ids().map(|id| json!({ "id": id })).collect();
    app.post("/v1/users/batch", json!({ "items": users }))
        .await
        .is(200);
    let channel = app.post("/v1/channels", json!({ "type": "group" })).await;
    let path = format!("/v1/channels/{}/participants/batch", channel.is(201).id());
    // All items change the number of owners.
    let owners: Vec<Value> = ids()
        .map(|id| json!({ "user_id": id, "role": "owner" }))
        .collect();
    let batch = app.post(&path, json!({ "items": owners })).await;
    assert_eq!(statuses_of(&batch.is(200).body), [201; 100]);

    let same = vec![json!({ "id": "one" }); 100];
    let batch = app.post("/v1/users/batch", json!({ "items": same })).await;
    let mut statuses = statuses_of(&batch.is(200).body);
    statuses.sort_unstable();
    assert_eq!((&statuses[..99], statuses[99]), (&[200; 99][..], 201));
}

fn statuses_of(batch: &Value) -> Vec<u64> {
    let items = batch["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["status"].as_u64().unwrap())
        .collect()
}
