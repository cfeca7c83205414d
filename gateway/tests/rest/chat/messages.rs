//! Messages.

use super::*;

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
