//! Answers to a repeated `Idempotency-Key` after the entity has changed.

use client::{Backend, HttpAnswer};
use hyper::{
    Method,
    header::{ETAG, HeaderName},
};
use serde_json::{Value, json};

use crate::story::World;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

struct Answered {
    status: u16,
    etag: Option<String>,
    body: Value,
}

fn answered(answer: HttpAnswer) -> Answered {
    let etag = answer
        .headers
        .get(ETAG)
        .map(|tag| tag.to_str().unwrap().to_owned());
    Answered {
        status: answer.status.as_u16(),
        etag,
        body: serde_json::from_slice(&answer.body).unwrap(),
    }
}

async fn posts(who: &Backend, path: &str, key: &str, body: &Value) -> Answered {
    answered(
        who.request(Method::POST, path)
            .header(KEY, key)
            .json(body)
            .send()
            .await
            .unwrap(),
    )
}

on_both_stores! {
    async fn repeated_send_returns_the_current_message(world: World) {
        let team = world.team();
        world.channel("group", "general", &["alice"]).await;
        let messages = "/v1/channels/general/messages";
        let secret = json!({ "sender_id": "alice", "text": "the canary sings" });
        let own_id = json!({ "sender_id": "alice", "text": "the canary sings", "message_id": "msg_0123456789abcdef" });
        for (key, body) in [("one", &secret), ("two", &own_id)] {
            let first = posts(&team, messages, key, body).await;
            assert_eq!((first.status, &first.body["text"]), (201, &json!("the canary sings")));
            let path = format!("{messages}/{}", first.body["id"].as_str().unwrap());
            team.patch::<Value>(&path, &json!({ "text": "it was a sparrow" })).await.unwrap();
            let edited = posts(&team, messages, key, body).await;
            assert_eq!((edited.status, &edited.body["text"]), (201, &json!("it was a sparrow")));
            team.delete::<()>(&path).await.unwrap();
            let deleted = posts(&team, messages, key, body).await;
            let now = answered(team.request(Method::GET, &path).send().await.unwrap());
            assert_eq!((deleted.status, &deleted.body, &deleted.etag), (201, &now.body, &now.etag));
            assert_eq!((&now.body["text"], &now.body["number"]), (&json!(""), &first.body["number"]));
        }
    }

    async fn repeated_send_returns_nothing_to_a_removed_user(world: World) {
        world.channel("group", "general", &["alice", "bob"]).await;
        let bob = world.backend(&world.token("bob").await);
        let (messages, body) = ("/v1/channels/general/messages", json!({ "text": "hi" }));
        assert_eq!(posts(&bob, messages, "one", &body).await.status, 201);
        world.team().delete::<()>("/v1/channels/general/participants/bob").await.unwrap();
        for _ in 0..2 {
            let refused = posts(&bob, messages, "one", &body).await;
            assert_eq!((refused.status, &refused.body["error"]["code"]), (404, &json!("not_found")));
        }
// The repeat sends nothing even when the request would succeed again.
        world.team().delete::<()>("/v1/channels/general").await.unwrap();
        let anew = json!({ "id": "general", "type": "group", "creator_id": "bob" });
        crate::story::until("it is made anew", || async { world.team().post::<Value>("/v1/channels", &anew).await.is_ok() }).await;
        assert_eq!(posts(&bob, messages, "one", &body).await.status, 404);
        let listed: Value = bob.get(messages).await.unwrap();
        assert_eq!(listed["items"], json!([]));
    }

    async fn repeat_has_the_etag_of_the_first_answer(world: World) {
        world.people(&["alice"]).await;
        let team = world.team();
        for (path, body) in [
            ("/v1/channels", json!({ "type": "group", "creator_id": "alice" })),
            ("/v1/users", json!({ "first_name": "Ann" })),
        ] {
            let (first, again) = (posts(&team, path, "key", &body).await, posts(&team, path, "key", &body).await);
            assert!(first.etag.is_some(), "{path}");
            assert_eq!((again.status, again.etag, again.body), (first.status, first.etag, first.body), "{path}");
        }
    }

    async fn repeated_creation_returns_the_current_entity(world: World) {
        world.people(&["alice", "bob"]).await;
        world.channel("group", "general", &["alice"]).await;
        let (team, owner, admin) = (world.team(), world.backend(&world.organization_key), world.backend(&world.admin_key));
        let apps = format!("/v1/organizations/{}/apps", world.organization);
        for (number, (who, path, body, patch)) in [
            (&team, "/v1/users", json!({ "first_name": "Canary" }), json!({ "first_name": "Sparrow" })),
            (&team, "/v1/users", json!({ "id": "carol", "first_name": "Canary" }), json!({ "first_name": "Sparrow" })),
            (&team, "/v1/channels", json!({ "type": "group", "name": "canary" }), json!({ "name": "sparrow" })),
            (&team, "/v1/channels", json!({ "id": "room", "type": "open", "name": "canary" }), json!({ "name": "sparrow" })),
            (&team, "/v1/channels/general/participants", json!({ "user_id": "bob" }), json!({ "role": "moderator" })),
            (&owner, &apps, json!({ "name": "canary" }), json!({ "name": "sparrow" })),
            (&admin, "/v1/organizations", json!({ "name": "canary", "email": "canary@example.org" }), json!({ "name": "sparrow", "email": "a@b.example" })),
        ].into_iter().enumerate() {
            let key = &number.to_string();
            let first = posts(who, path, key, &body).await;
            assert_eq!(first.status, 201, "{path} {}", first.body);
            let entity = if path == "/v1/organizations" { &first.body["organization"] } else { &first.body };
            let id = entity[if path.ends_with("participants") { "user_id" } else { "id" }].as_str().unwrap();
            let one = format!("{path}/{id}");
            who.patch::<Value>(&one, &patch).await.unwrap();
            let changed = posts(who, path, key, &body).await;
            let now = answered(who.request(Method::GET, &one).send().await.unwrap());
            let entity = if path == "/v1/organizations" { &changed.body["organization"] } else { &changed.body };
            assert_eq!((changed.status, entity, &changed.etag), (201, &now.body, &now.etag), "{path}");
            assert!(!changed.body.to_string().to_lowercase().contains("canary"), "{path} {}", changed.body);
            who.delete::<()>(&one).await.unwrap();
            let gone = posts(who, path, key, &body).await;
            assert_eq!((gone.status, &gone.body["error"]["code"]), (404, &json!("not_found")), "{path}");
        }
    }

    async fn repeated_creation_does_not_return_a_recreated_channel(world: World) {
        let team = world.team();
        let body = json!({ "id": "general", "type": "open", "name": "first" });
        assert_eq!(posts(&team, "/v1/channels", "one", &body).await.status, 201);
        team.delete::<()>("/v1/channels/general").await.unwrap();
        let anew = json!({ "id": "general", "type": "open", "name": "second" });
        crate::story::until("it is made anew", || async { team.post::<Value>("/v1/channels", &anew).await.is_ok() }).await;
        assert_eq!(posts(&team, "/v1/channels", "one", &body).await.status, 404);
    }
}
